// SPDX-License-Identifier: GPL-2.0-only
/* Module parameters, and the devices that they ask for. */
#include <linux/module.h>

#include "nic.h"

#define MAX_NICS 8

static unsigned int nics = 1;
module_param(nics, uint, 0444);
MODULE_PARM_DESC(nics, "number of devices, 1 to 8; device N is PCI domain N + 1");

static unsigned int vfs = 16;
module_param(vfs, uint, 0444);
MODULE_PARM_DESC(vfs, "virtual functions that each device can have, 1 to 64");

static char *profile[MAX_NICS];
module_param_array(profile, charp, NULL, 0444);
MODULE_PARM_DESC(profile, "for each device whose driver to imitate: mlx5, ice, bnxt; else none");

struct workqueue_struct *nic_workqueue;
static struct nic_bridge *bridges[MAX_NICS];

static void destroy_all(void)
{
	int i;

	for (i = MAX_NICS - 1; i >= 0; i--)
		if (bridges[i])
			nic_bridge_destroy(bridges[i]);
	pci_unregister_driver(&nic_pf_driver);
	pci_unregister_driver(&nic_vf_driver);
	nic_debugfs_exit();
	/* Groups are freed by work that starts after a grace period, rules after one. */
	rcu_barrier();
	destroy_workqueue(nic_workqueue);
}

static int __init nic_init(void)
{
	unsigned int i;
	int err;

	if (!nics || nics > MAX_NICS || !vfs || vfs > NIC_MAX_VFS)
		return -EINVAL;
	for (i = 0; i < nics; i++)
		if (profile[i] && !nic_profile_find(profile[i]))
			return -EINVAL;

	nic_workqueue = alloc_workqueue("fastpath_nic", WQ_UNBOUND, 0);
	if (!nic_workqueue)
		return -ENOMEM;
	nic_debugfs_init();
	err = pci_register_driver(&nic_vf_driver);
	if (err)
		goto free_workqueue;
	err = pci_register_driver(&nic_pf_driver);
	if (err)
		goto unregister_vf;

	for (i = 0; i < nics; i++) {
		struct nic_bridge *bridge = nic_bridge_create(i, vfs, profile[i]);

		if (IS_ERR(bridge)) {
			destroy_all();
			return PTR_ERR(bridge);
		}
		bridges[i] = bridge;
	}
	return 0;

unregister_vf:
	pci_unregister_driver(&nic_vf_driver);
free_workqueue:
	nic_debugfs_exit();
	destroy_workqueue(nic_workqueue);
	return err;
}

static void __exit nic_exit(void)
{
	destroy_all();
}

module_init(nic_init);
module_exit(nic_exit);
MODULE_DESCRIPTION("Emulated SmartNIC");
MODULE_LICENSE("GPL");
