/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The refusals of each profile, as data: only profiles.c includes it. Within an operation the first that applies counts.
 *
 * Messages are those of the drivers, for a user has to recognise them. Paths are below drivers/net/ethernet/.
 */

static const struct nic_refusal none[] = { { } };

static const struct nic_refusal mlx5[] = {
	{
		.operation = NIC_TO_SWITCHDEV, .when = has_rules, .error = -EBUSY,
		.message = "Can't change mode, E-Switch is busy",
		.source = "mellanox/mlx5/core/eswitch_offloads.c, mlx5_devlink_eswitch_mode_set: mlx5_esw_try_lock",
	}, {
		.operation = NIC_TO_LEGACY, .when = has_rules, .error = -EBUSY,
		.message = "Can't change mode, E-Switch is busy",
		.source = "mellanox/mlx5/core/eswitch_offloads.c, mlx5_devlink_eswitch_mode_set: mlx5_esw_try_lock",
	}, {
		/* The firmware's refusal: "bad resource state", which the driver hands on as EINVAL. */
		.operation = NIC_TO_SWITCHDEV, .when = vf_bound, .error = -EINVAL,
		.message = "Failed setting eswitch to offloads",
		.source = "sriov-network-operator#1015; mellanox/mlx5/core/eswitch_offloads.c, esw_offloads_start",
	}, {
		/* Nobody has told of this way; it is refused so that nobody relies on it. */
		.operation = NIC_TO_LEGACY, .when = vf_bound, .error = -EINVAL,
		.message = "Failed setting eswitch to legacy",
		.source = "sriov-network-operator#1015; mellanox/mlx5/core/eswitch_offloads.c, esw_offloads_stop",
	}, {
		.operation = NIC_SET_STEERING, .when = in_switchdev, .error = -EOPNOTSUPP,
		.message = "Changing fs mode is not supported when eswitch offloads enabled.",
		.source = "mellanox/mlx5/core/fs_core.c, mlx5_fs_mode_validate",
	},
	{ }
};

static const struct nic_refusal ice[] = {
	{
		.operation = NIC_TO_SWITCHDEV, .when = has_vfs, .error = -EOPNOTSUPP,
		.message = "Changing eswitch mode is allowed only if there is no VFs created",
		.source = "intel/ice/ice_eswitch.c, ice_eswitch_mode_set",
	}, {
		.operation = NIC_TO_LEGACY, .when = has_vfs, .error = -EOPNOTSUPP,
		.message = "Changing eswitch mode is allowed only if there is no VFs created",
		.source = "intel/ice/ice_eswitch.c, ice_eswitch_mode_set",
	},
	{ }
};

static const struct nic_refusal bnxt[] = {
	{
		.operation = NIC_SAME_MODE, .when = always, .error = -EINVAL,
		.message = "already in this eswitch mode",
		.source = "broadcom/bnxt/bnxt_vfr.c, bnxt_dl_eswitch_mode_set",
	}, {
		.operation = NIC_TO_SWITCHDEV, .when = has_no_vfs, .error = -EPERM,
		.message = "Enable VFs before setting switchdev mode",
		.source = "broadcom/bnxt/bnxt_vfr.c, bnxt_dl_eswitch_mode_set, as of 6.1",
	}, {
		.operation = NIC_SET_VFS, .when = pf_down, .error = NIC_IGNORED,
		.message = "Reject SRIOV config request since if is down!",
		.source = "broadcom/bnxt/bnxt_sriov.c, bnxt_sriov_configure; systemd#40739",
	},
	{ }
};
