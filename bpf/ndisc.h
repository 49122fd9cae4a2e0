/* SPDX-License-Identifier: GPL-2.0-only */
/* IPv6 neighbour discovery: whoever is asked for, the answer is the gateway's MAC. */
#ifndef FASTPATH_NDISC_H
#define FASTPATH_NDISC_H

#include <linux/icmpv6.h>

#include "checksum.h"
#include "drops.h"
#include "parse.h"

#define ND_ROUTER_SOLICIT 133
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136
#define ND_REDIRECT 137
#define ND_HOP_LIMIT 255 /* proves that no router was in between */
#define ND_ROUTER 0x80000000
#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_TARGET_MAC 2

struct nd_message {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 flags;
	struct fp_addr target;
} __attribute__((packed, aligned(4)));

struct nd_advert {
	struct ipv6hdr ip;
	struct nd_message message;
	__u8 option;
	__u8 option_len; /* in units of eight bytes */
	struct mac mac;
} __attribute__((packed, aligned(4)));

#define ND_ADVERT_LEN (sizeof(struct nd_advert) - sizeof(struct ipv6hdr))

/* Redirect and the solicitations and advertisements of neighbours and routers. */
static __always_inline bool is_ndisc(struct __sk_buff *ctx, const struct packet *packet)
{
	__u8 type;

	return packet->proto == IPPROTO_ICMPV6 &&
	       !bpf_skb_load_bytes(ctx, sizeof(struct ethhdr) + sizeof(struct ipv6hdr), &type, sizeof(type)) &&
	       type >= ND_ROUTER_SOLICIT && type <= ND_REDIRECT;
}

/* A container may ask as one of its own addresses, as a link-local one, or as :: (duplicate detection). */
static __always_inline bool nd_spoofed(struct __sk_buff *ctx, const struct fp_addr *src, const void *mac)
{
	const struct fp_endpoint *from;

	if (v6_link_local(src) || !(src->word[0] | src->word[1] | src->word[2] | src->word[3]))
		return false;
	if (v6_reserved(src))
		return true;
	from = bpf_map_lookup_elem(&endpoints, src);
	return !from || !sent_as(ctx, from, mac);
}

static __always_inline bool nd_is_gateway(const struct fp_addr *target)
{
	struct fp_addr gateway = gateway_v6();

	return target->word[0] == gateway.word[0] && target->word[1] == gateway.word[1] &&
	       target->word[2] == gateway.word[2] && target->word[3] == gateway.word[3];
}

/* Duplicate detection (no source yet) is told only of an address that somebody else really has. */
static __always_inline bool nd_answered(struct __sk_buff *ctx, const struct fp_addr *target, bool probe,
					enum fp_hook hook)
{
	const struct fp_endpoint *owner;

	if (v6_multicast(target) || v6_reserved(target))
		return false;
	owner = bpf_map_lookup_elem(&endpoints, target);
	if (owner && sent_by(ctx, owner))
		return false;
	if (probe)
		return hook != FP_HOOK_FROM_HOST && (owner || nd_is_gateway(target));
	return true;
}

/* Turn the solicitation into the advertisement. */
static __always_inline int nd_answer(struct __sk_buff *ctx, const struct fp_addr *src, const struct fp_addr *target,
				     bool probe, const struct mac *asker, enum fp_hook hook)
{
	struct mac macs[2] = { *asker, gateway_mac() };
	struct nd_advert advert = {
		.ip = { .version = 6, .payload_len = bpf_htons(ND_ADVERT_LEN),
			.nexthdr = IPPROTO_ICMPV6, .hop_limit = ND_HOP_LIMIT },
		.message = { .type = ND_NEIGHBOUR_ADVERT, .target = *target,
			     .flags = bpf_htonl(ND_ROUTER | ND_OVERRIDE | (probe ? 0 : ND_SOLICITED)) },
		.option = ND_TARGET_MAC,
		.option_len = 1,
		.mac = macs[1],
	};

	__builtin_memcpy(&advert.ip.saddr, target, sizeof(*target));
	__builtin_memcpy(&advert.ip.daddr, src, sizeof(*src));
	if (probe) { /* who has no address yet hears what is said to all nodes */
		advert.ip.daddr.in6_u.u6_addr32[0] = bpf_htonl(0xff020000);
		advert.ip.daddr.in6_u.u6_addr32[3] = bpf_htonl(1);
	}
	advert.message.checksum =
		fold(sum_bytes(&advert.message, ND_ADVERT_LEN, sum_pseudo_v6(&advert.ip, ND_ADVERT_LEN)));
	if (bpf_skb_change_tail(ctx, sizeof(struct ethhdr) + sizeof(advert), 0) ||
	    bpf_skb_store_bytes(ctx, sizeof(struct ethhdr), &advert, sizeof(advert), BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(ctx, 0, macs, sizeof(macs), 0))
		return drop(ctx, hook, FP_DROP_INTERNAL);
	count_reply(FP_REPLY_NDISC);
	return send_back(ctx, hook);
}

__noinline int ndisc(struct __sk_buff *ctx, enum fp_hook hook)
{
	struct ethhdr *eth = headers(ctx, sizeof(*eth) + sizeof(struct ipv6hdr) + sizeof(struct nd_message));
	struct fp_addr src, target;
	struct nd_message *message;
	struct ipv6hdr *ip;
	struct mac asker;
	bool probe;

	if (!eth) /* a router solicitation is shorter than that of a neighbour, and needs no answer either */
		return drop(ctx, hook, FP_DROP_NDISC);
	ip = (void *)(eth + 1);
	message = (void *)(ip + 1);
	__builtin_memcpy(&src, &ip->saddr, sizeof(src));
	__builtin_memcpy(&target, &message->target, sizeof(target));
	__builtin_memcpy(&asker, eth->h_source, sizeof(asker));
	probe = v6_reserved(&src);
	if (hook != FP_HOOK_FROM_HOST && nd_spoofed(ctx, &src, &asker))
		return drop(ctx, hook, FP_DROP_SPOOFED);
	if (message->type != ND_NEIGHBOUR_SOLICIT || message->code || ip->hop_limit != ND_HOP_LIMIT ||
	    bpf_ntohs(ip->payload_len) < sizeof(*message) || !nd_answered(ctx, &target, probe, hook))
		return drop(ctx, hook, FP_DROP_NDISC);
	return nd_answer(ctx, &src, &target, probe, &asker, hook);
}

#endif
