/* SPDX-License-Identifier: GPL-2.0-only */
/* Behind the IP header: ports, messages of ICMP, and what of a packet only its first fragment says. */
#ifndef FASTPATH_L4_H
#define FASTPATH_L4_H

#include "icmp.h"
#include "policy_maps.h"

/* What a segment is to its flow. */
#define L4_SYN 1     /* opens a TCP connection */
#define L4_FIN 2
#define L4_RST 4
#define L4_ANSWER 8  /* never the first packet of a flow */
#define L4_LOOSE 16  /* of no flow: a message of ICMP that is no echo */
#define L4_ERROR 32  /* of the flow that it quotes */

#define IP_MF 0x2000 /* more fragments follow */

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define ICMP_HEADER 8
#define ICMP_SOURCE_QUENCH 4
#define ICMP_PARAMETER_PROBLEM 12
#define FRAGMENT_SECONDS 60 /* what the kernel waits for in IPv6; twice as long as in IPv4 */

/* The hook, and what the IP header says of what follows, in one number: functions have five arguments at most. */
#define L3_HEADER 8    /* its length, from this bit on; the protocol is below */
#define L3_FRAGMENT 16 /* IPv4's field of that name, in network byte order */
#define L3_ID 32
#define L3_V6 (1ULL << 48)
#define L3_LOCAL (1ULL << 49) /* from one container of this node to another */
#define L3_HOOK 56

/* Whether all of the packet is there. */
enum extent {
	WHOLE,
	FIRST,
	LATER,
	UNREADABLE, /* its headers are cut off, or there are too many of them */
};

struct l4 {
	struct fp_segment segment;
	__be32 id;       /* of a fragment */
	__u32 offset;    /* of what follows all IP headers, from the start of the frame */
	__u8 id_protocol; /* belongs to the id; 0 with IPv6 */
};

static __always_inline __u64 l3_of(const struct packet *packet, enum fp_hook hook)
{
	__u64 l3 = packet->proto | packet->header << L3_HEADER | (__u64)hook << L3_HOOK;

	if (packet->v6)
		return l3 | L3_V6;
	return l3 | (__u64)packet->ip4->frag_off << L3_FRAGMENT | (__u64)packet->ip4->id << L3_ID;
}

/* Skip the extension headers that a router may meet. */
static __always_inline enum extent skip_extensions(struct __sk_buff *ctx, struct l4 *l4)
{
	struct {
		__u8 next;
		__u8 len;
		__be16 fragment;
		__be32 id;
	} extension;
	enum extent extent = WHOLE;
	__u32 offset = l4->offset;
	__u8 proto = l4->segment.protocol;

	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (proto != IPPROTO_HOPOPTS && proto != IPPROTO_ROUTING && proto != IPPROTO_DSTOPTS &&
		    proto != IPPROTO_FRAGMENT) {
			l4->segment.protocol = proto;
			l4->offset = offset;
			return extent;
		}
		if (bpf_skb_load_bytes(ctx, offset, &extension, sizeof(extension)))
			return UNREADABLE;
		if (proto == IPPROTO_FRAGMENT) {
			extension.len = 0;
			l4->id = extension.id;
			if (extension.fragment & bpf_htons(0xfff8))
				return LATER;
			if (extension.fragment & bpf_htons(1))
				extent = FIRST;
		}
		proto = extension.next;
		offset += (extension.len + 1) * 8;
	}
	return UNREADABLE;
}

static __always_inline void read_icmp(struct fp_segment *segment, __u8 type, __u8 code, __be16 id, bool v6)
{
	bool request = type == (v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO);
	bool reply = type == (v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY);

	segment->port = type << 8 | code;
	if (code == 0 && request) {
		segment->port_src = segment->port_dst = id;
	} else if (code == 0 && reply) {
		segment->port_src = segment->port_dst = id;
		segment->kind = L4_ANSWER;
	} else if (v6 ? type < ICMP6_FIRST_QUERY
		      : type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED ||
				type == ICMP_PARAMETER_PROBLEM) {
		segment->kind = L4_ERROR;
	} else {
		segment->kind = L4_LOOSE;
	}
}

static __always_inline __u8 tcp_kind(__u8 flags)
{
	if (flags & TCP_RST)
		return L4_RST | L4_ANSWER;
	if (flags & TCP_SYN)
		return flags & TCP_ACK ? L4_ANSWER : L4_SYN;
	return flags & TCP_FIN ? L4_FIN : 0;
}

union l4_header {
	struct {
		__be16 src;
		__be16 dst;
		__u8 rest[9];
		__u8 flags;
	} port;
	struct {
		__u8 type;
		__u8 code;
		__sum16 checksum;
		__be16 id;
	} icmp;
};

/* The first bytes of the header, in the packet itself where that is possible: it is faster. NULL: it is cut off. */
static __always_inline const union l4_header *header_at(struct __sk_buff *ctx, __u32 offset, __u32 size,
							union l4_header *copy)
{
	const void *at = (const void *)(long)ctx->data + (offset & 0xff);

	if (offset <= 0xff && at + size <= (const void *)(long)ctx->data_end)
		return at;
	return bpf_skb_load_bytes(ctx, offset, copy, size) ? NULL : copy;
}

/* Of what an error quotes there may be the ports only. False when the header is cut off. */
static __always_inline bool read_segment(struct __sk_buff *ctx, __u32 offset, struct fp_segment *segment, bool quoted)
{
	const union l4_header *header;
	union l4_header copy;

	switch (segment->protocol) {
	case IPPROTO_TCP:
		if (!quoted) {
			header = header_at(ctx, offset, 14, &copy);
			if (!header)
				return false;
			segment->kind = tcp_kind(header->port.flags);
			break;
		}
		/* fall through */
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		header = header_at(ctx, offset, 4, &copy);
		if (!header)
			return false;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		header = header_at(ctx, offset, 6, &copy);
		if (!header)
			return false;
		read_icmp(segment, header->icmp.type, header->icmp.code, header->icmp.id,
			  segment->protocol == IPPROTO_ICMPV6);
		return true;
	default:
		return true;
	}
	segment->port_src = header->port.src;
	segment->port_dst = header->port.dst;
	segment->port = bpf_ntohs(header->port.dst);
	return true;
}

/* Returns an enum extent. */
__noinline int parse_l4(struct __sk_buff *ctx, __u64 l3, struct l4 *l4)
{
	__be16 fragment = l3 >> L3_FRAGMENT;
	enum extent extent = WHOLE;

	if (!l4)
		return UNREADABLE;
	__builtin_memset(l4, 0, sizeof(*l4));
	l4->segment.protocol = l3;
	l4->offset = sizeof(struct ethhdr) + (__u8)(l3 >> L3_HEADER);
	if (l3 & L3_V6) {
		extent = skip_extensions(ctx, l4);
	} else if (fragment & bpf_htons(IP_MF | IP_OFFSET)) {
		l4->id = (__u16)(l3 >> L3_ID);
		l4->id_protocol = l3;
		extent = fragment & bpf_htons(IP_OFFSET) ? LATER : FIRST;
	}
	if (extent < LATER && !read_segment(ctx, l4->offset, &l4->segment, false))
		return UNREADABLE;
	return extent;
}

static __always_inline struct fp_fragment_key fragment_key(const struct fp_addr *src, const struct fp_addr *dst,
							   const struct l4 *l4)
{
	return (struct fp_fragment_key){ .src = *src, .dst = *dst, .id = l4->id, .protocol = l4->id_protocol };
}

/* About seconds. */
static __always_inline __u32 seconds(void)
{
	return bpf_ktime_get_coarse_ns() >> 30;
}

/* How long ago; less than nothing where another CPU's clock has just moved on. */
static __always_inline __s32 silence(__u32 now, __u32 seen)
{
	return now - seen;
}

/* The first fragment of a packet has passed. */
__noinline int remember_fragment(const struct fp_addr *src, const struct fp_addr *dst, const struct l4 *l4, __u32 now)
{
	struct fp_fragmented value = { .seen = now };
	struct fp_fragment_key key;

	if (!src || !dst || !l4)
		return 0;
	key = fragment_key(src, dst, l4);
	value.first = l4->segment;
	/* what an error quotes is not in the other fragments */
	if (value.first.kind & L4_ERROR)
		value.first.kind = L4_LOOSE;
	bpf_map_update_elem(&fragmented, &key, &value, BPF_ANY);
	return 0;
}

/* Has it? Then the segment is that of the first one. */
__noinline int recall_fragment(const struct fp_addr *src, const struct fp_addr *dst, struct l4 *l4, __u32 now)
{
	const struct fp_fragmented *value;
	struct fp_fragment_key key;

	if (!src || !dst || !l4)
		return 0;
	key = fragment_key(src, dst, l4);
	value = bpf_map_lookup_elem(&fragmented, &key);
	if (!value || silence(now, value->seen) > FRAGMENT_SECONDS)
		return 0;
	l4->segment = value->first;
	return 1;
}

#endif
