/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The prefixes of the policies: the longest one that an address is in says its identity.
 *
 * A side's trie is one array of cells, or nothing where no prefix is. A cell is an item or eight slots. An item with
 * `bits` is a node: all that is below it agrees in the first `length` bits of the address, the next `bits` say which
 * slot leads on, and its slots are in the cells behind it. An item without `bits` is a prefix. A slot has the index of
 * an item, 0 = nothing is there. The first cell is the slots in which the two families start.
 *
 * `length` and `bits` of a node add up to a multiple of four, and its bits lie in one half of the address: so a way down
 * has few steps. How it is written while packets read is told in kernel/trie_cells.py.
 */
#ifndef FASTPATH_TRIE_H
#define FASTPATH_TRIE_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define TRIE_SLOTS 8 /* of a cell */
#define TRIE_START_V4 0
#define TRIE_START_V6 1
#define TRIE_STEPS_V4 9 /* a node for each four bits, and a prefix */
#define TRIE_STEPS_V6 33

/* Host byte order; IPv4 as ::ffff:a.b.c.d, so that its lengths begin at 96. */
struct fp_trie_item {
	__u64 high;
	__u64 low;
	__u32 cover; /* prefix that holds for its whole slot, for what is not below this item; 0 = none */
	__u8 length;
	__u8 bits;
	__u16 pad;
	struct fp_identity identity; /* of a prefix */
};

/* Another meaning of cells needs another name of the map: from outside it looks the same. */
struct fp_trie_cell {
	__u32 slot[TRIE_SLOTS];
};

_Static_assert(sizeof(struct fp_trie_item) == sizeof(struct fp_trie_cell), "an item is one cell");

/* User space writes to it as memory, which the kernel refuses for maps that are read-only for programs. */
struct trie_cells {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32)); /* with types, clang would only declare them in the BTF */
	__uint(value_size, sizeof(struct fp_trie_cell));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, FP_SIDES);
	__uint(key_size, sizeof(__u32)); /* the kernel keeps no types of such a map, and forms must be the same */
	__array(values, struct trie_cells);
} tries SEC(".maps");

/*
 * Do they agree in the first `length` bits? Sums in the place of conditions here and below, because the verifier looks
 * at each way through each step. A shift by 64 would do nothing.
 */
static __always_inline bool trie_within(const struct fp_trie_item *item, __u64 high, __u64 low, bool v6)
{
	__u32 length = item->length;
	__u32 some = (length + 127) >> 7, more = (length + 63) >> 7; /* 1: beyond 0 bits, beyond 64 */

	if (!v6)
		return !((__u64)(__u32)(item->low ^ low) >> (128 - length));
	high = ((high ^ item->high) >> ((64 - length) * (1 - more) & 63)) * some;
	low = ((low ^ item->low) >> (-length & 63)) * more;
	return !(high | low);
}

/* False: no prefix has it, and `found` stays as it is. */
static __always_inline bool trie_lookup(__u32 side, const struct fp_addr *addr, bool v6, struct fp_identity *found)
{
	__u64 high = (__u64)bpf_ntohl(addr->word[0]) << 32 | bpf_ntohl(addr->word[1]);
	__u64 low = (__u64)bpf_ntohl(addr->word[2]) << 32 | bpf_ntohl(addr->word[3]);
	void *cells = bpf_map_lookup_elem(&tries, &side);
	__u32 index = 0, cover = 0, slot = v6 ? TRIE_START_V6 : TRIE_START_V4;
	const struct fp_trie_item *item;

	if (!cells)
		return false;
	for (int step = 0; step < (v6 ? TRIE_STEPS_V6 : TRIE_STEPS_V4); step++) {
		const struct fp_trie_cell *slots = bpf_map_lookup_elem(cells, &index);
		__u64 covers, word;
		bool within;

		if (!slots)
			return false;
		index = slots->slot[slot % TRIE_SLOTS];
		if (!index)
			break;
		item = bpf_map_lookup_elem(cells, &index);
		if (!item)
			return false;
		within = trie_within(item, high, low, v6);
		if (within && !item->bits) {
			*found = item->identity;
			return true;
		}
		covers = (item->cover + 0xffffffffULL) >> 32; /* 1: it has one */
		cover += (item->cover - cover) * covers;
		if (!within)
			break;
		word = v6 ? high + (low - high) * ((item->length + 64U) >> 7) : low;
		slot = word << (item->length & 63) >> (64 - item->bits);
		index += 1 + slot / TRIE_SLOTS;
	}
	if (!cover)
		return false;
	item = bpf_map_lookup_elem(cells, &cover);
	if (!item)
		return false;
	*found = item->identity;
	return true;
}

#endif
