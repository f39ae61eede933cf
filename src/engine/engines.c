/* The static list of what was compiled in. */
#include <errno.h>
#include <string.h>

#include "config.h"
#include "engine/af_xdp/setup.h"
#include "engine/dpdk/dpdk.h"
#include "engine/engine.h"
#include "engine/mem/mem.h"

const struct engine_ops *const engines[] = {
	&mem_engine,
#if HAVE_DPDK
	&dpdk_engine,
#endif
#if HAVE_AF_XDP
	&af_xdp_engine,
#endif
	NULL,
};

const struct engine_ops *engine_find(const char *device, struct reason *ret_reason)
{
	for (unsigned int i = 0; engines[i]; i++) {
		if (engines[i]->claims(device))
			return engines[i];
	}
	if (!HAVE_DPDK && strncmp(device, "dpdk:", 5) == 0)
		reason_set(ret_reason, -EOPNOTSUPP, "build with -Ddpdk=enabled",
			"%s: this culvert was built without DPDK", device);
	else if (HAVE_AF_XDP)
		reason_set(ret_reason, -EOPNOTSUPP,
			"write a network device's name, or dpdk: and EAL device arguments",
			"%s: there is no such sort of device", device);
	else
		reason_set(ret_reason, -EOPNOTSUPP, "build with -Daf_xdp=enabled",
			"%s: this culvert was built without AF_XDP", device);
	return NULL;
}

const char *port_mode_name(enum port_mode m)
{
	static const char *const names[] = {"auto", "skb", "copy", "zero-copy", "dpdk"};

	return names[m];
}
