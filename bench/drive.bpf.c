/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Feeds UDP packets between one container and many peers to the program under test. TEST_RUN repeats on one packet,
 * each run with what the one before left of it: so before each run this writes all of its header that matters, for a
 * peer that it picks. Then it jumps into the program itself, as loaded. Jumping into `accept` instead gives the price
 * of all that. The checksums are not ours to check, so they are left as they are.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_PEERS 131072

#define PEER_PORT 7007

struct peer {
	__be32 address[4]; /* IPv4 in the first word */
	__be16 port;       /* of the container, for this peer */
	__u16 pad;
};

struct plan {
	__be32 address[4]; /* of the container */
	__u8 mac[6];
	__u16 pad;
	__u32 peers;   /* how many, from the first */
	__u32 outward; /* from the container to the peer */
	__u32 fresh;   /* another port of the peer's each time, so that each packet begins a flow */
	__u32 in_turn; /* one peer after the other, not at random */
	__u32 turn;
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PEERS);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

static const __u8 gateway[ETH_ALEN] = { 0x0e, 0xfa, 0x57, 0x00, 0x00, 0x01 };

static __always_inline const struct peer *pick(struct plan *plan)
{
	__u32 index;

	if (plan->in_turn)
		index = plan->turn++;
	else /* the upper half of a product is a fair number below plan->peers, without a division */
		index = ((__u64)bpf_get_prandom_u32() * plan->peers) >> 32;
	return bpf_map_lookup_elem(&peers, &index);
}

static __always_inline bool write(struct __sk_buff *ctx, const struct plan *plan, const struct peer *peer)
{
	const __be32 *from = plan->outward ? plan->address : peer->address;
	const __be32 *to = plan->outward ? peer->address : plan->address;
	__be16 port = plan->fresh ? (__be16)bpf_get_prandom_u32() : bpf_htons(PEER_PORT);
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct udphdr *udp;

	if ((void *)(eth + 1) > end)
		return false;
	__builtin_memcpy(eth->h_dest, gateway, ETH_ALEN);
	__builtin_memcpy(eth->h_source, plan->mac, ETH_ALEN);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return false;
		ip->ttl = 64;
		ip->saddr = *from;
		ip->daddr = *to;
	} else {
		struct ipv6hdr *ip = (void *)(eth + 1);

		udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return false;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, from, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, to, sizeof(ip->daddr));
	}
	udp->source = plan->outward ? peer->port : port;
	udp->dest = plan->outward ? port : peer->port;
	return true;
}

SEC("tc")
int drive(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	const struct peer *peer = plan ? pick(plan) : NULL;

	if (!peer || !write(ctx, plan, peer))
		return TC_ACT_SHOT;
	bpf_tail_call(ctx, &targets, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int accept(struct __sk_buff *ctx)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
