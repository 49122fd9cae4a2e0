/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet ends: it is counted, and shown to whoever watches. */
#ifndef FASTPATH_DROPS_H
#define FASTPATH_DROPS_H

#include "limit.h"

/* What the packet was is left to the reader: here is no hurry to understand it, but each loop costs the verifier. */
static __noinline void copy_head(struct __sk_buff *ctx, struct fp_drop_event *event)
{
	__u32 len = ctx->len;

	event->len = len;
	if (len > FP_DROP_HEAD)
		len = FP_DROP_HEAD;
	/* as in sum_frame(): the same once more, so that old verifiers see it */
	barrier_var(len);
	len = ((len - 1) & (FP_DROP_HEAD - 1)) + 1;
	if (bpf_skb_load_bytes(ctx, 0, event->head, len))
		event->len = 0;
}

static __noinline void report_drop(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason, __u64 now)
{
	__u32 index = 0;
	struct fp_drop_limit *limit = bpf_map_lookup_elem(&drop_limit, &index);
	struct fp_drop_event *event = NULL;

	if (!limit)
		return;
	if (take_token(&limit->bucket, now))
		event = bpf_ringbuf_reserve(&drop_events, sizeof(*event), 0);
	if (!event) {
		limit->left_out++;
		return;
	}
	event->time_ns = now;
	event->ifindex = ctx->ifindex;
	event->rule = 0;
	event->hook = hook;
	event->reason = reason;
	copy_head(ctx, event);
	bpf_ringbuf_submit(event, 0);
}

/* Count the packet and drop it. */
__noinline int drop(struct __sk_buff *ctx, enum fp_hook hook, enum fp_drop reason)
{
	__u32 index = 0;
	__u64 *until = bpf_map_lookup_elem(&drop_watch, &index), now;

	count(&drops, reason);
	if (!until || !*until)
		return TC_ACT_SHOT;
	now = bpf_ktime_get_ns();
	if (now < *until)
		report_drop(ctx, hook, reason, now);
	return TC_ACT_SHOT;
}

#endif
