/* SPDX-License-Identifier: GPL-2.0-only */
/* Asks the trie of prefixes: for one address, or again and again while it changes. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "../../bpf/trie.h"

#define NONE 0xffffffff /* in the place of an identity */
#define CASES 64

struct question {
	struct fp_addr addr;
	__u32 v6;
};

/* What may be answered. */
struct choice {
	struct question question;
	__u32 one;
	__u32 other;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CASES);
	__type(key, __u32);
	__type(value, struct choice);
} choices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __noinline void count(__u32 what)
{
	__u64 *times = bpf_map_lookup_elem(&seen, &what);

	if (times)
		++*times;
}

static __always_inline bool ask_for(__u32 side, const struct question *question, struct fp_identity *found)
{
	return question->v6 ? trie_lookup(side, &question->addr, true, found) :
			      trie_lookup(side, &question->addr, false, found);
}

/* cb[0] is the side, the frame's payload the question; in cb[1] and cb[2] is what was found. */
SEC("tc")
int ask(struct __sk_buff *ctx)
{
	struct fp_identity found = { NONE, NONE };
	struct question question;
	bool is_found;

	if (bpf_skb_load_bytes(ctx, ETH_HLEN, &question, sizeof(question)))
		return TC_ACT_SHOT;
	is_found = ask_for(ctx->cb[0], &question, &found);
	ctx->cb[1] = found.peers;
	ctx->cb[2] = found.broad;
	return is_found ? TC_ACT_OK : TC_ACT_PIPE;
}

/* One of the choices, by chance: which answer was it, or neither? */
SEC("tc")
int ask_again(struct __sk_buff *ctx)
{
	struct fp_identity found = { NONE, NONE };
	__u32 which = bpf_get_prandom_u32() % CASES;
	const struct choice *choice = bpf_map_lookup_elem(&choices, &which);
	struct question question;

	if (!choice)
		return TC_ACT_SHOT;
	question = choice->question;
	ask_for(ctx->cb[0], &question, &found);
	count(found.peers == choice->one ? 0 : found.peers == choice->other ? 1 : 2);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
