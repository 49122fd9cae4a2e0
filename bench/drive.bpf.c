/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Feeds the program under test. TEST_RUN repeats on one packet, each run with what the one before left of it:
 * so before each run this restores the addresses and the TTL, and picks a destination. Then it jumps into the
 * program itself, as loaded. Jumping into `accept` instead gives the price of all that.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FIRST 0x0a800000 /* 10.128.0.0 */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} spread SEC(".maps");

static const __u8 gateway[ETH_ALEN] = { 0x0e, 0xfa, 0x57, 0x00, 0x00, 0x01 };
static const __u8 sender[ETH_ALEN] = { 0x02, 0xfa, 0x57, 0x00, 0x00, 0x11 };

/* The IPv4 header's checksum is not ours to check, so it is left as it is. */
SEC("tc")
int drive(struct __sk_buff *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	__u32 zero = 0, *count = bpf_map_lookup_elem(&spread, &zero);

	if (!count || (void *)(ip + 1) > (void *)(long)ctx->data_end)
		return TC_ACT_SHOT;
	__builtin_memcpy(eth->h_dest, gateway, ETH_ALEN);
	__builtin_memcpy(eth->h_source, sender, ETH_ALEN);
	ip->ttl = 64;
	/* The upper half of a product is a fair number below *count, without a division. */
	ip->daddr = bpf_htonl(FIRST + (__u32)(((__u64)bpf_get_prandom_u32() * *count) >> 32));
	bpf_tail_call(ctx, &targets, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int accept(struct __sk_buff *ctx)
{
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
