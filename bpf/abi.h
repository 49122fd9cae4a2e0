/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the dataplane and user space share: keys, values and counters of the maps.
 * When programs of another version take over, maps that changed are carried over member by member, by name. So a
 * member with another meaning needs another name, enumerators are only ever appended, and bit fields are not used.
 */
#ifndef FASTPATH_ABI_H
#define FASTPATH_ABI_H

#include <linux/types.h>

#define FP_MAX_ENDPOINTS 65536 /* addresses, one key each */
#define FP_MAX_SLOTS 4096      /* attachments, one row of statistics each */
#define FP_MAX_MOVES 64        /* ends of containers that are moving */
#define FP_DROP_BYTES 262144   /* of events, until somebody reads them */
#define FP_DROP_HEAD 128       /* bytes of a dropped frame that its event shows */

/* Only grows. Of a map of nothing else the old and the new version's are added up; all other maps are copied. */
typedef __u64 fp_counter;

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d; network byte order. */
struct fp_addr {
	__be32 word[4];
};

/* endpoints: address -> the attachment that owns it. */
struct fp_endpoint {
	__u32 ifindex; /* of the host end */
	__u32 slot;    /* row in endpoint_stats */
	__u8 mac[6];   /* of the container end */
	__u16 mtu;     /* bytes of an IP packet that the container end accepts */
};

/*
 * moves: ifindex of a host end -> ifindex of the one that the same container's addresses are published with.
 * A container that moves from one link to another has both for a while, and may send on either.
 */

/* endpoint_stats: rx is towards the container; a GSO packet counts once, with all its bytes. */
struct fp_endpoint_stats {
	fp_counter rx_packets;
	fp_counter rx_bytes; /* of frames, link-layer header included */
	fp_counter tx_packets;
	fp_counter tx_bytes;
};

/* .rodata "config": written once, before the programs are loaded. */
struct fp_config {
	__u32 router_ifindex; /* the device behind which the host sees all containers */
	__u8 gateway_mac[6];  /* of every host end and of the router device */
	__u16 pad;
	__be32 gateway_v4;          /* source of ICMP errors; 0 = none are sent */
	struct fp_addr gateway_v6;  /* same; :: = none are sent */
};

/* hooks: packets that a program has seen. */
enum fp_hook {
	FP_HOOK_FROM_CONTAINER, /* ingress of a veth's host end */
	FP_HOOK_FROM_WIRE,      /* ingress of an uplink */
	FP_HOOK_FROM_HOST,      /* egress of the router device */
	FP_HOOK_FROM_NETKIT,    /* a netkit's peer, where the container sends */
	FP_HOOK_MAX,
};

/* drops: packets that ended here, by the reason. */
enum fp_drop {
	FP_DROP_MALFORMED,     /* truncated, or version or lengths in the IP or ARP header are wrong */
	FP_DROP_NOT_IP,        /* neither IPv4, IPv6 nor ARP */
	FP_DROP_VLAN,          /* a container sent a VLAN tag */
	FP_DROP_WRONG_MAC,     /* a container sent to a MAC that is not the gateway's */
	FP_DROP_SPOOFED,       /* source address or MAC is not the sending container's */
	FP_DROP_MULTICAST,     /* multicast or broadcast, which is not forwarded */
	FP_DROP_LINK_LOCAL,    /* link-local source or destination, which is not forwarded */
	FP_DROP_MARTIAN,       /* destination that no router forwards: 0/8, 127/8, 240/4, ::/64 */
	FP_DROP_ARP,           /* ARP that needs no answer: a probe of an own address, a reply */
	FP_DROP_NDISC,         /* neighbour discovery that needs no answer: own address, advertisement */
	FP_DROP_TO_SELF,       /* a container sent to one of its own addresses */
	FP_DROP_TTL,           /* TTL or hop limit ran out; ICMP time exceeded */
	FP_DROP_TOO_BIG,       /* bigger than the next MTU; ICMP fragmentation needed or packet too big */
	FP_DROP_NO_ENDPOINT,   /* inside the node's prefixes, but no attachment; ICMP host unreachable */
	FP_DROP_BLACKHOLE,     /* a blackhole route */
	FP_DROP_UNREACHABLE,   /* an unreachable route; ICMP unreachable */
	FP_DROP_PROHIBITED,    /* a prohibit route; ICMP administratively prohibited */
	FP_DROP_NO_FORWARDING, /* forwarding is off on the router device, or the route needs a tunnel */
	FP_DROP_INTERNAL,      /* out of memory while a packet was changed */
	FP_DROP_MAX,
};

/* replies: packets that the dataplane itself wrote. */
enum fp_reply {
	FP_REPLY_ARP,
	FP_REPLY_NDISC,
	FP_REPLY_ICMP_ERROR,
	FP_REPLY_ICMP_LIMITED, /* an ICMP error not sent because of the rate limit */
	FP_REPLY_MAX,
};

/* icmp_bucket: one token bucket per CPU, kept as nanoseconds of credit. */
struct fp_bucket {
	__u64 last_ns;
	__u64 credit_ns;
};

/*
 * drop_watch: until when (bpf_ktime_get_ns) somebody reads drop_events. Whoever does moves it on again and again;
 * without a reader no events are made.
 */

/* drop_limit: how many of them, per CPU. */
struct fp_drop_limit {
	struct fp_bucket bucket;
	__u64 left_out; /* drops without an event: too many at once, or the reader was too slow */
};

/* drop_events: a dropped packet, as it was. */
struct fp_drop_event {
	__u64 time_ns; /* bpf_ktime_get_ns */
	__u32 ifindex; /* of the interface whose hook it was */
	__u32 rule;    /* of the policy that denies it; 0 = none */
	__u32 len;     /* bytes of the frame; 0 = it could not be read */
	__u16 hook;    /* enum fp_hook */
	__u16 reason;  /* enum fp_drop */
	__u8 head[FP_DROP_HEAD]; /* its first bytes, as many as it has */
};

#endif
