/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An emulated SmartNIC: one physical function (PF), its wire, virtual functions (VFs), and the switch between them.
 *
 * A port of the switch has two netdevs. The near one belongs to the host: the PF's own, or a VF's representor. The far
 * one is what the port leads to: the wire, or the VF's own netdev. In switchdev mode a frame that enters by a far netdev
 * is looked up in the table; a miss goes to the near netdev, and what is sent on the near netdev leaves by the far one.
 */
#ifndef NIC_H
#define NIC_H

#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rhashtable.h>
#include <linux/workqueue.h>
#include <net/devlink.h>
#include <net/flow_offload.h>

#include "compat.h"

#define NIC_VENDOR	0x1234
#define NIC_DEVICE_PF	0x0f00
#define NIC_DEVICE_VF	0x0f01
#define NIC_DEVICE_PORT	0x0f02

#define NIC_MAX_VFS	64
#define NIC_CHAINS	2
#define NIC_MAX_ACTIONS	16
#define NIC_UPLINK	0	/* a port's index; VF i has index i + 1 */

struct nic;
struct nic_bridge;

/* What the table can match: the fields of a frame, or which of their bits count. Unused bytes are zero. */
struct nic_key {
	struct in6_addr src, dst;	/* an IPv4 address in the first four bytes */
	u8 eth_dst[ETH_ALEN];
	u8 eth_src[ETH_ALEN];
	__be16 eth_type;		/* behind the VLAN tag, if there is one */
	__be16 vlan_type;		/* zero: not tagged */
	__be16 vlan_tci;
	__be16 tcp_flags;
	__be16 src_port, dst_port;	/* or an ICMP type and code */
	u8 protocol, tos, ttl;
	u8 fragment;			/* NIC_FRAGMENT, NIC_FIRST_FRAGMENT */
} __aligned(4);

#define NIC_FRAGMENT		1
#define NIC_FIRST_FRAGMENT	2

enum nic_action_id {
	NIC_TO_PORT,
	NIC_COPY_TO_PORT,
	NIC_TO_HOST,
	NIC_DROP,
	NIC_GOTO,
	NIC_VLAN_PUSH,
	NIC_VLAN_POP,
	NIC_VLAN_SET,
	NIC_SET_MACS,
	NIC_SET_TTL,
	NIC_ADD_TTL,
};

struct nic_action {
	enum nic_action_id id;
	union {
		struct nic_port *port;
		struct {
			__be16 type;
			u16 tci;
		} vlan;
		struct {
			u8 value[2 * ETH_ALEN];	/* destination, source */
			u8 mask[2 * ETH_ALEN];
		} macs;
		u8 ttl;
	};
};

struct nic_counter {
	u64 packets, bytes;
	unsigned long used;	/* jiffies */
};

struct nic_flow_id {
	unsigned long cookie;
	unsigned long port;
};

struct nic_flow {
	struct rhash_head by_id;
	struct rhlist_head by_key;
	struct nic_flow_id id;
	struct nic_key key;
	struct nic_group *group;	/* NULL: the device has forgotten the rule */
	u32 prio;
	u8 chain;
	bool changes;			/* an action changes the frame */
	atomic64_t packets, bytes;
	unsigned long used;
	struct nic_counter read;	/* the last bulk read */
	struct nic_counter told;	/* what tc knows */
	struct rcu_head rcu;
	unsigned int count;
	struct nic_action actions[];
};

/* One side of the table: what comes in by a port; chain by chain a list of groups, one group for each mask. */
struct nic_port {
	struct nic *nic;
	unsigned int index;
	struct net_device __rcu *near;
	struct net_device __rcu *far;
	struct devlink_port devlink_port;
	struct device *function;	/* of a VF that has a driver */
	struct delayed_work appear;	/* of the VF's netdev */
	struct list_head groups[NIC_CHAINS];
	unsigned int rules;	/* that tc believes to be in the table */

	/* How the host wants a VF to be. */
	u8 mac[ETH_ALEN];
	bool inactive;
	bool spoof_check;
	bool trusted;
	u16 vlan;
	u8 qos;
	int link_state;
	int min_rate, max_rate;
};

struct nic_table {
	struct mutex lock;	/* of writers */
	struct rhashtable by_id;
	unsigned int rules;	/* that tc believes to be here */
	unsigned int used;	/* that are here */
	u32 size;		/* the rest: by debugfs */
	u32 insert_us;
	u32 delete_us;
	u32 fail_insert;	/* the nth insert from now on fails */
	u32 lag_ms;		/* of counters */
	bool reset_forgets;	/* a VF's reset takes its rules from the table */
	struct delayed_work read;
	/* What frames have cost: looked up, hashes of it, time. */
	atomic64_t lookups, probes, lookup_ns;
};

/* What goes wrong because somebody asked for it, by debugfs; zero is never. */
struct nic_faults {
	u32 vf_missing;		/* the probe of VF N - 1 fails */
	u32 vf_delay_ms;	/* from a VF's probe to its netdev */
	u32 unbind_ms;		/* that a VF takes to be unbound */
	u32 representor_delay_ms;	/* from a change to the representors */
	u32 fail_mode;		/* the nth change of the mode from now on fails */
	bool stale_representors;	/* they stay when the mode becomes legacy, not over a reload: devlink forbids it */
};

struct nic {
	struct pci_dev *pdev;
	struct nic_bridge *bridge;
	struct devlink *devlink;
	const struct nic_profile *profile;
	unsigned int total_vfs;
	unsigned int num_vfs;	/* under the devlink lock */
	u16 mode;
	u8 inline_mode;
	u8 encap_mode;
	u8 steering;
	struct netdev_phys_item_id switch_id;
	struct nic_table table;
	struct nic_faults faults;
	struct delayed_work late;	/* representors that come late */
	struct dentry *debugfs;
	DECLARE_BITMAP(resets, NIC_MAX_VFS + 1);
	struct work_struct reset;
	struct devlink_health_reporter *reporter;
	struct nic_port ports[NIC_MAX_VFS + 1];
};

/* main.c */
extern struct workqueue_struct *nic_workqueue;

/* pci.c */
struct nic_bridge *nic_bridge_create(unsigned int index, unsigned int vfs, const char *profile);
void nic_bridge_destroy(struct nic_bridge *bridge);
struct nic_bridge *nic_bridge_attach(struct pci_dev *pdev, struct nic *nic);
void nic_bridge_detach(struct nic_bridge *bridge);
unsigned int nic_bridge_index(const struct nic_bridge *bridge);
unsigned int nic_bridge_vfs(const struct nic_bridge *bridge);
const char *nic_bridge_profile(const struct nic_bridge *bridge);

/* driver.c */
extern struct pci_driver nic_pf_driver, nic_vf_driver;
bool nic_any_vf_bound(struct nic *nic);

/* devlink.c */
extern const struct devlink_ops nic_devlink_ops;
int nic_devlink_init(struct nic *nic);
void nic_devlink_exit(struct nic *nic);
int nic_near_register(struct nic_port *port);
void nic_near_unregister(struct nic_port *port);
void nic_uplink_switch_id(struct nic *nic, bool on);

/* eswitch.c */
int nic_eswitch_mode_set(struct nic *nic, u16 mode, struct netlink_ext_ack *extack);
void nic_eswitch_down(struct nic *nic);
int nic_eswitch_vfs_set(struct nic *nic, unsigned int vfs);
void nic_eswitch_init(struct nic *nic);
void nic_eswitch_exit(struct nic *nic);
void nic_from_far(struct nic_port *port, struct sk_buff *skb);
void nic_from_near(struct nic_port *port, struct sk_buff *skb);
void nic_to_far(struct nic_port *port, struct sk_buff *skb);
void nic_to_near(struct nic_port *port, struct sk_buff *skb);
void nic_function_reset(struct nic *nic, unsigned int index);

/* legacy.c */
void nic_legacy(struct nic_port *port, bool from_near, struct sk_buff *skb);
int nic_vf_mac(struct net_device *dev, int vf, u8 *mac);
int nic_vf_vlan(struct net_device *dev, int vf, u16 vlan, u8 qos, __be16 proto);
int nic_vf_spoofchk(struct net_device *dev, int vf, bool on);
int nic_vf_trust(struct net_device *dev, int vf, bool on);
int nic_vf_rate(struct net_device *dev, int vf, int min, int max);
int nic_vf_link_state(struct net_device *dev, int vf, int state);
int nic_vf_config(struct net_device *dev, int vf, struct ifla_vf_info *info);

/* netdev.c */
struct net_device *nic_near_create(struct nic_port *port);
struct net_device *nic_far_create(struct nic_port *port, struct device *parent);
void nic_netdev_destroy(struct net_device *dev);
struct nic_port *nic_netdev_port(const struct net_device *dev);
struct nic_port *nic_port_of(const struct nic *nic, const struct net_device *dev);
void nic_deliver(struct net_device *dev, struct sk_buff *skb);

/* parse.c */
int nic_network_offset(const struct sk_buff *skb, __be16 *type);
bool nic_parse(const struct sk_buff *skb, struct nic_key *key);

/* table.c */
int nic_table_init(struct nic_table *table);
void nic_table_exit(struct nic_table *table);
void nic_table_port_init(struct nic_port *port);
int nic_table_insert(struct nic_port *port, struct nic_flow *flow, const struct nic_key *mask,
		     struct netlink_ext_ack *extack);
int nic_table_remove(struct nic_port *port, unsigned long cookie);
struct nic_flow *nic_table_find(struct nic_port *port, unsigned long cookie);
struct nic_flow *nic_table_lookup(struct nic_port *port, unsigned int chain, const struct nic_key *key);
void nic_table_forget(struct nic *nic, const struct nic_port *port);

/* action.c */
void nic_execute(struct nic_port *port, struct sk_buff *skb);

/* flower.c */
int nic_flower(enum tc_setup_type type, void *data, void *priv);

/* counters.c */
void nic_count(struct nic_flow *flow, const struct sk_buff *skb);
void nic_counters_read(struct work_struct *work);
int nic_counters_tell(struct nic_port *port, struct flow_cls_offload *offload);

/* debugfs.c */
void nic_debugfs_create(struct nic *nic);
void nic_debugfs_init(void);
void nic_debugfs_exit(void);

/* profiles.c */
enum nic_operation {
	NIC_TO_SWITCHDEV,
	NIC_TO_LEGACY,
	NIC_SAME_MODE,
	NIC_SET_VFS,
	NIC_SET_STEERING,
};

/* The driver says that all is well, and does nothing. */
#define NIC_IGNORED 1

struct nic_profile {
	const char *name;
	const char *driver;	/* as ethtool tells it */
	bool steering;		/* has the parameter flow_steering_mode */
	const struct nic_refusal *refusals;
};

const struct nic_profile *nic_profile_find(const char *name);
int nic_profile_check(struct nic *nic, enum nic_operation operation, struct netlink_ext_ack *extack);

#endif
