// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table: for each port and chain a list of groups, one group for each mask, in each a hash table of masked keys.
 *
 * A lookup costs one hash for each mask in use, however many rules there are. Of rules that match, the one of the lowest
 * priority number wins; of the same number, that of the older group: so does tc.
 */
#include "nic.h"

struct nic_group {
	struct list_head list;
	struct nic_key mask;
	struct rhltable flows;
	unsigned int count;
	u32 best;		/* no rule here has a lower priority number */
	struct rcu_work free;
};

static const struct rhashtable_params by_id_params = {
	.head_offset = offsetof(struct nic_flow, by_id),
	.key_offset = offsetof(struct nic_flow, id),
	.key_len = sizeof(struct nic_flow_id),
	.automatic_shrinking = true,
};

static const struct rhashtable_params by_key_params = {
	.head_offset = offsetof(struct nic_flow, by_key),
	.key_offset = offsetof(struct nic_flow, key),
	.key_len = sizeof(struct nic_key),
	.automatic_shrinking = true,
};

#define DEFAULT_SIZE (128 * 1024)

int nic_table_init(struct nic_table *table)
{
	mutex_init(&table->lock);
	INIT_DELAYED_WORK(&table->read, nic_counters_read);
	table->size = DEFAULT_SIZE;
	return rhashtable_init(&table->by_id, &by_id_params);
}

/* All netdevs are gone, and tc has removed all rules. */
void nic_table_exit(struct nic_table *table)
{
	cancel_delayed_work_sync(&table->read);
	WARN_ON(table->rules);
	rhashtable_destroy(&table->by_id);
}

void nic_table_port_init(struct nic_port *port)
{
	unsigned int chain;

	for (chain = 0; chain < NIC_CHAINS; chain++)
		INIT_LIST_HEAD(&port->groups[chain]);
}

static void mask_key(struct nic_key *masked, const struct nic_key *key, const struct nic_key *mask)
{
	const u32 *from = (const u32 *)key, *bits = (const u32 *)mask;
	u32 *to = (u32 *)masked;
	unsigned int i;

	BUILD_BUG_ON(sizeof(*key) % sizeof(u32));
	for (i = 0; i < sizeof(*key) / sizeof(u32); i++)
		to[i] = from[i] & bits[i];
}

static struct nic_flow *lookup(struct nic_port *port, unsigned int chain, const struct nic_key *key,
			       unsigned int *probes)
{
	struct nic_flow *best = NULL, *flow;
	struct rhlist_head *list, *entry;
	struct nic_group *group;
	struct nic_key masked;

	list_for_each_entry_rcu(group, &port->groups[chain], list) {
		if (best && READ_ONCE(group->best) >= best->prio)
			continue;
		++*probes;
		mask_key(&masked, key, &group->mask);
		list = rhltable_lookup(&group->flows, &masked, by_key_params);
		rhl_for_each_entry_rcu(flow, entry, list, by_key)
			if (!best || flow->prio < best->prio)
				best = flow;
	}
	return best;
}

/* Under rcu_read_lock. */
struct nic_flow *nic_table_lookup(struct nic_port *port, unsigned int chain, const struct nic_key *key)
{
	struct nic_table *table = &port->nic->table;
	unsigned int probes = 0;
	u64 began = ktime_get_ns();
	struct nic_flow *flow = lookup(port, chain, key, &probes);

	atomic64_add(ktime_get_ns() - began, &table->lookup_ns);
	atomic64_add(probes, &table->probes);
	atomic64_inc(&table->lookups);
	return flow;
}

static struct nic_group *get_group(struct nic_port *port, unsigned int chain, const struct nic_key *mask)
{
	struct nic_group *group;

	list_for_each_entry(group, &port->groups[chain], list)
		if (!memcmp(&group->mask, mask, sizeof(*mask)))
			return group;
	group = kzalloc(sizeof(*group), GFP_KERNEL);
	if (!group)
		return NULL;
	if (rhltable_init(&group->flows, &by_key_params)) {
		kfree(group);
		return NULL;
	}
	group->mask = *mask;
	group->best = U32_MAX;
	list_add_tail_rcu(&group->list, &port->groups[chain]);
	return group;
}

static void free_group(struct work_struct *work)
{
	struct nic_group *group = container_of(to_rcu_work(work), struct nic_group, free);

	rhltable_destroy(&group->flows);
	kfree(group);
}

static void put_group(struct nic_group *group)
{
	if (group->count)
		return;
	list_del_rcu(&group->list);
	INIT_RCU_WORK(&group->free, free_group);
	queue_rcu_work(nic_workqueue, &group->free);
}

static int may_insert(struct nic_port *port, struct netlink_ext_ack *extack)
{
	struct nic_table *table = &port->nic->table;

	if (port->nic->mode != DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		NL_SET_ERR_MSG_MOD(extack, "Rules need the switchdev mode");
		return -EOPNOTSUPP;
	}
	if (table->fail_insert && !--table->fail_insert) {
		NL_SET_ERR_MSG_MOD(extack, "The device failed to insert the rule");
		return -EIO;
	}
	if (table->used >= table->size) {
		NL_SET_ERR_MSG_MOD(extack, "The table is full");
		return -ENOSPC;
	}
	return 0;
}

/* Takes a masked key; the rule belongs to the table if 0 is returned. */
int nic_table_insert(struct nic_port *port, struct nic_flow *flow, const struct nic_key *mask,
		     struct netlink_ext_ack *extack)
{
	struct nic_table *table = &port->nic->table;
	struct nic_group *group;
	int err;

	mutex_lock(&table->lock);
	err = may_insert(port, extack);
	if (err)
		goto unlock;
	if (table->insert_us)
		fsleep(table->insert_us);
	group = get_group(port, flow->chain, mask);
	if (!group) {
		err = -ENOMEM;
		goto unlock;
	}
	flow->group = group;
	err = rhashtable_lookup_insert_fast(&table->by_id, &flow->by_id, by_id_params);
	if (err)
		goto put;
	if (flow->prio < group->best)
		WRITE_ONCE(group->best, flow->prio);
	err = rhltable_insert(&group->flows, &flow->by_key, by_key_params);
	if (err) {
		rhashtable_remove_fast(&table->by_id, &flow->by_id, by_id_params);
		goto put;
	}
	group->count++;
	table->used++;
	table->rules++;
	WRITE_ONCE(port->rules, port->rules + 1);
	goto unlock;
put:
	put_group(group);
unlock:
	mutex_unlock(&table->lock);
	return err;
}

/* Take a rule from the device; tc still knows it. */
static void forget(struct nic_table *table, struct nic_flow *flow)
{
	struct nic_group *group = flow->group;

	if (!group)
		return;
	rhltable_remove(&group->flows, &flow->by_key, by_key_params);
	flow->group = NULL;
	table->used--;
	group->count--;
	put_group(group);
}

struct nic_flow *nic_table_find(struct nic_port *port, unsigned long cookie)
{
	struct nic_flow_id id = { cookie, port->index };

	return rhashtable_lookup_fast(&port->nic->table.by_id, &id, by_id_params);
}

int nic_table_remove(struct nic_port *port, unsigned long cookie)
{
	struct nic_table *table = &port->nic->table;
	struct nic_flow *flow;

	mutex_lock(&table->lock);
	flow = nic_table_find(port, cookie);
	if (flow) {
		if (table->delete_us)
			fsleep(table->delete_us);
		forget(table, flow);
		rhashtable_remove_fast(&table->by_id, &flow->by_id, by_id_params);
		table->rules--;
		WRITE_ONCE(port->rules, port->rules - 1);
		kfree_rcu(flow, rcu);
	}
	mutex_unlock(&table->lock);
	return flow ? 0 : -ENOENT;
}

/* A reset: the rules that came in by a port, or all, are no longer executed. */
void nic_table_forget(struct nic *nic, const struct nic_port *port)
{
	struct rhashtable_iter iterator;
	struct nic_flow *flow;

	mutex_lock(&nic->table.lock);
	rhashtable_walk_enter(&nic->table.by_id, &iterator);
	rhashtable_walk_start(&iterator);
	while ((flow = rhashtable_walk_next(&iterator))) {
		if (IS_ERR(flow))
			continue;	/* the table was resized: some come again */
		if (!port || flow->id.port == port->index)
			forget(&nic->table, flow);
	}
	rhashtable_walk_stop(&iterator);
	rhashtable_walk_exit(&iterator);
	mutex_unlock(&nic->table.lock);
}
