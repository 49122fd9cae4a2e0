/* SPDX-License-Identifier: GPL-2.0-only */
/* A program that says when it begins, runs for a while and says when it ends. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WHILE_NS 200000000

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} said SEC(".maps");

static long step(__u32 index, __u64 *end)
{
	return bpf_ktime_get_ns() > *end;
}

SEC("tc")
int slow(struct __sk_buff *skb)
{
	__u64 end = bpf_ktime_get_ns() + WHILE_NS;
	__u32 zero = 0, *phase = bpf_map_lookup_elem(&said, &zero);

	if (!phase)
		return 0;
	*phase = 1;
	bpf_loop(1 << 23, step, &end, 0);
	*phase = 2;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
