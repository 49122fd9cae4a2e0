// SPDX-License-Identifier: GPL-2.0-only
/* What the device does with a frame that comes in by the wire or from a VF, in switchdev mode. */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/checksum.h>

#include "nic.h"

static int set_macs(struct sk_buff *skb, const struct nic_action *action)
{
	unsigned int i;

	if (skb_ensure_writable(skb, ETH_HLEN))
		return -ENOMEM;
	for (i = 0; i < 2 * ETH_ALEN; i++)
		skb->data[i] = (skb->data[i] & ~action->macs.mask[i]) | action->macs.value[i];
	return 0;
}

static int set_ttl(struct sk_buff *skb, const struct nic_action *action)
{
	__be16 type = 0;
	int offset = nic_network_offset(skb, &type);
	bool add = action->id == NIC_ADD_TTL;

	if (type == htons(ETH_P_IP) && !skb_ensure_writable(skb, offset + sizeof(struct iphdr))) {
		struct iphdr *ip = (struct iphdr *)(skb->data + offset);
		u8 ttl = action->ttl + (add ? ip->ttl : 0);

		csum_replace2(&ip->check, htons(ip->ttl << 8), htons(ttl << 8));
		ip->ttl = ttl;
		return 0;
	}
	if (type == htons(ETH_P_IPV6) && !skb_ensure_writable(skb, offset + sizeof(struct ipv6hdr))) {
		struct ipv6hdr *ip = (struct ipv6hdr *)(skb->data + offset);

		ip->hop_limit = action->ttl + (add ? ip->hop_limit : 0);
		return 0;
	}
	return -EINVAL;
}

static int change(struct sk_buff *skb, const struct nic_action *action)
{
	int err;

	switch (action->id) {
	case NIC_SET_MACS:
		return set_macs(skb, action);
	case NIC_SET_TTL:
	case NIC_ADD_TTL:
		return set_ttl(skb, action);
	case NIC_VLAN_POP:
		return skb_vlan_pop(skb);
	case NIC_VLAN_SET:
		if (!skb_vlan_tagged(skb))
			return 0;
		err = skb_vlan_pop(skb);
		if (err)
			return err;
		fallthrough;
	case NIC_VLAN_PUSH:
		return skb_vlan_push(skb, action->vlan.type, action->vlan.tci);
	default:
		return -EINVAL;
	}
}

static void copy_to(struct nic_port *port, const struct sk_buff *skb)
{
	/* A whole copy: the receiver keeps it while the next actions change the frame. */
	struct sk_buff *copy = skb_copy(skb, GFP_ATOMIC);

	if (copy)
		nic_to_far(port, copy);
}

/* True: the frame goes on to the next chain. Else it is consumed. */
static bool execute(struct nic_port *port, const struct nic_flow *flow, struct sk_buff *skb)
{
	const struct nic_action *action;

	for (action = flow->actions; action < flow->actions + flow->count; action++) {
		switch (action->id) {
		case NIC_GOTO:
			return true;
		case NIC_DROP:
			consume_skb(skb);
			return false;
		case NIC_TO_PORT:
			nic_to_far(action->port, skb);
			return false;
		case NIC_TO_HOST:
			nic_to_near(port, skb);
			return false;
		case NIC_COPY_TO_PORT:
			copy_to(action->port, skb);
			break;
		default:
			if (change(skb, action)) {
				kfree_skb(skb);
				return false;
			}
		}
	}
	/* Only copies were made: so ends a rule that floods, and tc's last action says what is left to do. */
	consume_skb(skb);
	return false;
}

/* Under rcu_read_lock. A miss, in whatever chain, gives the host the frame as it came. */
void nic_execute(struct nic_port *port, struct sk_buff *skb)
{
	struct sk_buff *original = NULL;
	struct nic_flow *flow;
	struct nic_key key;
	unsigned int chain;

	for (chain = 0; chain < NIC_CHAINS; chain++) {
		flow = nic_parse(skb, &key) ? nic_table_lookup(port, chain, &key) : NULL;
		if (!flow) {
			nic_to_near(port, original ?: skb);
			if (original)
				consume_skb(skb);
			return;
		}
		nic_count(flow, skb);
		if (flow->changes && flow->actions[flow->count - 1].id == NIC_GOTO)
			original = skb_copy(skb, GFP_ATOMIC);
		if (!execute(port, flow, skb))
			break;
	}
	consume_skb(original);
}
