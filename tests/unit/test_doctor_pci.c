/* What doctor says of PCI controllers, from a made-up sysfs: can they be bound, what would be lost,
 * and the commands there and back. */
#include "made_root.h"

#include <sys/utsname.h>

#include "control/doctor_internal.h"
#include "host/addresses.h"

/* An interface that carries a default route; 0: this machine has none. */
static uint32_t route_ifindex(void)
{
	uint32_t *routes = NULL, ifindex;
	size_t n = 0;

	if (host_default_routes(&routes, &n, NULL))
		n = 0;
	ifindex = n ? routes[0] : 0;
	free(routes);
	return ifindex;
}

static int make_root(void **state)
{
	char ifindex[16], aliases[128];
	struct utsname kernel;

	root_make();
	put(DEVICES "/0000:03:00.0/class", "0x020000\n");
	put(DEVICES "/0000:03:00.0/vendor", "0x8086\n");
	put(DEVICES "/0000:03:00.0/device", "0x10c9\n");
	put(DEVICES "/0000:03:00.0/net/enp3s0/ifindex", "1000000\n");
	point(DEVICES "/0000:03:00.0/driver", "../../../bus/pci/drivers/igb");
	point(DEVICES "/0000:03:00.0/iommu_group", "../../../kernel/iommu_groups/12");
	put("sys/kernel/iommu_groups/12/devices/0000:03:00.0", "");
	put(DEVICES "/0000:04:00.0/class", "0x020000\n");
	point(DEVICES "/0000:04:00.0/driver", "../../../bus/pci/drivers/vfio-pci");
	put(DEVICES "/0000:04:00.0/modalias",
		"pci:v00008086d000010C9sv00008086sd0000A02Bbc02sc00i00\n");
	put(DEVICES "/0000:06:00.0/class", "0x020000\n");
	snprintf(ifindex, sizeof(ifindex), "%u\n", route_ifindex());
	put(DEVICES "/0000:06:00.0/net/eth9/ifindex", ifindex);
	point(DEVICES "/0000:06:00.0/driver", "../../../bus/pci/drivers/virtio-pci");
	put(DEVICES "/0000:07:00.0/class", "0x020000\n");
	put(DEVICES "/0000:07:00.0/vendor", "0x8086\n");
	put(DEVICES "/0000:07:00.0/device", "0x1521\n");
	point(DEVICES "/0000:07:00.0/driver", "../../../bus/pci/drivers/uio_pci_generic");
	point(DEVICES "/0000:07:00.0/iommu_group", "../../../kernel/iommu_groups/13");
	put("sys/kernel/iommu_groups/13/devices/0000:07:00.0", "");
	put(DEVICES "/0000:08:00.0/class", "0x020000\n");
	point(DEVICES "/0000:08:00.0/driver", "../../../bus/pci/drivers/igb_uio");
	assert_int_equal(uname(&kernel), 0);
	snprintf(aliases, sizeof(aliases), "lib/modules/%s/modules.alias", kernel.release);
	put(aliases, "# Aliases extracted from modules themselves.\n"
		     "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n"
		     "alias pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf\n"
		     "alias pci:v00008086d000010C9sv*sd*bc*sc*i* igb\n"
		     "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n");
	put("sys/bus/pci/drivers/vfio-pci/bind", "");
	put("proc/meminfo", "HugePages_Total: 64\nHugePages_Free: 60\nHugepagesize: 2048 kB\n");
	return 0;
}

static const struct doctor_check *check_of(const struct doctor *d, const char *subject)
{
	const struct doctor_check *found = NULL;

	for (size_t i = 0; i < d->n_checks; i++) {
		if (strcmp(d->checks[i].subject, subject) == 0) {
			assert_null(found); /* one line each */
			found = &d->checks[i];
		}
	}
	assert_non_null(found);
	return found;
}

static void says(const char *text, const char *words)
{
	if (!strstr(text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, text);
}

static void test_each_controller_has_its_line(void **state)
{
	const struct doctor_check *c;
	struct doctor d = {0};

	doctor_pci(&d, root);
	assert_int_equal(d.n_checks, 5);

	c = check_of(&d, "0000:03:00.0");
	assert_int_equal(c->status, DOCTOR_NOTE);
	says(c->text, "[8086:10c9] driver igb, interface enp3s0, IOMMU group 12; DPDK could have");
	says(c->text, "binding it takes enp3s0 from the kernel");
	says(c->remedy, "dpdk-devbind.py --bind=vfio-pci 0000:03:00.0; back: "
			"dpdk-devbind.py --bind=igb 0000:03:00.0");

	c = check_of(&d, "0000:04:00.0");
	assert_int_equal(c->status, DOCTOR_OK);
	says(c->text, "is bound to vfio-pci: DPDK has it as dpdk:0000:04:00.0; back: "
		      "modprobe igb; dpdk-devbind.py --bind=igb 0000:04:00.0");

	c = check_of(&d, "0000:06:00.0");
	says(c->text, "DPDK can't bind it: ");
	says(c->text, "IOMMU");
	assert_true(c->remedy[0]);
	if (!route_ifindex()) {
		print_message("this machine has no default route: half of the test is left out\n");
	} else {
		assert_int_equal(c->status, DOCTOR_WARN);
		says(c->text, "IT CARRIES THE DEFAULT ROUTE: BINDING IT TAKES THIS HOST OFF THE "
			      "NETWORK");
	}
	doctor_free(&d);
}

/* DPDK has them, but what they write to memory passes no IOMMU: vfio-pci is better where it can be
 * had. */
static void test_bound_to_uio(void **state)
{
	const struct doctor_check *c;
	struct doctor d = {0};

	doctor_pci(&d, root);
	c = check_of(&d, "0000:07:00.0");
	assert_int_equal(c->status, DOCTOR_WARN);
	says(c->text, "[8086:1521] is bound to uio_pci_generic: DPDK has it as dpdk:0000:07:00.0");
	says(c->text, "memory is not guarded from it by an IOMMU, as it is with vfio-pci");
	assert_string_equal(c->remedy, "dpdk-devbind.py --bind=vfio-pci 0000:07:00.0");

	c = check_of(&d, "0000:08:00.0");
	assert_int_equal(c->status, DOCTOR_NOTE);
	says(c->text, "is bound to igb_uio: DPDK has it as dpdk:0000:08:00.0");
	says(c->text, "vfio-pci can't have it: 0000:08:00.0 is behind no IOMMU");
	says(c->remedy, "enable_unsafe_noiommu_mode");
	doctor_free(&d);
	put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
	doctor_pci(&d, root);
	c = check_of(&d, "0000:08:00.0");
	assert_int_equal(c->status, DOCTOR_NOTE);
	says(c->text, "by an IOMMU, nor with vfio-pci: there is none for it");
	assert_string_equal(c->remedy, "");
	doctor_free(&d);
}

/* dpdk-devbind.py does nothing to an interface that has routes, and ends with 0. */
static void test_of_an_interface_that_is_up(void **state)
{
	const struct doctor_check *c;
	struct doctor d = {0};

	put(DEVICES "/0000:03:00.0/net/enp3s0/flags", "0x1003\n");
	doctor_pci(&d, root);
	c = check_of(&d, "0000:03:00.0");
	assert_string_equal(c->remedy,
		"ip link set dev enp3s0 down; dpdk-devbind.py --bind=vfio-pci 0000:03:00.0; "
		"back: dpdk-devbind.py --bind=igb 0000:03:00.0");
	doctor_free(&d);
}

/* Bound to nothing, or to DPDK's, its driver is what the kernel's modules say. */
static void test_the_kernels_driver(void **state)
{
	const struct doctor_check *c;
	struct doctor d = {0};

	put(DEVICES "/0000:04:00.0/modalias",
		"pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00\n");
	put("sys/module/virtio_pci/drivers/pci:virtio-pci", "");
	doctor_pci(&d, root);
	c = check_of(&d, "0000:04:00.0");
	says(c->text, "; back: dpdk-devbind.py --bind=virtio-pci 0000:04:00.0");
	doctor_free(&d);

	put(DEVICES "/0000:04:00.0/modalias",
		"pci:v0000FFFFd0000FFFFsv00000000sd00000000bc02sc00i00\n");
	doctor_pci(&d, root);
	c = check_of(&d, "0000:04:00.0");
	says(c->text, "; back: dpdk-devbind.py --bind=KERNEL-DRIVER 0000:04:00.0 (lspci -k ");
	doctor_free(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_controller_has_its_line),
		cmocka_unit_test(test_bound_to_uio),
		cmocka_unit_test(test_of_an_interface_that_is_up),
		cmocka_unit_test(test_the_kernels_driver),
	};

	return cmocka_run_group_tests(tests, make_root, root_remove);
}
