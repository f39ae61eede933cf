/* The life of one port: facts, host settings, engine, the host's own addresses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "control/state.h"
#include "culvert/abi.h"
#include "host/addresses.h"
#include "host/link.h"
#include "host/stacked.h"

/* The network device that a port's device is or stands on; "": none; NULL: there can be no such
 * device, for this reason. */
static const char *netdev_of(
	const char *device, char ret_netdev[16], uint32_t *ret_queues, struct reason *r)
{
	const struct engine_ops *engine;

	*ret_queues = 0;
	if (!strchr(device, ':'))
		return device; /* alternative names too, which are longer */
	ret_netdev[0] = '\0';
	engine = engine_find(device, NULL);
	if (engine && engine->describe && engine->describe(device, ret_netdev, ret_queues, r))
		return NULL;
	return ret_netdev;
}

bool port_is_on(const char *device, const char *netdev)
{
	const char *beneath;
	char name[16];
	uint32_t queues;

	beneath = netdev_of(device, name, &queues, NULL);
	return beneath && strcmp(beneath, netdev) == 0;
}

int port_facts(const struct config_port *asked, struct plan_facts *ret_facts, struct reason *r)
{
	struct host_link link;
	struct reason why = {0};
	char name[16];
	const char *netdev;
	uint32_t queues;
	int err;

	*ret_facts = (struct plan_facts){0};
	netdev = netdev_of(asked->device, name, &queues, &why);
	if (!netdev)
		return reason_set(r, -EINVAL, why.remedy, "port %s: %s", asked->name, why.what);
	ret_facts->queues = queues;
	if (!*netdev)
		return 0;
	err = host_link_get(netdev, &link, &why);
	if (err)
		return reason_set(r, err, why.remedy, "port %s: %s", asked->name, why.what);
	ret_facts->ifindex = link.ifindex;
	if (!queues)
		ret_facts->queues = link.rx_queues;
	snprintf(ret_facts->kind, sizeof(ret_facts->kind), "%s", link.kind);
	snprintf(ret_facts->driver, sizeof(ret_facts->driver), "%s", link.driver);
	return 0;
}

int port_by_ifindex(const struct daemon *d, uint32_t ifindex)
{
	for (uint32_t i = 0; ifindex && i < PORTS_MAX; i++) {
		if (d->ports[i].used && d->ports[i].ifindex == ifindex)
			return (int)i;
	}
	return -1;
}

int port_by_name(const struct daemon *d, const char *name_or_device)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used && strcmp(d->ports[i].asked.name, name_or_device) == 0)
			return (int)i;
	}
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used && strcmp(d->ports[i].asked.device, name_or_device) == 0)
			return (int)i;
	}
	return -1;
}

bool port_cuts_off_host(const struct plan_port *plan, uint32_t ifindex, struct reason *r)
{
	/* Without host_addresses the kernel gets its frames beside us. */
	return ifindex && plan->engine->host_addresses && plan->settings.keep_host &&
	       host_stacked(ifindex, plan->asked->device, r);
}

/* Those that stay with the kernel, in an array that the caller frees; none if there is nobody to
 * tell. */
static int read_addresses(const struct plan_port *plan, uint32_t ifindex,
	struct culvert_host_address **ret_list, size_t *ret_n, struct reason *r)
{
	struct host_address *found = NULL;
	struct culvert_host_address *list;
	size_t n = 0;
	int err;

	*ret_list = NULL;
	*ret_n = 0;
	if (!ifindex || !plan->settings.keep_host || !plan->engine->host_addresses)
		return 0;
	err = host_addresses_get(ifindex, &found, &n, r);
	if (err)
		return err;
	list = calloc(n ? n : 1, sizeof(*list));
	if (!list)
		n = 0;
	for (size_t i = 0; i < n; i++) {
		list[i].version = found[i].family == AF_INET ? 4 : 6;
		memcpy(list[i].bytes, found[i].bytes, found[i].family == AF_INET ? 4 : 16);
	}
	free(found);
	*ret_list = list;
	*ret_n = n;
	return list ? 0 : reason_set(r, -ENOMEM, NULL, "out of memory");
}

static int tell_addresses(const struct daemon_port *p, struct reason *r)
{
	struct culvert_host_address *list = NULL;
	size_t n = 0;
	int err;

	if (!p->port)
		return 0;
	err = read_addresses(&p->plan, p->ifindex, &list, &n, r);
	if (!err && list)
		err = p->port->engine->host_addresses(p->port, list, n, r);
	free(list);
	return err;
}

static void warn_addresses(const struct daemon_port *p, const struct reason *r)
{
	char context[96];

	snprintf(context, sizeof(context), "port %s: the host's addresses", p->asked.name);
	log_reason(LOG_LEVEL_WARN, context, r);
}

void port_addresses(struct daemon *d, uint32_t idx)
{
	struct reason r = {0};

	if (tell_addresses(&d->ports[idx], &r))
		warn_addresses(&d->ports[idx], &r);
}

static void log_got(const struct daemon_port *p)
{
	const struct port *port = p->port;
	const struct reason *why = &port->step_down;

	log_info("port %s: %s %s %s, %u queue%s%s%s%s%s", p->asked.name, p->asked.device,
		port->engine->name, port_mode_name(port->mode), port->n_queues,
		port->n_queues == 1 ? "" : "s", why->what[0] ? "; " : "", why->what,
		why->remedy[0] ? "; " : "", why->remedy);
	if (p->changes && host_settings_changes(p->changes)[0])
		log_debug("port %s: changed: %s", p->asked.name, host_settings_changes(p->changes));
	if (p->changes && host_settings_refused(p->changes)[0])
		log_warn("port %s: %s could not be turned off: frames may arrive merged or "
			 "without their VLAN tag",
			p->asked.name, host_settings_refused(p->changes));
}

/* Names the port in front of the reason; a mode that was asked for has a remedy of its own. */
static int refused(const struct daemon_port *p, int err, const struct reason *why, struct reason *r)
{
	bool asked = p->asked.mode != PORT_MODE_AUTO || p->asked.require != PORT_MODE_AUTO;
	const char *remedy = why->remedy;

	if (!remedy[0] && asked && err == -EOPNOTSUPP)
		remedy = "a lower `mode` or `require`: auto takes the best there is";
	return reason_set(
		r, err, remedy, "port %s (%s): %s", p->asked.name, p->asked.device, why->what);
}

static int engine_open(struct daemon *d, struct daemon_port *p, uint32_t ifindex,
	const struct memory *m, struct reason *r)
{
	struct port_settings s = p->plan.settings;
	struct culvert_host_address *list;
	int err = read_addresses(&p->plan, ifindex, &list, &s.n_host_addresses, r);

	s.host_addresses = list;
	if (!err && p->plan.engine->may_hang)
		err = driver_open(d, p, &s, m, r);
	else if (!err)
		err = p->plan.engine->open(&s, m, &p->port, r);
	free(list);
	return err;
}

int port_open(struct daemon *d, uint32_t idx, const struct memory *m, struct reason *r)
{
	const struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	struct daemon_port *p = &d->ports[idx];
	struct host_link link = {0};
	struct reason why = {0};
	char name[16];
	const char *netdev;
	uint32_t queues;
	int err;

	netdev = netdev_of(p->asked.device, name, &queues, &why);
	if (!netdev)
		return refused(p, -EINVAL, &why, r);
	if (*netdev) {
		err = host_link_get(netdev, &link, &why);
		if (!err)
			err = host_settings_take(netdev, &wanted, &p->changes, &why);
		if (err)
			return refused(p, err, &why, r);
	}
	err = engine_open(d, p, link.ifindex, m, &why);
	if (err) {
		p->port = NULL;
		refused(p, err, &why, r);
		if (host_settings_restore(p->changes, &why))
			log_reason(LOG_LEVEL_WARN, p->asked.name, &why);
		p->changes = NULL;
		return err;
	}
	p->port->index = idx;
	p->ifindex = link.ifindex;
	p->awaited = link.carrier || p->port->link_comes;
	p->mtu = link.mtu;
	p->link = PORT_LINK_UP;
	p->closed = (struct reason){0};
	p->backoff_s = p->backoff_s ? p->backoff_s : PORT_BACKOFF_S;
	p->retry_ns = 0;
	err = tell_addresses(p, &why); /* again: they may have changed meanwhile */
	if (err == -E2BIG) {
		warn_addresses(p, &why);
	} else if (err) { /* without them the host would be cut off */
		port_close(d, idx);
		return refused(p, err, &why, r);
	}
	log_got(p);
	if (port_cuts_off_host(&p->plan, p->ifindex, &why))
		log_reason(LOG_LEVEL_WARN, p->asked.name, &why);
	return 0;
}

/* What it did in all, before its counters go with it. */
static void log_totals(const struct daemon_port *p)
{
	uint64_t rx = 0, tx = 0, drops = 0, completed = 0;
	struct fast_path fast = {0};

	for (uint32_t i = 0; i < p->port->n_queues; i++) {
		const struct queue_stats *s = &p->port->queues[i]->stats;

		rx += counter_read(&s->rx_frames);
		tx += counter_read(&s->tx_frames);
		completed += counter_read(&s->checksums_completed);
		for (int k = 0; k < DROP_REASON_COUNT; k++)
			drops += counter_read(&s->drops[k]);
	}
	log_info("port %s: rx_frames=%llu tx_frames=%llu drops=%llu checksums_completed=%llu",
		p->asked.name, (unsigned long long)rx, (unsigned long long)tx,
		(unsigned long long)drops, (unsigned long long)completed);
	if (p->port->engine->fast_path_read)
		p->port->engine->fast_path_read(p->port, &fast);
	if (fast.frames)
		log_info("port %s: in the kernel: frames=%llu lost=%llu checksums_completed=%llu",
			p->asked.name, (unsigned long long)fast.frames,
			(unsigned long long)(fast.lost_full + fast.lost_refused),
			(unsigned long long)fast.checksums_completed);
}

void port_close(struct daemon *d, uint32_t idx)
{
	struct daemon_port *p = &d->ports[idx];
	struct reason why = {0};
	bool hung;

	fast_path_stop(d, idx);
	/* Where a driver hangs, others of its kind may wait for what it holds: the process's end
	 * closes them. */
	hung = p->port && p->port->engine == d->hung;
	if (p->port && !hung && p->port->engine->stop)
		p->port->engine->stop(p->port);
	if (p->port && d->started_ns)
		log_totals(p);
	if (p->port && !hung && p->port->engine->may_hang)
		driver_close(d, p);
	else if (p->port && !hung)
		p->port->engine->close(p->port);
	if (!hung)
		p->port = NULL;
	p->link = PORT_LINK_DOWN;
	if (host_settings_restore(p->changes, &why))
		log_reason(LOG_LEVEL_WARN, p->asked.name, &why);
	p->changes = NULL;
}
