// SPDX-License-Identifier: GPL-2.0-only
/*
 * An IOMMU that translates nothing, for the emulated NIC's functions only: vfio-pci binds no device without a group.
 *
 * To be loaded before the NIC. No device of the NIC ever does DMA, so no mapping is kept.
 */
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "nic.h"

static struct iommu_device iommu;

static bool iommu_is(struct device *dev, enum iommu_cap capability)
{
	return capability == IOMMU_CAP_CACHE_COHERENCY;
}

static struct iommu_device *probe_device(struct device *dev)
{
	struct pci_dev *pdev = dev_is_pci(dev) ? to_pci_dev(dev) : NULL;

	if (!pdev || pdev->vendor != NIC_VENDOR || (pdev->device != NIC_DEVICE_PF && pdev->device != NIC_DEVICE_VF))
		return ERR_PTR(-ENODEV);
	return &iommu;
}

#if NIC_KERNEL_BEFORE(6, 19)
static int attach(struct iommu_domain *domain, struct device *dev)
#else
static int attach(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
#endif
{
	return 0;
}

static int map_pages(struct iommu_domain *domain, unsigned long iova, phys_addr_t physical, size_t size, size_t count,
		     int protection, gfp_t gfp, size_t *mapped)
{
	*mapped = size * count;
	return 0;
}

static size_t unmap_pages(struct iommu_domain *domain, unsigned long iova, size_t size, size_t count,
			  struct iommu_iotlb_gather *gather)
{
	return size * count;
}

static phys_addr_t iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	return iova;
}

static void free_domain(struct iommu_domain *domain)
{
	kfree(domain);
}

static struct iommu_domain *alloc_domain(void)
{
	struct iommu_domain *domain = kzalloc(sizeof(*domain), GFP_KERNEL);

	if (domain) {
		domain->pgsize_bitmap = PAGE_SIZE;
		domain->geometry.aperture_end = DMA_BIT_MASK(48);
		domain->geometry.force_aperture = true;
	}
	return domain;
}

static const struct iommu_domain_ops paging_ops = {
	.attach_dev = attach,
	.map_pages = map_pages,
	.unmap_pages = unmap_pages,
	.iova_to_phys = iova_to_phys,
	.free = free_domain,
};

#if NIC_KERNEL_BEFORE(6, 7)
static struct iommu_domain *alloc_any(unsigned int type)
{
	return alloc_domain();
}
#else
static struct iommu_domain *alloc_paging(struct device *dev)
{
	return alloc_domain();
}

static const struct iommu_domain_ops identity_ops = {
	.attach_dev = attach,
};

static struct iommu_domain identity = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &identity_ops,
};
#endif

static int default_domain_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static const struct iommu_ops ops = {
	.capable = iommu_is,
#if NIC_KERNEL_BEFORE(6, 7)
	.domain_alloc = alloc_any,
#else
	.identity_domain = &identity,
	.domain_alloc_paging = alloc_paging,
#endif
	.probe_device = probe_device,
	.device_group = generic_device_group,
	.def_domain_type = default_domain_type,
	.default_domain_ops = &paging_ops,
#if NIC_KERNEL_BEFORE(6, 17)
	.pgsize_bitmap = PAGE_SIZE,
#endif
	.owner = THIS_MODULE,
};

static int __init fastpath_iommu_init(void)
{
	int err = iommu_device_sysfs_add(&iommu, NULL, NULL, "fastpath_iommu");

	if (err)
		return err;
	err = iommu_device_register(&iommu, &ops, NULL);
	if (err)
		iommu_device_sysfs_remove(&iommu);
	return err;
}

module_init(fastpath_iommu_init);

/* Before it, the buses keep a pointer to the operations for ever: so the module stays. */
#if !NIC_KERNEL_BEFORE(6, 7)
static void __exit fastpath_iommu_exit(void)
{
	iommu_device_unregister(&iommu);
	iommu_device_sysfs_remove(&iommu);
}
module_exit(fastpath_iommu_exit);
#endif

MODULE_DESCRIPTION("IOMMU groups for the emulated SmartNIC");
MODULE_LICENSE("GPL");
