/* SPDX-License-Identifier: GPL-2.0-only */
/* ICMP errors: telling a sender why its packet was dropped (RFC 1812, RFC 4443). */
#ifndef FASTPATH_ICMP_H
#define FASTPATH_ICMP_H

#include <linux/icmpv6.h>

#include "checksum.h"
#include "drops.h"
#include "ndisc.h"
#include "parse.h"

#define ICMP_TTL 64
#define ICMP_TOS 0xc0              /* internetwork control, as RFC 1812 asks for */
#define ICMP4_QUOTE 548            /* an IPv4 error is at most 576 bytes long */
#define ICMP6_QUOTE 1232           /* an IPv6 error is at most 1280 bytes long */
#define ICMP6_FIRST_QUERY 128      /* smaller types are errors */
#define MAX_EXTENSIONS 8

/* Not linux/icmp.h: that one needs the C library's 32-bit headers. */
#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMP_REPLY 14
#define ICMP_HOST 1        /* codes of ICMP_UNREACHABLE */
#define ICMP_TOO_BIG 4
#define ICMP_PROHIBITED 13

/* Of both families' errors. */
struct icmp {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu; /* ICMP has it in the low half, the high one is zero */
};

struct error_v4 {
	struct iphdr ip;
	struct icmp icmp;
};

struct error_v6 {
	struct ipv6hdr ip;
	struct icmp icmp;
};

/* What the sender is told. */
struct error {
	__u8 type;
	__u8 code;
};

static __always_inline struct error error_v4_of(enum fp_drop reason)
{
	switch (reason) {
	case FP_DROP_TTL:
		return (struct error){ ICMP_TIME_EXCEEDED, 0 };
	case FP_DROP_TOO_BIG:
		return (struct error){ ICMP_UNREACHABLE, ICMP_TOO_BIG };
	case FP_DROP_PROHIBITED:
		return (struct error){ ICMP_UNREACHABLE, ICMP_PROHIBITED };
	default:
		return (struct error){ ICMP_UNREACHABLE, ICMP_HOST };
	}
}

static __always_inline struct error error_v6_of(enum fp_drop reason)
{
	switch (reason) {
	case FP_DROP_TTL:
		return (struct error){ ICMPV6_TIME_EXCEED, ICMPV6_EXC_HOPLIMIT };
	case FP_DROP_TOO_BIG:
		return (struct error){ ICMPV6_PKT_TOOBIG, 0 };
	case FP_DROP_PROHIBITED:
		return (struct error){ ICMPV6_DEST_UNREACH, ICMPV6_ADM_PROHIBITED };
	case FP_DROP_NO_ENDPOINT:
		return (struct error){ ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH };
	default:
		return (struct error){ ICMPV6_DEST_UNREACH, ICMPV6_NOROUTE };
	}
}

static __always_inline bool icmp_allowed(void)
{
	__u32 index = 0;
	struct fp_bucket *bucket = bpf_map_lookup_elem(&icmp_bucket, &index);

	if (bucket && take_token(bucket, bpf_ktime_get_ns()))
		return true;
	count_reply(FP_REPLY_ICMP_LIMITED);
	return false;
}

/* Never about an ICMP error, a later fragment, or from a source that is not one host. */
static __always_inline bool v4_deserves_error(struct __sk_buff *ctx, const struct iphdr *ip)
{
	__u8 type;

	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return false;
	if (v4_in(ip->saddr, 0, 0xff000000) || v4_in(ip->saddr, 0x7f000000, 0xff000000) ||
	    v4_in(ip->saddr, 0xe0000000, 0xe0000000))
		return false;
	if (ip->protocol != IPPROTO_ICMP)
		return true;
	if (bpf_skb_load_bytes(ctx, sizeof(struct ethhdr) + ip->ihl * 4, &type, sizeof(type)))
		return false;
	return type == ICMP_ECHO || type == ICMP_ECHO_REPLY || type == ICMP_TIMESTAMP || type == ICMP_TIMESTAMP_REPLY;
}

/* The same; what the packet carries is behind a chain of extension headers. */
static __always_inline bool v6_deserves_error(struct __sk_buff *ctx, const struct ipv6hdr *ip)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(*ip);
	__u8 proto = ip->nexthdr;
	struct fp_addr src;

	__builtin_memcpy(&src, &ip->saddr, sizeof(src));
	if (v6_reserved(&src) || v6_multicast(&src))
		return false;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next;
			__u8 len;
			__be16 fragment;
		} extension;

		if (proto != IPPROTO_HOPOPTS && proto != IPPROTO_ROUTING && proto != IPPROTO_DSTOPTS &&
		    proto != IPPROTO_FRAGMENT && proto != IPPROTO_ICMPV6)
			return true;
		if (bpf_skb_load_bytes(ctx, offset, &extension, sizeof(extension)))
			return false;
		if (proto == IPPROTO_ICMPV6) /* "next" is then the type */
			return extension.next >= ICMP6_FIRST_QUERY && extension.next != ND_REDIRECT;
		if (proto == IPPROTO_FRAGMENT) {
			if (extension.fragment & bpf_htons(0xfff8))
				return false;
			extension.len = 0;
		}
		proto = extension.next;
		offset += (extension.len + 1) * 8;
	}
	return false;
}

/*
 * Cut the frame down to what is quoted and make room for the error's headers in front of it.
 * Returns how many bytes are quoted, or 0. A checksum that the sender left to its NIC stays
 * unfinished in the quote; whoever finishes it on the way does so in what nobody verifies.
 */
static __always_inline __u32 quote(struct __sk_buff *ctx, __u32 len, __u32 limit, __u32 room)
{
	__u32 frame = ctx->len - sizeof(struct ethhdr);

	if (!len || len > frame)
		len = frame;
	if (len > limit)
		len = limit;
	if (bpf_skb_change_tail(ctx, sizeof(struct ethhdr) + len, 0) ||
	    bpf_skb_adjust_room(ctx, room, BPF_ADJ_ROOM_MAC, 0))
		return 0;
	return len;
}

__noinline bool error_v4(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, __u32 mtu)
{
	struct error error = error_v4_of(reason);
	struct error_v4 out = {};
	struct iphdr old;
	__u32 len;

	if (bpf_skb_load_bytes(ctx, sizeof(struct ethhdr), &old, sizeof(old)) || !v4_deserves_error(ctx, &old) ||
	    !config.gateway_v4 || !icmp_allowed())
		return false;
	len = quote(ctx, bpf_ntohs(old.tot_len), ICMP4_QUOTE, sizeof(out));
	if (!len)
		return false;
	out.ip.version = 4;
	out.ip.ihl = sizeof(out.ip) / 4;
	out.ip.tos = ICMP_TOS;
	out.ip.tot_len = bpf_htons(sizeof(out) + len);
	out.ip.frag_off = bpf_htons(IP_DF);
	out.ip.ttl = ICMP_TTL;
	out.ip.protocol = IPPROTO_ICMP;
	/* the host's stack would not believe one of its own addresses */
	out.ip.saddr = hook == FP_HOOK_FROM_HOST ? old.daddr : config.gateway_v4;
	out.ip.daddr = old.saddr;
	out.ip.check = fold(sum_bytes(&out.ip, sizeof(out.ip), 0));
	out.icmp.type = error.type;
	out.icmp.code = error.code;
	out.icmp.mtu = bpf_htonl(mtu);
	out.icmp.checksum = fold(sum_frame(ctx, sizeof(struct ethhdr) + sizeof(out), len,
					   sum_bytes(&out.icmp, sizeof(out.icmp), 0)));
	return !bpf_skb_store_bytes(ctx, sizeof(struct ethhdr), &out, sizeof(out), BPF_F_RECOMPUTE_CSUM);
}

__noinline bool error_v6(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, __u32 mtu)
{
	struct error error = error_v6_of(reason);
	struct fp_addr src = gateway_v6();
	struct error_v6 out = {};
	struct ipv6hdr old;
	__u32 len;

	if (bpf_skb_load_bytes(ctx, sizeof(struct ethhdr), &old, sizeof(old)) || !v6_deserves_error(ctx, &old) ||
	    v6_reserved(&src) || !icmp_allowed())
		return false;
	len = old.payload_len ? sizeof(old) + bpf_ntohs(old.payload_len) : 0;
	len = quote(ctx, len, ICMP6_QUOTE, sizeof(out));
	if (!len)
		return false;
	if (hook == FP_HOOK_FROM_HOST)
		__builtin_memcpy(&src, &old.daddr, sizeof(src));
	out.ip.version = 6;
	out.ip.payload_len = bpf_htons(sizeof(out.icmp) + len);
	out.ip.nexthdr = IPPROTO_ICMPV6;
	out.ip.hop_limit = ICMP_TTL;
	__builtin_memcpy(&out.ip.saddr, &src, sizeof(src));
	__builtin_memcpy(&out.ip.daddr, &old.saddr, sizeof(old.saddr));
	out.icmp.type = error.type;
	out.icmp.code = error.code;
	out.icmp.mtu = bpf_htonl(mtu);
	out.icmp.checksum = fold(sum_frame(ctx, sizeof(struct ethhdr) + sizeof(out), len,
					      sum_bytes(&out.icmp, sizeof(out.icmp),
							sum_pseudo_v6(&out.ip, sizeof(out.icmp) + len))));
	return !bpf_skb_store_bytes(ctx, sizeof(struct ethhdr), &out, sizeof(out), BPF_F_RECOMPUTE_CSUM);
}

/* Drop the packet and, where the rules allow it, tell its sender. mtu: for FP_DROP_TOO_BIG only. */
__noinline int reject(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, __u32 mtu)
{
	struct mac macs[2]; /* destination, source */
	struct mac sender;
	bool built;

	drop(ctx, hook, reason);
	if (bpf_skb_load_bytes(ctx, 0, macs, sizeof(macs)))
		return TC_ACT_SHOT;
	built = ctx->protocol == bpf_htons(ETH_P_IP) ? error_v4(ctx, hook, reason, mtu)
						     : error_v6(ctx, hook, reason, mtu);
	sender = macs[1];
	macs[1] = macs[0];
	macs[0] = sender;
	if (!built || bpf_skb_store_bytes(ctx, 0, macs, sizeof(macs), 0))
		return TC_ACT_SHOT;
	count_reply(FP_REPLY_ICMP_ERROR);
	return send_back(ctx, hook);
}

#endif
