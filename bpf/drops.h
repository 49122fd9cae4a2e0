/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet ends: it is counted; and what whoever watches is shown. */
#ifndef FASTPATH_DROPS_H
#define FASTPATH_DROPS_H

#include "limit.h"

/* What the packet was is left to the reader: here is no hurry to understand it, but each loop costs the verifier. */
static __noinline void copy_head(struct __sk_buff *ctx, struct fp_event *event)
{
	__u32 len = ctx->len;

	event->len = len;
	if (len > FP_EVENT_HEAD)
		len = FP_EVENT_HEAD;
	/* as in sum_frame(): the same once more, so that old verifiers see it */
	barrier_var(len);
	len = ((len - 1) & (FP_EVENT_HEAD - 1)) + 1;
	if (bpf_skb_load_bytes(ctx, 0, event->head, len))
		event->len = 0;
}

/* Tell whoever watches. rule: number of the word that decided, or 0. */
__noinline int report(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, enum fp_event_kind kind,
		      __u32 rule)
{
	__u32 index = 0;
	struct fp_drop_limit *limit = bpf_map_lookup_elem(&drop_limit, &index);
	__u64 *until = bpf_map_lookup_elem(&drop_watch, &index), now;
	struct fp_event *event = NULL;

	if (!limit || !until || !*until)
		return 0;
	now = bpf_ktime_get_ns();
	if (now >= *until)
		return 0;
	if (take_token(&limit->bucket, now))
		event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		limit->left_out++;
		return 0;
	}
	event->time_ns = now;
	event->ifindex = ctx->ifindex;
	event->rule = rule;
	event->hook = hook;
	event->reason = reason;
	event->kind = kind;
	event->pad = 0;
	copy_head(ctx, event);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Count the packet and drop it. rule: as in report(). */
__noinline int deny(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, __u32 rule)
{
	count(&drops, reason);
	report(ctx, hook, reason, FP_EVENT_DROPPED, rule);
	return TC_ACT_SHOT;
}

/* The same where no policy is behind it. */
static __always_inline int drop(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason)
{
	return deny(ctx, hook, reason, 0);
}

#endif
