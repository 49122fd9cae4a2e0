/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the policies say: `lookup` of module_utils/policy/tables.py, step by step.
 * A segment is asked for as its stretch (enum fp_stretch, from bit 16 on) and port.
 */
#ifndef FASTPATH_POLICY_H
#define FASTPATH_POLICY_H

#include <linux/in.h>

#include "forward.h"
#include "policy_maps.h"
#include "trie.h"

#define ASKED_STRETCH 16

/* Beside the word, in its upper half. */
#define SAID_LOCAL (1ULL << 32)      /* the end is a container of this node */
#define SAID_NODE (1ULL << 33)       /* its peer is the node itself */
#define SAID_RESTRICTED (1ULL << 34) /* policies have a say */

/* What is said about a packet, in both directions; FP_WORD_ALLOW where an end is no container of this node. */
struct answer {
	__u32 egress;
	__u32 ingress;
	__u32 facts;
};

#define LOCAL_SOURCE 1      /* the source is on this node */
#define LOCAL_DESTINATION 2
#define LOCAL_BOTH (LOCAL_SOURCE | LOCAL_DESTINATION)
#define RESTRICTED 4        /* policies have a say */

static __always_inline __u32 asked_for(__u8 protocol, __u16 port)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return FP_STRETCH_TCP << ASKED_STRETCH | port;
	case IPPROTO_UDP:
		return FP_STRETCH_UDP << ASKED_STRETCH | port;
	case IPPROTO_SCTP:
		return FP_STRETCH_SCTP << ASKED_STRETCH | port;
	case IPPROTO_ICMP:
		return FP_STRETCH_ICMP << ASKED_STRETCH | port;
	case IPPROTO_ICMPV6:
		return FP_STRETCH_ICMPV6 << ASKED_STRETCH | port;
	default:
		return FP_STRETCH_OTHER << ASKED_STRETCH;
	}
}

/* By the longest prefix; stays as it is where there is none. */
__noinline int identify_by_prefix(__u32 side, const struct fp_addr *addr, struct fp_identity *identity)
{
	if (!addr || !identity)
		return 0;
	return is_mapped(addr) ? trie_lookup(side, addr, false, identity) : trie_lookup(side, addr, true, identity);
}

static __always_inline struct fp_identity identify(const struct fp_identity_key *key)
{
	const struct fp_identity *found = bpf_map_lookup_elem(&identities, key);
	struct fp_identity identity = { FP_IDENTITY_UNKNOWN, FP_IDENTITY_UNKNOWN };

	if (found)
		return *found;
	identify_by_prefix(key->side, &key->addr, &identity);
	return identity;
}

__noinline __u32 read_page(__u32 side, __u32 page, __u32 index)
{
	struct fp_page_key key = { .page = page, .side = side };
	const struct fp_page *found = bpf_map_lookup_elem(&pages, &key);

	return found ? found->word[index % FP_PAGE] : 0;
}

/* The first entry that says something; 0 if none does. */
static __noinline __u32 match(const struct fp_row *row, __u32 side, __u32 asked)
{
	__u16 port = asked;

	for (int i = 0; i < FP_ROW; i++) {
		__u32 word = row->word[i];

		if (!word)
			return 0;
		if (row->protocol[i] != FP_STRETCH_OTHER && row->protocol[i] != asked >> ASKED_STRETCH)
			continue;
		if (port < row->low[i] || port > row->high[i])
			continue;
		if (word & FP_WORD_PAGE)
			word = read_page(side, word >> FP_WORD_NUMBER, port / FP_PAGE);
		if (word & FP_WORD_PAGE)
			word = read_page(side, word >> FP_WORD_NUMBER, port);
		if (word)
			return word;
	}
	return 0;
}

/* For the end `own` of a packet and its peer. */
__noinline __u64 word_for(__u32 side, enum fp_direction direction, const struct fp_addr *own,
			  const struct fp_addr *peer, __u32 asked)
{
	struct fp_identity_key who = { .side = side };
	struct fp_policy_key key = { .side = side };
	const struct fp_endpoint *container;
	const struct fp_subject *subject;
	const struct fp_row *row = NULL;
	struct fp_identity identity;
	__u32 place, word = 0;

	if (!own || !peer)
		return FP_WORD_ALLOW;
	who.addr = *own; /* old kernels look up what is on this function's own stack */
	container = endpoint(&who.addr);
	if (!container)
		return FP_WORD_ALLOW;
	place = (side * FP_MAX_SLOTS + container->slot) * 2 + direction;
	subject = bpf_map_lookup_elem(&subjects, &place);
	if (!subject || !(subject->flags & FP_SUBJECT_EXISTS))
		return SAID_LOCAL | FP_WORD_ALLOW;
	who.addr = *peer;
	identity = identify(&who);
	if (identity.peers == FP_IDENTITY_NODE)
		return SAID_LOCAL | SAID_NODE | FP_WORD_ALLOW;
	key.subject = subject->number;
	if (subject->flags & FP_SUBJECT_NARROW) {
		key.peers = identity.peers;
		row = bpf_map_lookup_elem(&policy, &key);
	}
	if (!row && subject->flags & FP_SUBJECT_BROAD) {
		key.peers = identity.broad;
		row = bpf_map_lookup_elem(&policy, &key);
	}
	if (row)
		word = match(row, side, asked);
	if (!word)
		word = match(&subject->row, side, asked);
	return SAID_LOCAL | SAID_RESTRICTED | word;
}

/* Ask for the first packet of a flow. */
static __always_inline struct answer ask(__u32 side, const struct fp_addr *src, const struct fp_addr *dst, __u32 asked)
{
	__u64 egress = word_for(side, FP_EGRESS, src, dst, asked);
	__u64 ingress = word_for(side, FP_INGRESS, dst, src, asked);
	struct answer answer = { .egress = egress, .ingress = ingress };

	if (egress & SAID_LOCAL || ingress & SAID_NODE)
		answer.facts |= LOCAL_SOURCE;
	if (ingress & SAID_LOCAL || egress & SAID_NODE)
		answer.facts |= LOCAL_DESTINATION;
	if ((egress | ingress) & SAID_RESTRICTED)
		answer.facts |= RESTRICTED;
	return answer;
}

static __always_inline bool allows(const struct answer *answer)
{
	return answer->egress & answer->ingress & FP_WORD_ALLOW;
}

/* The number of the word that decides. */
static __always_inline __u32 rule_of(const struct answer *answer)
{
	__u32 word = answer->egress;

	if (word & FP_WORD_ALLOW && (!(answer->ingress & FP_WORD_ALLOW) || !(word >> FP_WORD_NUMBER)))
		word = answer->ingress;
	return word >> FP_WORD_NUMBER;
}

#endif
