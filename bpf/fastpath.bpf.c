/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The dataplane of a node: an IP router whose ports are containers, the wire and the host itself.
 *
 *   from_container  ingress of the host end of each attachment that is a veth, and of a VF's representor
 *   from_netkit     the peer of each attachment that is a netkit: runs where the container sends
 *   from_wire       ingress of each uplink
 *   from_host       egress of the router device, behind which the host's stack sees all containers
 */
#include <linux/if_packet.h>

#include "arp.h"
#include "forward.h"
#include "police.h"
#include "redecide.h"

/* Not ours: to whatever else is attached there, then to the host's stack. */
#define PASS TC_ACT_UNSPEC

/* The sending container, or NULL when it pretends to be somebody else. */
static __always_inline const struct fp_endpoint *sender(struct __sk_buff *ctx, const struct packet *packet)
{
	const struct fp_endpoint *from = endpoint(&packet->src);

	return from && sent_as(ctx, from, packet->eth->h_source) ? from : NULL;
}

/*
 * Where there never were policies this is one look into an array. If it is denied, it has been dropped.
 * local: both ends are containers of this node.
 */
static __always_inline bool is_denied(struct __sk_buff *ctx, const struct packet *packet, enum fp_hook hook, bool local)
{
	__u32 epoch = current_epoch();

	return epoch && police(ctx, epoch, &packet->src, &packet->dst, l3_of(packet, hook) | (local ? L3_LOCAL : 0));
}

/* A representor keeps its own MAC, as many drivers let none be set: to the kernel the frame is another host's. */
static __always_inline bool taken_in(struct __sk_buff *ctx, const struct packet *packet)
{
	struct mac mac = gateway_mac();

	return ctx->pkt_type == PACKET_OTHERHOST && mac_equal(packet->eth->h_dest, &mac) &&
	       !bpf_skb_change_type(ctx, PACKET_HOST);
}

static __always_inline int container_ip(struct __sk_buff *ctx, struct packet *packet, enum fp_hook hook)
{
	const struct fp_endpoint *to;
	enum fp_drop reason;

	if (!packet->sound)
		return drop(ctx, hook, FP_DROP_MALFORMED);
	/* who receives it over netkit goes by what a raw socket says, and not by the frame */
	if (hook == FP_HOOK_FROM_NETKIT && ctx->protocol != packet->eth->h_proto)
		return drop(ctx, hook, FP_DROP_MALFORMED);
	if (packet->v6 && is_ndisc(ctx, packet))
		return ndisc(ctx, hook);
	if (ctx->pkt_type != PACKET_HOST && !taken_in(ctx, packet))
		return drop(ctx, hook, ctx->pkt_type == PACKET_OTHERHOST ? FP_DROP_WRONG_MAC : FP_DROP_MULTICAST);
	if (packet->v6 && v6_reserved(&packet->src))
		return drop(ctx, hook, FP_DROP_SPOOFED);
	if (packet->v6 && v6_reserved(&packet->dst))
		return drop(ctx, hook, FP_DROP_MARTIAN);

	packet->from = sender(ctx, packet);
	if (!packet->from)
		return drop(ctx, hook, packet->v6 && v6_link_local(&packet->src) ? FP_DROP_LINK_LOCAL : FP_DROP_SPOOFED);
	to = endpoint(&packet->dst);
	if (to && to->ifindex == packet->from->ifindex)
		return drop(ctx, hook, FP_DROP_TO_SELF);
	reason = to ? FP_DROP_MAX : unroutable(packet);
	if (reason != FP_DROP_MAX)
		return drop(ctx, hook, reason);
	if (is_denied(ctx, packet, hook, to))
		return TC_ACT_SHOT;
	return to ? deliver(ctx, packet, to, hook) : route(ctx, packet, hook);
}

static __always_inline int wire_ip(struct __sk_buff *ctx, struct packet *packet)
{
	const struct fp_endpoint *to;

	if (packet->v6 && v6_reserved(&packet->dst))
		return PASS;
	to = endpoint(&packet->dst);
	if (!to)
		return PASS;
	if (!packet->sound)
		return drop(ctx, FP_HOOK_FROM_WIRE, FP_DROP_MALFORMED);
	if (packet->v6 && v6_link_local(&packet->src))
		return drop(ctx, FP_HOOK_FROM_WIRE, FP_DROP_LINK_LOCAL);
	if (is_denied(ctx, packet, FP_HOOK_FROM_WIRE, false))
		return TC_ACT_SHOT;
	return deliver(ctx, packet, to, FP_HOOK_FROM_WIRE);
}

static __always_inline int host_ip(struct __sk_buff *ctx, struct packet *packet)
{
	const struct fp_endpoint *to;
	enum fp_drop reason;

	if (!packet->sound)
		return drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_MALFORMED);
	if (packet->v6 && is_ndisc(ctx, packet))
		return ndisc(ctx, FP_HOOK_FROM_HOST);
	if (packet->v6 && v6_reserved(&packet->dst))
		return drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_MARTIAN);
	to = endpoint(&packet->dst);
	if (to && is_denied(ctx, packet, FP_HOOK_FROM_HOST, false))
		return TC_ACT_SHOT;
	if (to)
		return deliver(ctx, packet, to, FP_HOOK_FROM_HOST);
	reason = unroutable(packet);
	if (reason != FP_DROP_MAX)
		return drop(ctx, FP_HOOK_FROM_HOST, reason);
	return reject(ctx, FP_HOOK_FROM_HOST, FP_DROP_NO_ENDPOINT, 0);
}

static __always_inline int container(struct __sk_buff *ctx, enum fp_hook hook)
{
	struct ethhdr *eth = headers(ctx, sizeof(*eth));
	struct packet packet;

	count(&hooks, hook);
	if (!eth)
		return drop(ctx, hook, FP_DROP_MALFORMED);
	if (ctx->vlan_present)
		return drop(ctx, hook, FP_DROP_VLAN);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_v4(ctx, &packet) ? container_ip(ctx, &packet, hook) : drop(ctx, hook, FP_DROP_MALFORMED);
	case bpf_htons(ETH_P_IPV6):
		return parse_v6(ctx, &packet) ? container_ip(ctx, &packet, hook) : drop(ctx, hook, FP_DROP_MALFORMED);
	case bpf_htons(ETH_P_ARP):
		return arp(ctx, hook);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return drop(ctx, hook, FP_DROP_VLAN);
	default:
		return drop(ctx, hook, FP_DROP_NOT_IP);
	}
}

SEC("tc")
int from_container(struct __sk_buff *ctx)
{
	return container(ctx, FP_HOOK_FROM_CONTAINER);
}

SEC("tc")
int from_netkit(struct __sk_buff *ctx)
{
	return container(ctx, FP_HOOK_FROM_NETKIT);
}

SEC("tc")
int from_wire(struct __sk_buff *ctx)
{
	struct ethhdr *eth = headers(ctx, sizeof(*eth));
	struct packet packet;

	count(&hooks, FP_HOOK_FROM_WIRE);
	if (!eth || ctx->vlan_present || ctx->pkt_type != PACKET_HOST)
		return PASS;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_v4(ctx, &packet) ? wire_ip(ctx, &packet) : PASS;
	case bpf_htons(ETH_P_IPV6):
		return parse_v6(ctx, &packet) ? wire_ip(ctx, &packet) : PASS;
	default:
		return PASS;
	}
}

SEC("tc")
int from_host(struct __sk_buff *ctx)
{
	struct ethhdr *eth = headers(ctx, sizeof(*eth));
	struct packet packet;

	count(&hooks, FP_HOOK_FROM_HOST);
	if (!eth)
		return drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_MALFORMED);
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_v4(ctx, &packet) ? host_ip(ctx, &packet) : drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_MALFORMED);
	case bpf_htons(ETH_P_IPV6):
		return parse_v6(ctx, &packet) ? host_ip(ctx, &packet) : drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_MALFORMED);
	case bpf_htons(ETH_P_ARP):
		return arp(ctx, FP_HOOK_FROM_HOST);
	default:
		return drop(ctx, FP_HOOK_FROM_HOST, FP_DROP_NOT_IP);
	}
}

char LICENSE[] SEC("license") = "GPL";
