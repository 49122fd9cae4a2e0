/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads a packet without looking where it ends: the verifier refuses it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fresh SEC(".maps");

SEC("tc")
int careless(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	__u32 key = 0;

	bpf_map_lookup_elem(&fresh, &key);
	return data[100];
}

char LICENSE[] SEC("license") = "GPL";
