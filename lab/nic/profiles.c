// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the drivers of real devices refuse, in the order in which they look.
 *
 * Each rule names the operation, the state in which it is refused, the error, the message, and where it comes from.
 */
#include "nic.h"

struct nic_refusal {
	enum nic_operation operation;
	bool (*when)(struct nic *nic);
	int error;		/* or NIC_IGNORED */
	const char *message;
	const char *source;	/* for the reader */
};

static bool always(struct nic *nic)
{
	return true;
}

static bool has_vfs(struct nic *nic)
{
	return pci_num_vf(nic->pdev);
}

static bool has_no_vfs(struct nic *nic)
{
	return !has_vfs(nic);
}

static bool has_rules(struct nic *nic)
{
	return READ_ONCE(nic->table.rules);
}

static bool vf_bound(struct nic *nic)
{
	return nic_any_vf_bound(nic);
}

static bool pf_down(struct nic *nic)
{
	struct net_device *dev = rcu_access_pointer(nic->ports[NIC_UPLINK].near);

	return !dev || !(READ_ONCE(dev->flags) & IFF_UP);
}

static bool in_switchdev(struct nic *nic)
{
	return nic->mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;
}

#include "profiles.h"

static const struct nic_profile profiles[] = {
	{ .name = "none", .driver = "fastpath_nic", .steering = true, .refusals = none },
	{ .name = "mlx5", .driver = "mlx5_core", .steering = true, .refusals = mlx5 },
	{ .name = "ice", .driver = "ice", .refusals = ice },
	{ .name = "bnxt", .driver = "bnxt_en", .refusals = bnxt },
};

/* NULL if there is none of this name; without a name the one that refuses nothing. */
const struct nic_profile *nic_profile_find(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(profiles); i++)
		if (!strcmp(profiles[i].name, name ?: "none"))
			return &profiles[i];
	return NULL;
}

/* 0, or what the first refusal says: an error, or NIC_IGNORED. */
int nic_profile_check(struct nic *nic, enum nic_operation operation, struct netlink_ext_ack *extack)
{
	const struct nic_refusal *refusal;

	for (refusal = nic->profile->refusals; refusal->when; refusal++) {
		if (refusal->operation != operation || !refusal->when(nic))
			continue;
		if (extack)
			extack->_msg = refusal->message;
		else
			pci_err(nic->pdev, "%s\n", refusal->message);
		return refusal->error;
	}
	return 0;
}
