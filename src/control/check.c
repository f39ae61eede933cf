/* What `run` would do here: the plan, and what each port would get by asking its engine. */
#include "control/check.h"

#include <errno.h>
#include <string.h>

#include "control/plan.h"
#include "control/state.h"

/* What the engine of a port says to it. */
struct probed {
	int err;
	enum port_mode mode;
	struct reason why;
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

/* *ret_unavailable counts the ports that can have no XDP. */
static int print_port(const struct plan *plan, const struct probed *probed, uint32_t i,
	uint32_t ifindex, FILE *to, uint32_t *ret_unavailable, struct reason *r)
{
	const struct plan_port *p = &plan->ports[i];
	struct reason why = probed[i].why;
	int err = probed[i].err;

	fprintf(to, "port %s: %s, engine %s, ", p->asked->name, p->asked->device, p->engine->name);
	if (err == -ENETDOWN) {
		fprintf(to, "%u queue%s; it is down: run brings it up\n", p->queues,
			p->queues == 1 ? "" : "s");
		return 0;
	}
	if (err == -ENOTCONN) {
		fprintf(to, "%u queue%s\n", p->queues, p->queues == 1 ? "" : "s");
		print_reason(to, &why);
		return 0;
	}
	if (err) {
		fprintf(to, "not to be had\n");
		print_reason(to, &why);
		if (plan_is_unavailable(p->asked, err))
			(*ret_unavailable)++;
		if (!r->what[0])
			reason_set(r, err, why.remedy, "port %s (%s): %s", p->asked->name,
				p->asked->device, why.what);
		return err;
	}
	fprintf(to, "mode %s, %u queue%s, rings of %u and %u%s, patched to %s\n",
		port_mode_name(probed[i].mode), p->queues, p->queues == 1 ? "" : "s",
		p->settings.rx_ring, p->settings.tx_ring,
		p->settings.complete_checksums ? ", checksums completed" : "",
		p->peer >= 0 ? plan->ports[p->peer].asked->name
			     : "nothing: its frames are dropped");
	print_reason(to, &why);
	print_fast_path(plan, probed, i, to);
	if (port_cuts_off_host(p, ifindex, &why))
		fprintf(to, "    warning: %s; %s\n", why.what, why.remedy);
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

int check_print(const struct config *c, FILE *to, struct reason *r)
{
	struct plan_facts facts[PORTS_MAX] = {0};
	struct probed probed[PORTS_MAX] = {0};
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
	for (uint32_t i = 0; i < plan.n_ports; i++)
		probed[i].err = plan.ports[i].engine->probe(
			&plan.ports[i].settings, &probed[i].mode, &probed[i].why);
	for (uint32_t i = 0; i < plan.n_ports; i++) {
		int e = print_port(&plan, probed, i, facts[i].ifindex, to, &unavailable, &why);

		if (e && !failed++)
			err = e;
	}
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
	if (err)
		*r = why;
	return err;
}
