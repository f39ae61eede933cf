/* The arguments that DPDK's virtual devices have, by driver. */
#include "engine/dpdk/arguments.h"

#include <errno.h>
#include <rte_version.h>
#include <stdio.h>
#include <string.h>

/* As of DPDK 22.11; all have a value. */
static const struct driver {
	const char *name;
	const char *arguments; /* each with a space before and "=" behind it */
} drivers[] = {
	{"net_af_packet", " iface= qpairs= blocksz= framesz= framecnt= qdisc_bypass="},
	{"net_af_xdp", " iface= start_queue= queue_count= shared_umem= xdp_prog= busy_budget= "
		       "force_copy="},
	{"net_memif", " role= queues= id= socket= socket-abstract= bsize= rsize= mac= zero-copy= "
		      "secret="},
	{"net_null", " size= copy= no-rx="},
	{"net_pcap", " iface= rx_pcap= tx_pcap= rx_iface= rx_iface_in= tx_iface= infinite_rx= "
		     "phy_mac="},
	{"net_ring", " nodeaction= internal="},
	{"net_tap", " iface= mac= remote="},
	{"net_vhost", " iface= queues= client= iommu-support= postcopy-support= tso= "
		      "linear-buffer= ext-buffer= legacy-ol-flags="},
	{"net_virtio_user", " path= queues= queue_size= mac= iface= server= cq= mrg_rxbuf= "
			    "in_order= packed_vq= speed= vectorized="},
};

static const struct driver *find(const char *name)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		if (strncmp(name, drivers[i].name, strlen(drivers[i].name)) == 0)
			return &drivers[i];
	}
	return NULL;
}

bool arguments_known(const char *name)
{
	return find(name) != NULL;
}

int argument_check(const char *name, const char *argument, struct reason *r)
{
	size_t len = strcspn(argument, "=");
	const struct driver *d = find(name);
	char pattern[64], remedy[200];

	/* A flag of net_tap's; a later DPDK has more than these. */
	if (!d || strcmp(argument, "persist") == 0 || RTE_VERSION >= RTE_VERSION_NUM(23, 0, 0, 0))
		return 0;
	snprintf(pattern, sizeof(pattern), " %.*s=", (int)(len < 48 ? len : 48), argument);
	snprintf(remedy, sizeof(remedy), "%s has%s", d->name, d->arguments);
	if (len == 0 || !strstr(d->arguments, pattern))
		return reason_set(
			r, -EINVAL, remedy, "%s: there is no argument \"%.64s\"", name, argument);
	if (!argument[len] || !argument[len + 1])
		return reason_set(r, -EINVAL, "write a value behind its =, or leave it out",
			"%s: %.64s has no value", name, argument);
	return 0;
}
