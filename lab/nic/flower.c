// SPDX-License-Identifier: GPL-2.0-only
/* Rules of tc's flower classifier: what the device can do becomes an entry of the table, the rest is refused. */
#include <linux/tc_act/tc_csum.h>
#include <net/pkt_cls.h>

#include "nic.h"

#define KEY(name) BIT_ULL(FLOW_DISSECTOR_KEY_##name)

static const u64 supported_keys =
	KEY(CONTROL) | KEY(BASIC) | KEY(ETH_ADDRS) | KEY(VLAN) | KEY(IPV4_ADDRS) | KEY(IPV6_ADDRS) | KEY(PORTS) | KEY(TCP) |
	KEY(IP) | KEY(ICMP);

/* A field of a rule: what of it counts into the mask, its value into the key. */
#define SET(field, from, to) do {					\
		mask->to = (from).mask->field;				\
		key->to = (from).key->field & (from).mask->field;	\
	} while (0)

static void set_bytes(u8 *to, u8 *to_mask, const u8 *key, const u8 *mask, unsigned int length)
{
	unsigned int i;

	for (i = 0; i < length; i++) {
		to_mask[i] = mask[i];
		to[i] = key[i] & mask[i];
	}
}

static void match_ethernet(struct flow_cls_offload *offload, struct nic_key *key, struct nic_key *mask)
{
	struct flow_match_eth_addrs addresses;
	struct flow_match_basic basic;
	struct flow_match_vlan vlan;

	if (flow_rule_match_key(offload->rule, FLOW_DISSECTOR_KEY_ETH_ADDRS)) {
		flow_rule_match_eth_addrs(offload->rule, &addresses);
		set_bytes(key->eth_dst, mask->eth_dst, addresses.key->dst, addresses.mask->dst, ETH_ALEN);
		set_bytes(key->eth_src, mask->eth_src, addresses.key->src, addresses.mask->src, ETH_ALEN);
	}
	if (flow_rule_match_key(offload->rule, FLOW_DISSECTOR_KEY_BASIC)) {
		flow_rule_match_basic(offload->rule, &basic);
		SET(n_proto, basic, eth_type);
		SET(ip_proto, basic, protocol);
	}
	if (offload->common.protocol == htons(ETH_P_ALL))
		return;
	/* The protocol that tc itself compares is that of the outermost tag. */
	mask->vlan_type = htons(0xffff);
	if (flow_rule_match_key(offload->rule, FLOW_DISSECTOR_KEY_VLAN)) {
		flow_rule_match_vlan(offload->rule, &vlan);
		key->vlan_type = offload->common.protocol;
		mask->vlan_tci = htons(vlan.mask->vlan_id | vlan.mask->vlan_priority << VLAN_PRIO_SHIFT);
		key->vlan_tci = htons(vlan.key->vlan_id | vlan.key->vlan_priority << VLAN_PRIO_SHIFT) & mask->vlan_tci;
	} else {
		mask->eth_type = htons(0xffff);
		key->eth_type = offload->common.protocol;
	}
}

static void match_addresses(struct flow_rule *rule, u16 type, struct nic_key *key, struct nic_key *mask)
{
	struct flow_match_ipv4_addrs ipv4;
	struct flow_match_ipv6_addrs ipv6;

	if (type == FLOW_DISSECTOR_KEY_IPV4_ADDRS) {
		flow_rule_match_ipv4_addrs(rule, &ipv4);
		SET(src, ipv4, src.s6_addr32[0]);
		SET(dst, ipv4, dst.s6_addr32[0]);
	} else if (type == FLOW_DISSECTOR_KEY_IPV6_ADDRS) {
		flow_rule_match_ipv6_addrs(rule, &ipv6);
		set_bytes(key->src.s6_addr, mask->src.s6_addr, ipv6.key->src.s6_addr, ipv6.mask->src.s6_addr, 16);
		set_bytes(key->dst.s6_addr, mask->dst.s6_addr, ipv6.key->dst.s6_addr, ipv6.mask->dst.s6_addr, 16);
	}
}

/* IPv4 and IPv6 addresses share their memory: only the address type tells which are meant. */
static int match_control(struct flow_rule *rule, struct nic_key *key, struct nic_key *mask,
			 struct netlink_ext_ack *extack)
{
	struct flow_match_control control;
	u32 bits;

	if (!flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_CONTROL))
		return 0;
	flow_rule_match_control(rule, &control);
	match_addresses(rule, control.key->addr_type, key, mask);
	bits = control.mask->flags;
	if (bits & ~(u32)(FLOW_DIS_IS_FRAGMENT | FLOW_DIS_FIRST_FRAG)) {
		NL_SET_ERR_MSG_MOD(extack, "Of the control flags only those of fragments can be matched");
		return -EOPNOTSUPP;
	}
	if (bits & FLOW_DIS_IS_FRAGMENT)
		mask->fragment |= NIC_FRAGMENT;
	if (bits & FLOW_DIS_FIRST_FRAG)
		mask->fragment |= NIC_FIRST_FRAGMENT;
	if (control.key->flags & bits & FLOW_DIS_IS_FRAGMENT)
		key->fragment |= NIC_FRAGMENT;
	if (control.key->flags & bits & FLOW_DIS_FIRST_FRAG)
		key->fragment |= NIC_FIRST_FRAGMENT;
	return 0;
}

static void match_transport(struct flow_rule *rule, struct nic_key *key, struct nic_key *mask)
{
	struct flow_match_ports ports;
	struct flow_match_icmp icmp;
	struct flow_match_tcp tcp;
	struct flow_match_ip ip;

	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_PORTS)) {
		flow_rule_match_ports(rule, &ports);
		SET(src, ports, src_port);
		SET(dst, ports, dst_port);
	}
	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_ICMP)) {
		flow_rule_match_icmp(rule, &icmp);
		mask->src_port = htons(icmp.mask->type << 8 | icmp.mask->code);
		key->src_port = htons(icmp.key->type << 8 | icmp.key->code) & mask->src_port;
	}
	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_TCP)) {
		flow_rule_match_tcp(rule, &tcp);
		SET(flags, tcp, tcp_flags);
	}
	if (flow_rule_match_key(rule, FLOW_DISSECTOR_KEY_IP)) {
		flow_rule_match_ip(rule, &ip);
		SET(tos, ip, tos);
		SET(ttl, ip, ttl);
	}
}

static int parse_match(struct flow_cls_offload *offload, struct nic_key *key, struct nic_key *mask)
{
	struct netlink_ext_ack *extack = offload->common.extack;
	int err;

	if (offload->rule->match.dissector->used_keys & ~supported_keys) {
		NL_SET_ERR_MSG_MOD(extack, "The device cannot match one of these keys");
		return -EOPNOTSUPP;
	}
	match_ethernet(offload, key, mask);
	err = match_control(offload->rule, key, mask, extack);
	if (err)
		return err;
	match_transport(offload->rule, key, mask);
	return 0;
}

/* tc gives one action for each 32 bits that change; the bits that its mask has are those that stay. */
static int parse_mangle(const struct flow_action_entry *entry, struct nic_flow *flow, struct netlink_ext_ack *extack)
{
	struct nic_action *action = &flow->actions[flow->count];
	u32 changed = ~entry->mangle.mask, value = entry->mangle.val & changed;
	u8 *bytes = (u8 *)&changed;
	bool add = entry->id == FLOW_ACTION_ADD;
	int ttl = -1;

	flow->changes = true;
	switch (entry->mangle.htype) {
	case FLOW_ACT_MANGLE_HDR_TYPE_ETH:
		if (add || entry->mangle.offset > 2 * ETH_ALEN - sizeof(u32))
			break;
		if (flow->count && action[-1].id == NIC_SET_MACS)
			action--;
		else
			flow->count++;
		action->id = NIC_SET_MACS;
		for (ttl = 0; ttl < sizeof(u32); ttl++) {
			action->macs.mask[entry->mangle.offset + ttl] |= bytes[ttl];
			action->macs.value[entry->mangle.offset + ttl] |= ((u8 *)&value)[ttl];
		}
		return 0;
	case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
		if (entry->mangle.offset == 8 && changed == (u32 __force)htonl(0xff000000))
			ttl = ((u8 *)&value)[0];
		break;
	case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
		if (entry->mangle.offset == 4 && changed == (u32 __force)htonl(0x000000ff))
			ttl = ((u8 *)&value)[3];
		break;
	default:
		break;
	}
	if (ttl < 0) {
		NL_SET_ERR_MSG_MOD(extack, "Only MACs and the TTL can be changed");
		return -EOPNOTSUPP;
	}
	action->id = add ? NIC_ADD_TTL : NIC_SET_TTL;
	action->ttl = ttl;
	flow->count++;
	return 0;
}

static int parse_output(struct nic *nic, const struct flow_action_entry *entry, struct nic_action *action,
			struct netlink_ext_ack *extack)
{
	action->id = entry->id == FLOW_ACTION_REDIRECT ? NIC_TO_PORT : NIC_COPY_TO_PORT;
	action->port = nic_port_of(nic, entry->dev);
	if (!action->port) {
		NL_SET_ERR_MSG_MOD(extack, "The output is not a port of this device");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int parse_vlan(const struct flow_action_entry *entry, struct nic_flow *flow, struct nic_action *action)
{
	flow->changes = true;
	if (entry->id == FLOW_ACTION_VLAN_POP) {
		action->id = NIC_VLAN_POP;
		return 0;
	}
	action->id = entry->id == FLOW_ACTION_VLAN_PUSH ? NIC_VLAN_PUSH : NIC_VLAN_SET;
	action->vlan.type = entry->vlan.proto;
	action->vlan.tci = entry->vlan.vid | entry->vlan.prio << VLAN_PRIO_SHIFT;
	return 0;
}

static int parse_goto(const struct flow_action_entry *entry, struct nic_flow *flow, struct nic_action *action,
		      struct netlink_ext_ack *extack)
{
	action->id = NIC_GOTO;
	if (flow->chain || entry->chain_index != 1) {
		NL_SET_ERR_MSG_MOD(extack, "Only from chain 0 to chain 1 can a frame go on");
		return -EOPNOTSUPP;
	}
	return 0;
}

static int parse_action(struct nic *nic, const struct flow_action_entry *entry, struct nic_flow *flow,
			struct netlink_ext_ack *extack)
{
	struct nic_action *action = &flow->actions[flow->count];

	switch (entry->id) {
	case FLOW_ACTION_MANGLE:
	case FLOW_ACTION_ADD:
		return parse_mangle(entry, flow, extack);
	case FLOW_ACTION_CSUM:
		/* The device corrects the IPv4 checksum by itself; nothing that it changes is in another one. */
		return 0;
	default:
		break;
	}
	flow->count++;
	switch (entry->id) {
	case FLOW_ACTION_DROP:
		action->id = NIC_DROP;
		return 0;
	case FLOW_ACTION_ACCEPT:
	case FLOW_ACTION_TRAP:
		action->id = NIC_TO_HOST;
		return 0;
	case FLOW_ACTION_REDIRECT:
	case FLOW_ACTION_MIRRED:
		return parse_output(nic, entry, action, extack);
	case FLOW_ACTION_GOTO:
		return parse_goto(entry, flow, action, extack);
	case FLOW_ACTION_VLAN_PUSH:
	case FLOW_ACTION_VLAN_POP:
	case FLOW_ACTION_VLAN_MANGLE:
		return parse_vlan(entry, flow, action);
	default:
		NL_SET_ERR_MSG_MOD(extack, "The device cannot do one of these actions");
		return -EOPNOTSUPP;
	}
}

static int parse_actions(struct nic *nic, const struct flow_action *actions, struct nic_flow *flow,
			 struct netlink_ext_ack *extack)
{
	const struct flow_action_entry *entry;
	int i, err;

	if (!flow_action_has_entries(actions)) {
		NL_SET_ERR_MSG_MOD(extack, "A rule needs an action");
		return -EOPNOTSUPP;
	}
	if (!flow_action_hw_stats_check(actions, extack, FLOW_ACTION_HW_STATS_DELAYED_BIT))
		return -EOPNOTSUPP;
	flow_action_for_each(i, entry, actions) {
		err = parse_action(nic, entry, flow, extack);
		if (err)
			return err;
	}
	return 0;
}

static int replace(struct nic_port *port, struct flow_cls_offload *offload)
{
	struct netlink_ext_ack *extack = offload->common.extack;
	struct nic_key mask = {};
	struct nic_flow *flow;
	int err;

	if (offload->common.chain_index >= NIC_CHAINS) {
		NL_SET_ERR_MSG_MOD(extack, "Only the chains 0 and 1 are there");
		return -EOPNOTSUPP;
	}
	flow = kzalloc(struct_size(flow, actions, offload->rule->action.num_entries), GFP_KERNEL);
	if (!flow)
		return -ENOMEM;
	flow->id.cookie = offload->cookie;
	flow->id.port = port->index;
	flow->prio = offload->common.prio;
	flow->chain = offload->common.chain_index;
	flow->used = jiffies;
	err = parse_match(offload, &flow->key, &mask);
	if (!err)
		err = parse_actions(port->nic, &offload->rule->action, flow, extack);
	if (!err)
		err = nic_table_insert(port, flow, &mask, extack);
	if (err)
		kfree(flow);
	return err;
}

int nic_flower(enum tc_setup_type type, void *data, void *priv)
{
	struct flow_cls_offload *offload = data;
	struct nic_port *port = priv;
	struct net_device *near = rcu_access_pointer(port->near);

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	switch (offload->command) {
	case FLOW_CLS_REPLACE:
		if (!near || !tc_can_offload_extack(near, offload->common.extack))
			return -EOPNOTSUPP;
		return replace(port, offload);
	case FLOW_CLS_DESTROY:
		return nic_table_remove(port, offload->cookie);
	case FLOW_CLS_STATS:
		return nic_counters_tell(port, offload);
	default:
		return -EOPNOTSUPP;
	}
}
