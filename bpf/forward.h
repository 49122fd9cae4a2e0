/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet goes: into a container, out by a route, or into the host's own stack. */
#ifndef FASTPATH_FORWARD_H
#define FASTPATH_FORWARD_H

#include "icmp.h"

#define AF_INET 2
#define AF_INET6 10
#define IPV6_MIN_MTU 1280
#define IPV4_MIN_MTU 576

static __always_inline struct fp_endpoint *endpoint(const struct fp_addr *addr)
{
	return bpf_map_lookup_elem(&endpoints, addr);
}

/* One hop less. What the frame's checksum covers stays consistent. */
static __always_inline void decrement_ttl(struct __sk_buff *ctx, struct packet *packet)
{
	if (!packet->v6) {
		struct iphdr *ip = packet->ip4;
		__u32 sum = ip->check + bpf_htons(0x0100);

		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
	} else { /* no checksum of its own: mend the one that the NIC took over the whole packet */
		packet->ip6->hop_limit--;
		bpf_csum_update(ctx, (__u16)~bpf_htons(1));
	}
}

/* Let the host's stack have it: for itself, or to fragment it. It takes frames to the router device's MAC only. */
static __always_inline int to_host(struct __sk_buff *ctx, struct packet *packet)
{
	*(struct mac *)packet->eth->h_dest = gateway_mac();
	count_tx(packet->from, ctx->len);
	return bpf_redirect(config.router_ifindex, BPF_F_INGRESS);
}

static __always_inline int too_big(struct __sk_buff *ctx, struct packet *packet, enum fp_hook hook, __u32 mtu)
{
	bool fragment = !packet->v6 && !(packet->ip4->frag_off & bpf_htons(IP_DF));

	/* what comes from the host had its chance of being fragmented */
	if (fragment && hook != FP_HOOK_FROM_HOST)
		return to_host(ctx, packet);
	return reject(ctx, hook, FP_DROP_TOO_BIG, mtu);
}

/* Into a container. */
static __always_inline int deliver(struct __sk_buff *ctx, struct packet *packet, const struct fp_endpoint *to,
				   enum fp_hook hook)
{
	if (hook != FP_HOOK_FROM_HOST && packet->ttl <= 1)
		return reject(ctx, hook, FP_DROP_TTL, 0);
	if (link_len(ctx, packet) > to->mtu)
		return too_big(ctx, packet, hook, to->mtu);
	if (hook != FP_HOOK_FROM_HOST)
		decrement_ttl(ctx, packet);
	*(struct mac *)packet->eth->h_dest = *(const struct mac *)to->mac;
	*(struct mac *)packet->eth->h_source = gateway_mac();
	count_tx(packet->from, ctx->len);
	count_rx(to, ctx->len);
	/* straight into the container only what is being received: the host and a netkit's peer are sending */
	if (hook == FP_HOOK_FROM_HOST || hook == FP_HOOK_FROM_NETKIT || to->flags & FP_ENDPOINT_VF)
		return bpf_redirect(to->ifindex, 0);
	return bpf_redirect_peer(to->ifindex, 0);
}

/* The reason why no router forwards to this address, or FP_DROP_MAX. */
static __always_inline enum fp_drop unroutable(const struct packet *packet)
{
	__be32 v4 = packet->dst.word[3];

	if (packet->v6) {
		if (v6_multicast(&packet->dst))
			return FP_DROP_MULTICAST;
		return v6_link_local(&packet->dst) ? FP_DROP_LINK_LOCAL : FP_DROP_MAX;
	}
	if (v4_in(v4, 0xe0000000, 0xf0000000) || v4 == bpf_htonl(0xffffffff))
		return FP_DROP_MULTICAST;
	if (v4_in(v4, 0xa9fe0000, 0xffff0000))
		return FP_DROP_LINK_LOCAL;
	if (v4_in(v4, 0, 0xff000000) || v4_in(v4, 0x7f000000, 0xff000000) || v4_in(v4, 0xf0000000, 0xf0000000))
		return FP_DROP_MARTIAN;
	return FP_DROP_MAX;
}

/* The neighbour is left to the kernel, so that it notices when one moves. Not inline: it needs stack of its own. */
static __noinline int send_to(const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh next = { .nh_family = fib->family };

	__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, sizeof(next.ipv6_nh)); /* a union with ipv4_nh */
	return bpf_redirect_neigh(fib->ifindex, &next, sizeof(next), 0);
}

/* Out by the host's routes. */
static __always_inline int send_routed(struct __sk_buff *ctx, struct packet *packet, const struct bpf_fib_lookup *fib)
{
	decrement_ttl(ctx, packet);
	count_tx(packet->from, ctx->len);
	return send_to(fib);
}

/* The MTU of the route; kernels before 5.12 do not tell it, so be careful there. */
static __always_inline __u32 fib_mtu(const struct packet *packet, const struct bpf_fib_lookup *fib, __u32 asked)
{
	if (fib->tot_len < asked) /* "tot_len" is then the route's MTU */
		return fib->tot_len;
	return packet->v6 ? IPV6_MIN_MTU : IPV4_MIN_MTU;
}

/* From a container to what is no endpoint. */
static __always_inline int route(struct __sk_buff *ctx, struct packet *packet, enum fp_hook hook)
{
	struct bpf_fib_lookup fib = { .ifindex = config.router_ifindex, .l4_protocol = packet->proto };
	__u32 len = link_len(ctx, packet);
	long found;

	if (len > 0xffff) /* BIG TCP of a protocol without segments: impossible, and 16 bits cannot say it */
		len = 0xffff;
	fib.tot_len = len;
	if (!packet->v6) {
		fib.family = AF_INET;
		fib.tos = packet->ip4->tos;
		fib.ipv4_src = packet->src.word[3];
		fib.ipv4_dst = packet->dst.word[3];
	} else {
		fib.family = AF_INET6;
		fib.flowinfo = *(__be32 *)packet->ip6 & bpf_htonl(0x0fffffff);
		__builtin_memcpy(fib.ipv6_src, &packet->src, sizeof(packet->src));
		__builtin_memcpy(fib.ipv6_dst, &packet->dst, sizeof(packet->dst));
	}

	found = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	switch (found) {
	case BPF_FIB_LKUP_RET_NOT_FWDED: /* the host itself, or no route: its stack has the right answer */
		return to_host(ctx, packet);
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		if (fib.ifindex == config.router_ifindex)
			return reject(ctx, hook, FP_DROP_NO_ENDPOINT, 0);
		if (packet->ttl <= 1)
			return reject(ctx, hook, FP_DROP_TTL, 0);
		return send_routed(ctx, packet, &fib);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		if (packet->ttl <= 1)
			return reject(ctx, hook, FP_DROP_TTL, 0);
		return too_big(ctx, packet, hook, fib_mtu(packet, &fib, len));
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return drop(ctx, hook, FP_DROP_BLACKHOLE);
	case BPF_FIB_LKUP_RET_UNREACHABLE:
		return reject(ctx, hook, FP_DROP_UNREACHABLE, 0);
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return reject(ctx, hook, FP_DROP_PROHIBITED, 0);
	default:
		return drop(ctx, hook, FP_DROP_NO_FORWARDING);
	}
}

#endif
