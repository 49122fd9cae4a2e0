/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The price of a look at the prefixes: one address of many, by chance, and then our trie, the kernel's, or nothing.
 * TEST_RUN repeats it. cb[0] is how many of the addresses take part.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "../bpf/trie.h"

#define ADDRESSES (1 << 17)
#define PREFIXES (1 << 17)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADDRESSES);
	__type(key, __u32);
	__type(value, struct fp_addr);
} addresses SEC(".maps");

struct lpm_v4 {
	__u32 length;
	__be32 addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PREFIXES);
	__type(key, struct lpm_v4);
	__type(value, struct fp_identity);
} lpm_v4 SEC(".maps");

struct lpm_v6 {
	__u32 length;
	struct fp_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PREFIXES);
	__type(key, struct lpm_v6);
	__type(value, struct fp_identity);
} lpm_v6 SEC(".maps");

struct ahead {
	__u32 turn;
	struct fp_addr addr[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ahead);
} ahead SEC(".maps");

/*
 * An address that was chosen some runs before: that of a packet is at hand before it is looked for, and another one
 * comes from memory meanwhile. The upper half of a product is a fair number below cb[0], without a division.
 */
static __always_inline bool pick(struct __sk_buff *ctx, struct fp_addr *addr)
{
	__u32 zero = 0, index = ((__u64)bpf_get_prandom_u32() * ctx->cb[0]) >> 32;
	const struct fp_addr *next = bpf_map_lookup_elem(&addresses, &index);
	struct ahead *chosen = bpf_map_lookup_elem(&ahead, &zero);
	struct fp_addr *oldest;

	if (!next || !chosen)
		return false;
	oldest = &chosen->addr[chosen->turn++ % 16];
	*addr = *oldest;
	*oldest = *next;
	return true;
}

/* What all of them return; an answer that is not used would not be looked for. */
static __always_inline int answer(__u32 peers)
{
	return peers ? TC_ACT_OK : TC_ACT_SHOT;
}

SEC("tc")
int nothing(struct __sk_buff *ctx)
{
	struct fp_addr addr;

	return answer(pick(ctx, &addr) ? addr.word[0] | addr.word[3] | 1 : 0);
}

SEC("tc")
int ours_v4(struct __sk_buff *ctx)
{
	struct fp_identity found;
	struct fp_addr addr;

	return answer(pick(ctx, &addr) && trie_lookup(0, &addr, false, &found) ? found.peers : 0);
}

SEC("tc")
int ours_v6(struct __sk_buff *ctx)
{
	struct fp_identity found;
	struct fp_addr addr;

	return answer(pick(ctx, &addr) && trie_lookup(0, &addr, true, &found) ? found.peers : 0);
}

SEC("tc")
int kernels_v4(struct __sk_buff *ctx)
{
	struct lpm_v4 key = { .length = 32 };
	const struct fp_identity *found;
	struct fp_addr addr;

	if (!pick(ctx, &addr))
		return answer(0);
	key.addr = addr.word[3];
	found = bpf_map_lookup_elem(&lpm_v4, &key);
	return answer(found ? found->peers : 0);
}

SEC("tc")
int kernels_v6(struct __sk_buff *ctx)
{
	struct lpm_v6 key = { .length = 128 };
	const struct fp_identity *found;

	if (!pick(ctx, &key.addr))
		return answer(0);
	found = bpf_map_lookup_elem(&lpm_v6, &key);
	return answer(found ? found->peers : 0);
}

char LICENSE[] SEC("license") = "GPL";
