/*
 * The Ethernet controllers on PCI, and what binding one to vfio-pci for DPDK would need and cost.
 *
 * Read from sysfs under a root that tests may choose; changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"

struct host_pci_nic {
	char address[16]; /* "0000:03:00.0" */
	uint16_t vendor, device;
	char driver[32];       /* bound now: "igb", "vfio-pci"; empty: none */
	char iommu_group[16];  /* empty: no IOMMU for it */
	uint32_t group_others; /* devices that share the group and would have to go along */
	int numa_node;	       /* -1: none */
	char netdev[16];       /* its interface; empty: none in the namespace of this sysfs */
	uint32_t ifindex;      /* of netdev, 0 without */
	bool up;	       /* netdev, administratively */
	bool default_route;    /* netdev carries a default route: see host_pci_mark_routes */
};

struct host_pci_driver {
	char name[64];	 /* "virtio-pci" */
	char module[64]; /* "virtio_pci" */
	bool loaded;
};

struct host_vfio {
	bool loaded;  /* the vfio-pci module is there */
	bool iommu;   /* the machine has an IOMMU that is on */
	bool noiommu; /* enable_unsafe_noiommu_mode */
};

/* In an array that the caller frees, sorted by address; NULL when there are none. root: "" for
 * this machine. A machine without PCI has none. */
int host_pci_scan(
	const char *root, struct host_pci_nic **ret_nics, size_t *ret_n, struct reason *ret_reason);
void host_vfio_get(const char *root, struct host_vfio *ret);
/* The kernel's own driver for a device that is bound to another, or to none: its module by the
 * table that modprobe has, and the driver's name. 0, or -ENOENT: not known. */
int host_pci_kernel_driver(
	const char *root, const struct host_pci_nic *nic, struct host_pci_driver *ret_driver);
/* Sets default_route of those whose interface is in ifindexes (host_default_routes). */
void host_pci_mark_routes(
	struct host_pci_nic *nics, size_t n, const uint32_t *ifindexes, size_t n_ifindexes);
/* May it be bound to vfio-pci? 0, or -errno; the reason says what is missing and the command. */
int host_pci_bindable(
	const struct host_pci_nic *nic, const struct host_vfio *vfio, struct reason *ret_reason);
