// SPDX-License-Identifier: GPL-2.0-only
/* What the device sees of a frame. It reads as far as tc's flower classifier does, so that both decide alike. */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <net/ip.h>
#include <net/dsfield.h>
#include <net/ipv6.h>

#include "nic.h"

#define MAX_EXTENSIONS 8

static void parse_transport(const struct sk_buff *skb, int offset, struct nic_key *key)
{
	const struct tcphdr *tcp;
	struct tcphdr tcp_buffer;
	const __be16 *ports;
	__be16 buffer[2];

	switch (key->protocol) {
	case IPPROTO_TCP:
		tcp = skb_header_pointer(skb, offset, sizeof(tcp_buffer), &tcp_buffer);
		if (tcp)
			key->tcp_flags = *(const __be16 *)((const u8 *)tcp + 12) & htons(0x0fff);
		fallthrough;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		ports = skb_header_pointer(skb, offset, sizeof(buffer), buffer);
		if (!ports)
			return;
		key->src_port = ports[0];
		key->dst_port = ports[1];
		return;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		ports = skb_header_pointer(skb, offset, sizeof(buffer[0]), buffer);
		if (ports)
			key->src_port = ports[0];
		return;
	}
}

static void parse_ipv4(const struct sk_buff *skb, int offset, struct nic_key *key)
{
	const struct iphdr *ip;
	struct iphdr buffer;

	ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	if (!ip || ip->ihl < 5)
		return;
	key->src.s6_addr32[0] = ip->saddr;
	key->dst.s6_addr32[0] = ip->daddr;
	key->protocol = ip->protocol;
	key->tos = ip->tos;
	key->ttl = ip->ttl;
	if (ip->frag_off & htons(IP_MF | IP_OFFSET)) {
		key->fragment = NIC_FRAGMENT;
		if (!(ip->frag_off & htons(IP_OFFSET)))
			key->fragment |= NIC_FIRST_FRAGMENT;
		return;
	}
	parse_transport(skb, offset + ip->ihl * 4, key);
}

static void parse_ipv6(const struct sk_buff *skb, int offset, struct nic_key *key)
{
	const struct frag_hdr *extension;
	const struct ipv6hdr *ip;
	struct frag_hdr extension_buffer;
	struct ipv6hdr buffer;
	int i;

	ip = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	if (!ip)
		return;
	key->src = ip->saddr;
	key->dst = ip->daddr;
	key->tos = ipv6_get_dsfield(ip);
	key->ttl = ip->hop_limit;
	key->protocol = ip->nexthdr;
	offset += sizeof(*ip);
	for (i = 0; i < MAX_EXTENSIONS; i++) {
		bool fragment = key->protocol == NEXTHDR_FRAGMENT;

		if (!fragment && key->protocol != NEXTHDR_HOP && key->protocol != NEXTHDR_ROUTING &&
		    key->protocol != NEXTHDR_DEST)
			break;
		extension = skb_header_pointer(skb, offset, sizeof(extension_buffer), &extension_buffer);
		if (!extension)
			return;
		key->protocol = extension->nexthdr;
		if (fragment) {
			key->fragment = NIC_FRAGMENT;
			if (!(extension->frag_off & htons(IP6_OFFSET)))
				key->fragment |= NIC_FIRST_FRAGMENT;
			return;
		}
		offset += (extension->reserved + 1) * 8;	/* where other extensions have their length */
	}
	parse_transport(skb, offset, key);
}

/* Where the network header is, and its type; 0 if the frame is too short. */
int nic_network_offset(const struct sk_buff *skb, __be16 *type)
{
	int offset = offsetof(struct ethhdr, h_proto);
	const __be16 *field;
	__be16 buffer;

	field = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	if (field && !skb_vlan_tag_present(skb) && eth_type_vlan(*field)) {
		offset += VLAN_HLEN;
		field = skb_header_pointer(skb, offset, sizeof(buffer), &buffer);
	}
	if (!field)
		return 0;
	*type = *field;
	return offset + sizeof(buffer);
}

/* False if the frame has no complete Ethernet header. */
bool nic_parse(const struct sk_buff *skb, struct nic_key *key)
{
	const struct vlan_ethhdr *eth;
	struct vlan_ethhdr buffer;
	int offset;

	memset(key, 0, sizeof(*key));
	offset = nic_network_offset(skb, &key->eth_type);
	if (!offset)
		return false;
	eth = skb_header_pointer(skb, 0, offset, &buffer);
	if (!eth)
		return false;
	ether_addr_copy(key->eth_dst, eth->h_dest);
	ether_addr_copy(key->eth_src, eth->h_source);
	if (skb_vlan_tag_present(skb)) {
		key->vlan_type = skb->vlan_proto;
		key->vlan_tci = htons(skb_vlan_tag_get(skb));
	} else if (offset > ETH_HLEN) {
		key->vlan_type = eth->h_vlan_proto;
		key->vlan_tci = eth->h_vlan_TCI;
	}
	if (key->eth_type == htons(ETH_P_IP))
		parse_ipv4(skb, offset, key);
	else if (key->eth_type == htons(ETH_P_IPV6))
		parse_ipv6(skb, offset, key);
	return true;
}
