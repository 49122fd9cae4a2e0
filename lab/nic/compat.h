/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels 6.1, 6.12 and 7.2. */
#ifndef NIC_COMPAT_H
#define NIC_COMPAT_H

#include <linux/version.h>

#define NIC_KERNEL_BEFORE(major, minor) (LINUX_VERSION_CODE < KERNEL_VERSION(major, minor, 0))

#endif
