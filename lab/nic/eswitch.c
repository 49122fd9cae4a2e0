// SPDX-License-Identifier: GPL-2.0-only
/* The switch: its modes, its representors, and where a frame goes first. */
#include "nic.h"

void nic_to_far(struct nic_port *port, struct sk_buff *skb)
{
	nic_deliver(READ_ONCE(port->inactive) ? NULL : rcu_dereference(port->far), skb);
}

void nic_to_near(struct nic_port *port, struct sk_buff *skb)
{
	nic_deliver(rcu_dereference(port->near), skb);
}

/* A frame from the wire or from a VF. */
void nic_from_far(struct nic_port *port, struct sk_buff *skb)
{
	if (READ_ONCE(port->inactive))
		kfree_skb(skb);
	else if (READ_ONCE(port->nic->mode) == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		nic_execute(port, skb);
	else
		nic_legacy(port, false, skb);
}

/* A frame that the host sends by the PF or by a representor. */
void nic_from_near(struct nic_port *port, struct sk_buff *skb)
{
	if (READ_ONCE(port->nic->mode) == DEVLINK_ESWITCH_MODE_SWITCHDEV)
		nic_to_far(port, skb);
	else if (port->index == NIC_UPLINK)
		nic_legacy(port, true, skb);
	else
		kfree_skb(skb);		/* a representor that should be gone */
}

static void destroy_representors(struct nic *nic, unsigned int vfs)
{
	for (; vfs; vfs--)
		nic_near_unregister(&nic->ports[vfs]);
}

static int create_representors(struct nic *nic, unsigned int vfs)
{
	unsigned int i;
	int err;

	for (i = 1; i <= vfs; i++) {
		if (rcu_access_pointer(nic->ports[i].near))
			continue;	/* of an earlier time */
		err = nic_near_register(&nic->ports[i]);
		if (err) {
			destroy_representors(nic, i - 1);
			return err;
		}
	}
	return 0;
}

static void create_late(struct work_struct *work)
{
	struct nic *nic = container_of(to_delayed_work(work), struct nic, late);

	devl_lock(nic->devlink);
	if (nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV && create_representors(nic, nic->num_vfs))
		pci_err(nic->pdev, "can't create the representors\n");
	devl_unlock(nic->devlink);
}

/* Create them, or have them created later. */
static int request_representors(struct nic *nic, unsigned int vfs)
{
	u32 delay = READ_ONCE(nic->faults.representor_delay_ms);

	if (!delay)
		return create_representors(nic, vfs);
	mod_delayed_work(nic_workqueue, &nic->late, msecs_to_jiffies(delay));
	return 0;
}

/* No rule comes in while the mode is not switchdev, and the mode does not change while there is one. */
static int change_mode(struct nic *nic, u16 mode, struct netlink_ext_ack *extack)
{
	int err = 0;

	mutex_lock(&nic->table.lock);
	if (nic->table.rules) {
		NL_SET_ERR_MSG_MOD(extack, "Can't change mode while there are rules in the table");
		err = -EBUSY;
	} else {
		WRITE_ONCE(nic->mode, mode);
		nic_uplink_switch_id(nic, mode == DEVLINK_ESWITCH_MODE_SWITCHDEV);
	}
	mutex_unlock(&nic->table.lock);
	return err;
}

static int fail_mode(struct nic_faults *faults, struct netlink_ext_ack *extack)
{
	if (!faults->fail_mode || --faults->fail_mode)
		return 0;
	NL_SET_ERR_MSG_MOD(extack, "The firmware failed to change the mode");
	return -EIO;
}

/* Under the devlink lock. */
int nic_eswitch_mode_set(struct nic *nic, u16 mode, struct netlink_ext_ack *extack)
{
	bool switchdev = mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;
	int err;

	if (mode == nic->mode)
		return nic_profile_check(nic, NIC_SAME_MODE, extack);
	if (!switchdev && mode != DEVLINK_ESWITCH_MODE_LEGACY) {
		NL_SET_ERR_MSG_MOD(extack, "Only the modes legacy and switchdev are there");
		return -EOPNOTSUPP;
	}
	err = nic_profile_check(nic, switchdev ? NIC_TO_SWITCHDEV : NIC_TO_LEGACY, extack);
	if (!err)
		err = fail_mode(&nic->faults, extack);
	if (!err)
		err = change_mode(nic, mode, extack);
	if (err)
		return err;
	if (!switchdev) {
		if (!nic->faults.stale_representors)
			destroy_representors(nic, nic->total_vfs);
		return 0;
	}
	err = request_representors(nic, nic->num_vfs);
	if (err) {
		NL_SET_ERR_MSG_MOD(extack, "Can't create the representors");
		change_mode(nic, DEVLINK_ESWITCH_MODE_LEGACY, NULL);
	}
	return err;
}

/* Under the devlink lock; the PCI core goes only from none to some VFs, or from some to none. */
int nic_eswitch_vfs_set(struct nic *nic, unsigned int vfs)
{
	if (nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV) {
		int err = request_representors(nic, vfs);

		if (err)
			return err;
		if (!vfs)
			destroy_representors(nic, nic->num_vfs);
	}
	nic->num_vfs = vfs;
	return 0;
}

/* By the write to a config space that resets a function, in atomic context. */
void nic_function_reset(struct nic *nic, unsigned int index)
{
	set_bit(index, nic->resets);
	queue_work(nic_workqueue, &nic->reset);
}

/* What the switch does when a function is reset: the PF's reset is the device's. */
static void reset_work(struct work_struct *work)
{
	struct nic *nic = container_of(work, struct nic, reset);
	unsigned int i;

	for_each_set_bit(i, nic->resets, NIC_MAX_VFS + 1) {
		clear_bit(i, nic->resets);
		if (i == NIC_UPLINK)
			nic_table_forget(nic, NULL);
		else if (READ_ONCE(nic->table.reset_forgets))
			nic_table_forget(nic, &nic->ports[i]);
	}
}

void nic_eswitch_init(struct nic *nic)
{
	INIT_WORK(&nic->reset, reset_work);
	INIT_DELAYED_WORK(&nic->late, create_late);
}

/* No representor is left, stale ones neither. Under the devlink lock. */
void nic_eswitch_down(struct nic *nic)
{
	destroy_representors(nic, nic->total_vfs);
}

/* No function can be reset any more. What the switch still has of VFs is gone after it. */
void nic_eswitch_exit(struct nic *nic)
{
	cancel_work_sync(&nic->reset);
	cancel_delayed_work_sync(&nic->late);
	devl_lock(nic->devlink);
	nic_eswitch_down(nic);
	nic->num_vfs = 0;
	devl_unlock(nic->devlink);
}
