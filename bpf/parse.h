/* SPDX-License-Identifier: GPL-2.0-only */
/* From a frame to what forwarding needs to know of it: addresses, lengths, the hop limit. */
#ifndef FASTPATH_PARSE_H
#define FASTPATH_PARSE_H

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"

#define IP_DF 0x4000     /* do not fragment */
#define IP_OFFSET 0x1fff /* fragment offset */
#define JUMBO_LEN 8      /* hop-by-hop header that carries the length of a BIG TCP packet */

struct packet {
	struct ethhdr *eth;
	union {
		struct iphdr *ip4;
		struct ipv6hdr *ip6;
	};
	const struct fp_endpoint *from; /* the container that sent it, or NULL */
	struct fp_addr src;
	struct fp_addr dst;
	__u32 len;    /* bytes of the IP packet */
	__u32 header; /* bytes of its first IP header */
	bool v6;      /* constant wherever it is used: each family gets code of its own */
	__u8 ttl;
	__u8 proto;
	bool sound;   /* version and lengths agree with the frame */
};

/* The first `size` bytes of the frame, or NULL when it is shorter. Ends the life of older pointers. */
static __always_inline void *headers(struct __sk_buff *ctx, __u32 size)
{
	void *data = (void *)(long)ctx->data;

	if (data + size <= (void *)(long)ctx->data_end)
		return data;
	if (ctx->len < size || bpf_skb_pull_data(ctx, size))
		return NULL;
	data = (void *)(long)ctx->data;
	return data + size <= (void *)(long)ctx->data_end ? data : NULL;
}

static __always_inline struct fp_addr mapped(__be32 v4)
{
	return (struct fp_addr){ { 0, 0, bpf_htonl(0xffff), v4 } };
}

static __always_inline bool is_mapped(const struct fp_addr *addr)
{
	return !(addr->word[0] | addr->word[1]) && addr->word[2] == bpf_htonl(0xffff);
}

/* ::, ::1 and the IPv4-mapped addresses, which in an IPv6 packet would pass for an IPv4 key. */
static __always_inline bool v6_reserved(const struct fp_addr *addr)
{
	return !(addr->word[0] | addr->word[1]);
}

static __always_inline bool v6_multicast(const struct fp_addr *addr)
{
	return (addr->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool v6_link_local(const struct fp_addr *addr)
{
	return (addr->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool v4_in(__be32 addr, __u32 network, __u32 mask)
{
	return (addr & bpf_htonl(mask)) == bpf_htonl(network);
}

/* False when there is no whole IPv4 header to read. */
static __always_inline bool parse_v4(struct __sk_buff *ctx, struct packet *packet)
{
	struct ethhdr *eth = headers(ctx, sizeof(struct ethhdr) + sizeof(struct iphdr));
	__u32 room = ctx->len - sizeof(struct ethhdr);
	struct iphdr *ip;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	packet->eth = eth;
	packet->ip4 = ip;
	packet->v6 = false;
	packet->from = NULL;
	packet->src = mapped(ip->saddr);
	packet->dst = mapped(ip->daddr);
	packet->len = bpf_ntohs(ip->tot_len);
	if (!packet->len && ctx->gso_size)
		packet->len = room; /* BIG TCP */
	packet->header = ip->ihl * 4;
	packet->ttl = ip->ttl;
	packet->proto = ip->protocol;
	packet->sound = ip->version == 4 && packet->header >= sizeof(*ip) &&
			packet->len >= packet->header && packet->len <= room;
	return true;
}

/* False when there is no whole IPv6 header to read. */
static __always_inline bool parse_v6(struct __sk_buff *ctx, struct packet *packet)
{
	struct ethhdr *eth = headers(ctx, sizeof(struct ethhdr) + sizeof(struct ipv6hdr));
	__u32 room = ctx->len - sizeof(struct ethhdr);
	struct ipv6hdr *ip;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	packet->eth = eth;
	packet->v6 = true;
	packet->ip6 = ip;
	packet->from = NULL;
	__builtin_memcpy(&packet->src, &ip->saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip->daddr, sizeof(packet->dst));
	packet->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!ip->payload_len && ctx->gso_size)
		packet->len = room; /* BIG TCP */
	packet->header = sizeof(*ip);
	packet->ttl = ip->hop_limit;
	packet->proto = ip->nexthdr;
	packet->sound = ip->version == 6 && packet->len <= room;
	return true;
}

/* Bytes of the IP packets that a GSO packet will become; 0 when that cannot be told. */
static __noinline __u32 segment_len(struct __sk_buff *ctx, __u32 header, __u32 proto)
{
	__u32 offset = sizeof(struct ethhdr) + header;
	__u8 words;

	if (proto == IPPROTO_UDP)
		return header + 8 + ctx->gso_size;
	if (proto == IPPROTO_HOPOPTS) { /* BIG TCP's length, which no segment carries */
		offset += JUMBO_LEN;
		proto = IPPROTO_TCP;
	}
	if (proto != IPPROTO_TCP || bpf_skb_load_bytes(ctx, offset + 12, &words, sizeof(words)))
		return 0;
	return header + (words >> 4) * 4 + ctx->gso_size;
}

/* Bytes of the biggest IP packet that this one puts on a link. */
static __always_inline __u32 link_len(struct __sk_buff *ctx, const struct packet *packet)
{
	return ctx->gso_size ? segment_len(ctx, packet->header, packet->proto) : packet->len;
}

#endif
