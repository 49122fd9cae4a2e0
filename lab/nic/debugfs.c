// SPDX-License-Identifier: GPL-2.0-only
/* How the device behaves, by /sys/kernel/debug/fastpath_nic/ADDRESS/. */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "nic.h"

static struct dentry *root;

static int lag_get(void *data, u64 *value)
{
	*value = ((struct nic *)data)->table.lag_ms;
	return 0;
}

static int lag_set(void *data, u64 value)
{
	struct nic_table *table = &((struct nic *)data)->table;

	if (value > 60 * MSEC_PER_SEC)
		return -EINVAL;
	WRITE_ONCE(table->lag_ms, value);
	if (value)
		mod_delayed_work(nic_workqueue, &table->read, msecs_to_jiffies(value));
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(lag_fops, lag_get, lag_set, "%llu\n");

/* The reset of a function, as by the PCI core: 0 is the PF and with it the device, N the VF N - 1. */
static int reset_set(void *data, u64 value)
{
	struct nic *nic = data;

	if (value > nic->total_vfs)
		return -EINVAL;
	nic_function_reset(nic, value);
	flush_work(&nic->reset);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(reset_fops, NULL, reset_set, "%llu\n");

static int lookups_show(struct seq_file *file, void *data)
{
	struct nic_table *table = &((struct nic *)file->private)->table;

	seq_printf(file, "%lld %lld %lld\n", atomic64_read(&table->lookups), atomic64_read(&table->probes),
		   atomic64_read(&table->lookup_ns));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(lookups);

static void create_faults(struct nic_faults *faults, struct dentry *dir)
{
	debugfs_create_u32("vf_missing", 0600, dir, &faults->vf_missing);
	debugfs_create_u32("vf_delay_ms", 0600, dir, &faults->vf_delay_ms);
	debugfs_create_u32("unbind_ms", 0600, dir, &faults->unbind_ms);
	debugfs_create_u32("representor_delay_ms", 0600, dir, &faults->representor_delay_ms);
	debugfs_create_u32("fail_mode", 0600, dir, &faults->fail_mode);
	debugfs_create_bool("stale_representors", 0600, dir, &faults->stale_representors);
}

void nic_debugfs_create(struct nic *nic)
{
	struct nic_table *table = &nic->table;
	struct dentry *dir = debugfs_create_dir(pci_name(nic->pdev), root);

	nic->debugfs = dir;
	create_faults(&nic->faults, dir);
	debugfs_create_u32("table_size", 0600, dir, &table->size);
	debugfs_create_u32("table_used", 0400, dir, &table->used);
	debugfs_create_u32("insert_us", 0600, dir, &table->insert_us);
	debugfs_create_u32("delete_us", 0600, dir, &table->delete_us);
	debugfs_create_u32("fail_insert", 0600, dir, &table->fail_insert);
	debugfs_create_bool("reset_forgets", 0600, dir, &table->reset_forgets);
	debugfs_create_file_unsafe("counter_lag_ms", 0600, dir, nic, &lag_fops);
	debugfs_create_file("lookups", 0400, dir, nic, &lookups_fops);
	debugfs_create_file_unsafe("reset", 0200, dir, nic, &reset_fops);
}

void nic_debugfs_init(void)
{
	root = debugfs_create_dir("fastpath_nic", NULL);
}

void nic_debugfs_exit(void)
{
	debugfs_remove_recursive(root);
}
