// SPDX-License-Identifier: GPL-2.0-only
/* Counters of rules: counted at once, and told at once or as of the last bulk read, as devices do. */
#include "nic.h"

/* A frame that stands for several counts as those that would be on the wire. */
void nic_count(struct nic_flow *flow, const struct sk_buff *skb)
{
	unsigned int packets = max_t(unsigned int, skb_shinfo(skb)->gso_segs, 1);

	atomic64_add(packets, &flow->packets);
	atomic64_add(skb->len + (skb_vlan_tag_present(skb) ? VLAN_HLEN : 0), &flow->bytes);
	WRITE_ONCE(flow->used, jiffies);
}

static void read_counter(struct nic_flow *flow)
{
	u64 packets = atomic64_read(&flow->packets);

	/* A bulk read knows only that the rule was used since the last one. */
	if (packets != flow->read.packets)
		flow->read.used = jiffies;
	flow->read.packets = packets;
	flow->read.bytes = atomic64_read(&flow->bytes);
}

void nic_counters_read(struct work_struct *work)
{
	struct nic_table *table = container_of(to_delayed_work(work), struct nic_table, read);
	struct rhashtable_iter iterator;
	struct nic_flow *flow;

	mutex_lock(&table->lock);
	rhashtable_walk_enter(&table->by_id, &iterator);
	rhashtable_walk_start(&iterator);
	while ((flow = rhashtable_walk_next(&iterator)))
		if (!IS_ERR(flow))
			read_counter(flow);
	rhashtable_walk_stop(&iterator);
	rhashtable_walk_exit(&iterator);
	if (READ_ONCE(table->lag_ms))
		queue_delayed_work(nic_workqueue, &table->read, msecs_to_jiffies(table->lag_ms));
	mutex_unlock(&table->lock);
}

/* Tell tc what was counted since it was told the last time. */
int nic_counters_tell(struct nic_port *port, struct flow_cls_offload *offload)
{
	struct nic_table *table = &port->nic->table;
	struct nic_flow *flow;

	mutex_lock(&table->lock);
	flow = nic_table_find(port, offload->cookie);
	if (flow) {
		if (!READ_ONCE(table->lag_ms)) {
			read_counter(flow);
			flow->read.used = READ_ONCE(flow->used);
		}
		flow_stats_update(&offload->stats, flow->read.bytes - flow->told.bytes,
				  flow->read.packets - flow->told.packets, 0, flow->read.used,
				  FLOW_ACTION_HW_STATS_DELAYED);
		flow->told = flow->read;
	}
	mutex_unlock(&table->lock);
	return flow ? 0 : -ENOENT;
}
