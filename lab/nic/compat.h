/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels 6.1, 6.12 and 7.2; where in between it changed is not always exact. */
#ifndef NIC_COMPAT_H
#define NIC_COMPAT_H

#include <linux/version.h>
#include <net/devlink.h>

#define NIC_KERNEL_BEFORE(major, minor) (LINUX_VERSION_CODE < KERNEL_VERSION(major, minor, 0))

/* The callbacks of parameters. */
#if NIC_KERNEL_BEFORE(6, 10)
#define NIC_PARAM_SET_ARGUMENTS struct devlink_param_gset_ctx *ctx
#else
#define NIC_PARAM_SET_ARGUMENTS struct devlink_param_gset_ctx *ctx, struct netlink_ext_ack *extack
#endif
#if NIC_KERNEL_BEFORE(6, 19)
#define NIC_PARAM_GET_ARGUMENTS struct devlink_param_gset_ctx *ctx
#else
#define NIC_PARAM_GET_ARGUMENTS struct devlink_param_gset_ctx *ctx, struct netlink_ext_ack *extack
#endif
#if NIC_KERNEL_BEFORE(7, 0)
#define NIC_PARAM_VALUE union devlink_param_value value
#define NIC_PARAM_STRING value.vstr
#else
#define NIC_PARAM_VALUE union devlink_param_value *value
#define NIC_PARAM_STRING value->vstr
#endif

static inline struct devlink_health_reporter *
nic_reporter_create(struct devlink *devlink, const struct devlink_health_reporter_ops *ops, void *priv)
{
#if NIC_KERNEL_BEFORE(6, 18)
	return devlink_health_reporter_create(devlink, ops, 0, priv);
#else
	return devlink_health_reporter_create(devlink, ops, priv);
#endif
}

#endif
