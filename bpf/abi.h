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
#define FP_EVENT_BYTES 262144  /* of events, until somebody reads them */
#define FP_EVENT_HEAD 128      /* bytes of a frame that its event shows */

#define FP_SIDES 2              /* of each table of the policies: one is asked, the other one is idle */
#define FP_MAX_IDENTITIES 524288 /* of one side, like the next ones */
#define FP_MAX_ROWS 1048576
#define FP_MAX_PAGES 8192
#define FP_ROW 8                /* entries of a row */
#define FP_PAGE 256             /* words of a page */
#define FP_MAX_RULE_COUNTS 65536 /* logged or audited rules */
#define FP_MAX_FLOWS 262144     /* that both ends have taken part in */
#define FP_MAX_YOUNG 65536      /* all others */
#define FP_MAX_FRAGMENTED 8192  /* packets of which fragments may come */

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
	__u32 flags;   /* FP_ENDPOINT_... */
};

#define FP_ENDPOINT_VF 1 /* the host end is a representor, which has no peer: what it sends comes out of the VF */

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
	__u8 gateway_mac[6];  /* of every host end but representors, and of the router device */
	__u16 pad;
	__be32 gateway_v4;          /* source of ICMP errors; 0 = none are sent */
	struct fp_addr gateway_v6;  /* same; :: = none are sent */
};

/* hooks: packets that a program has seen. */
enum fp_hook {
	FP_HOOK_FROM_CONTAINER, /* ingress of a veth's host end, or of a VF's representor */
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
	FP_DROP_SPOOFED,       /* source address or MAC is not the sender's: a container's, or on the wire this node's */
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
	FP_DROP_POLICY,        /* a policy denies it */
	FP_DROP_NO_FLOW,       /* an answer that nobody has asked for, where policies select an end */
	FP_DROP_FRAGMENT,      /* a later fragment whose first one has not passed, where policies select an end */
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
 * drop_watch: until when (bpf_ktime_get_ns) somebody reads events. Whoever does moves it on again and again;
 * without a reader no events are made.
 */

/* drop_limit: how many of them, per CPU. */
struct fp_drop_limit {
	struct fp_bucket bucket;
	__u64 left_out; /* events that were not made: too many at once, or the reader was too slow */
};

enum fp_event_kind {
	FP_EVENT_DROPPED,
	FP_EVENT_ALLOWED, /* by a rule that is logged */
	FP_EVENT_AUDITED, /* allowed, but would be dropped if the policy of an audited rule were enforced */
	FP_EVENT_MAX,
};

/* events: a packet, as it came. */
struct fp_event {
	__u64 time_ns; /* bpf_ktime_get_ns */
	__u32 ifindex; /* of the interface whose hook it was */
	__u32 rule;    /* number of the word that decided; 0 = no policy did */
	__u32 len;     /* bytes of the frame; 0 = it could not be read */
	__u8 hook;     /* enum fp_hook */
	__u8 reason;   /* enum fp_drop; of what is dropped or would be */
	__u8 kind;     /* enum fp_event_kind */
	__u8 pad;
	__u8 head[FP_EVENT_HEAD]; /* its first bytes, as many as it has */
};

/*
 * policy_state: which policies hold. User space fills the side of the tables that is idle and then changes `epoch`,
 * which a program reads once for a packet.
 */
struct fp_policy_state {
	__u32 epoch;   /* its lowest bit is the side that is asked; 0 = there never were policies */
	__u32 settled; /* the epoch under which all older flows were decided again and all sockets told; user space's */
	__u64 input;   /* digests of what was compiled and of what is in the maps; user space's */
	__u64 content;
};

/*
 * What a table says is a word: a number (from FP_WORD_NUMBER on), and flags below it. 0 = nothing is said here.
 * An ICMP message has type * 256 + code where others have a port, a protocol without ports has 0.
 */
#define FP_WORD_ALLOW 1
#define FP_WORD_LOG 2
#define FP_WORD_AUDIT 4
#define FP_WORD_PAGE 8 /* the number is a page's, which says more */
#define FP_WORD_NUMBER 4

/* What a protocol is called in a row. */
enum fp_stretch {
	FP_STRETCH_OTHER, /* in a packet: without ports; in a row: every protocol */
	FP_STRETCH_TCP,
	FP_STRETCH_UDP,
	FP_STRETCH_SCTP,
	FP_STRETCH_ICMP,
	FP_STRETCH_ICMPV6,
};

/* Entries behind the last one have the word 0. */
struct fp_row {
	__u32 word[FP_ROW];
	__u16 low[FP_ROW];  /* ports, in the machine's byte order */
	__u16 high[FP_ROW];
	__u8 protocol[FP_ROW]; /* enum fp_stretch */
};

/* identities: address -> its class. Prefixes are in another table, for addresses that are not in this one. */
struct fp_identity_key {
	struct fp_addr addr;
	__u32 side;
};

#define FP_IDENTITY_UNKNOWN 0
#define FP_IDENTITY_NODE 1 /* an address of the node itself */

struct fp_identity {
	__u32 peers; /* class */
	__u32 broad; /* class of the broad groups alone */
};

enum fp_direction {
	FP_INGRESS, /* towards the container */
	FP_EGRESS,
};

#define FP_SUBJECT_EXISTS 1 /* a policy selects it */
#define FP_SUBJECT_NARROW 2 /* there are rows for classes */
#define FP_SUBJECT_BROAD 4  /* there are rows for classes of broad groups */

/* subjects: what holds for a container; at (side * FP_MAX_SLOTS + slot) * 2 + direction. */
struct fp_subject {
	__u32 number;
	__u32 flags;
	struct fp_row row; /* for what no row of `policy` says anything about */
};

/* policy: subject, class -> struct fp_row. */
struct fp_policy_key {
	__u32 subject;
	__u32 peers;
	__u32 side;
};

/* pages: number -> words by the upper half of a port, or by the lower half. */
struct fp_page_key {
	__u32 page;
	__u32 side;
};

struct fp_page {
	__u32 word[FP_PAGE];
};

/* rule_counts: number of a word -> packets that it decided. User space makes the entries, for words that want it. */

/*
 * flows, young: what has been allowed. In `flows` are those that both ends have taken part in (TCP: after the
 * handshake) and that are open; `young` has all others, so that no flood of them pushes out what is in use.
 * a < b as numbers, so that both directions meet. An echo has its id as both ports.
 */
struct fp_flow_key {
	struct fp_addr a;
	struct fp_addr b;
	__be16 port_a;
	__be16 port_b;
	__u8 protocol;
	__u8 echo; /* 1: a asks, 2: b does; 0 of other protocols */
	__u8 pad[2];
};

#define FP_FLOW_ASKED_BY_B 1 /* else by a */
#define FP_FLOW_ANSWERED 2
#define FP_FLOW_FIN_A 4
#define FP_FLOW_FIN_B 8
#define FP_FLOW_RESET 16
#define FP_FLOW_LOCAL 32     /* both ends are on this node: none of its packets comes from the wire */
#define FP_FLOW_REVOKED 64   /* denied under `epoch` */

struct fp_flow {
	__u32 epoch; /* under which it was decided last */
	__u32 seen;  /* bpf_ktime_get_coarse_ns() >> 30, about seconds */
	__u32 flags;
	__u32 rule;  /* number of the word that decided; 0 = no policy did */
};

/*
 * flow_counts: how many were evicted is what is missing: of `flows` promoted - closed - expired - entries,
 * of `young` created + closed - promoted - entries.
 */
enum fp_flow_count {
	FP_FLOW_COUNT_CREATED,  /* entries made in young */
	FP_FLOW_COUNT_PROMOTED, /* moved to flows */
	FP_FLOW_COUNT_CLOSED,   /* moved back to young */
	FP_FLOW_COUNT_EXPIRED,  /* removed from flows, because nothing came for long */
	FP_FLOW_COUNT_ALLOWED,  /* decided again under a new epoch, and allowed */
	FP_FLOW_COUNT_REVOKED,  /* the same, and denied, while it was open */
	FP_FLOW_COUNT_MAX,
};

/* fragmented: a packet whose first fragment has passed -> what only that one tells. */
struct fp_fragment_key {
	struct fp_addr src;
	struct fp_addr dst;
	__be32 id;
	__u8 protocol; /* of IPv4; in IPv6 fragments of one packet may differ in it */
	__u8 pad[3];
};

/* What a packet is to flows and policies; a later fragment does not say it. */
struct fp_segment {
	__be16 port_src; /* as in the key of its flow */
	__be16 port_dst;
	__u16 port; /* that rows are asked for */
	__u8 protocol;
	__u8 kind; /* see l4.h */
};

struct fp_fragmented {
	struct fp_segment first;
	__u32 seen; /* as in fp_flow */
};

#endif
