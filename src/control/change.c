/* Changes to the running daemon: the difference of two configurations, applied or undone whole. */
#include "control/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/asked.h"
#include "control/state.h"
#include "frame/pool.h"

/* A trial that could not be undone is undone again after this. */
#define TRIAL_AGAIN_NS (10 * SECOND_NS)

/* Asked for in the same words, wherever they stand in the file. */
static bool same_port(const struct config_port *a, const struct config_port *b)
{
	struct json_object *one = asked_port(a), *other = asked_port(b);
	bool same = !asked_difference(one, other);

	json_object_put(one);
	json_object_put(other);
	return same;
}

/* Open or closed, just as it is asked for. */
static bool is_there(const struct daemon *d, const struct config_port *asked)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used && same_port(&d->ports[i].asked, asked))
			return true;
	}
	return false;
}

/* Index in c of a port that is just like p, or -1. */
static int port_in(const struct config *c, const struct config_port *p)
{
	for (uint32_t i = 0; i < c->n_ports; i++) {
		if (same_port(&c->ports[i], p))
			return (int)i;
	}
	return -1;
}

static int check_restart(const struct daemon *d, const struct config *c, struct reason *r)
{
	const struct config *old = d->config;
	const char *what = NULL;

	if (c->workers != old->workers)
		what = "workers";
	else if (c->slots != old->slots)
		what = "slots";
	else if (c->engine != old->engine)
		what = "engine";
	else if (c->fast_path != old->fast_path)
		what = "forward: fast_path";
	else if (c->max_connections != old->max_connections)
		what = "max_connections";
	else if (strcmp(c->socket, old->socket) != 0 || strcmp(c->http, old->http) != 0)
		what = "control";
	if (what)
		return reason_set(
			r, -EINVAL, "restart culvert", "%s: changes only at a restart", what);
	if (c->n_ports > 0 && !d->memory.n_pools && !d->fallback &&
		c->engine != CONFIG_ENGINE_RELAY)
		return reason_set(r, -EINVAL, "restart culvert with the ports",
			"ports: this culvert was started without any");
	return 0;
}

static uint32_t slots_free(const struct daemon *d)
{
	uint32_t least = UINT32_MAX;

	for (uint32_t i = 0; i < d->memory.n_pools; i++) {
		uint32_t n = pool_available(&d->memory.pools[i]);

		least = n < least ? n : least;
	}
	return least;
}

/* keep: a port that can't be opened has its place and is tried again. */
static int add_port(struct daemon *d, const struct plan_port *plan, bool keep, struct reason *r)
{
	struct daemon_port *p = d->ports;
	int err;

	while (p < d->ports + PORTS_MAX && p->used)
		p++;
	if (p == d->ports + PORTS_MAX)
		return reason_set(
			r, -ENOSPC, "detach one first", "all %d ports are in use", PORTS_MAX);
	if (plan->queues < d->n_workers)
		return reason_set(r, -EINVAL, plan->engine->more_queues,
			"port %s has %u queues, and %u workers run: each needs one",
			plan->asked->name, plan->queues, d->n_workers);
	*p = (struct daemon_port){.used = true, .asked = *plan->asked, .plan = *plan, .peer = -1};
	p->plan.asked = &p->asked;
	p->plan.settings.name = p->asked.name;
	p->plan.settings.device = p->asked.device;
	err = plan_fit(&p->plan, d->n_workers, slots_free(d), r);
	if (!err)
		err = beside_open(d, (uint32_t)(p - d->ports), r);
	if (err == -ENOTCONN) {
		links_await_peer(d, (uint32_t)(p - d->ports), r);
		return 0;
	}
	if (err && keep) {
		p->closed = *r;
		p->backoff_s = PORT_BACKOFF_S;
		p->retry_ns = daemon_now_ns() + p->backoff_s * SECOND_NS;
	} else if (err) {
		*p = (struct daemon_port){0};
	}
	return err;
}

static void drop_port(struct daemon *d, uint32_t idx)
{
	beside_close(d, idx);
	if (d->hung)
		return; /* it is not */
	log_info("port %s: closed", d->ports[idx].asked.name);
	d->ports[idx] = (struct daemon_port){0};
	/* Another port may get its place: the kernel must not forward frames there meanwhile. */
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].peer == (int)idx)
			d->ports[i].peer = -1;
	}
}

static void set_peers(struct daemon *d, const struct config *c)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		d->ports[i].peer = -1;
	for (uint32_t i = 0; i < c->n_patches; i++) {
		int a = port_by_name(d, c->patches[i].a);
		int b = port_by_name(d, c->patches[i].b);

		if (a >= 0 && b >= 0) {
			d->ports[a].peer = b;
			d->ports[b].peer = a;
		}
	}
}

/* The ports of c that are not there yet. Those that went with `undo` set may stay away (their
 * device may be gone): they are tried again later. */
static int add_ports(struct daemon *d, const struct config *c, const struct plan *plan, bool undo,
	struct reason *r)
{
	for (uint32_t i = 0; i < c->n_ports; i++) {
		struct reason why = {0};
		int err;

		if (is_there(d, &c->ports[i]))
			continue;
		err = add_port(d, &plan->ports[i], undo, &why);
		if (!err)
			continue;
		if (!undo) {
			*r = why;
			return err;
		}
		log_reason(LOG_LEVEL_ERROR, "not put back yet", &why);
	}
	return 0;
}

/* Where a driver hangs and culvert is to end, what is still there is the end's to close. */
static void drop_ports(struct daemon *d, const struct config *c)
{
	for (uint32_t i = 0; i < PORTS_MAX && !d->hung; i++) {
		if (d->ports[i].used && port_in(c, &d->ports[i].asked) < 0)
			drop_port(d, i);
	}
}

/* undo: as in add_ports. */
static int plan_of(
	const struct daemon *d, struct config *c, bool undo, struct plan *plan, struct reason *r)
{
	struct plan_facts facts[PORTS_MAX] = {0};

	for (uint32_t i = 0; i < c->n_ports; i++) {
		int err = port_facts(&c->ports[i], &facts[i], r);

		/* A port that is there already may have lost its device: it stays as it is. A new
		 * one without is refused before any other is touched. */
		if (err && (err != -ENODEV || !(undo || is_there(d, &c->ports[i]))))
			return err;
	}
	return plan_make(c, facts, plan, r);
}

static int change_ports(struct daemon *d, struct config *c, struct reason *r)
{
	struct plan plan, old_plan;
	struct reason ignored;
	int err;

	if (!d->memory.n_pools)
		return 0; /* routes alone run */
	err = plan_of(d, c, false, &plan, r);
	if (err)
		return err;
	drop_ports(d, c);
	err = d->hung ? reason_set(r, -ECANCELED, NULL, "culvert is stopping")
		      : add_ports(d, c, &plan, false, r);
	if (err && d->stopping)
		return err; /* all ports are closed soon */
	if (err) {
		drop_ports(d, d->config);
		if (plan_of(d, d->config, true, &old_plan, &ignored) == 0)
			add_ports(d, d->config, &old_plan, true, &ignored);
	}
	set_peers(d, err ? d->config : c);
	beside_join(d);
	links_refresh(d);
	return err;
}

int change_apply(struct daemon *d, struct config *c, struct reason *r)
{
	struct config *old = d->config;
	struct reason ignored;
	int err = check_restart(d, c, r);

	if (!err)
		err = change_ports(d, c, r);
	if (err)
		return err;
	d->config = c;
	err = routes_change(d, old, r);
	if (err) {
		d->config = old;
		if (routes_change(d, c, &ignored))
			log_reason(LOG_LEVEL_ERROR, "not put back", &ignored);
		d->config = c;
		if (change_ports(d, old, &ignored))
			log_reason(LOG_LEVEL_ERROR, "not put back", &ignored);
		d->config = old;
		return err;
	}
	log_level_set((enum log_level)c->log);
	config_free(old);
	return 0;
}

static int check_no_trial(const struct daemon *d, struct reason *r)
{
	if (!d->before_trial)
		return 0;
	return reason_set(r, -EBUSY, "culvert confirm, or wait until it is undone",
		"what was attached with --confirm is not confirmed yet");
}

int change_reload(struct daemon *d, struct reason *r)
{
	struct config *c = NULL;
	int err = check_no_trial(d, r);

	if (err)
		return err;
	if (!d->options->config_file)
		return reason_set(r, -EINVAL, "culvert attach and culvert detach change it",
			"this culvert was started without a configuration file");
	err = config_read(d->options->config_file, &c, r);
	if (!err && d->options->override)
		err = d->options->override(c, d->options->override_data, r);
	if (!err)
		err = change_apply(d, c, r);
	if (err)
		config_free(c);
	return err;
}

const char *change_reloaded(const struct daemon *d)
{
	if (d->fallback && d->config->n_ports > 0)
		return "reloaded; ports are not opened while TCP is relayed instead: "
		       "restart culvert";
	return "reloaded";
}

/* Adds device (and peer, unless there is such a port) to c and patches them. */
static int put_attach(struct config *c, const char *device, const char *peer, struct reason *r)
{
	struct config_port *p;
	int err, idx;

	if (config_port_find(c, device) >= 0)
		return reason_set(r, -EEXIST, "`culvert status` shows the ports",
			"%s is attached already", device);
	p = config_port_add(c, NULL, device, 0, r);
	if (!p)
		return -EINVAL;
	if (peer) {
		idx = config_port_find(c, peer);
		if (idx < 0 && !config_port_add(c, NULL, peer, 0, r))
			return -EINVAL;
		err = config_patch_add(c, p->name, c->ports[config_port_find(c, peer)].name, 0, r);
		if (err)
			return err;
	}
	return config_check(c, r);
}

int change_attach(struct daemon *d, const char *device, const char *peer, uint64_t confirm_s,
	struct reason *r)
{
	struct config *c, *before = NULL;
	int err = check_no_trial(d, r);

	if (err)
		return err;
	if (d->fallback || d->config->engine == CONFIG_ENGINE_RELAY)
		return reason_set(r, -EOPNOTSUPP, d->fallback_why.remedy,
			"no ports here, TCP is relayed%s%s", d->fallback ? ": " : "",
			d->fallback_why.what);
	c = config_copy(d->config);
	if (confirm_s)
		before = config_copy(d->config);
	if (!c || (confirm_s && !before))
		err = reason_set(r, -ENOMEM, NULL, "out of memory");
	else
		err = put_attach(c, device, peer, r);
	if (!err && c)
		err = change_apply(d, c, r);
	if (err) {
		config_free(c);
		config_free(before);
		return err;
	}
	d->before_trial = before;
	d->trial_ns = daemon_now_ns() + confirm_s * SECOND_NS;
	return 0;
}

int change_detach(struct daemon *d, const char *const *ports, uint32_t n, struct reason *r)
{
	struct config *c;
	int err = check_no_trial(d, r);

	if (err)
		return err;
	c = config_copy(d->config);
	if (!c)
		return reason_set(r, -ENOMEM, NULL, "out of memory");
	for (uint32_t i = 0; !err && i < n; i++) {
		if (config_port_find(d->config, ports[i]) < 0)
			err = reason_set(r, -ENOENT, "`culvert status` shows the ports",
				"no port is called %s", ports[i]);
		else if (config_port_remove(c, ports[i]))
			err = reason_set(r, -EINVAL, "name it once", "%s is named twice", ports[i]);
	}
	if (!err)
		err = change_apply(d, c, r);
	if (err)
		config_free(c);
	return err;
}

int change_confirm(struct daemon *d, struct reason *r)
{
	if (!d->before_trial)
		return reason_set(r, -ENOENT, NULL,
			"nothing waits to be confirmed (or it was undone already)");
	config_free(d->before_trial);
	d->before_trial = NULL;
	return 0;
}

void change_expire(struct daemon *d, uint64_t now_ns)
{
	struct config *before = d->before_trial;
	struct reason r = {0};

	if (!before || now_ns < d->trial_ns)
		return;
	d->before_trial = NULL;
	log_warn("not confirmed in time: what was attached is detached again");
	if (change_apply(d, before, &r) == 0)
		return;
	/* The host may be out of reach until it is undone. */
	log_reason(LOG_LEVEL_ERROR, "not undone, tried again soon", &r);
	d->before_trial = before;
	d->trial_ns = daemon_now_ns() + TRIAL_AGAIN_NS;
}
