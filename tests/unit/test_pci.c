/* PCI controllers are read from a made-up sysfs: an Intel card behind an IOMMU, a virtio one
 * without, one bound to vfio-pci, and a disk controller that isn't one. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#include "host/pci.h"
#include "host/rights.h"

static char root[64];

__attribute__((format(printf, 2, 3))) static void put(const char *text, const char *format, ...)
{
	char path[512], at[640];
	va_list args;
	FILE *f;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	snprintf(at, sizeof(at), "%s/%s", root, path);
	for (char *slash = at + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		assert_true(mkdir(at, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	f = fopen(at, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void point(const char *target, const char *path)
{
	char at[256];

	snprintf(at, sizeof(at), "%s/%s", root, path);
	assert_int_equal(symlink(target, at), 0);
}

static int make_root(void **state)
{
	const char *devices = "sys/bus/pci/devices";

	(void)state;
	snprintf(root, sizeof(root), "/tmp/culvert-pci-XXXXXX");
	assert_non_null(mkdtemp(root));
	put("0x020000\n", "%s/0000:03:00.0/class", devices);
	put("0x8086\n", "%s/0000:03:00.0/vendor", devices);
	put("0x10c9\n", "%s/0000:03:00.0/device", devices);
	put("1\n", "%s/0000:03:00.0/numa_node", devices);
	put("7\n", "%s/0000:03:00.0/net/enp3s0/ifindex", devices);
	point("../../../bus/pci/drivers/igb", "sys/bus/pci/devices/0000:03:00.0/driver");
	point("../../../kernel/iommu_groups/12", "sys/bus/pci/devices/0000:03:00.0/iommu_group");
	put("", "sys/kernel/iommu_groups/12/devices/0000:03:00.0");
	put("", "sys/kernel/iommu_groups/12/devices/0000:00:1c.0");
	put("0x060400\n", "%s/0000:00:1c.0/class", devices);

	put("0x020000\n", "%s/0000:00:03.0/class", devices);
	put("0x1af4\n", "%s/0000:00:03.0/vendor", devices);
	put("0x1000\n", "%s/0000:00:03.0/device", devices);
	put("-1\n", "%s/0000:00:03.0/numa_node", devices);
	put("2\n", "%s/0000:00:03.0/virtio0/net/eth0/ifindex", devices);
	point("../../../bus/pci/drivers/virtio-pci", "sys/bus/pci/devices/0000:00:03.0/driver");

	put("0x020000\n", "%s/0000:04:00.0/class", devices);
	point("../../../bus/pci/drivers/vfio-pci", "sys/bus/pci/devices/0000:04:00.0/driver");
	put("0x010601\n", "%s/0000:05:00.0/class", devices);
	put("HugePages_Total:      64\nHugePages_Free:       60\nHugepagesize:       2048 kB\n",
		"proc/meminfo");
	return 0;
}

static int remove_root(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void finds_controllers(void **state)
{
	const uint32_t routes[] = {99, 2};
	struct host_pci_nic *nics = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(host_pci_scan(root, &nics, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(nics[0].address, "0000:00:03.0");
	assert_string_equal(nics[0].driver, "virtio-pci");
	assert_string_equal(nics[0].netdev, "eth0");
	assert_int_equal(nics[0].numa_node, -1);
	assert_string_equal(nics[0].iommu_group, "");
	assert_string_equal(nics[1].address, "0000:03:00.0");
	assert_int_equal(nics[1].vendor, 0x8086);
	assert_int_equal(nics[1].device, 0x10c9);
	assert_string_equal(nics[1].driver, "igb");
	assert_string_equal(nics[1].iommu_group, "12");
	assert_int_equal(nics[1].group_others, 0); /* the bridge does not count */
	assert_int_equal(nics[1].numa_node, 1);
	assert_int_equal(nics[1].ifindex, 7);
	assert_string_equal(nics[2].driver, "vfio-pci");
	assert_string_equal(nics[2].netdev, "");

	host_pci_mark_routes(nics, n, routes, 2);
	assert_true(nics[0].default_route);
	assert_false(nics[1].default_route);
	assert_false(nics[2].default_route);
	free(nics);
}

static void says_what_binding_needs(void **state)
{
	struct host_pci_nic *nics = NULL;
	struct host_vfio vfio;
	struct reason why;
	size_t n = 0;

	(void)state;
	host_vfio_get(root, &vfio);
	assert_true(vfio.iommu && !vfio.loaded && !vfio.noiommu);
	assert_int_equal(host_pci_scan(root, &nics, &n, NULL), 0);
	assert_int_equal(host_pci_bindable(&nics[0], &vfio, &why), -EOPNOTSUPP);
	assert_non_null(strstr(why.what, "0000:00:03.0"));
	assert_int_equal(host_pci_bindable(&nics[1], &vfio, &why), -ENOENT);
	assert_string_equal(why.remedy, "modprobe vfio-pci");

	put("Y\n", "sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
	put("", "sys/bus/pci/drivers/vfio-pci/bind");
	host_vfio_get(root, &vfio);
	assert_true(vfio.loaded && vfio.noiommu);
	assert_int_equal(host_pci_bindable(&nics[0], &vfio, &why), 0);
	assert_int_equal(host_pci_bindable(&nics[1], &vfio, &why), 0);
	free(nics);

	put("", "sys/kernel/iommu_groups/12/devices/0000:05:00.0");
	assert_int_equal(host_pci_scan(root, &nics, &n, NULL), 0);
	assert_int_equal(nics[1].group_others, 1);
	assert_int_equal(host_pci_bindable(&nics[1], &vfio, &why), -EBUSY);
	free(nics);
}

static void a_machine_without_pci_has_none(void **state)
{
	struct host_pci_nic *nics = NULL;
	struct host_vfio vfio;
	size_t n = 5;

	(void)state;
	assert_int_equal(host_pci_scan("/nowhere", &nics, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_null(nics);
	host_vfio_get("/nowhere", &vfio);
	assert_false(vfio.iommu || vfio.loaded || vfio.noiommu);
}

static void reads_huge_pages(void **state)
{
	struct host_huge_pages huge;

	(void)state;
	host_huge_pages_get(root, &huge);
	assert_int_equal(huge.total, 64);
	assert_int_equal(huge.free, 60);
	assert_int_equal(huge.size, 2048 * 1024);
	host_huge_pages_get("/nowhere", &huge);
	assert_int_equal(huge.total, 0);
	assert_int_equal(huge.size, 0);
}

#define with_root(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_root(finds_controllers),
		with_root(says_what_binding_needs),
		cmocka_unit_test(a_machine_without_pci_has_none),
		with_root(reads_huge_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
