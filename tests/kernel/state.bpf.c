/* SPDX-License-Identifier: GPL-2.0-only */
/* Maps of each kind whose entries are carried over to another version's; VERSION 2 has others of the same names. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#ifndef VERSION
#define VERSION 1
#endif

typedef __u64 fp_counter;

struct place {
	__u32 net;
	__u32 host;
};

#if VERSION == 1
struct key {
	__u16 port;
	struct place place;
};

struct value {
	__u32 small;
	__s16 negative;
	__u8 name[4];
	__u32 dropped;
	__u16 row[2];
	struct place place;
};

struct counts {
	fp_counter packets;
	fp_counter bytes;
};

#define ENTRIES 8
#define SLOTS 2
#else
struct key {
	struct place place;
	__u32 port;
	__u32 more;
};

struct value {
	struct place place;
	__u8 name[6];
	__s64 negative;
	__u64 added;
	__u64 small;
	__u32 row[3];
};

struct counts {
	fp_counter errors;
	fp_counter bytes;
	fp_counter packets;
};

#define ENTRIES 16
#define SLOTS 3
#endif

struct prefix {
	__u32 length;
	__u8 address[4];
};

#ifdef BITS
struct flags {
	__u32 first : VERSION;
};
#else
struct flags {
	__u32 first;
};
#endif

#define MAP(name, map_type, entries, key_type, value_type, flags)  \
	struct {                                                   \
		__uint(type, map_type);                            \
		__uint(map_flags, flags);                          \
		__uint(max_entries, entries);                      \
		__type(key, key_type);                             \
		__type(value, value_type);                         \
	} name SEC(".maps")

MAP(table, BPF_MAP_TYPE_HASH, ENTRIES, struct key, struct value, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
MAP(flows, BPF_MAP_TYPE_LRU_HASH, 64 * VERSION, struct key, struct value, 0);
MAP(each, BPF_MAP_TYPE_PERCPU_HASH, ENTRIES, __u32, struct value, 0);
MAP(prefixes, BPF_MAP_TYPE_LPM_TRIE, ENTRIES, struct prefix, struct value, BPF_F_NO_PREALLOC);
MAP(array, BPF_MAP_TYPE_ARRAY, SLOTS, __u32, struct value, 0);
MAP(counted, BPF_MAP_TYPE_PERCPU_ARRAY, SLOTS, __u32, struct counts, 0);
MAP(same, BPF_MAP_TYPE_HASH, 4, __u32, struct flags, 0);
#ifdef KIND
MAP(special, KIND, SLOTS, __u32, __u32, 0);
#endif

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096 * VERSION);
} events SEC(".maps");

SEC("tc")
int user(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct counts *counts = bpf_map_lookup_elem(&counted, &zero);

	if (counts)
		counts->packets += ctx->len;
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
