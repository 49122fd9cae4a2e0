/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The flows: what has been allowed, by whom it was asked for, and under which epoch.
 *
 * An entry of an LRU map may at any time become another flow's, while somebody still has its address. So what is
 * written through a pointer does no harm in another flow either; an epoch or a revocation is written right after a
 * lookup.
 */
#ifndef FASTPATH_FLOWS_H
#define FASTPATH_FLOWS_H

#include "l4.h"
#include "policy.h"

/* Seconds without a packet after which a flow has ended. */
#define IDLE_TCP 86400
#define IDLE_ASSURED 180
#define IDLE_YOUNG 60

#define FIN_BOTH (FP_FLOW_FIN_A | FP_FLOW_FIN_B)

/* A packet on its way through a flow. */
struct passage {
	struct fp_flow_key key;
	__u32 from_b; /* else it is from a */
	__u32 kind;   /* of its segment, see l4.h */
	__u32 now;    /* seconds() */
	__u32 epoch;
	__u32 hook;   /* enum fp_hook */
};

static __noinline void count_flow(enum fp_flow_count what)
{
	count(&flow_counts, what);
}

static __always_inline bool same_addr(const struct fp_addr *x, const struct fp_addr *y)
{
	return x->word[0] == y->word[0] && x->word[1] == y->word[1] && x->word[2] == y->word[2] &&
	       x->word[3] == y->word[3];
}

static __always_inline bool greater(const struct fp_addr *x, const struct fp_addr *y)
{
	for (int i = 0; i < 3; i++)
		if (x->word[i] != y->word[i])
			return bpf_ntohl(x->word[i]) > bpf_ntohl(y->word[i]);
	return bpf_ntohl(x->word[3]) > bpf_ntohl(y->word[3]);
}

static __always_inline void set_ends(struct passage *passage, const struct fp_addr *src, const struct fp_addr *dst,
				     const struct fp_segment *segment)
{
	struct fp_flow_key *key = &passage->key;

	passage->from_b = greater(src, dst);
	key->a = passage->from_b ? *dst : *src;
	key->b = passage->from_b ? *src : *dst;
	key->port_a = passage->from_b ? segment->port_dst : segment->port_src;
	key->port_b = passage->from_b ? segment->port_src : segment->port_dst;
	key->protocol = segment->protocol;
	/* both ends may ask with the same id */
	if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6)
		key->echo = passage->from_b == !!(segment->kind & L4_ANSWER) ? 1 : 2;
}

static __always_inline bool is_closed(__u32 flags)
{
	return flags & FP_FLOW_RESET || (flags & FIN_BOTH) == FIN_BOTH;
}

static __always_inline bool is_older(const struct fp_flow *flow, __u32 epoch)
{
	return (__s32)(flow->epoch - epoch) < 0;
}

static __always_inline bool by_asker(const struct passage *passage, __u32 flags)
{
	return passage->from_b == (flags & FP_FLOW_ASKED_BY_B);
}

/* The flow, unless it has ended; `assured` tells in which map it is. */
static __always_inline struct fp_flow *find_flow(const struct passage *passage, bool *assured)
{
	struct fp_flow *flow = bpf_map_lookup_elem(&flows, &passage->key);

	*assured = flow;
	if (flow) {
		if (silence(passage->now, flow->seen) <= (passage->key.protocol == IPPROTO_TCP ? IDLE_TCP : IDLE_ASSURED))
			return flow;
		*assured = false;
		if (!bpf_map_delete_elem(&flows, &passage->key))
			count_flow(FP_FLOW_COUNT_EXPIRED);
	}
	flow = bpf_map_lookup_elem(&young, &passage->key);
	return flow && silence(passage->now, flow->seen) <= IDLE_YOUNG ? flow : NULL;
}

/* Into `young`, in the place of what there may be. */
static __always_inline void make_young(const struct fp_flow_key *key, const struct fp_flow *flow)
{
	if (!bpf_map_update_elem(&young, key, flow, BPF_NOEXIST))
		count_flow(FP_FLOW_COUNT_CREATED);
	else
		bpf_map_update_elem(&young, key, flow, BPF_ANY);
}

/* Whatever happens in between, the flow is in one of the maps. */
static __always_inline void promote(const struct fp_flow_key *key, const struct fp_flow *flow)
{
	if (bpf_map_update_elem(&flows, key, flow, BPF_NOEXIST))
		return;
	bpf_map_delete_elem(&young, key);
	count_flow(FP_FLOW_COUNT_PROMOTED);
}

static __always_inline void demote(const struct fp_flow_key *key, const struct fp_flow *flow)
{
	bpf_map_update_elem(&young, key, flow, BPF_ANY);
	if (!bpf_map_delete_elem(&flows, key))
		count_flow(FP_FLOW_COUNT_CLOSED);
}

/* What this packet says about its flow. */
static __always_inline __u32 flags_after(const struct passage *passage, __u32 flags)
{
	if (!by_asker(passage, flags))
		flags |= FP_FLOW_ANSWERED;
	if (passage->kind & L4_FIN)
		flags |= passage->from_b ? FP_FLOW_FIN_B : FP_FLOW_FIN_A;
	if (passage->kind & L4_RST)
		return flags | FP_FLOW_RESET;
	return flags & ~FP_FLOW_RESET; /* nobody believed the reset: anybody can send one */
}

/* Has the flow shown that both ends are there? In TCP by the end of the handshake: the asking end has seen an answer. */
static __always_inline bool is_assured(const struct passage *passage, __u32 flags)
{
	if (!(flags & FP_FLOW_ANSWERED) || is_closed(flags))
		return false;
	return passage->key.protocol != IPPROTO_TCP || (by_asker(passage, flags) && !(passage->kind & L4_SYN));
}

/*
 * An allowed packet passes. was: the flow when it was found to be allowed, so that a revocation which comes in between
 * is not lost when the flow moves.
 */
static __always_inline void follow(const struct passage *passage, struct fp_flow *flow, struct fp_flow was,
				   bool assured)
{
	__u32 before = was.flags;

	was.flags = flags_after(passage, before);
	if (was.seen != passage->now)
		flow->seen = was.seen = passage->now;
	if (was.flags & ~before)
		__sync_fetch_and_or(&flow->flags, was.flags & ~before);
	if (before & ~was.flags)
		__sync_fetch_and_and(&flow->flags, ~(before & ~was.flags));
	if (assured && is_closed(was.flags))
		demote(&passage->key, &was);
	else if (!assured && is_assured(passage, was.flags))
		promote(&passage->key, &was);
}

/* Decide a flow again as its first packet was: in the same direction, for the same port. */
static __always_inline struct answer ask_again(const struct fp_flow_key *key, __u32 flags, __u32 epoch)
{
	bool by_b = flags & FP_FLOW_ASKED_BY_B;
	__u16 port = bpf_ntohs(by_b ? key->port_a : key->port_b);

	if (key->protocol == IPPROTO_ICMP)
		port = ICMP_ECHO << 8;
	if (key->protocol == IPPROTO_ICMPV6)
		port = ICMPV6_ECHO_REQUEST << 8;
	return ask(epoch & 1, by_b ? &key->b : &key->a, by_b ? &key->a : &key->b, asked_for(key->protocol, port));
}

/* Write what ask_again() has found; it took a while, so `flow` comes right from a lookup. */
static __always_inline void renew(struct fp_flow *flow, __u32 epoch, const struct answer *answer)
{
	if ((answer->facts & LOCAL_BOTH) == LOCAL_BOTH)
		__sync_fetch_and_or(&flow->flags, FP_FLOW_LOCAL);
	else
		__sync_fetch_and_and(&flow->flags, ~FP_FLOW_LOCAL);
	if (allows(answer)) {
		__sync_fetch_and_and(&flow->flags, ~FP_FLOW_REVOKED);
		count_flow(FP_FLOW_COUNT_ALLOWED);
	} else {
		if (!(flow->flags & FP_FLOW_REVOKED) && !is_closed(flow->flags))
			count_flow(FP_FLOW_COUNT_REVOKED);
		__sync_fetch_and_or(&flow->flags, FP_FLOW_REVOKED);
	}
	flow->rule = rule_of(answer);
	flow->epoch = epoch;
}

#endif
