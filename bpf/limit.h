/* SPDX-License-Identifier: GPL-2.0-only */
/* A rate limit: a token bucket for each CPU. */
#ifndef FASTPATH_LIMIT_H
#define FASTPATH_LIMIT_H

#include "maps.h"

#define TOKEN_NS 1000000ULL /* 1000 a second and CPU, */
#define BURST 50            /* after a pause this many at once */

/* False when there is no token left. */
static __always_inline bool take_token(struct fp_bucket *bucket, __u64 now)
{
	__u64 credit = bucket->credit_ns + (now - bucket->last_ns);

	if (credit > BURST * TOKEN_NS)
		credit = BURST * TOKEN_NS;
	bucket->last_ns = now;
	bucket->credit_ns = credit;
	if (credit < TOKEN_NS)
		return false;
	bucket->credit_ns = credit - TOKEN_NS;
	return true;
}

#endif
