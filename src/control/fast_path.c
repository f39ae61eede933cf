/* When the kernel may forward by itself: decided anew after every change, and watched meanwhile. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/state.h"

/* Between two looks: whether a peer takes frames can change in another namespace, unseen. */
#define CHECK_NS (SECOND_NS / 4)
/* After a redirect failed though the peer promised to take frames. */
#define RETRY_NS (30 * SECOND_NS)

static bool has_fast_path(const struct daemon_port *p)
{
	return p->used && p->port && p->port->engine->fast_path_set;
}

/* Says so when the reason is another than before. */
static void turn_off(struct daemon_port *p, const struct reason *why)
{
	bool same = strcmp(why->what, p->fast_path.what) == 0;
	bool asked = p->plan.settings.fast_path;

	p->port->engine->fast_path_set(p->port, NULL, NULL);
	p->fast_path = *why;
	if (asked && !same)
		log_info("port %s: no fast path: %s%s%s", p->asked.name, why->what,
			why->remedy[0] ? "; " : "", why->remedy);
}

/* 0: the kernel may forward from p to its peer. */
static int check(const struct daemon *d, const struct daemon_port *p, struct reason *why)
{
	const struct daemon_port *peer = p->peer >= 0 ? &d->ports[p->peer] : NULL;

	if (d->config->fast_path == CONFIG_FAST_PATH_OFF)
		return reason_set(why, -EINVAL, "forward: { fast_path: auto }", "not asked for");
	if (!peer || !peer->used)
		return reason_set(why, -ENOENT, "patch it to another", "the port has no peer");
	if (!peer->port || p->link != PORT_LINK_UP || peer->link != PORT_LINK_UP)
		return reason_set(why, -ENETDOWN, NULL, "port %s is down",
			p->link != PORT_LINK_UP ? p->asked.name : peer->asked.name);
	return p->port->engine->fast_path_check(p->port, peer->port, why);
}

static void turn_on(const struct daemon *d, struct daemon_port *p)
{
	const struct daemon_port *peer = &d->ports[p->peer];
	struct fast_path state;
	struct reason why = {0};

	p->port->engine->fast_path_read(p->port, &state);
	if (p->port->engine->fast_path_set(p->port, peer->port, &why)) {
		turn_off(p, &why);
		return;
	}
	if (!state.on)
		log_info("port %s: fast path: the kernel forwards to %s", p->asked.name,
			peer->asked.name);
	p->fast_path = (struct reason){0};
}

/* A redirect failed though all looked well, so the program switched itself off. It is left so for a
 * while, unless the cause shows itself (and then goes). */
static bool rests(struct daemon_port *p, uint64_t now_ns)
{
	struct fast_path state;

	p->port->engine->fast_path_read(p->port, &state);
	if (!state.error)
		return false;
	if (!p->fast_path_retry_ns) {
		p->fast_path_retry_ns = now_ns + RETRY_NS;
		reason_set(&p->fast_path, state.error, NULL,
			"a frame could not be redirected: %s; tried again after %llu s",
			strerror(-state.error), RETRY_NS / SECOND_NS);
		log_warn("port %s: fast path off: %s", p->asked.name, p->fast_path.what);
	}
	return now_ns < p->fast_path_retry_ns;
}

static void update(const struct daemon *d, struct daemon_port *p, uint64_t now_ns)
{
	struct reason why = {0};

	if (!has_fast_path(p))
		return;
	if (check(d, p, &why)) {
		turn_off(p, &why);
		p->fast_path_retry_ns = 0;
	} else if (!rests(p, now_ns)) {
		turn_on(d, p);
		p->fast_path_retry_ns = 0;
	}
}

void fast_path_update(struct daemon *d)
{
	uint64_t now_ns = daemon_now_ns();

	for (uint32_t i = 0; i < PORTS_MAX; i++)
		update(d, &d->ports[i], now_ns);
	d->fast_path_check_ns = now_ns + CHECK_NS;
}

void fast_path_stop(struct daemon *d, uint32_t idx)
{
	struct reason why = {0};

	reason_set(&why, 0, NULL, "port %s is closed", d->ports[idx].asked.name);
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		struct daemon_port *p = &d->ports[i];

		if (has_fast_path(p) && (i == idx || p->peer == (int)idx))
			turn_off(p, &why);
	}
}

void fast_path_check(struct daemon *d, uint64_t now_ns)
{
	if (d->config->fast_path == CONFIG_FAST_PATH_AUTO && d->memory.n_pools &&
		now_ns >= d->fast_path_check_ns)
		fast_path_update(d);
}

int fast_path_wait_ms(const struct daemon *d, uint64_t now_ns)
{
	if (d->config->fast_path == CONFIG_FAST_PATH_OFF || !d->memory.n_pools)
		return -1;
	return d->fast_path_check_ns > now_ns
		       ? (int)((d->fast_path_check_ns - now_ns) / 1000000) + 1
		       : 0;
}
