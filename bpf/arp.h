/* SPDX-License-Identifier: GPL-2.0-only */
/* ARP: whoever is asked for, the answer is the gateway's MAC. */
#ifndef FASTPATH_ARP_H
#define FASTPATH_ARP_H

#include "drops.h"
#include "parse.h"

#define ARP_HARDWARE_ETHER 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

/* Not linux/if_arp.h: that one needs the C library's 32-bit headers. */
struct arp_frame {
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 operation;
	struct mac sender_mac;
	__be32 sender;
	struct mac target_mac;
	__be32 target;
} __attribute__((packed, aligned(2)));

static __always_inline bool arp_sound(const struct arp_frame *frame)
{
	return frame->hardware == bpf_htons(ARP_HARDWARE_ETHER) && frame->protocol == bpf_htons(ETH_P_IP) &&
	       frame->hardware_len == ETH_ALEN && frame->protocol_len == sizeof(__be32);
}

/* A container may speak for its own addresses only, or for none. */
static __always_inline bool arp_spoofed(struct __sk_buff *ctx, const struct arp_frame *frame)
{
	struct fp_addr sender = mapped(frame->sender);
	const struct fp_endpoint *from;

	if (!frame->sender)
		return false;
	from = bpf_map_lookup_elem(&endpoints, &sender);
	return !from || !sent_as(ctx, from, &frame->sender_mac) || !mac_equal(&frame->sender_mac, frame->eth.h_source);
}

/* A probe (no sender yet) is told only of an address that somebody else really has. */
static __always_inline bool arp_answered(struct __sk_buff *ctx, const struct arp_frame *frame, enum fp_hook hook)
{
	struct fp_addr target = mapped(frame->target);
	const struct fp_endpoint *owner = bpf_map_lookup_elem(&endpoints, &target);

	if (owner && sent_by(ctx, owner))
		return false;
	if (!frame->sender)
		return hook != FP_HOOK_FROM_HOST && (owner || frame->target == config.gateway_v4);
	return frame->sender != frame->target;
}

__noinline int arp(struct __sk_buff *ctx, enum fp_hook hook)
{
	struct arp_frame *frame = headers(ctx, sizeof(*frame));
	struct mac mac = gateway_mac();
	__be32 target;

	if (!frame || !arp_sound(frame))
		return drop(ctx, hook, FP_DROP_MALFORMED);
	if (hook != FP_HOOK_FROM_HOST && arp_spoofed(ctx, frame))
		return drop(ctx, hook, FP_DROP_SPOOFED);
	if (frame->operation != bpf_htons(ARP_REQUEST) || !arp_answered(ctx, frame, hook))
		return drop(ctx, hook, FP_DROP_ARP);

	target = frame->target;
	__builtin_memcpy(frame->eth.h_dest, frame->eth.h_source, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_source, &mac, ETH_ALEN);
	frame->operation = bpf_htons(ARP_REPLY);
	frame->target_mac = frame->sender_mac;
	frame->target = frame->sender;
	frame->sender_mac = mac;
	frame->sender = target;
	count_reply(FP_REPLY_ARP);
	return send_back(ctx, hook);
}

#endif
