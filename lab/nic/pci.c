// SPDX-License-Identifier: GPL-2.0-only
/*
 * A PCI host bridge in software: a root port, and behind it the PF and its VFs, each a config space and no BARs.
 *
 * PCI Express Base Specification: 7.5.1 headers, 7.5.3 PCI Express capability, 7.9.3 serial number, 9.3.3 SR-IOV.
 */
#include <linux/utsname.h>
#include <linux/jhash.h>
#include <linux/vmalloc.h>

#include "nic.h"

#define CONFIG_SIZE	4096
#define EXPRESS		0x40
#define SRIOV		0x100
#define SERIAL		0x140
#define FIRST_VF	8	/* its devfn, and so its distance from the PF */
#define PORT_BUS	0
#define NIC_BUS		1

struct function {
	u8 config[CONFIG_SIZE];
	u8 writable[CONFIG_SIZE];
};

struct nic_bridge {
	struct pci_sysdata sysdata;
	struct resource buses;
	struct pci_bus *bus;
	spinlock_t lock;	/* of config spaces and nic */
	struct nic *nic;
	unsigned int index;
	unsigned int vfs;
	const char *profile;
	struct function port;
	struct function functions[];	/* the PF, then VFs */
};

static void set8(struct function *f, int where, u8 value)
{
	f->config[where] = value;
}

static void set16(struct function *f, int where, u16 value, u16 writable)
{
	put_unaligned_le16(value, f->config + where);
	put_unaligned_le16(writable, f->writable + where);
}

static void set32(struct function *f, int where, u32 value)
{
	put_unaligned_le32(value, f->config + where);
}

static void set_header(struct function *f, u32 id, u32 class, u8 type)
{
	set32(f, PCI_VENDOR_ID, id);
	set16(f, PCI_COMMAND, 0, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	set16(f, PCI_STATUS, PCI_STATUS_CAP_LIST, 0);
	set32(f, PCI_CLASS_REVISION, class << 8 | 1);
	set8(f, PCI_HEADER_TYPE, type);
	set8(f, PCI_CAPABILITY_LIST, EXPRESS);
}

static void set_express(struct function *f, u16 type)
{
	u16 link = PCI_EXP_LNKSTA_CLS_8_0GB | PCI_EXP_LNKSTA_NLW_X8;
	bool endpoint = type == PCI_EXP_TYPE_ENDPOINT;

	set8(f, EXPRESS, PCI_CAP_ID_EXP);
	set16(f, EXPRESS + PCI_EXP_FLAGS, 2 | type << 4, 0);
	set32(f, EXPRESS + PCI_EXP_DEVCAP, endpoint ? PCI_EXP_DEVCAP_FLR | PCI_EXP_DEVCAP_RBER : PCI_EXP_DEVCAP_RBER);
	set16(f, EXPRESS + PCI_EXP_DEVCTL, 0, 0x7fff);
	set32(f, EXPRESS + PCI_EXP_LNKCAP, link | (endpoint ? 0 : PCI_EXP_LNKCAP_DLLLARC));
	set16(f, EXPRESS + PCI_EXP_LNKSTA, link | (endpoint ? 0 : PCI_EXP_LNKSTA_DLLLA), 0);
}

static void set_sriov(struct function *f, u16 vfs)
{
	set32(f, SRIOV, PCI_EXT_CAP_ID_SRIOV | 1 << 16 | SERIAL << 20);
	set16(f, SRIOV + PCI_SRIOV_CTRL, 0, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE);
	set16(f, SRIOV + PCI_SRIOV_INITIAL_VF, vfs, 0);
	set16(f, SRIOV + PCI_SRIOV_TOTAL_VF, vfs, 0);
	set16(f, SRIOV + PCI_SRIOV_NUM_VF, 0, 0xffff);
	set16(f, SRIOV + PCI_SRIOV_VF_OFFSET, FIRST_VF, 0);
	set16(f, SRIOV + PCI_SRIOV_VF_STRIDE, 1, 0);
	set16(f, SRIOV + PCI_SRIOV_VF_DID, NIC_DEVICE_VF, 0);
	set32(f, SRIOV + PCI_SRIOV_SUP_PGSIZE, 1);
	set16(f, SRIOV + PCI_SRIOV_SYS_PGSIZE, 1, 1);
}

/* The same on each boot of a node, another one on another node. */
static void set_serial(struct function *f, unsigned int index)
{
	set32(f, SERIAL, PCI_EXT_CAP_ID_DSN | 1 << 16);
	set32(f, SERIAL + 4, jhash(utsname()->nodename, strlen(utsname()->nodename), index));
	set32(f, SERIAL + 8, 0xfa57fa00 | index);
}

static void set_all(struct nic_bridge *bridge)
{
	struct function *port = &bridge->port, *pf = &bridge->functions[0];
	unsigned int i;

	set_header(port, NIC_VENDOR | NIC_DEVICE_PORT << 16, PCI_CLASS_BRIDGE_PCI << 8, PCI_HEADER_TYPE_BRIDGE);
	set_express(port, PCI_EXP_TYPE_ROOT_PORT);
	set16(port, PCI_PRIMARY_BUS, PORT_BUS | NIC_BUS << 8, 0xffff);
	set16(port, PCI_SUBORDINATE_BUS, NIC_BUS, 0xff);
	set16(port, PCI_MEMORY_BASE, 0xfff0, 0xfff0);	/* above the limit: no window */
	set16(port, PCI_MEMORY_LIMIT, 0, 0xfff0);
	set16(port, PCI_BRIDGE_CONTROL, 0, 0xffff);

	set_header(pf, NIC_VENDOR | NIC_DEVICE_PF << 16, PCI_CLASS_NETWORK_ETHERNET << 8, PCI_HEADER_TYPE_NORMAL);
	set32(pf, PCI_SUBSYSTEM_VENDOR_ID, NIC_VENDOR | NIC_DEVICE_PF << 16);
	set_express(pf, PCI_EXP_TYPE_ENDPOINT);
	set_sriov(pf, bridge->vfs);
	set_serial(pf, bridge->index);

	for (i = 1; i <= bridge->vfs; i++) {
		struct function *vf = &bridge->functions[i];

		set_header(vf, 0xffffffff, PCI_CLASS_NETWORK_ETHERNET << 8, PCI_HEADER_TYPE_NORMAL);
		set32(vf, PCI_SUBSYSTEM_VENDOR_ID, NIC_VENDOR | NIC_DEVICE_VF << 16);
		set_express(vf, PCI_EXP_TYPE_ENDPOINT);
	}
}

/* The function at an address, NULL if nobody answers there; its number is that of a port of the switch. */
static struct function *function_at(struct nic_bridge *bridge, struct pci_bus *bus, unsigned int devfn, int *number)
{
	const u8 *sriov = bridge->functions[0].config + SRIOV;
	unsigned int enabled = 0;

	*number = -1;
	if (bus->number == PORT_BUS)
		return devfn ? NULL : &bridge->port;
	if (bus->number != get_unaligned_le16(bridge->port.config + PCI_PRIMARY_BUS) >> 8)
		return NULL;
	if (devfn && devfn < FIRST_VF)
		return NULL;
	*number = devfn ? devfn - FIRST_VF + 1 : 0;
	if (get_unaligned_le16(sriov + PCI_SRIOV_CTRL) & PCI_SRIOV_CTRL_VFE)
		enabled = min_t(unsigned int, get_unaligned_le16(sriov + PCI_SRIOV_NUM_VF), bridge->vfs);
	return *number <= enabled ? &bridge->functions[*number] : NULL;
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct nic_bridge *bridge = container_of(bus->sysdata, struct nic_bridge, sysdata);
	struct function *f;
	unsigned long flags;
	int i, number;

	*value = 0xffffffff;
	spin_lock_irqsave(&bridge->lock, flags);
	f = function_at(bridge, bus, devfn, &number);
	if (f && where + size <= CONFIG_SIZE) {
		*value = 0;
		for (i = 0; i < size; i++)
			*value |= (u32)f->config[where + i] << (8 * i);
	}
	spin_unlock_irqrestore(&bridge->lock, flags);
	return f ? PCIBIOS_SUCCESSFUL : PCIBIOS_DEVICE_NOT_FOUND;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct nic_bridge *bridge = container_of(bus->sysdata, struct nic_bridge, sysdata);
	struct function *f;
	unsigned long flags;
	int i, number;

	spin_lock_irqsave(&bridge->lock, flags);
	f = function_at(bridge, bus, devfn, &number);
	for (i = 0; f && i < size && where + i < CONFIG_SIZE; i++) {
		u8 mask = f->writable[where + i];

		f->config[where + i] = (f->config[where + i] & ~mask) | ((value >> (8 * i)) & mask);
	}
	if (f && number >= 0 && where == EXPRESS + PCI_EXP_DEVCTL && value & PCI_EXP_DEVCTL_BCR_FLR && bridge->nic)
		nic_function_reset(bridge->nic, number);
	spin_unlock_irqrestore(&bridge->lock, flags);
	return f ? PCIBIOS_SUCCESSFUL : PCIBIOS_DEVICE_NOT_FOUND;
}

static struct pci_ops config_ops = {
	.read = config_read,
	.write = config_write,
};

struct nic_bridge *nic_bridge_create(unsigned int index, unsigned int vfs, const char *profile)
{
	struct nic_bridge *bridge;
	struct pci_host_bridge *host;
	int err;

	bridge = vzalloc(struct_size(bridge, functions, vfs + 1));
	if (!bridge)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&bridge->lock);
	bridge->index = index;
	bridge->vfs = vfs;
	bridge->profile = profile;
	bridge->sysdata.domain = index + 1;
	bridge->sysdata.node = NUMA_NO_NODE;
	bridge->buses = (struct resource)DEFINE_RES_NAMED(PORT_BUS, NIC_BUS + 1, "emulated NIC", IORESOURCE_BUS);
	set_all(bridge);

	host = pci_alloc_host_bridge(0);
	if (!host) {
		err = -ENOMEM;
		goto free_bridge;
	}
	host->ops = &config_ops;
	host->sysdata = &bridge->sysdata;
	/* The root port has no interrupt, so none of the services that need one. */
	host->native_aer = 0;
	host->native_pme = 0;
	host->native_dpc = 0;
	host->native_pcie_hotplug = 0;
	pci_add_resource(&host->windows, &bridge->buses);

	pci_lock_rescan_remove();
	err = pci_scan_root_bus_bridge(host);
	if (err) {
		pci_unlock_rescan_remove();
		pci_free_host_bridge(host);
		goto free_bridge;
	}
	bridge->bus = host->bus;
	pci_bus_add_devices(bridge->bus);
	pci_unlock_rescan_remove();
	return bridge;

free_bridge:
	vfree(bridge);
	return ERR_PTR(err);
}

void nic_bridge_destroy(struct nic_bridge *bridge)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(bridge->bus);
	pci_remove_root_bus(bridge->bus);
	pci_unlock_rescan_remove();
	vfree(bridge);
}

struct nic_bridge *nic_bridge_attach(struct pci_dev *pdev, struct nic *nic)
{
	struct nic_bridge *bridge = container_of(pdev->bus->sysdata, struct nic_bridge, sysdata);

	spin_lock_irq(&bridge->lock);
	bridge->nic = nic;
	spin_unlock_irq(&bridge->lock);
	return bridge;
}

/* After it no reset of a function is told any more. */
void nic_bridge_detach(struct nic_bridge *bridge)
{
	spin_lock_irq(&bridge->lock);
	bridge->nic = NULL;
	spin_unlock_irq(&bridge->lock);
}

unsigned int nic_bridge_index(const struct nic_bridge *bridge)
{
	return bridge->index;
}

unsigned int nic_bridge_vfs(const struct nic_bridge *bridge)
{
	return bridge->vfs;
}

const char *nic_bridge_profile(const struct nic_bridge *bridge)
{
	return bridge->profile;
}
