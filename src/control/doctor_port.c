/* Looks at one port: the device, what is in the way, and the mode it would get. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "control/doctor_internal.h"
#include "engine/engine.h"
#include "host/addresses.h"
#include "host/link.h"
#include "host/settings.h"
#include "host/stacked.h"

/* Largest MTU that most drivers take with XDP: a page of 4096 bytes, less 256 of headroom, 320 of
 * skb_shared_info and 22 of Ethernet header with a VLAN tag. */
#define MTU_XDP_USUAL 3498

static void say_device(struct doctor *d, const struct host_link *l)
{
	doctor_say(d, DOCTOR_OK, l->name, NULL,
		"driver %s%s%s, MTU %u, %u rx and %u tx queues, %s%s, %s",
		l->driver[0] ? l->driver
		: l->kind[0] ? l->kind
			     : "unknown",
		l->pci[0] ? " at " : "", l->pci, l->mtu, l->rx_queues, l->tx_queues,
		l->up ? "up" : "down (culvert brings it up)",
		l->up && !l->carrier ? " without a carrier" : "",
		host_operstate_name(l->operstate));
}

/* What is attached to it is ours. */
static void say_held(struct doctor *d, const struct host_link *l, long holder)
{
	char how[64] = "";

	if (l->xdp != HOST_XDP_NONE)
		snprintf(how, sizeof(how), " with an XDP program (id %u, %s mode)",
			l->xdp_program_id, host_xdp_name(l->xdp));
	doctor_say(d, DOCTOR_OK, l->name, NULL,
		"culvert (process %ld) has it%s: `culvert status` shows what it got", holder, how);
}

/* holder: the culvert that has it, or 0. */
static void say_obstacles(struct doctor *d, const struct host_link *l, long holder)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char remedy[128];

	if (l->xdp != HOST_XDP_NONE && !holder) {
		snprintf(remedy, sizeof(remedy),
			"end its owner; bpftool net show dev %s and xdp-loader status %s tell it",
			l->name, l->name);
		doctor_say(d, DOCTOR_WARN, l->name, remedy,
			"an XDP program is attached already (id %u, %s mode)", l->xdp_program_id,
			host_xdp_name(l->xdp));
	}
	/* Of a device that is up the engine knows it better. */
	if (!l->up && l->mtu > MTU_XDP_USUAL) {
		snprintf(remedy, sizeof(remedy), "ip link set dev %s mtu %d", l->name,
			MTU_XDP_USUAL);
		doctor_say(d, DOCTOR_WARN, l->name, remedy,
			"MTU %u: most drivers take XDP up to %d only", l->mtu, MTU_XDP_USUAL);
	}
	if (cpus > 0 && l->rx_queues > (uint32_t)cpus)
		doctor_say(d, DOCTOR_NOTE, l->name, NULL,
			"%u rx queues on %ld CPUs: more than %ld workers bring nothing",
			l->rx_queues, cpus, cpus);
	if (l->tx_queues < l->rx_queues) {
		snprintf(remedy, sizeof(remedy), "ethtool -L %s (rx and tx the same)", l->name);
		doctor_say(d, DOCTOR_WARN, l->name, remedy,
			"%u rx queues, but %u tx queues: a queue is bound as a pair", l->rx_queues,
			l->tx_queues);
	}
	if (l->master)
		doctor_say(d, DOCTOR_WARN, l->name, NULL,
			"is part of a bridge or bond (device %u), which will no longer get the "
			"frames that culvert takes",
			l->master);
}

static void say_routes(struct doctor *d, const struct host_link *l)
{
	uint32_t *routes = NULL;
	size_t n = 0;

	if (host_default_routes(&routes, &n, NULL))
		return;
	for (size_t i = 0; i < n; i++)
		if (routes[i] == l->ifindex)
			doctor_say(d, DOCTOR_WARN, l->name, "keep_host: true (the default)",
				"CARRIES THE DEFAULT ROUTE: what is for this host stays with the "
				"kernel only while keep_host is on");
	free(routes);
}

static void say_stacked(struct doctor *d, const struct host_link *l)
{
	struct reason why;

	if (host_stacked(l->ifindex, l->name, &why))
		doctor_say(d, DOCTOR_WARN, l->name, why.remedy, "%s", why.what);
}

static void say_changes(struct doctor *d, const struct host_link *l)
{
	const struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	struct reason why = {0};
	char text[256];

	if (host_settings_preview(l->name, &wanted, text, sizeof(text), &why))
		doctor_say(d, DOCTOR_WARN, l->name, why.remedy, "%s", why.what);
	else if (text[0])
		doctor_say(d, DOCTOR_NOTE, l->name, NULL,
			"changed while culvert runs, then put back: %s, promiscuous", text);
}

/* What the far end does to frames and can't be changed from here (see host/settings.c). */
static void say_far_end(struct doctor *d, const struct host_link *l, enum port_mode mode)
{
	if (strcmp(l->kind, "veth") != 0)
		return;
	doctor_say(d, DOCTOR_NOTE, l->name, "ethtool -K FAR-END txvlan off",
		"frames of VLAN devices at the far end of this veth arrive without their tag, "
		"unless it writes tags into the frame");
	if (mode == PORT_MODE_SKB)
		doctor_say(d, DOCTOR_WARN, l->name, "ethtool -K FAR-END tso off gso off",
			"in skb mode the far end of this veth sends TCP segments of up to 64 KB, "
			"which are dropped");
}

/* What the engine would give it. */
static bool say_mode(struct doctor *d, const char *port, enum port_mode *ret_mode)
{
	struct port_settings s = {.name = port, .device = port, .keep_host = true};
	enum port_mode mode = PORT_MODE_AUTO;
	const struct engine_ops *engine;
	struct reason why = {0};
	int err;

	engine = engine_find(port, &why);
	if (!engine) {
		doctor_say(d, DOCTOR_FAIL, port, why.remedy, "%s", why.what);
		return false;
	}
	err = engine->probe(&s, &mode, &why);
	if (err == -ENOTCONN) {
		doctor_say(d, DOCTOR_WARN, port, why.remedy, "%s", why.what);
		return true;
	}
	if (err) {
		doctor_say(d, DOCTOR_FAIL, port, why.remedy, "%s",
			why.what[0] ? why.what : strerror(-err));
		return false;
	}
	doctor_say(d, why.what[0] ? DOCTOR_WARN : DOCTOR_OK, port, why.remedy,
		"expected: engine %s, mode %s%s%s", engine->name, port_mode_name(mode),
		why.what[0] ? "; no better: " : "", why.what);
	*ret_mode = mode;
	return true;
}

bool doctor_port(struct doctor *d, const char *port, bool xdp, bool *ret_exists)
{
	enum port_mode mode = PORT_MODE_AUTO;
	struct host_link link;
	struct reason why = {0};
	char remedy[64];
	long holder;
	bool frames;

	*ret_exists = true;
	/* "dpdk:..." and the like are no network devices. */
	if (strchr(port, ':'))
		return say_mode(d, port, &mode);
	if (host_link_get(port, &link, &why)) {
		*ret_exists = false;
		doctor_say(d, DOCTOR_FAIL, port, why.remedy, "%s", why.what);
		return false;
	}
	say_device(d, &link);
	if (!link.ethernet) {
		doctor_say(d, DOCTOR_FAIL, link.name, "name an Ethernet device",
			"is no Ethernet device: it has no frames to forward");
		return false;
	}
	holder = host_settings_holder(link.ifindex, NULL);
	say_routes(d, &link);
	say_stacked(d, &link);
	say_obstacles(d, &link, holder);
	if (holder) {
		say_held(d, &link, holder);
		say_far_end(d, &link, link.xdp == HOST_XDP_SKB ? PORT_MODE_SKB : PORT_MODE_AUTO);
		return true;
	}
	say_changes(d, &link);
	if (!link.up) {
		snprintf(remedy, sizeof(remedy), "ip link set dev %s up", link.name);
		doctor_say(d, DOCTOR_NOTE, link.name, remedy,
			"is down: which mode it gets can be told when it is up");
		say_far_end(d, &link, mode);
		return xdp;
	}
	frames = say_mode(d, port, &mode);
	say_far_end(d, &link, mode);
	return frames;
}
