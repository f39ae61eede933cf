/* Reads PCI Ethernet controllers from sysfs. */
#include "host/pci.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/utsname.h>
#include <unistd.h>

/* PCI class 02 (network), subclass 00 (Ethernet); the last byte is the interface. */
#define CLASS_ETHERNET 0x0200
#define IFF_UP_BIT     1ul

__attribute__((format(printf, 3, 4))) static bool read_text(
	char *ret, size_t size, const char *format, ...)
{
	char path[PATH_MAX];
	va_list args;
	FILE *f;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	ret[0] = '\0';
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(ret, (int)size, f))
		ret[0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	fclose(f);
	return ret[0] != '\0';
}

/* The last part of where a link of the device points: its driver, its IOMMU group. */
static void read_link_name(const char *dir, const char *name, char *ret, size_t size)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *last;
	ssize_t n;

	ret[0] = '\0';
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	last = strrchr(target, '/');
	snprintf(ret, size, "%.*s", (int)size - 1, last ? last + 1 : target);
}

static bool hidden(const struct dirent *entry)
{
	return entry->d_name[0] == '.';
}

/* The first interface in DIR/net. */
static bool find_netdev(const char *dir, struct host_pci_nic *nic)
{
	const struct dirent *entry;
	char path[PATH_MAX], index[16];
	bool found = false;
	DIR *net;

	snprintf(path, sizeof(path), "%s/net", dir);
	net = opendir(path);
	if (!net)
		return false;
	while (!found && (entry = readdir(net))) {
		if (hidden(entry))
			continue;
		snprintf(nic->netdev, sizeof(nic->netdev), "%.15s", entry->d_name);
		if (read_text(index, sizeof(index), "%s/%s/ifindex", path, entry->d_name))
			nic->ifindex = (uint32_t)strtoul(index, NULL, 10);
		if (read_text(index, sizeof(index), "%s/%s/flags", path, entry->d_name))
			nic->up = strtoul(index, NULL, 16) & IFF_UP_BIT;
		found = true;
	}
	closedir(net);
	return found;
}

/* A virtio controller has a child device that has the interface. */
static void find_netdev_of_child(const char *dir, struct host_pci_nic *nic)
{
	const struct dirent *entry;
	char path[PATH_MAX];
	bool found = false;
	DIR *d;

	d = opendir(dir);
	if (!d)
		return;
	while (!found && (entry = readdir(d))) {
		if (strncmp(entry->d_name, "virtio", 6) != 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < (int)sizeof(path))
			found = find_netdev(path, nic);
	}
	closedir(d);
}

/* Devices of the group beside this one. Bridges (class 06) stay with the kernel and don't
 * matter to VFIO (vfio_dev_viable in the kernel's vfio.c, driver pcieport). */
static uint32_t count_group_others(const char *root, const struct host_pci_nic *nic)
{
	const struct dirent *entry;
	char path[PATH_MAX], class[16];
	uint32_t n = 0;
	DIR *group;

	snprintf(path, sizeof(path), "%s/sys/kernel/iommu_groups/%s/devices", root,
		nic->iommu_group);
	group = opendir(path);
	if (!group)
		return 0;
	while ((entry = readdir(group))) {
		if (hidden(entry) || strcmp(entry->d_name, nic->address) == 0)
			continue;
		if (read_text(class, sizeof(class), "%s/sys/bus/pci/devices/%s/class", root,
			    entry->d_name) &&
			strtoul(class, NULL, 16) >> 16 == 0x06)
			continue;
		n++;
	}
	closedir(group);
	return n;
}

/* Returns false when it is not an Ethernet controller. */
static bool read_nic(const char *root, const char *address, struct host_pci_nic *nic)
{
	char dir[PATH_MAX], text[32];

	snprintf(dir, sizeof(dir), "%s/sys/bus/pci/devices/%s", root, address);
	if (!read_text(text, sizeof(text), "%s/class", dir) ||
		strtoul(text, NULL, 16) >> 8 != CLASS_ETHERNET)
		return false;
	memset(nic, 0, sizeof(*nic));
	snprintf(nic->address, sizeof(nic->address), "%.15s", address);
	if (read_text(text, sizeof(text), "%s/vendor", dir))
		nic->vendor = (uint16_t)strtoul(text, NULL, 16);
	if (read_text(text, sizeof(text), "%s/device", dir))
		nic->device = (uint16_t)strtoul(text, NULL, 16);
	nic->numa_node = -1;
	if (read_text(text, sizeof(text), "%s/numa_node", dir))
		nic->numa_node = (int)strtol(text, NULL, 10);
	read_link_name(dir, "driver", nic->driver, sizeof(nic->driver));
	read_link_name(dir, "iommu_group", nic->iommu_group, sizeof(nic->iommu_group));
	if (nic->iommu_group[0])
		nic->group_others = count_group_others(root, nic);
	if (!find_netdev(dir, nic))
		find_netdev_of_child(dir, nic);
	return true;
}

static int by_address(const void *a, const void *b)
{
	const struct host_pci_nic *x = a, *y = b;

	return strcmp(x->address, y->address);
}

int host_pci_scan(
	const char *root, struct host_pci_nic **ret_nics, size_t *ret_n, struct reason *ret_reason)
{
	struct host_pci_nic *nics = NULL, *grown, nic;
	const struct dirent *entry;
	char path[PATH_MAX];
	size_t n = 0;
	DIR *devices;

	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices", root);
	devices = opendir(path);
	if (!devices && errno != ENOENT)
		return reason_set(
			ret_reason, -errno, NULL, "can't read %.200s: %s", path, strerror(errno));
	while (devices && (entry = readdir(devices))) {
		if (hidden(entry) || !read_nic(root, entry->d_name, &nic))
			continue;
		grown = reallocarray(nics, n + 1, sizeof(*nics));
		if (!grown) {
			free(nics);
			closedir(devices);
			return reason_set(ret_reason, -ENOMEM, NULL, "no memory for PCI devices");
		}
		nics = grown;
		nics[n++] = nic;
	}
	if (devices)
		closedir(devices);
	if (n)
		qsort(nics, n, sizeof(*nics), by_address);
	*ret_nics = nics;
	*ret_n = n;
	return 0;
}

/* The first module whose pattern is the device's: "alias pci:v00008086d000010C9sv*... igb". */
static bool find_module(FILE *aliases, const char *modalias, char *ret, size_t size)
{
	char line[512], pattern[256], module[64];

	while (fgets(line, sizeof(line), aliases)) {
		if (sscanf(line, "alias %255s %63s", pattern, module) != 2 ||
			strncmp(pattern, "pci:", 4) != 0 || fnmatch(pattern, modalias, 0) != 0)
			continue;
		snprintf(ret, size, "%s", module);
		return true;
	}
	return false;
}

/* A driver may be called otherwise than its module, which tells while it is loaded. */
static void find_driver(const char *root, struct host_pci_driver *d)
{
	const struct dirent *entry;
	char path[PATH_MAX];
	DIR *drivers;

	snprintf(d->name, sizeof(d->name), "%s", d->module);
	snprintf(path, sizeof(path), "%s/sys/module/%s/drivers", root, d->module);
	drivers = opendir(path);
	d->loaded = drivers != NULL;
	while (drivers && (entry = readdir(drivers))) {
		if (strncmp(entry->d_name, "pci:", 4) == 0)
			snprintf(d->name, sizeof(d->name), "%.63s", entry->d_name + 4);
	}
	if (drivers)
		closedir(drivers);
}

int host_pci_kernel_driver(
	const char *root, const struct host_pci_nic *nic, struct host_pci_driver *ret_driver)
{
	struct host_pci_driver d = {0};
	char path[PATH_MAX], modalias[128];
	struct utsname kernel;
	bool found;
	FILE *f;

	if (!read_text(modalias, sizeof(modalias), "%s/sys/bus/pci/devices/%s/modalias", root,
		    nic->address) ||
		uname(&kernel) < 0)
		return -ENOENT;
	snprintf(path, sizeof(path), "%s/lib/modules/%s/modules.alias", root, kernel.release);
	f = fopen(path, "re");
	if (!f)
		return -ENOENT;
	found = find_module(f, modalias, d.module, sizeof(d.module));
	fclose(f);
	if (!found)
		return -ENOENT;
	find_driver(root, &d);
	*ret_driver = d;
	return 0;
}

void host_vfio_get(const char *root, struct host_vfio *ret)
{
	const struct dirent *entry;
	char path[PATH_MAX], text[8];
	DIR *groups;

	memset(ret, 0, sizeof(*ret));
	snprintf(path, sizeof(path), "%s/sys/bus/pci/drivers/vfio-pci", root);
	ret->loaded = access(path, F_OK) == 0;
	snprintf(path, sizeof(path), "%s/sys/kernel/iommu_groups", root);
	groups = opendir(path);
	while (groups && (entry = readdir(groups)))
		ret->iommu |= !hidden(entry);
	if (groups)
		closedir(groups);
	ret->noiommu = read_text(text, sizeof(text),
			       "%s/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", root) &&
		       (text[0] == 'Y' || text[0] == '1');
}

void host_pci_mark_routes(
	struct host_pci_nic *nics, size_t n, const uint32_t *ifindexes, size_t n_ifindexes)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n_ifindexes; k++)
			if (nics[i].ifindex && nics[i].ifindex == ifindexes[k])
				nics[i].default_route = true;
}

int host_pci_bindable(
	const struct host_pci_nic *nic, const struct host_vfio *vfio, struct reason *ret_reason)
{
	/* Shares its queues with the kernel's driver: DPDK uses it bound as it is. */
	if (strcmp(nic->driver, "mlx5_core") == 0 || strcmp(nic->driver, "mlx4_core") == 0)
		return reason_set(ret_reason, -EALREADY, NULL,
			"%s stays with %s: its DPDK driver works through it, nothing is bound",
			nic->address, nic->driver);
	if (!vfio->iommu && !vfio->noiommu)
		return reason_set(ret_reason, -EOPNOTSUPP,
			"turn on VT-d/AMD-Vi in the firmware, and intel_iommu=on iommu=pt on the "
			"kernel's command line",
			"there is no IOMMU, which vfio-pci needs");
	if (!nic->iommu_group[0] && !vfio->noiommu)
		return reason_set(ret_reason, -EOPNOTSUPP,
			"another slot (of a QEMU guest: iommu_platform=on), or, guarding no "
			"memory, echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
			"%s is behind no IOMMU, which vfio-pci needs", nic->address);
	if (nic->group_others)
		return reason_set(ret_reason, -EBUSY,
			"bind the others to vfio-pci too, or move the card to another slot",
			"%s shares IOMMU group %s with %u other devices", nic->address,
			nic->iommu_group, nic->group_others);
	if (!vfio->loaded)
		return reason_set(ret_reason, -ENOENT, "modprobe vfio-pci",
			"the kernel module vfio-pci is not loaded");
	return 0;
}
