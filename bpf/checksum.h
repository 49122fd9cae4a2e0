/* SPDX-License-Identifier: GPL-2.0-only */
/* The Internet checksum. Sums are 32 bits wide and not yet folded. */
#ifndef FASTPATH_CHECKSUM_H
#define FASTPATH_CHECKSUM_H

#include <linux/in.h>
#include <linux/ipv6.h>

#include "maps.h"

#define SUM_CHUNK 32 /* a small one: the stack has 512 bytes for all callers together */
#define SUM_CHUNKS 39 /* enough for what an ICMP error may quote */

static __always_inline __u16 fold(__u64 sum)
{
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Sum of `size` bytes on the stack; a multiple of four. */
static __always_inline __u32 sum_bytes(const void *bytes, __u32 size, __u32 sum)
{
	return bpf_csum_diff(NULL, 0, (void *)bytes, size, sum);
}

/*
 * Sum of `len` bytes of the frame from `offset`; at most SUM_CHUNK * SUM_CHUNKS bytes.
 * Like other functions that are not static, the verifier looks at it once and not at each call.
 */
__noinline __u32 sum_frame(struct __sk_buff *ctx, __u32 offset, __u32 len, __u32 sum)
{
	__u64 chunk[SUM_CHUNK / 8];

	for (int i = 0; i < SUM_CHUNKS && len >= SUM_CHUNK; i++) {
		if (bpf_skb_load_bytes(ctx, offset, chunk, SUM_CHUNK))
			return sum;
		sum = sum_bytes(chunk, SUM_CHUNK, sum);
		offset += SUM_CHUNK;
		len -= SUM_CHUNK;
	}
	if (!len)
		return sum;
	/* old verifiers do not learn from the test above; the compiler, which does, must not undo this one */
	barrier_var(len);
	len = ((len - 1) & (SUM_CHUNK - 1)) + 1;
	__builtin_memset(chunk, 0, sizeof(chunk));
	if (bpf_skb_load_bytes(ctx, offset, chunk, len))
		return sum;
	return sum_bytes(chunk, SUM_CHUNK, sum);
}

/* What ICMPv6 adds to its checksum: both addresses, the length and the protocol. */
static __always_inline __u32 sum_pseudo_v6(const struct ipv6hdr *ip, __u32 len)
{
	return sum_bytes(&ip->saddr, 2 * sizeof(ip->saddr), bpf_htons(len) + bpf_htons(IPPROTO_ICMPV6));
}

#endif
