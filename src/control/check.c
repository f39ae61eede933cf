/* What `run` would do here: the plan, and what each port would get by asking its engine. Of devices
 * that the running culvert has: what its `reload` would do with them. */
#include "control/check.h"

#include <errno.h>
#include <string.h>

#include "control/asked.h"
#include "control/plan.h"
#include "control/state.h"
#include "host/settings.h"

/* What the engine of a port says to it, or the culvert that has its device. */
struct probed {
	int err;
	enum port_mode mode;
	struct reason why;
	const struct running_port *held; /* by the running culvert; NULL: it is not */
	char changes[32]; /* then: what of it, so that it is opened anew; empty: none */
};

static void print_reason(FILE *to, const struct reason *r)
{
	if (r->what[0])
		fprintf(to, "    %s%s%s\n", r->what, r->remedy[0] ? "; " : "", r->remedy);
}

/* 0: the kernel would forward from port i to its peer by itself. */
static int probe_fast_path(
	const struct plan *plan, const struct probed *probed, uint32_t i, struct reason *r)
{
	const struct plan_port *p = &plan->ports[i], *peer = &plan->ports[p->peer];

	if (!p->engine->fast_path_probe)
		return reason_set(r, -EOPNOTSUPP, NULL, "engine %s has none", p->engine->name);
	if (peer->engine != p->engine)
		return reason_set(
			r, -EOPNOTSUPP, NULL, "%s is a port of another engine", peer->asked->name);
	if (probed[p->peer].err == -ENETDOWN)
		return reason_set(r, -ENETDOWN, NULL, "%s is down: it can be told when that is up",
			peer->asked->name);
	if (probed[p->peer].err)
		return reason_set(
			r, probed[p->peer].err, NULL, "%s is not to be had", peer->asked->name);
	return p->engine->fast_path_probe(
		&p->settings, probed[i].mode, &peer->settings, probed[p->peer].mode, r);
}

static void print_fast_path(
	const struct plan *plan, const struct probed *probed, uint32_t i, FILE *to)
{
	const struct plan_port *p = &plan->ports[i];
	struct reason why = {0};

	if (!p->settings.fast_path || p->peer < 0)
		return;
	if (probe_fast_path(plan, probed, i, &why))
		fprintf(to, "    no fast path: %s%s%s\n", why.what, why.remedy[0] ? "; " : "",
			why.remedy);
	else
		fprintf(to, "    fast path: the kernel forwards to %s by itself\n",
			plan->ports[p->peer].asked->name);
}

/* What is open and asked for in other words is closed and opened again. */
static void compare(const struct plan_port *p, struct probed *ret)
{
	struct json_object *asked = asked_port(p->asked);
	const char *key = asked_difference(asked, ret->held->asked);

	snprintf(ret->changes, sizeof(ret->changes), "%s", key ? key : "");
	json_object_put(asked);
}

static void probe_port(const struct plan_port *p, uint32_t ifindex, const struct running *running,
	struct probed *ret)
{
	const struct running_port *held = running_find(running, p->asked->device, ifindex);
	struct port_settings settings = p->settings;
	/* Without a network device there is nobody else to ask; and a device's far end that has one
	 * peer may take no second one, not even for a question. */
	bool certain = held && (!ifindex || host_settings_holder(ifindex, NULL) == running->pid);

	if (!certain) {
		ret->err = p->engine->probe(&settings, &ret->mode, &ret->why);
		if (!held || ret->err != -EBUSY)
			return;
	}
	ret->held = held;
	ret->err = 0;
	ret->mode = held->mode;
	ret->why = held->why;
	compare(p, ret);
	if (!ret->changes[0] || (p->engine->describe && strcmp(p->engine->name, held->engine) == 0))
		return;
	settings.released = true;
	ret->why = (struct reason){0};
	ret->err = p->engine->probe(&settings, &ret->mode, &ret->why);
}

static bool is_kept(const struct probed *probed)
{
	return probed->held && !probed->changes[0];
}

static void print_held(const struct probed *probed, const struct running *running, FILE *to)
{
	if (!probed->held)
		return;
	fprintf(to, "    in use by the running culvert (process %ld): a reload ", running->pid);
	if (probed->changes[0])
		fprintf(to, "closes it and opens it anew, as its %s changes\n", probed->changes);
	else
		fprintf(to, "keeps it\n");
}

/* What else the running culvert does at a reload. */
static void print_reload(const struct config *c, const struct running *running, FILE *to)
{
	struct json_object *asked = asked_daemon(c);
	const char *key = asked_difference(asked, running->asked);

	for (uint32_t i = 0; i < running->n_ports; i++) {
		const struct running_port *p = &running->ports[i];
		int idx = config_port_find(c, p->name);

		if (idx < 0 || strcmp(c->ports[idx].name, p->name) != 0)
			fprintf(to, "port %s: %s, closed by a reload: none is called so any more\n",
				p->name, p->device);
	}
	fprintf(to, "running: culvert (process %ld) answers at %s\n", running->pid, c->socket);
	if (!running->reloads)
		fprintf(to, "    warning: it was started without a configuration file: it can't "
			    "reload, restart it\n");
	else if (key)
		fprintf(to,
			"    warning: %s is not what it runs with and changes only at a restart; "
			"restart it, or give check the options that it was started with\n",
			key);
	json_object_put(asked);
}

/* The end of the port's first line, and what belongs to what it gets. */
static void print_got(const struct plan *plan, const struct probed *probed, uint32_t i,
	uint32_t ifindex, FILE *to)
{
	const struct plan_port *p = &plan->ports[i];
	uint32_t queues = is_kept(&probed[i]) ? probed[i].held->queues : p->queues;
	struct reason why;

	fprintf(to, "mode %s, %u queue%s", port_mode_name(probed[i].mode), queues,
		queues == 1 ? "" : "s");
	if (!is_kept(&probed[i]))
		fprintf(to, ", rings of %u and %u", p->settings.rx_ring, p->settings.tx_ring);
	fprintf(to, "%s, patched to %s\n",
		p->settings.complete_checksums ? ", checksums completed" : "",
		p->peer >= 0 ? plan->ports[p->peer].asked->name
			     : "nothing: its frames are dropped");
	print_reason(to, &probed[i].why);
	print_fast_path(plan, probed, i, to);
	if (port_cuts_off_host(p, ifindex, &why))
		fprintf(to, "    warning: %s; %s\n", why.what, why.remedy);
}

/* *ret_unavailable counts the ports that can have no XDP. */
static int print_port(const struct plan *plan, const struct probed *probed, uint32_t i,
	uint32_t ifindex, FILE *to, uint32_t *ret_unavailable, struct reason *r)
{
	const struct plan_port *p = &plan->ports[i];
	const struct reason *why = &probed[i].why;
	int err = probed[i].err;

	fprintf(to, "port %s: %s, engine %s, ", p->asked->name, p->asked->device, p->engine->name);
	if (err == -ENETDOWN) {
		fprintf(to, "%u queue%s; it is down: run brings it up\n", p->queues,
			p->queues == 1 ? "" : "s");
		return 0;
	}
	if (err == -ENOTCONN) {
		fprintf(to, "%u queue%s\n", p->queues, p->queues == 1 ? "" : "s");
		print_reason(to, why);
		return 0;
	}
	if (err) {
		fprintf(to, "not to be had\n");
		print_reason(to, why);
		if (plan_is_unavailable(p->asked, err))
			(*ret_unavailable)++;
		if (!r->what[0])
			reason_set(r, err, why->remedy, "port %s (%s): %s", p->asked->name,
				p->asked->device, why->what);
		return err;
	}
	print_got(plan, probed, i, ifindex, to);
	return 0;
}

static void print_routes(const struct config *c, const struct plan *plan, bool fallback, FILE *to)
{
	for (uint32_t i = 0; i < c->n_routes; i++) {
		const struct config_route *route = c->routes[i];
		char listen[ENDPOINT_TEXT_SIZE], target[ENDPOINT_TEXT_SIZE];
		bool runs = fallback || !plan->frames || route->when == CONFIG_WHEN_ALWAYS;

		endpoint_format(&route->settings.listen, listen, sizeof(listen));
		fprintf(to, "route %s: %s to", route->settings.name, listen);
		for (uint32_t t = 0; t < route->settings.n_targets; t++) {
			endpoint_format(
				&route->settings.targets[t].endpoint, target, sizeof(target));
			fprintf(to, "%s %s", t ? "," : "", target);
		}
		fprintf(to, ": %s\n", runs ? "runs" : "waits: runs only without XDP");
	}
}

/* Prints the ports. *ret_failed counts those that are not to be had, *ret_unavailable those of them
 * that can have no XDP; the first one's error and reason. */
static int print_ports(const struct plan *plan, const struct plan_facts *facts,
	const struct running *running, FILE *to, uint32_t *ret_failed, uint32_t *ret_unavailable,
	struct reason *r)
{
	struct probed probed[PORTS_MAX] = {0};
	int err = 0;

	for (uint32_t i = 0; i < plan->n_ports; i++)
		probe_port(&plan->ports[i], facts[i].ifindex, running, &probed[i]);
	for (uint32_t i = 0; i < plan->n_ports; i++) {
		int e = print_port(plan, probed, i, facts[i].ifindex, to, ret_unavailable, r);

		print_held(&probed[i], running, to);
		if (e && !(*ret_failed)++)
			err = e;
	}
	return err;
}

int check_print(const struct config *c, const struct running *running, FILE *to, struct reason *r)
{
	struct plan_facts facts[PORTS_MAX] = {0};
	uint32_t unavailable = 0, failed = 0;
	struct reason why = {0};
	struct plan plan;
	bool fallback;
	int err = 0;

	for (uint32_t i = 0; c->engine != CONFIG_ENGINE_RELAY && i < c->n_ports; i++) {
		err = port_facts(&c->ports[i], &facts[i], r);
		if (err)
			return err;
	}
	err = plan_make(c, facts, &plan, r);
	if (err)
		return err;
	err = print_ports(&plan, facts, running, to, &failed, &unavailable, &why);
	if (plan.frames && !failed) {
		uint64_t size = (uint64_t)plan.workers * plan.slots * PLAN_SLOT_SIZE;

		fprintf(to, "workers: %u, each with %u slots of %u bytes (%llu MiB in all)\n",
			plan.workers, plan.slots, PLAN_SLOT_SIZE, (unsigned long long)(size >> 20));
		print_reason(to, &plan.fewer);
		print_reason(to, &plan.rings);
	}
	fallback = plan.fallback && failed && unavailable == plan.n_ports;
	if (fallback) {
		fprintf(to, "no XDP here: TCP is relayed instead\n");
		err = 0;
	}
	print_routes(c, &plan, fallback, to);
	if (running)
		print_reload(c, running, to);
	if (err)
		*r = why;
	return err;
}
