/* What is said of zero-copy that was refused: by a driver that has none, by a kernel whose driver
 * has none yet, and by one that has it. */
#include "unit.h"

#include <errno.h>
#include <linux/if_xdp.h>
#include <linux/version.h>
#include <string.h>

#include "engine/af_xdp/explain.h"
#include "engine/af_xdp/internal.h"

/* The reason of a bind with zero-copy that ended with err. */
static struct reason refused(const char *driver, uint32_t kernel, int err)
{
	struct device d = {.name = "eth0", .kernel = kernel};
	struct socket_settings s = {.device = &d, .bind_flags = XDP_ZEROCOPY};
	struct reason r = {0};

	strcpy(d.driver, driver);
	assert_int_equal(explain_bind(err, &s, &r), err);
	return r;
}

/* Offloads and queues are no help where the driver has no zero-copy yet. */
static void test_kernel_is_too_old(void **state)
{
	struct reason r = refused("virtio_net", KERNEL_VERSION(6, 1, 0), -EOPNOTSUPP);

	assert_string_equal(
		r.what, "the driver of eth0 (virtio_net) has no zero-copy in this kernel (6.1)");
	assert_string_equal(r.remedy, "Linux 6.13 or later");
	r = refused("virtio_net", KERNEL_VERSION(6, 12, 0), -EOPNOTSUPP);
	assert_string_equal(r.remedy, "Linux 6.13 or later");
	r = refused("igb", KERNEL_VERSION(6, 12, 0), -EOPNOTSUPP);
	assert_string_equal(r.remedy, "Linux 6.14 or later");
}

static void test_kernel_has_it(void **state)
{
	struct reason r = refused("virtio_net", KERNEL_VERSION(6, 13, 0), -EOPNOTSUPP);

	assert_non_null(strstr(r.remedy, "ethtool -K eth0 lro off"));
	r = refused("virtio_net", KERNEL_VERSION(6, 18, 0), -EINVAL);
	assert_non_null(strstr(r.remedy, "ethtool -K eth0 lro off"));
	r = refused("virtio_net", 0, -EOPNOTSUPP); /* not known */
	assert_non_null(strstr(r.remedy, "ethtool -K eth0 lro off"));
}

static void test_driver_has_none(void **state)
{
	struct reason r = refused("veth", KERNEL_VERSION(6, 1, 0), -EOPNOTSUPP);

	assert_string_equal(r.what, "the driver of eth0 (veth) has no zero-copy");
	assert_string_equal(r.remedy, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel_is_too_old),
		cmocka_unit_test(test_kernel_has_it),
		cmocka_unit_test(test_driver_has_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
