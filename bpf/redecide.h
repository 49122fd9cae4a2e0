/* SPDX-License-Identifier: GPL-2.0-only */
/* What user space asks the dataplane to do, by BPF_PROG_TEST_RUN; no packet meets these programs. */
#ifndef FASTPATH_REDECIDE_H
#define FASTPATH_REDECIDE_H

#include "police.h"

struct bpf_map; /* the kernel's */

struct round {
	__u32 epoch;
	__u32 decided;
};

static long redecide_flow(struct bpf_map *map, const struct fp_flow_key *key, struct fp_flow *flow, struct round *round)
{
	struct fp_flow_key same = *key;
	struct answer answer;

	if (!is_older(flow, round->epoch))
		return 0;
	answer = ask_again(&same, flow->flags, round->epoch);
	flow = bpf_map_lookup_elem(map, &same);
	if (flow && is_older(flow, round->epoch))
		renew(flow, round->epoch, &answer);
	return ++round->decided >= REDECIDED;
}

/* Decide again what was decided under an older epoch, up to REDECIDED entries; returns how many there were. */
SEC("tc")
int redecide(struct __sk_buff *ctx)
{
	struct round round = { .epoch = current_epoch() };

	(void)ctx;
	if (round.epoch)
		bpf_for_each_map_elem(&flows, redecide_flow, &round, 0);
	if (round.epoch && round.decided < REDECIDED)
		bpf_for_each_map_elem(&young, redecide_flow, &round, 0);
	return round.decided;
}

/* Results of `asked`, in ctx->cb. */
#define ASKED_EGRESS 0  /* word */
#define ASKED_INGRESS 1
#define ASKED_FACTS 2   /* see struct answer */
#define ASKED_EXTENT 3  /* enum extent */

static __always_inline int asked_ip(struct __sk_buff *ctx, const struct packet *packet)
{
	struct answer answer;
	struct l4 l4 = {};

	ctx->cb[ASKED_EXTENT] = parse_l4(ctx, l3_of(packet, FP_HOOK_FROM_HOST), &l4);
	answer = ask(current_epoch() & 1, &packet->src, &packet->dst,
		     asked_for(l4.segment.protocol, l4.segment.port));
	ctx->cb[ASKED_EGRESS] = answer.egress;
	ctx->cb[ASKED_INGRESS] = answer.ingress;
	ctx->cb[ASKED_FACTS] = answer.facts;
	return allows(&answer) ? TC_ACT_OK : TC_ACT_SHOT;
}

/* What the policies say about a frame as the first packet of a flow. Nothing else happens. */
SEC("tc")
int asked(struct __sk_buff *ctx)
{
	struct packet packet;

	switch (ctx->protocol) {
	case bpf_htons(ETH_P_IP):
		return parse_v4(ctx, &packet) ? asked_ip(ctx, &packet) : TC_ACT_SHOT;
	case bpf_htons(ETH_P_IPV6):
		return parse_v6(ctx, &packet) ? asked_ip(ctx, &packet) : TC_ACT_SHOT;
	default:
		return TC_ACT_SHOT;
	}
}

#endif
