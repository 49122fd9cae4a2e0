/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps of policies and flows. The side is part of each key of the tables: there is one map of each. */
#ifndef FASTPATH_POLICY_MAPS_H
#define FASTPATH_POLICY_MAPS_H

#include "maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fp_policy_state);
} policy_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_SIDES * FP_MAX_IDENTITIES);
	__type(key, struct fp_identity_key);
	__type(value, struct fp_identity);
} identities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_SIDES * FP_MAX_SLOTS * 2);
	__type(key, __u32);
	__type(value, struct fp_subject);
} subjects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_SIDES * FP_MAX_ROWS);
	__type(key, struct fp_policy_key);
	__type(value, struct fp_row);
} policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(max_entries, FP_SIDES * FP_MAX_PAGES);
	__type(key, struct fp_page_key);
	__type(value, struct fp_page);
} pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FP_SIDES * FP_MAX_RULE_COUNTS);
	__type(key, __u32);
	__type(value, fp_counter);
} rule_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FP_MAX_FLOWS);
	__type(key, struct fp_flow_key);
	__type(value, struct fp_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FP_MAX_YOUNG);
	__type(key, struct fp_flow_key);
	__type(value, struct fp_flow);
} young SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FP_FLOW_COUNT_MAX);
	__type(key, __u32);
	__type(value, fp_counter);
} flow_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FP_MAX_FRAGMENTED);
	__type(key, struct fp_fragment_key);
	__type(value, struct fp_fragmented);
} fragmented SEC(".maps");

#endif
