/* PCI controllers are read from a made-up sysfs: an Intel card behind an IOMMU, a virtio one
 * without, one bound to vfio-pci, and a disk controller that isn't one. */
#include "made_root.h"

#include "host/pci.h"
#include "host/rights.h"

static int make_root(void **state)
{
	(void)state;
	root_make();
	put(DEVICES "/0000:03:00.0/class", "0x020000\n");
	put(DEVICES "/0000:03:00.0/vendor", "0x8086\n");
	put(DEVICES "/0000:03:00.0/device", "0x10c9\n");
	put(DEVICES "/0000:03:00.0/numa_node", "1\n");
	put(DEVICES "/0000:03:00.0/net/enp3s0/ifindex", "7\n");
	point(DEVICES "/0000:03:00.0/driver", "../../../bus/pci/drivers/igb");
	point(DEVICES "/0000:03:00.0/iommu_group", "../../../kernel/iommu_groups/12");
	put("sys/kernel/iommu_groups/12/devices/0000:03:00.0", "");
	put("sys/kernel/iommu_groups/12/devices/0000:00:1c.0", "");
	put(DEVICES "/0000:00:1c.0/class", "0x060400\n");

	put(DEVICES "/0000:00:03.0/class", "0x020000\n");
	put(DEVICES "/0000:00:03.0/vendor", "0x1af4\n");
	put(DEVICES "/0000:00:03.0/device", "0x1000\n");
	put(DEVICES "/0000:00:03.0/numa_node", "-1\n");
	put(DEVICES "/0000:00:03.0/virtio0/net/eth0/ifindex", "2\n");
	point(DEVICES "/0000:00:03.0/driver", "../../../bus/pci/drivers/virtio-pci");

	put(DEVICES "/0000:04:00.0/class", "0x020000\n");
	point(DEVICES "/0000:04:00.0/driver", "../../../bus/pci/drivers/vfio-pci");
	put(DEVICES "/0000:05:00.0/class", "0x010601\n");
	put("proc/meminfo", "HugePages_Total:      64\nHugePages_Free:       60\nHugepagesize:     "
			    "  2048 kB\n");
	return 0;
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

	put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
	put("sys/bus/pci/drivers/vfio-pci/bind", "");
	host_vfio_get(root, &vfio);
	assert_true(vfio.loaded && vfio.noiommu);
	assert_int_equal(host_pci_bindable(&nics[0], &vfio, &why), 0);
	assert_int_equal(host_pci_bindable(&nics[1], &vfio, &why), 0);
	free(nics);

	put("sys/kernel/iommu_groups/12/devices/0000:05:00.0", "");
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

#define with_root(test) cmocka_unit_test_setup_teardown(test, make_root, root_remove)

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
