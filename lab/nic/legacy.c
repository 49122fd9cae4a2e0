// SPDX-License-Identifier: GPL-2.0-only
/* The legacy mode: a learning-free switch by the MACs of PF and VFs, and what the host sets for a VF. */
#include <linux/rtnetlink.h>

#include "nic.h"

/* Does this netdev of a port take the frame; the wire takes what nobody else does. */
static bool takes(struct net_device *dev, const struct sk_buff *skb)
{
	return dev && (ether_addr_equal(dev->dev_addr, eth_hdr(skb)->h_dest) || dev->flags & IFF_PROMISC);
}

/* Give a VF a frame; in a VLAN of its own it sees that VLAN only, and without the tag. */
static void to_vf(struct nic_port *port, struct sk_buff *skb)
{
	u16 vlan = READ_ONCE(port->vlan);

	if (vlan && (!skb_vlan_tag_present(skb) || skb_vlan_tag_get_id(skb) != vlan)) {
		kfree_skb(skb);
		return;
	}
	if (vlan)
		__vlan_hwaccel_clear_tag(skb);
	nic_to_far(port, skb);
}

/* False: the frame is not allowed to leave the VF. */
static bool from_vf(struct nic_port *port, struct sk_buff *skb)
{
	u16 vlan = READ_ONCE(port->vlan);

	if (READ_ONCE(port->link_state) == IFLA_VF_LINK_STATE_DISABLE)
		return false;
	if (READ_ONCE(port->spoof_check) && !ether_addr_equal(eth_hdr(skb)->h_source, port->mac))
		return false;
	if (!vlan)
		return true;
	if (skb_vlan_tag_present(skb) || eth_type_vlan(skb->protocol))
		return false;
	__vlan_hwaccel_put_tag(skb, htons(ETH_P_8021Q), vlan | READ_ONCE(port->qos) << VLAN_PRIO_SHIFT);
	return true;
}

static void flood(struct nic *nic, struct nic_port *from, bool from_near, struct sk_buff *skb)
{
	unsigned int i;

	for (i = 1; i <= nic->total_vfs; i++) {
		struct nic_port *port = &nic->ports[i];
		struct sk_buff *copy;

		if (port == from || !rcu_access_pointer(port->far))
			continue;
		copy = skb_clone(skb, GFP_ATOMIC);
		if (copy)
			to_vf(port, copy);
	}
	if (!from_near) {
		struct sk_buff *copy = skb_clone(skb, GFP_ATOMIC);

		if (copy)
			nic_to_near(&nic->ports[NIC_UPLINK], copy);
	}
	if (from->index == NIC_UPLINK && !from_near)
		kfree_skb(skb);
	else
		nic_to_far(&nic->ports[NIC_UPLINK], skb);
}

void nic_legacy(struct nic_port *from, bool from_near, struct sk_buff *skb)
{
	struct nic_port *uplink = &from->nic->ports[NIC_UPLINK];
	unsigned int i;

	if (skb->len < ETH_HLEN || (from != uplink && !from_vf(from, skb))) {
		kfree_skb(skb);
		return;
	}
	if (is_multicast_ether_addr(eth_hdr(skb)->h_dest)) {
		flood(from->nic, from, from_near, skb);
		return;
	}
	for (i = 1; i <= from->nic->total_vfs; i++) {
		struct nic_port *port = &from->nic->ports[i];
		struct net_device *far = rcu_dereference(port->far);

		if (port != from && far && ether_addr_equal(far->dev_addr, eth_hdr(skb)->h_dest)) {
			to_vf(port, skb);
			return;
		}
	}
	if (!from_near && takes(rcu_dereference(uplink->near), skb))
		nic_to_near(uplink, skb);
	else if (from == uplink && !from_near)
		kfree_skb(skb);
	else
		nic_to_far(uplink, skb);
}

static struct nic_port *vf_port(struct net_device *dev, int vf)
{
	struct nic *nic = nic_netdev_port(dev)->nic;

	return vf >= 0 && vf < READ_ONCE(nic->num_vfs) ? &nic->ports[vf + 1] : NULL;
}

/* The VF gets it when a driver is bound the next time. */
int nic_vf_mac(struct net_device *dev, int vf, u8 *mac)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port || is_multicast_ether_addr(mac))
		return -EINVAL;
	ether_addr_copy(port->mac, mac);
	return 0;
}

int nic_vf_vlan(struct net_device *dev, int vf, u16 vlan, u8 qos, __be16 proto)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port || vlan >= VLAN_N_VID || qos > 7)
		return -EINVAL;
	if (proto != htons(ETH_P_8021Q))
		return -EPROTONOSUPPORT;
	WRITE_ONCE(port->qos, qos);
	WRITE_ONCE(port->vlan, vlan);
	return 0;
}

int nic_vf_spoofchk(struct net_device *dev, int vf, bool on)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port)
		return -EINVAL;
	WRITE_ONCE(port->spoof_check, on);
	return 0;
}

int nic_vf_trust(struct net_device *dev, int vf, bool on)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port)
		return -EINVAL;
	port->trusted = on;
	return 0;
}

/* Stored only: an emulated device is slower than any rate. */
int nic_vf_rate(struct net_device *dev, int vf, int min, int max)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port || (max && min > max))
		return -EINVAL;
	port->min_rate = min;
	port->max_rate = max;
	return 0;
}

int nic_vf_link_state(struct net_device *dev, int vf, int state)
{
	struct nic_port *port = vf_port(dev, vf);
	struct net_device *far;

	if (!port)
		return -EINVAL;
	WRITE_ONCE(port->link_state, state);
	far = rtnl_dereference(port->far);
	if (far && state == IFLA_VF_LINK_STATE_DISABLE)
		netif_carrier_off(far);
	else if (far)
		netif_carrier_on(far);
	return 0;
}

int nic_vf_config(struct net_device *dev, int vf, struct ifla_vf_info *info)
{
	struct nic_port *port = vf_port(dev, vf);

	if (!port)
		return -EINVAL;
	memset(info, 0, sizeof(*info));
	info->vf = vf;
	ether_addr_copy(info->mac, port->mac);
	info->vlan = port->vlan;
	info->qos = port->qos;
	info->vlan_proto = htons(ETH_P_8021Q);
	info->spoofchk = port->spoof_check;
	info->linkstate = port->link_state;
	info->min_tx_rate = port->min_rate;
	info->max_tx_rate = port->max_rate;
	info->trusted = port->trusted;
	return 0;
}
