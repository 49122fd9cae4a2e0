/* SPDX-License-Identifier: GPL-2.0-only */
/* A program that uses nothing. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int plain(struct __sk_buff *skb)
{
	return skb->len;
}

char LICENSE[] SEC("license") = "GPL";
