/* What is known of drivers and can't be asked of the kernel: limits, refusals and traps, one row a
 * driver. Sources: the drivers' own code (MTU limits for 4 KiB pages), Documentation/networking,
 * and reports of the field. */
#include <linux/version.h>
#include <string.h>

#include "engine/af_xdp/device.h"

static const struct quirk quirks[] = {
	/* drivers/net/veth.c: page - headroom - room for skb_shared_info; with frags the peer keeps
	 * TSO, whose frames of 64 KB no slot holds. */
	{.driver = "veth", .mtu_native = 3520, .long_from_peer = true},
	{.driver = "virtio_net",
		.mtu_native = 3506,
		.zero_copy = true,
		/* The receiving half came with 6.11, but is refused without the other. */
		.zero_copy_since = KERNEL_VERSION(6, 13, 0),
		.note = "virtio needs a pair of transmit queues more for each CPU, and no LRO or "
			"checksum offload promised by its host",
		.remedy = "ethtool -K %s lro off; ethtool -L %s combined N (half of what it has)"},
	{.driver = "tun", .mtu_native = 1500, .long_from_peer = true},
	{.driver = "igc",
		.mtu_native = 1500,
		.zero_copy = true,
		.zero_copy_since = KERNEL_VERSION(5, 14, 0)},
	/* Chunks of 2048 bytes split frames above 1 KB without a word. */
	{.driver = "igb",
		.mtu_native = 3046,
		.zero_copy = true,
		.zero_copy_since = KERNEL_VERSION(6, 14, 0),
		.zero_copy_slot = 4096},
	{.driver = "i40e", .mtu_native = 3046, .zero_copy = true},
	{.driver = "ice", .mtu_native = 3046, .zero_copy = true},
	{.driver = "ixgbe", .mtu_native = 3046, .zero_copy = true},
	{.driver = "mlx5_core", .mtu_native = 3498, .zero_copy = true},
	{.driver = "ena",
		.mtu_native = 3818,
		.note = "ENA takes XDP with an MTU of at most 3818 and at most half of its "
			"channels",
		.remedy = "ip link set dev %s mtu 3498; ethtool -L %s combined N (half of its "
			  "maximum)"},
	{.driver = "gve", .zero_copy = true, .zero_copy_since = KERNEL_VERSION(6, 4, 0)},
	{.driver = "idpf", .zero_copy = true},
	{.driver = "stmmac", .zero_copy = true, .zero_copy_since = KERNEL_VERSION(5, 13, 0)},
	{.driver = "nfp", .zero_copy = true, .zero_copy_since = KERNEL_VERSION(5, 18, 0)},
	{.driver = "fsl_dpaa2_eth", .zero_copy = true, .zero_copy_since = KERNEL_VERSION(6, 2, 0)},
	{.driver = "tsnep", .zero_copy = true, .zero_copy_since = KERNEL_VERSION(6, 4, 0)},
	{.driver = "lo", .long_from_peer = true},
};

const struct quirk *quirk_of(const char *driver)
{
	static const struct quirk none = {.driver = ""};

	for (size_t i = 0; i < sizeof(quirks) / sizeof(quirks[0]); i++) {
		if (strcmp(quirks[i].driver, driver) == 0)
			return &quirks[i];
	}
	return &none;
}

bool quirk_zero_copy_is_later(const struct device *d)
{
	const struct quirk *quirk = quirk_of(d->driver);

	return quirk->zero_copy && d->kernel && d->kernel < quirk->zero_copy_since;
}
