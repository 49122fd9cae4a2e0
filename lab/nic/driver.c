// SPDX-License-Identifier: GPL-2.0-only
/* The drivers of the physical and of the virtual functions. */
#include <linux/debugfs.h>
#include <linux/module.h>

#include "nic.h"

/* 02:f0, two bytes of the serial number (another on each node), the device, the port. */
static void set_macs(struct nic *nic)
{
	u64 serial = pci_get_dsn(nic->pdev);
	unsigned int i;

	for (i = 0; i <= NIC_MAX_VFS; i++) {
		u8 mac[ETH_ALEN] = { 0x02, 0xf0, serial >> 8, serial, nic_bridge_index(nic->bridge), i };

		ether_addr_copy(nic->ports[i].mac, mac);
	}
	nic->switch_id.id_len = sizeof(serial);
	memcpy(nic->switch_id.id, &serial, sizeof(serial));
}

static int create_uplink(struct nic *nic)
{
	struct net_device *wire;
	int err;

	devl_lock(nic->devlink);
	err = nic_near_register(&nic->ports[NIC_UPLINK]);
	devl_unlock(nic->devlink);
	if (err)
		return err;
	wire = nic_far_create(&nic->ports[NIC_UPLINK], NULL);
	if (!IS_ERR(wire))
		return 0;
	devl_lock(nic->devlink);
	nic_near_unregister(&nic->ports[NIC_UPLINK]);
	devl_unlock(nic->devlink);
	return PTR_ERR(wire);
}

static void destroy_uplink(struct nic *nic)
{
	nic_netdev_destroy(rcu_access_pointer(nic->ports[NIC_UPLINK].far));
	devl_lock(nic->devlink);
	nic_near_unregister(&nic->ports[NIC_UPLINK]);
	devl_unlock(nic->devlink);
}

static int create_vf(struct nic_port *port)
{
	return PTR_ERR_OR_ZERO(nic_far_create(port, port->function));
}

static void vf_appear(struct work_struct *work)
{
	struct nic_port *port = container_of(to_delayed_work(work), struct nic_port, appear);

	if (create_vf(port))
		dev_err(port->function, "can't create the netdev\n");
}

static int pf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct devlink *devlink;
	struct nic *nic;
	unsigned int i;
	int err;

	devlink = devlink_alloc(&nic_devlink_ops, sizeof(*nic), &pdev->dev);
	if (!devlink)
		return -ENOMEM;
	nic = devlink_priv(devlink);
	nic->devlink = devlink;
	nic->pdev = pdev;
	nic->mode = DEVLINK_ESWITCH_MODE_LEGACY;
	nic->inline_mode = DEVLINK_ESWITCH_INLINE_MODE_NONE;
	nic->encap_mode = DEVLINK_ESWITCH_ENCAP_MODE_BASIC;
	nic_eswitch_init(nic);
	for (i = 0; i <= NIC_MAX_VFS; i++) {
		struct nic_port *port = &nic->ports[i];

		port->nic = nic;
		port->index = i;
		port->spoof_check = true;
		INIT_DELAYED_WORK(&port->appear, vf_appear);
		nic_table_port_init(port);
	}
	err = nic_table_init(&nic->table);
	if (err)
		goto free;
	nic->bridge = nic_bridge_attach(pdev, nic);
	nic->total_vfs = nic_bridge_vfs(nic->bridge);
	nic->profile = nic_profile_find(nic_bridge_profile(nic->bridge));
	set_macs(nic);
	pci_set_drvdata(pdev, nic);
	err = nic_devlink_init(nic);
	if (err)
		goto detach;
	err = create_uplink(nic);
	if (err)
		goto devlink_exit;
	nic_debugfs_create(nic);
#if NIC_KERNEL_BEFORE(6, 4)
	devlink_set_features(devlink, DEVLINK_F_RELOAD);
#endif
	devlink_register(devlink);
	return 0;

devlink_exit:
	nic_devlink_exit(nic);
detach:
	nic_bridge_detach(nic->bridge);
	nic_eswitch_exit(nic);
	nic_table_exit(&nic->table);
free:
	devlink_free(devlink);
	return err;
}

static void pf_remove(struct pci_dev *pdev)
{
	struct nic *nic = pci_get_drvdata(pdev);

	devlink_unregister(nic->devlink);
	debugfs_remove_recursive(nic->debugfs);
	nic_bridge_detach(nic->bridge);
	nic_eswitch_exit(nic);
	pci_disable_sriov(pdev);
	destroy_uplink(nic);
	nic_devlink_exit(nic);
	nic_table_exit(&nic->table);
	devlink_free(nic->devlink);
}

/* VFs come before their representors and go after them: a VF's probe must not find the devlink lock held. */
static int pf_sriov_configure(struct pci_dev *pdev, int vfs)
{
	struct nic *nic = pci_get_drvdata(pdev);
	int err;

	err = nic_profile_check(nic, NIC_SET_VFS, NULL);
	if (err)
		return err == NIC_IGNORED ? 0 : err;
	if (vfs) {
		err = pci_enable_sriov(pdev, vfs);
		if (err)
			return err;
	}
	devl_lock(nic->devlink);
	err = nic_eswitch_vfs_set(nic, vfs);
	devl_unlock(nic->devlink);
	if (err || !vfs)
		pci_disable_sriov(pdev);
	return err ?: vfs;
}

static int vf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nic *nic = pci_get_drvdata(pci_physfn(pdev));
	int vf = pci_iov_vf_id(pdev);
	struct nic_port *port;
	u32 delay;

	if (vf < 0)
		return vf;
	if (READ_ONCE(nic->faults.vf_missing) == vf + 1)
		return -EIO;
	port = &nic->ports[vf + 1];
	port->function = &pdev->dev;
	pci_set_drvdata(pdev, port);
	delay = READ_ONCE(nic->faults.vf_delay_ms);
	if (!delay)
		return create_vf(port);
	queue_delayed_work(nic_workqueue, &port->appear, msecs_to_jiffies(delay));
	return 0;
}

static void vf_remove(struct pci_dev *pdev)
{
	struct nic_port *port = pci_get_drvdata(pdev);
	u32 delay = READ_ONCE(port->nic->faults.unbind_ms);

	cancel_delayed_work_sync(&port->appear);
	if (delay)
		msleep(delay);
	if (rcu_access_pointer(port->far))
		nic_netdev_destroy(rcu_access_pointer(port->far));
}

static void vf_reset_prepare(struct pci_dev *pdev)
{
	struct nic_port *port = pci_get_drvdata(pdev);
	struct net_device *dev;

	rtnl_lock();
	dev = rtnl_dereference(port->far);
	if (dev)
		netif_device_detach(dev);
	rtnl_unlock();
}

static void vf_reset_done(struct pci_dev *pdev)
{
	struct nic_port *port = pci_get_drvdata(pdev);
	struct net_device *dev;

	rtnl_lock();
	dev = rtnl_dereference(port->far);
	if (dev)
		netif_device_attach(dev);
	rtnl_unlock();
}

static const struct pci_error_handlers vf_errors = {
	.reset_prepare = vf_reset_prepare,
	.reset_done = vf_reset_done,
};

static const struct pci_device_id pf_ids[] = {
	{ PCI_DEVICE(NIC_VENDOR, NIC_DEVICE_PF) },
	{ }
};

static const struct pci_device_id vf_ids[] = {
	{ PCI_DEVICE(NIC_VENDOR, NIC_DEVICE_VF) },
	{ }
};

struct pci_driver nic_pf_driver = {
	.name = "fastpath_nic",
	.id_table = pf_ids,
	.probe = pf_probe,
	.remove = pf_remove,
	.sriov_configure = pf_sriov_configure,
};

struct pci_driver nic_vf_driver = {
	.name = "fastpath_nic_vf",
	.id_table = vf_ids,
	.probe = vf_probe,
	.remove = vf_remove,
	.err_handler = &vf_errors,
};

/* A VF whose driver is bound, kernel's or vfio's. */
bool nic_any_vf_bound(struct nic *nic)
{
	struct pci_dev *dev = NULL;
	bool bound = false;

	while ((dev = pci_get_device(NIC_VENDOR, NIC_DEVICE_VF, dev)))
		bound |= dev->is_virtfn && pci_physfn(dev) == nic->pdev && dev->driver;
	return bound;
}
