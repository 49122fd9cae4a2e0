/* SPDX-License-Identifier: GPL-2.0-only */
/* One of each thing that the loader handles. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef ENTRIES
#define ENTRIES 10000
#endif
#ifndef FLAGS
#define FLAGS BPF_F_NO_PREALLOC
#endif
#ifndef VALUE
#define VALUE struct pair
#endif
#ifndef KIND
#define KIND BPF_MAP_TYPE_HASH
#endif

#define TEST_PROTOCOL 0x88b5 /* for local experiments: nobody else sends it */

typedef struct {
	__u32 low;
	__u32 high;
} wide;

struct pair {
	__u32 first;
	__u8 mac[6];
	__be16 port;
	union {
		__u32 v4;
		__u8 v6[16];
	};
	wide number;
	struct pair *next;
	__u32 bits : 3;
};

struct other {
	__u32 first;
	__u8 address[6]; /* all else is as in struct pair */
	__be16 port;
	union {
		__u32 v4;
		__u8 v6[16];
	};
	wide number;
	struct pair *next;
	__u32 bits : 3;
};

enum outcome { OUTCOME_LOST = -1, OUTCOME_NONE, OUTCOME_KEPT = 7 };

struct settings {
	__u32 mark;
	__u8 mac[6];
	__u16 pad;
};

const volatile __u32 unused_before = 1;
const volatile struct settings settings = {};
const volatile __u64 step = 1;
const volatile enum outcome otherwise = OUTCOME_NONE;

struct {
	__uint(type, KIND);
	__uint(map_flags, FLAGS);
	__uint(max_entries, ENTRIES);
	__type(key, __u32);
	__type(value, VALUE);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64[2]);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, __u32);
} narrow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 100);
	__uint(key_size, 8);
	__uint(value_size, 4);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000); /* becomes 8192 */
} events SEC(".maps");

static int count(struct __sk_buff *skb, __u32 index)
{
	__u64 *counters = bpf_map_lookup_elem(&seen, &index);

	if (counters && skb->protocol == bpf_htons(TEST_PROTOCOL)) {
		counters[0] += step;
		counters[1] += skb->len;
	}
	return TC_ACT_OK;
}

SEC("tc")
int first(struct __sk_buff *skb)
{
	return count(skb, 0);
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	return count(skb, 1);
}

/* Shows what it was given: mark from .rodata, cb[0] from the context, the packet reversed, an event. */
SEC("tc")
int show(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u32 key = skb->mark;

	if (data + sizeof(*eth) > end)
		return TC_ACT_SHOT;
	for (int i = 0; i < ETH_ALEN; i++) /* a memcpy of what is not volatile would copy the zeros of above */
		eth->h_source[i] = settings.mac[i];
	bpf_ringbuf_output(&events, &key, sizeof(key), 0);
	skb->mark = settings.mark;
	skb->cb[1] = skb->cb[0] + skb->ifindex;
	if (bpf_map_lookup_elem(&entries, &key))
		return OUTCOME_KEPT;
	if (bpf_map_lookup_elem(&narrow, &key) || bpf_map_lookup_elem(&prefixes, &(__u64){key}))
		return OUTCOME_LOST;
	return otherwise;
}

char LICENSE[] SEC("license") = "GPL";
