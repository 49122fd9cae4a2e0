/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * May a packet pass? The flow that it belongs to says so; of a first packet the policies, and each later one takes the
 * flow's word for it as long as they do not change.
 */
#ifndef FASTPATH_POLICE_H
#define FASTPATH_POLICE_H

#include "flows.h"

#define REDECIDED 4096 /* entries at a time: packets of this CPU wait meanwhile */

/* The epoch; 0 = there never were policies. A packet reads it once. */
static __always_inline __u32 current_epoch(void)
{
	__u32 index = 0;
	const struct fp_policy_state *state = bpf_map_lookup_elem(&policy_state, &index);

	return state ? *(const volatile __u32 *)&state->epoch : 0;
}

/* Count what a rule wants counted, and tell of what passes. */
static __always_inline void note(struct __sk_buff *ctx, enum fp_hook hook, __u32 word, bool passes)
{
	__u32 number = word >> FP_WORD_NUMBER;
	fp_counter *counter;

	if (!(word & (FP_WORD_LOG | FP_WORD_AUDIT)))
		return;
	counter = bpf_map_lookup_elem(&rule_counts, &number);
	if (counter)
		++*counter;
	if (passes)
		report(ctx, hook, FP_DROP_POLICY, word & FP_WORD_AUDIT ? FP_EVENT_AUDITED : FP_EVENT_ALLOWED, number);
}

/* From now on the flow is allowed. assured: the place of an old one in `flows` becomes free. */
static __always_inline void keep_flow(const struct passage *passage, const struct answer *answer, bool assured)
{
	struct fp_flow flow = { .epoch = passage->epoch, .seen = passage->now, .rule = rule_of(answer) };

	if (passage->from_b)
		flow.flags = FP_FLOW_ASKED_BY_B;
	if ((answer->facts & LOCAL_BOTH) == LOCAL_BOTH)
		flow.flags |= FP_FLOW_LOCAL;
	flow.flags = flags_after(passage, flow.flags);
	if (assured)
		demote(&passage->key, &flow);
	else
		make_young(&passage->key, &flow);
}

/* The flow that the packet belongs to; NULL: it must be asked for, and `keep` says whether it starts one. */
static __always_inline struct fp_flow *flow_of(const struct passage *passage, bool *assured, bool *keep)
{
	struct fp_flow *flow = find_flow(passage, assured);

	*keep = !(passage->kind & L4_ERROR);
	if (!flow || !(passage->kind & L4_SYN))
		return flow;
	if (is_closed(flow->flags) || flow->flags & FP_FLOW_REVOKED)
		return NULL; /* the same ports once more */
	if (by_asker(passage, flow->flags))
		return flow;
	*keep = false; /* the other end wants to open a connection of its own, which was never asked for */
	return NULL;
}

static __always_inline bool of_container(enum fp_hook hook)
{
	return hook == FP_HOOK_FROM_CONTAINER || hook == FP_HOOK_FROM_NETKIT;
}

/*
 * What an ICMP error is about: the key of the flow that it quotes. It goes back to who has sent what it quotes, and a
 * container speaks for its own flows only: it is no router. 0: it is about no flow.
 */
__noinline int quoted_flow(struct __sk_buff *ctx, __u32 offset, const struct fp_addr *teller,
			   const struct fp_addr *told, struct passage *passage)
{
	struct fp_segment segment = {};
	struct fp_addr src, dst;

	if (!teller || !told || !passage)
		return 0;
	if (is_mapped(told)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 4 ||
		    ip.frag_off & bpf_htons(IP_OFFSET))
			return 0;
		src = mapped(ip.saddr);
		dst = mapped(ip.daddr);
		segment.protocol = ip.protocol;
		offset += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.version != 6)
			return 0;
		__builtin_memcpy(&src, &ip.saddr, sizeof(src));
		__builtin_memcpy(&dst, &ip.daddr, sizeof(dst));
		segment.protocol = ip.nexthdr;
		offset += sizeof(ip);
	}
	if (!same_addr(&src, told) || (of_container(passage->hook) && !same_addr(&dst, teller)))
		return 0;
	if (!read_segment(ctx, offset, &segment, true) || segment.kind & (L4_LOOSE | L4_ERROR))
		return 0;
	set_ends(passage, &src, &dst, &segment);
	return 1;
}

/* A packet that no flow stands for. lonely: the reason why it starts none, or FP_DROP_MAX. 0: it passes. */
static __always_inline int police_first(struct __sk_buff *ctx, enum fp_hook hook, const struct answer *answer,
					enum fp_drop lonely)
{
	bool passes = allows(answer);

	if (hook == FP_HOOK_FROM_WIRE && answer->facts & LOCAL_SOURCE)
		return drop(ctx, hook, FP_DROP_SPOOFED);
	if (lonely != FP_DROP_MAX)
		return answer->facts & RESTRICTED ? drop(ctx, hook, lonely) : 0;
	note(ctx, hook, answer->egress, passes);
	note(ctx, hook, answer->ingress, passes);
	return passes ? 0 : deny(ctx, hook, FP_DROP_POLICY, rule_of(answer));
}

/*
 * A packet of a flow, or an error about it. 0: it passes. local: both ends are on this node. A flow that was decided
 * when one was not, because it has been attached since then, is decided again: nobody has asked for that one yet.
 */
static __always_inline int police_known(struct __sk_buff *ctx, const struct passage *passage, struct fp_flow *flow,
					bool assured, bool local)
{
	struct answer answer;
	struct fp_flow was;

	was.epoch = *(volatile __u32 *)&flow->epoch; /* before the flags, which are written first */
	was.flags = *(volatile __u32 *)&flow->flags;
	was.seen = flow->seen;
	was.rule = flow->rule;
	if (is_older(&was, passage->epoch) || (local && !(was.flags & FP_FLOW_LOCAL))) {
		answer = ask_again(&passage->key, was.flags, passage->epoch);
		flow = find_flow(passage, &assured);
		if (flow)
			renew(flow, passage->epoch, &answer);
		if (!allows(&answer))
			return deny(ctx, passage->hook, FP_DROP_POLICY, rule_of(&answer));
		if (!flow)
			return 0;
		was = *flow;
	} else if (was.flags & FP_FLOW_REVOKED) {
		return deny(ctx, passage->hook, FP_DROP_POLICY, was.rule);
	}
	if (passage->hook == FP_HOOK_FROM_WIRE && was.flags & FP_FLOW_LOCAL)
		return drop(ctx, passage->hook, FP_DROP_SPOOFED);
	if (!(passage->kind & L4_ERROR))
		follow(passage, flow, was, assured);
	return 0;
}

/* 0: the packet passes; else it was dropped. l3: from l3_of(). */
__noinline int police(struct __sk_buff *ctx, __u32 epoch, const struct fp_addr *src, const struct fp_addr *dst,
		      __u64 l3)
{
	enum fp_hook hook = l3 >> L3_HOOK;
	struct passage passage = { .epoch = epoch, .hook = hook };
	enum fp_drop lonely = FP_DROP_MAX;
	bool assured = false, keep = false;
	struct fp_flow *flow = NULL;
	struct answer answer;
	struct l4 l4 = {};
	int extent, result;

	if (!src || !dst)
		return 0;
	if (l3 & L3_V6 && v6_reserved(src))
		return drop(ctx, hook, FP_DROP_SPOOFED);
	passage.now = seconds();
	extent = parse_l4(ctx, l3, &l4);
	if (extent == UNREADABLE)
		return drop(ctx, hook, FP_DROP_MALFORMED);
	if (extent == LATER && !recall_fragment(src, dst, &l4, passage.now))
		lonely = FP_DROP_FRAGMENT;
	passage.kind = l4.segment.kind;
	if (passage.kind & L4_ERROR) {
		if (quoted_flow(ctx, l4.offset + ICMP_HEADER, src, dst, &passage))
			flow = flow_of(&passage, &assured, &keep);
	} else if (lonely == FP_DROP_MAX && !(passage.kind & L4_LOOSE)) {
		set_ends(&passage, src, dst, &l4.segment);
		flow = flow_of(&passage, &assured, &keep);
	}

	if (flow) {
		result = police_known(ctx, &passage, flow, assured, l3 & L3_LOCAL);
	} else {
		if (passage.kind & L4_ANSWER)
			lonely = FP_DROP_NO_FLOW;
		answer = ask(passage.epoch & 1, src, dst, asked_for(l4.segment.protocol, l4.segment.port));
		result = police_first(ctx, hook, &answer, lonely);
		if (!result && keep && lonely == FP_DROP_MAX)
			keep_flow(&passage, &answer, assured);
	}
	if (!result && extent == FIRST)
		remember_fragment(src, dst, &l4, passage.now);
	return result;
}

#endif
