/* Links and addresses as the kernel reports them: ports that go, come back, lose their carrier. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/state.h"
#include "host/link.h"

#define LINK_POLL_MS  250	      /* how often a driver is asked for its link */
#define PEER_POLL_NS  (SECOND_NS / 2) /* how often a peer that is awaited is looked for */
#define BACKOFF_MAX_S 32

void links_await_peer(struct daemon *d, uint32_t idx, const struct reason *why)
{
	struct daemon_port *p = &d->ports[idx];

	if (!p->retry_ns)
		log_reason(LOG_LEVEL_WARN, "", why);
	p->closed = *why;
	p->link = PORT_LINK_DOWN;
	p->backoff_s = PORT_BACKOFF_S; /* where it comes and is not to be had */
	p->retry_ns = daemon_now_ns() + PEER_POLL_NS;
}

static void back_off(struct daemon_port *p)
{
	p->backoff_s = p->backoff_s < BACKOFF_MAX_S ? p->backoff_s * 2 : BACKOFF_MAX_S;
}

/* Closes a port while the others go on, and tries again later. */
static void lose(struct daemon *d, uint32_t idx, enum port_link link, const char *why)
{
	struct daemon_port *p = &d->ports[idx];

	beside_close(d, idx);
	p->link = link;
	p->retry_ns = daemon_now_ns() + p->backoff_s * SECOND_NS;
	reason_set(&p->closed, 0, "it is opened again when it is back", "%s", why);
	log_warn("port %s (%s): %s; it is opened again when it is back", p->asked.name,
		p->asked.device, why);
	beside_join(d);
}

static void link_set(struct daemon *d, uint32_t idx, bool up)
{
	struct daemon_port *p = &d->ports[idx];
	enum port_link link = up ? PORT_LINK_UP : PORT_LINK_DOWN;

	if (p->port && up)
		p->backoff_s = PORT_BACKOFF_S;
	if (!p->port || p->link == link)
		return;
	p->link = link;
	if (d->ready)
		log_info("port %s: link %s", p->asked.name, up ? "up" : "down");
	workers_resume(d);
}

static void mtu_set(struct daemon *d, uint32_t idx, uint32_t mtu)
{
	struct daemon_port *p = &d->ports[idx];
	const struct port *port = p->port;

	if (!port || !mtu || p->mtu == mtu)
		return;
	p->mtu = mtu;
	if (port->mtu_max && mtu > port->mtu_max)
		log_warn("port %s: an MTU of %u is more than it can carry (%u)", port->name, mtu,
			port->mtu_max);
	if (!port->engine->mtu_changed)
		return;
	workers_pause(d);
	port->engine->mtu_changed(p->port, mtu);
	workers_resume(d);
}

static void came_back(struct daemon *d, const struct host_event *e)
{
	int idx = port_by_name(d, e->name);

	if (idx >= 0 && !d->ports[idx].port && port_is_on(d->ports[idx].asked.device, e->name) &&
		d->ports[idx].link == PORT_LINK_GONE)
		d->ports[idx].retry_ns = daemon_now_ns();
}

static void link_changed(struct daemon *d, const struct host_event *e)
{
	int idx = port_by_ifindex(d, e->ifindex);

	if (idx >= 0 && d->ports[idx].port) {
		mtu_set(d, (uint32_t)idx, e->mtu);
		port_addresses(d, (uint32_t)idx); /* reads the MAC again */
		link_set(d, (uint32_t)idx, e->up);
		return;
	}
	came_back(d, e);
}

/* Has no network interface that would tell of its link. */
static bool is_polled(const struct daemon_port *p)
{
	return p->port && !p->ifindex && p->port->engine->link;
}

static void port_refresh(struct daemon *d, uint32_t idx)
{
	struct daemon_port *p = &d->ports[idx];
	struct host_link link;
	int err;

	if (is_polled(p)) {
		err = p->port->engine->link(p->port);
		if (err == -ENODEV) {
			lose(d, idx, PORT_LINK_GONE, "the device is taken away");
		} else if (err < 0) {
			lose(d, idx, PORT_LINK_DOWN,
				err == -ETIMEDOUT ? "its peer does not answer"
						  : "its peer is gone");
			if (err == -ENOTCONN)
				p->retry_ns = daemon_now_ns();
			else
				back_off(p);
		} else {
			link_set(d, idx, err != 0);
		}
	}
	if (!p->port || !p->ifindex)
		return;
	err = host_link_get_index(p->ifindex, &link, NULL);
	if (err == -ENODEV)
		lose(d, idx, PORT_LINK_GONE, "the device is gone");
	if (err)
		return;
	mtu_set(d, idx, link.mtu);
	link_set(d, idx, link.up && link.carrier);
}

void links_refresh(struct daemon *d)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		port_refresh(d, i);
}

void links_poll(struct daemon *d)
{
	if (d->links_missed) {
		d->links_missed = false;
		links_refresh(d);
	}
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (is_polled(&d->ports[i]))
			port_refresh(d, i);
	}
}

static void on_event(const struct host_event *e, void *data)
{
	struct daemon *d = data;
	int idx = port_by_ifindex(d, e->ifindex);

	switch (e->kind) {
	case HOST_EVENT_LINK: link_changed(d, e); break;
	case HOST_EVENT_LINK_GONE:
		if (idx >= 0 && d->ports[idx].port)
			lose(d, (uint32_t)idx, PORT_LINK_GONE, "the device is gone");
		break;
	case HOST_EVENT_ADDRESSES:
		if (idx >= 0)
			port_addresses(d, (uint32_t)idx);
		break;
	case HOST_EVENT_OVERRUN:
		links_refresh(d);
		for (uint32_t i = 0; i < PORTS_MAX; i++)
			port_addresses(d, i);
		break;
	}
}

/* While a driver is waited for no port can be opened or closed; but which frames are the host's own
 * can't wait. */
static void on_event_beside(const struct host_event *e, void *data)
{
	struct daemon *d = data;
	int idx = port_by_ifindex(d, e->ifindex);

	d->links_missed = true;
	switch (e->kind) {
	case HOST_EVENT_LINK: came_back(d, e); /* fall through */
	case HOST_EVENT_ADDRESSES:
		if (idx >= 0)
			port_addresses(d, (uint32_t)idx);
		break;
	case HOST_EVENT_LINK_GONE: break;
	case HOST_EVENT_OVERRUN:
		for (uint32_t i = 0; i < PORTS_MAX; i++)
			port_addresses(d, i);
		break;
	}
}

void links_read_beside(struct daemon *d)
{
	(void)host_monitor_read(d->monitor, on_event_beside, d);
}

void links_read(struct daemon *d)
{
	int n = host_monitor_read(d->monitor, on_event, d);

	if (n < 0 && n != -EAGAIN)
		log_debug("links: %s", strerror(-n));
}

static void retry(struct daemon *d, uint32_t idx)
{
	struct daemon_port *p = &d->ports[idx];
	struct plan_facts facts;
	struct reason r = {0};
	enum port_mode mode;
	int err = port_facts(&p->asked, &facts, &r);

	if (!err)
		err = facts.queues && facts.queues < d->n_workers
			      ? reason_set(&r, -EINVAL, p->plan.engine->more_queues,
					"port %s: it came back with %u queues for %u workers",
					p->asked.name, facts.queues, d->n_workers)
			      : p->plan.engine->probe(&p->plan.settings, &mode, &r);
	/* -ENETDOWN: opening brings it up. */
	if (!err || err == -ENETDOWN) {
		if (p->plan.settings.queues > facts.queues && facts.queues)
			p->plan.settings.queues = facts.queues;
		err = beside_open(d, idx, &r);
		beside_join(d);
		if (!err)
			port_refresh(d, idx);
	}
	if (!err)
		return;
	if (err == -ENOTCONN) {
		links_await_peer(d, idx, &r);
		return;
	}
	if (p->link != PORT_LINK_GONE && err == -ENODEV)
		p->link = PORT_LINK_GONE;
	p->closed = r;
	log_debug("%s", r.what);
	back_off(p);
	p->retry_ns = daemon_now_ns() + p->backoff_s * SECOND_NS; /* it may have taken long */
}

void links_retry(struct daemon *d, uint64_t now_ns)
{
	for (uint32_t i = 0; i < PORTS_MAX && !d->stopping; i++) {
		struct daemon_port *p = &d->ports[i];

		if (p->used && !p->port && p->retry_ns && p->retry_ns <= now_ns)
			retry(d, i);
	}
}

int links_wait_ms(const struct daemon *d, uint64_t now_ns)
{
	int wait_ms = -1;

	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct daemon_port *p = &d->ports[i];
		uint64_t ms;

		if (is_polled(p) && (wait_ms < 0 || wait_ms > LINK_POLL_MS))
			wait_ms = LINK_POLL_MS;
		if (!p->used || p->port || !p->retry_ns)
			continue;
		ms = p->retry_ns > now_ns ? (p->retry_ns - now_ns) / 1000000 + 1 : 0;
		if (wait_ms < 0 || ms < (uint64_t)wait_ms)
			wait_ms = (int)ms;
	}
	return wait_ms;
}
