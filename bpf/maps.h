/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps, the configuration and how packets are counted. */
#ifndef FASTPATH_MAPS_H
#define FASTPATH_MAPS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "abi.h"

/* Volatile keeps the compiler from using the zeros that it sees here. */
const volatile struct fp_config config = {};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_MAX_ENDPOINTS);
	__type(key, struct fp_addr);
	__type(value, struct fp_endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_MAX_MOVES);
	__type(key, __u32);
	__type(value, __u32);
} moves SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FP_MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct fp_endpoint_stats);
} endpoint_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FP_DROP_MAX);
	__type(key, __u32);
	__type(value, fp_counter);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FP_HOOK_MAX);
	__type(key, __u32);
	__type(value, fp_counter);
} hooks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FP_REPLY_MAX);
	__type(key, __u32);
	__type(value, fp_counter);
} replies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fp_bucket);
} icmp_bucket SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} drop_watch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fp_drop_limit);
} drop_limit SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, FP_EVENT_BYTES);
} events SEC(".maps");

static __always_inline void count(void *map, __u32 index)
{
	__u64 *packets = bpf_map_lookup_elem(map, &index);

	if (packets)
		++*packets;
}

static __noinline void count_reply(enum fp_reply reply)
{
	count(&replies, reply);
}

/* What a container sent on its way; from is NULL when it was not a container. */
static __always_inline void count_tx(const struct fp_endpoint *from, __u32 bytes)
{
	struct fp_endpoint_stats *stats;
	__u32 slot;

	if (!from)
		return;
	slot = from->slot;
	stats = bpf_map_lookup_elem(&endpoint_stats, &slot);
	if (stats) {
		stats->tx_packets++;
		stats->tx_bytes += bytes;
	}
}

static __always_inline void count_rx(const struct fp_endpoint *to, __u32 bytes)
{
	__u32 slot = to->slot;
	struct fp_endpoint_stats *stats = bpf_map_lookup_elem(&endpoint_stats, &slot);

	if (stats) {
		stats->rx_packets++;
		stats->rx_bytes += bytes;
	}
}

static __always_inline struct fp_addr gateway_v6(void)
{
	struct fp_addr addr;

	for (int i = 0; i < 4; i++) /* one by one: a copy would drop the volatile */
		addr.word[i] = config.gateway_v6.word[i];
	return addr;
}

struct mac {
	__u16 word[3];
};

static __always_inline struct mac gateway_mac(void)
{
	const volatile struct mac *mac = (const volatile struct mac *)config.gateway_mac;

	return (struct mac){ { mac->word[0], mac->word[1], mac->word[2] } };
}

static __always_inline bool mac_equal(const void *a, const void *b)
{
	const struct mac *x = a, *y = b;

	return x->word[0] == y->word[0] && x->word[1] == y->word[1] && x->word[2] == y->word[2];
}

/* Is the first interface a second end of the container that is published with the other one? */
__noinline bool moving(__u32 ifindex, __u32 published)
{
	__u32 *found = bpf_map_lookup_elem(&moves, &ifindex);

	return found && *found == published;
}

/* Does the packet come from this endpoint's container? */
static __always_inline bool sent_by(struct __sk_buff *ctx, const struct fp_endpoint *owner)
{
	return owner->ifindex == ctx->ifindex || moving(ctx->ifindex, owner->ifindex);
}

/* The same, and with the endpoint's MAC. That of a second end is another where one of the two has none. */
static __always_inline bool sent_as(struct __sk_buff *ctx, const struct fp_endpoint *owner, const void *mac)
{
	return owner->ifindex == ctx->ifindex ? mac_equal(owner->mac, mac) : moving(ctx->ifindex, owner->ifindex);
}

/* Back to where the packet came from: the container, the wire, or the host's own stack. */
static __always_inline int send_back(struct __sk_buff *ctx, enum fp_hook hook)
{
	return bpf_redirect(ctx->ifindex, hook == FP_HOOK_FROM_HOST ? BPF_F_INGRESS : 0);
}

#endif
