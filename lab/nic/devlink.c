// SPDX-License-Identifier: GPL-2.0-only
/* devlink: modes of the switch, ports and their functions, parameters, health, reload, information. */
#include "nic.h"

enum {
	PARAM_STEERING = DEVLINK_PARAM_GENERIC_ID_MAX + 1,
};

static const char * const steerings[] = { "dmfs", "smfs", "hmfs" };

static int steering_of(const char *name)
{
	return match_string(steerings, ARRAY_SIZE(steerings), name);
}

static int steering_get(struct devlink *devlink, u32 id, NIC_PARAM_GET_ARGUMENTS)
{
	struct nic *nic = devlink_priv(devlink);

	strscpy(ctx->val.vstr, steerings[nic->steering], sizeof(ctx->val.vstr));
	return 0;
}

static int steering_set(struct devlink *devlink, u32 id, NIC_PARAM_SET_ARGUMENTS)
{
	struct nic *nic = devlink_priv(devlink);

	nic->steering = steering_of(ctx->val.vstr);
	return 0;
}

static int steering_validate(struct devlink *devlink, u32 id, NIC_PARAM_VALUE, struct netlink_ext_ack *extack)
{
	if (steering_of(NIC_PARAM_STRING) < 0) {
		NL_SET_ERR_MSG_MOD(extack, "The steering modes are dmfs, smfs and hmfs");
		return -EOPNOTSUPP;
	}
	return nic_profile_check(devlink_priv(devlink), NIC_SET_STEERING, extack);
}

static const struct devlink_param params[] = {
	DEVLINK_PARAM_DRIVER(PARAM_STEERING, "flow_steering_mode", DEVLINK_PARAM_TYPE_STRING,
			     BIT(DEVLINK_PARAM_CMODE_RUNTIME), steering_get, steering_set, steering_validate),
};

static int mode_get(struct devlink *devlink, u16 *mode)
{
	*mode = ((struct nic *)devlink_priv(devlink))->mode;
	return 0;
}

static int mode_set(struct devlink *devlink, u16 mode, struct netlink_ext_ack *extack)
{
	return nic_eswitch_mode_set(devlink_priv(devlink), mode, extack);
}

static int inline_mode_get(struct devlink *devlink, u8 *mode)
{
	*mode = ((struct nic *)devlink_priv(devlink))->inline_mode;
	return 0;
}

static int inline_mode_set(struct devlink *devlink, u8 mode, struct netlink_ext_ack *extack)
{
	struct nic *nic = devlink_priv(devlink);

	if (READ_ONCE(nic->table.rules)) {
		NL_SET_ERR_MSG_MOD(extack, "Can't set inline mode while there are rules in the table");
		return -EBUSY;
	}
	nic->inline_mode = mode;
	return 0;
}

static int encap_mode_get(struct devlink *devlink, enum devlink_eswitch_encap_mode *mode)
{
	*mode = ((struct nic *)devlink_priv(devlink))->encap_mode;
	return 0;
}

static int encap_mode_set(struct devlink *devlink, enum devlink_eswitch_encap_mode mode,
			  struct netlink_ext_ack *extack)
{
	struct nic *nic = devlink_priv(devlink);

	if (READ_ONCE(nic->table.rules)) {
		NL_SET_ERR_MSG_MOD(extack, "Can't set encap mode while there are rules in the table");
		return -EBUSY;
	}
	nic->encap_mode = mode;
	return 0;
}

/* As a driver that starts again: the PF's netdev is another one, and the switch is in legacy mode. */
static int reload_down(struct devlink *devlink, bool netns_change, enum devlink_reload_action action,
		       enum devlink_reload_limit limit, struct netlink_ext_ack *extack)
{
	struct nic *nic = devlink_priv(devlink);
	int err = 0;

	if (netns_change) {
		NL_SET_ERR_MSG_MOD(extack, "The device stays in its network namespace");
		return -EOPNOTSUPP;
	}
	if (nic->mode != DEVLINK_ESWITCH_MODE_LEGACY)
		err = nic_eswitch_mode_set(nic, DEVLINK_ESWITCH_MODE_LEGACY, extack);
	if (err)
		return err;
	nic_eswitch_down(nic);
	nic_near_unregister(&nic->ports[NIC_UPLINK]);
	return 0;
}

static int reload_up(struct devlink *devlink, enum devlink_reload_action action, enum devlink_reload_limit limit,
		     u32 *performed, struct netlink_ext_ack *extack)
{
	struct nic *nic = devlink_priv(devlink);

	*performed = BIT(DEVLINK_RELOAD_ACTION_DRIVER_REINIT);
	return nic_near_register(&nic->ports[NIC_UPLINK]);
}

static int info_get(struct devlink *devlink, struct devlink_info_req *req, struct netlink_ext_ack *extack)
{
	struct nic *nic = devlink_priv(devlink);
	char serial[24];
	int err;

	snprintf(serial, sizeof(serial), "%016llx", pci_get_dsn(nic->pdev));
	err = devlink_info_serial_number_put(req, serial);
	return err ?: devlink_info_version_running_put(req, DEVLINK_INFO_VERSION_GENERIC_FW, "1.0.0");
}

/* The VF of a port; NULL for the uplink, which has no function to speak of. Older kernels ask it too. */
static struct nic_port *vf_of(struct devlink_port *devlink_port)
{
	struct nic_port *port = container_of(devlink_port, struct nic_port, devlink_port);

	return port->index == NIC_UPLINK ? NULL : port;
}

static int function_hw_addr_get(struct devlink_port *devlink_port, u8 *address, int *length,
				struct netlink_ext_ack *extack)
{
	struct nic_port *port = vf_of(devlink_port);

	if (!port)
		return -EOPNOTSUPP;
	ether_addr_copy(address, port->mac);
	*length = ETH_ALEN;
	return 0;
}

/* The VF gets it when a driver is bound the next time. */
static int function_hw_addr_set(struct devlink_port *devlink_port, const u8 *address, int length,
				struct netlink_ext_ack *extack)
{
	struct nic_port *port = vf_of(devlink_port);

	if (!port)
		return -EOPNOTSUPP;
	if (length != ETH_ALEN || !is_valid_ether_addr(address)) {
		NL_SET_ERR_MSG_MOD(extack, "This is no MAC of a single function");
		return -EINVAL;
	}
	ether_addr_copy(port->mac, address);
	return 0;
}

static int function_state_get(struct devlink_port *devlink_port, enum devlink_port_fn_state *state,
			      enum devlink_port_fn_opstate *opstate, struct netlink_ext_ack *extack)
{
	struct nic_port *port = vf_of(devlink_port);

	if (!port)
		return -EOPNOTSUPP;
	*state = port->inactive ? DEVLINK_PORT_FN_STATE_INACTIVE : DEVLINK_PORT_FN_STATE_ACTIVE;
	*opstate = rcu_access_pointer(port->far) ? DEVLINK_PORT_FN_OPSTATE_ATTACHED :
						   DEVLINK_PORT_FN_OPSTATE_DETACHED;
	return 0;
}

static int function_state_set(struct devlink_port *devlink_port, enum devlink_port_fn_state state,
			      struct netlink_ext_ack *extack)
{
	struct nic_port *port = vf_of(devlink_port);

	if (!port)
		return -EOPNOTSUPP;
	WRITE_ONCE(port->inactive, state == DEVLINK_PORT_FN_STATE_INACTIVE);
	return 0;
}

#if NIC_KERNEL_BEFORE(6, 5)
static int register_with_ops(struct nic_port *port)
{
	return devl_port_register(port->nic->devlink, &port->devlink_port, port->index);
}
#else
static const struct devlink_port_ops uplink_port_ops = { };

static const struct devlink_port_ops vf_port_ops = {
	.port_fn_hw_addr_get = function_hw_addr_get,
	.port_fn_hw_addr_set = function_hw_addr_set,
	.port_fn_state_get = function_state_get,
	.port_fn_state_set = function_state_set,
};

static int register_with_ops(struct nic_port *port)
{
	return devl_port_register_with_ops(port->nic->devlink, &port->devlink_port, port->index,
					   port->index == NIC_UPLINK ? &uplink_port_ops : &vf_port_ops);
}
#endif

const struct devlink_ops nic_devlink_ops = {
	.reload_actions = BIT(DEVLINK_RELOAD_ACTION_DRIVER_REINIT),
	.reload_down = reload_down,
	.reload_up = reload_up,
	.eswitch_mode_get = mode_get,
	.eswitch_mode_set = mode_set,
	.eswitch_inline_mode_get = inline_mode_get,
	.eswitch_inline_mode_set = inline_mode_set,
	.eswitch_encap_mode_get = encap_mode_get,
	.eswitch_encap_mode_set = encap_mode_set,
	.info_get = info_get,
#if NIC_KERNEL_BEFORE(6, 5)
	.port_function_hw_addr_get = function_hw_addr_get,
	.port_function_hw_addr_set = function_hw_addr_set,
	.port_fn_state_get = function_state_get,
	.port_fn_state_set = function_state_set,
#endif
};

static int register_port(struct nic_port *port)
{
	struct devlink_port_attrs attrs = { };

	memset(&port->devlink_port, 0, sizeof(port->devlink_port));
	if (port->index == NIC_UPLINK) {
		/* The switch id comes with the switchdev mode. */
		attrs.flavour = DEVLINK_PORT_FLAVOUR_PHYSICAL;
		devlink_port_attrs_set(&port->devlink_port, &attrs);
	} else {
		attrs.switch_id = port->nic->switch_id;
		devlink_port_attrs_set(&port->devlink_port, &attrs);
		devlink_port_attrs_pci_vf_set(&port->devlink_port, 0, 0, port->index - 1, false);
	}
	return register_with_ops(port);
}

/* The host's side of a port: first for devlink, then for the network. Under the devlink lock, as is the way back. */
int nic_near_register(struct nic_port *port)
{
	struct net_device *dev;
	int err;

	err = register_port(port);
	if (err)
		return err;
	dev = nic_near_create(port);
	if (!IS_ERR(dev))
		return 0;
	devl_port_unregister(&port->devlink_port);
	return PTR_ERR(dev);
}

void nic_near_unregister(struct nic_port *port)
{
	struct net_device *dev = rcu_access_pointer(port->near);

	if (!dev)
		return;		/* a reload has failed */
	nic_netdev_destroy(dev);
	devl_port_unregister(&port->devlink_port);
}

/*
 * The uplink has a switch id in switchdev mode only. A netdev op could tell it, but devlink warns at each change of the
 * name of a netdev that has such an op beside a port. Under the devlink lock.
 */
void nic_uplink_switch_id(struct nic *nic, bool on)
{
	struct devlink_port *port = &nic->ports[NIC_UPLINK].devlink_port;

	if (on)
		port->attrs.switch_id = nic->switch_id;
	port->switch_port = on;
}

static int health_recover(struct devlink_health_reporter *reporter, void *context, struct netlink_ext_ack *extack)
{
	return 0;
}

static int health_test(struct devlink_health_reporter *reporter, struct netlink_ext_ack *extack)
{
	return devlink_health_report(reporter, "test of the reporter", NULL);
}

static const struct devlink_health_reporter_ops health_ops = {
	.name = "fw",
	.recover = health_recover,
	.test = health_test,
};

static void unregister_params(struct nic *nic)
{
	if (nic->profile->steering)
		devlink_params_unregister(nic->devlink, params, ARRAY_SIZE(params));
}

int nic_devlink_init(struct nic *nic)
{
	int err;

	if (nic->profile->steering) {
		err = devlink_params_register(nic->devlink, params, ARRAY_SIZE(params));
		if (err)
			return err;
	}
	nic->reporter = nic_reporter_create(nic->devlink, &health_ops, nic);
	if (IS_ERR(nic->reporter)) {
		unregister_params(nic);
		return PTR_ERR(nic->reporter);
	}
	return 0;
}

void nic_devlink_exit(struct nic *nic)
{
	devlink_health_reporter_destroy(nic->reporter);
	unregister_params(nic);
}
