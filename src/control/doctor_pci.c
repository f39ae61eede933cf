/* Says of each PCI Ethernet controller whether DPDK could have it, and what that would cost. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/doctor_internal.h"
#include "host/addresses.h"
#include "host/pci.h"

/* The command that gives a device back to the kernel. */
static void way_back(const char *root, const struct host_pci_nic *nic, char *ret, size_t size)
{
	struct host_pci_driver driver;

	if (host_pci_kernel_driver(root, nic, &driver))
		snprintf(ret, size,
			"dpdk-devbind.py --bind=KERNEL-DRIVER %s (lspci -k -s %s names it)",
			nic->address, nic->address);
	else
		snprintf(ret, size, "%s%s%sdpdk-devbind.py --bind=%s %s",
			driver.loaded ? "" : "modprobe ", driver.loaded ? "" : driver.module,
			driver.loaded ? "" : "; ", driver.name, nic->address);
}

static void say_bound(struct doctor *d, const char *root, const struct host_pci_nic *nic)
{
	char back[256];

	way_back(root, nic, back, sizeof(back));
	doctor_say(d, DOCTOR_OK, nic->address, NULL,
		"[%04x:%04x] is bound to %s: DPDK has it as dpdk:%s; back: %s", nic->vendor,
		nic->device, nic->driver, nic->address, back);
}

/* UIO gives DPDK the device as it is: what the device writes to memory passes no IOMMU. */
static void say_uio(struct doctor *d, const struct host_pci_nic *nic, const struct host_vfio *vfio)
{
	char instead[384] = "", remedy[256] = "";
	struct reason why = {0};
	bool better = false;

	if (host_pci_bindable(nic, vfio, &why)) {
		snprintf(instead, sizeof(instead), "; vfio-pci can't have it: %s", why.what);
		snprintf(remedy, sizeof(remedy), "%s", why.remedy);
	} else if (!nic->iommu_group[0]) {
		snprintf(instead, sizeof(instead), ", nor with vfio-pci: there is none for it");
	} else {
		better = true;
		snprintf(instead, sizeof(instead), ", as it is with vfio-pci");
		snprintf(
			remedy, sizeof(remedy), "dpdk-devbind.py --bind=vfio-pci %s", nic->address);
	}
	doctor_say(d, better ? DOCTOR_WARN : DOCTOR_NOTE, nic->address, remedy,
		"[%04x:%04x] is bound to %s: DPDK has it as dpdk:%s, but memory is not guarded "
		"from it by an IOMMU%s",
		nic->vendor, nic->device, nic->driver, nic->address, instead);
}

static void say_nic(struct doctor *d, const char *root, const struct host_pci_nic *nic,
	const struct host_vfio *vfio)
{
	char what[192], loss[160] = "", back[256], down[64] = "", remedy[512];
	struct reason why = {0};
	int err;

	if (strcmp(nic->driver, "vfio-pci") == 0) {
		say_bound(d, root, nic);
		return;
	}
	if (strcmp(nic->driver, "uio_pci_generic") == 0 || strcmp(nic->driver, "igb_uio") == 0) {
		say_uio(d, nic, vfio);
		return;
	}
	snprintf(what, sizeof(what), "[%04x:%04x] driver %s, interface %s, IOMMU group %s",
		nic->vendor, nic->device, nic->driver[0] ? nic->driver : "none",
		nic->netdev[0] ? nic->netdev : "none here",
		nic->iommu_group[0] ? nic->iommu_group : "none");
	if (nic->default_route)
		snprintf(loss, sizeof(loss),
			"; IT CARRIES THE DEFAULT ROUTE: BINDING IT TAKES THIS HOST OFF THE "
			"NETWORK");
	else if (nic->netdev[0])
		snprintf(loss, sizeof(loss), "; binding it takes %s from the kernel", nic->netdev);
	err = host_pci_bindable(nic, vfio, &why);
	if (err) {
		doctor_say(d, nic->default_route ? DOCTOR_WARN : DOCTOR_NOTE, nic->address,
			why.remedy, "%s; DPDK can't bind it: %s%s", what, why.what, loss);
		return;
	}
	/* It refuses an interface with routes, which go when that is down. One that carries the
	 * default route it shall refuse. */
	if (nic->up && !nic->default_route)
		snprintf(down, sizeof(down), "ip link set dev %s down; ", nic->netdev);
	if (nic->driver[0])
		snprintf(back, sizeof(back), "dpdk-devbind.py --bind=%s %s", nic->driver,
			nic->address);
	else
		way_back(root, nic, back, sizeof(back));
	snprintf(remedy, sizeof(remedy), "%sdpdk-devbind.py --bind=vfio-pci %s; back: %s", down,
		nic->address, back);
	doctor_say(d, nic->default_route ? DOCTOR_WARN : DOCTOR_NOTE, nic->address, remedy,
		"%s; DPDK could have it%s", what, loss);
}

void doctor_pci(struct doctor *d, const char *root)
{
	struct host_pci_nic *nics = NULL;
	uint32_t *routes = NULL;
	size_t n_nics = 0, n_routes = 0;
	struct host_vfio vfio;
	struct reason why = {0};

	if (host_pci_scan(root, &nics, &n_nics, &why)) {
		doctor_say(d, DOCTOR_WARN, "PCI", why.remedy, "%s", why.what);
		return;
	}
	if (host_default_routes(&routes, &n_routes, &why))
		doctor_say(d, DOCTOR_WARN, "PCI", why.remedy,
			"%s: which interface carries the default route is not known", why.what);
	host_pci_mark_routes(nics, n_nics, routes, n_routes);
	host_vfio_get(root, &vfio);
	for (size_t i = 0; i < n_nics; i++)
		say_nic(d, root, &nics[i], &vfio);
	if (!n_nics)
		doctor_say(d, DOCTOR_NOTE, "PCI", NULL,
			"no Ethernet controller: DPDK has virtual devices only");
	free(routes);
	free(nics);
}
