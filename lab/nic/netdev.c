// SPDX-License-Identifier: GPL-2.0-only
/* The netdevs: near (PF, representors) and far (wire, VFs). */
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <net/pkt_cls.h>

#include "nic.h"

#define MAX_MTU 9216

struct netdev_state {
	struct nic_port *port;
};

static LIST_HEAD(block_callbacks);	/* under rtnl */

struct nic_port *nic_netdev_port(const struct net_device *dev)
{
	return ((struct netdev_state *)netdev_priv(dev))->port;
}

/* The port whose near netdev this is, NULL if it is none of this device's. */
struct nic_port *nic_port_of(const struct nic *nic, const struct net_device *dev)
{
	unsigned int i;

	for (i = 0; i <= nic->total_vfs; i++)
		if (rcu_access_pointer(nic->ports[i].near) == dev)
			return (struct nic_port *)&nic->ports[i];
	return NULL;
}

/* Hand a frame to a netdev as received; the frame is consumed. */
void nic_deliver(struct net_device *dev, struct sk_buff *skb)
{
	unsigned int length = skb->len;

	if (!dev) {
		kfree_skb(skb);
	} else if (!netif_device_present(dev)) {
		dev_core_stats_rx_dropped_inc(dev);
		kfree_skb(skb);
	} else if (dev_forward_skb(dev, skb) == NET_RX_SUCCESS) {
		dev_sw_netstats_rx_add(dev, length);
	} else {
		dev_core_stats_rx_dropped_inc(dev);
	}
}

static void prepare(struct sk_buff *skb, struct net_device *dev)
{
	dev_sw_netstats_tx_add(dev, 1, skb->len);
	skb_tx_timestamp(skb);
	skb_reset_mac_header(skb);
	skb_reset_mac_len(skb);
	if (skb->len >= ETH_HLEN && eth_proto_is_802_3(eth_hdr(skb)->h_proto))
		skb->protocol = eth_hdr(skb)->h_proto;
}

static netdev_tx_t near_xmit(struct sk_buff *skb, struct net_device *dev)
{
	prepare(skb, dev);
	rcu_read_lock();
	nic_from_near(nic_netdev_port(dev), skb);
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

static netdev_tx_t far_xmit(struct sk_buff *skb, struct net_device *dev)
{
	prepare(skb, dev);
	rcu_read_lock();
	nic_from_far(nic_netdev_port(dev), skb);
	rcu_read_unlock();
	return NETDEV_TX_OK;
}

static int init(struct net_device *dev)
{
	dev->tstats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	return dev->tstats ? 0 : -ENOMEM;
}

static void uninit(struct net_device *dev)
{
	free_percpu(dev->tstats);
}

/* The wire is plugged in while its netdev is up. */
static void wire_changed(struct net_device *dev, bool up)
{
	struct nic_port *port = nic_netdev_port(dev);
	struct net_device *near = rtnl_dereference(port->near);

	if (port->index != NIC_UPLINK || !near)
		return;
	if (up)
		netif_carrier_on(near);
	else
		netif_carrier_off(near);
}

static int far_open(struct net_device *dev)
{
	wire_changed(dev, true);
	return 0;
}

static int far_stop(struct net_device *dev)
{
	wire_changed(dev, false);
	return 0;
}

static int near_setup_tc(struct net_device *dev, enum tc_setup_type type, void *data)
{
	struct nic_port *port = nic_netdev_port(dev);
	struct flow_block_offload *block = data;

	if (type != TC_SETUP_BLOCK)
		return -EOPNOTSUPP;
	block->unlocked_driver_cb = true;
	return flow_block_cb_setup_simple(block, &block_callbacks, nic_flower, port, port, true);
}

static int near_set_features(struct net_device *dev, netdev_features_t features)
{
	if ((dev->features & ~features & NETIF_F_HW_TC) && READ_ONCE(nic_netdev_port(dev)->rules)) {
		netdev_err(dev, "there are rules in the table: hw-tc-offload stays on\n");
		return -EINVAL;
	}
	return 0;
}

#if NIC_KERNEL_BEFORE(6, 2)
static struct devlink_port *near_devlink_port(struct net_device *dev)
{
	return &nic_netdev_port(dev)->devlink_port;
}
#endif

static const struct net_device_ops uplink_ops = {
	.ndo_init = init,
	.ndo_uninit = uninit,
	.ndo_start_xmit = near_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_setup_tc = near_setup_tc,
	.ndo_set_features = near_set_features,
#if NIC_KERNEL_BEFORE(6, 2)
	.ndo_get_devlink_port = near_devlink_port,
#endif
	.ndo_set_vf_mac = nic_vf_mac,
	.ndo_set_vf_vlan = nic_vf_vlan,
	.ndo_set_vf_spoofchk = nic_vf_spoofchk,
	.ndo_set_vf_trust = nic_vf_trust,
	.ndo_set_vf_rate = nic_vf_rate,
	.ndo_set_vf_link_state = nic_vf_link_state,
	.ndo_get_vf_config = nic_vf_config,
};

static const struct net_device_ops representor_ops = {
	.ndo_init = init,
	.ndo_uninit = uninit,
	.ndo_start_xmit = near_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_setup_tc = near_setup_tc,
	.ndo_set_features = near_set_features,
#if NIC_KERNEL_BEFORE(6, 2)
	.ndo_get_devlink_port = near_devlink_port,
#endif
};

static const struct net_device_ops far_ops = {
	.ndo_init = init,
	.ndo_uninit = uninit,
	.ndo_open = far_open,
	.ndo_stop = far_stop,
	.ndo_start_xmit = far_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_set_mac_address = eth_mac_addr,
	.ndo_validate_addr = eth_validate_addr,
};

static void get_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info)
{
	struct nic *nic = nic_netdev_port(dev)->nic;
	struct device *parent = dev->dev.parent;

	strscpy(info->driver, nic->profile->driver, sizeof(info->driver));
	strscpy(info->bus_info, parent ? dev_name(parent) : "", sizeof(info->bus_info));
}

static int get_link_ksettings(struct net_device *dev, struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_100000;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_OTHER;
	settings->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

static const struct ethtool_ops ethtool_ops = {
	.get_drvinfo = get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = get_link_ksettings,
	.get_ts_info = ethtool_op_get_ts_info,
};

static struct net_device *create(struct nic_port *port, const char *name, const struct net_device_ops *ops)
{
	struct net_device *dev = alloc_netdev(sizeof(struct netdev_state), name, NET_NAME_ENUM, ether_setup);

	if (!dev)
		return NULL;
	((struct netdev_state *)netdev_priv(dev))->port = port;
	dev->netdev_ops = ops;
	dev->ethtool_ops = &ethtool_ops;
	dev->priv_flags |= IFF_LIVE_ADDR_CHANGE | IFF_NO_QUEUE;
	dev->max_mtu = MAX_MTU;
	dev->features = NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HW_CSUM | NETIF_F_GSO_SOFTWARE | NETIF_F_HIGHDMA |
			NETIF_F_HW_VLAN_CTAG_TX | NETIF_F_HW_VLAN_STAG_TX;
	dev->hw_features = dev->features;
	dev->vlan_features = dev->features & ~(NETIF_F_HW_VLAN_CTAG_TX | NETIF_F_HW_VLAN_STAG_TX);
	return dev;
}

static int publish(struct net_device *dev, struct net_device __rcu **where)
{
	int err = register_netdev(dev);

	if (err) {
		free_netdev(dev);
		return err;
	}
	rcu_assign_pointer(*where, dev);
	return 0;
}

/* The PF's netdev or a VF's representor; the port is registered with devlink. */
struct net_device *nic_near_create(struct nic_port *port)
{
	bool uplink = port->index == NIC_UPLINK;
	struct net_device *wire = uplink ? rcu_access_pointer(port->far) : NULL;
	struct net_device *dev = create(port, "eth%d", uplink ? &uplink_ops : &representor_ops);
	u8 mac[ETH_ALEN];
	int err;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	ether_addr_copy(mac, port->mac);
	if (!uplink) {
		mac[ETH_ALEN - 1] |= 0x80;
		dev->features |= NETIF_F_HW_TC;
	}
	eth_hw_addr_set(dev, mac);
	dev->hw_features |= NETIF_F_HW_TC;
	SET_NETDEV_DEV(dev, &port->nic->pdev->dev);
#if !NIC_KERNEL_BEFORE(6, 2)
	SET_NETDEV_DEVLINK_PORT(dev, &port->devlink_port);
#endif
	if (uplink && (!wire || !netif_running(wire)))
		netif_carrier_off(dev);
	err = publish(dev, &port->near);
#if NIC_KERNEL_BEFORE(6, 2)
	if (!err)
		devlink_port_type_eth_set(&port->devlink_port, dev);
#endif
	return err ? ERR_PTR(err) : dev;
}

/* The wire's netdev, which has no parent, or a VF's own. */
struct net_device *nic_far_create(struct nic_port *port, struct device *parent)
{
	struct net_device *dev;
	char name[IFNAMSIZ];
	int err;

	snprintf(name, sizeof(name), "wire%u", nic_bridge_index(port->nic->bridge));
	dev = create(port, parent ? "eth%d" : name, &far_ops);
	if (!dev)
		return ERR_PTR(-ENOMEM);
	if (parent) {
		SET_NETDEV_DEV(dev, parent);
		eth_hw_addr_set(dev, port->mac);
	} else {
		eth_hw_addr_random(dev);
	}
	err = publish(dev, &port->far);
	return err ? ERR_PTR(err) : dev;
}

void nic_netdev_destroy(struct net_device *dev)
{
	struct nic_port *port = nic_netdev_port(dev);

	if (rcu_access_pointer(port->near) == dev) {
		RCU_INIT_POINTER(port->near, NULL);
#if NIC_KERNEL_BEFORE(6, 2)
		devlink_port_type_clear(&port->devlink_port);
#endif
	} else {
		RCU_INIT_POINTER(port->far, NULL);
	}
	/* It waits for those who still see the pointer. */
	unregister_netdev(dev);
	free_netdev(dev);
}
