/* Birth and death in order: predecessors' settings, memory, ports, workers, routes; and back. */
#include "control/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/memory.h"
#include "control/requests.h"
#include "control/state.h"
#include "frame/pool.h"

/* Longest wait for carriers that were there before we opened (ixgbe takes 30 s, igb 2 s). */
#define CARRIER_WAIT_NS (30 * SECOND_NS)

static void on_recovered(const char *line, void *data)
{
	(void)data;
	log_info("left by a culvert that died: %s", line);
}

static void recover(const struct plan *plan)
{
	struct reason r = {0};
	bool netdevs = false;

	for (uint32_t i = 0; i < plan->n_ports; i++)
		netdevs = netdevs || strcmp(plan->ports[i].engine->name, "mem") != 0;
	if (!netdevs)
		return; /* tests leave the machine alone */
	if (host_settings_recover(NULL, on_recovered, NULL, &r) < 0)
		log_reason(LOG_LEVEL_WARN, "settings left by a culvert that died", &r);
}

static int make_plan(struct daemon *d, struct plan *plan, struct reason *r)
{
	struct plan_facts facts[PORTS_MAX] = {0};

	if (d->config->engine != CONFIG_ENGINE_RELAY) {
		for (uint32_t i = 0; i < d->config->n_ports; i++) {
			int err = port_facts(&d->config->ports[i], &facts[i], r);

			if (err)
				return err;
		}
	}
	return plan_make(d->config, facts, plan, r);
}

static void set_ports(struct daemon *d, const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->n_ports; i++) {
		struct daemon_port *p = &d->ports[i];

		p->used = true;
		p->asked = *plan->ports[i].asked;
		p->plan = plan->ports[i];
		p->plan.asked = &p->asked;
		p->plan.settings.name = p->asked.name;
		p->plan.settings.device = p->asked.device;
		p->peer = plan->ports[i].peer;
	}
}

static void close_ports(struct daemon *d)
{
	workers_pause(d);
	for (uint32_t i = PORTS_MAX; i-- > 0;) {
		if (d->ports[i].used)
			beside_close(d, i);
	}
}

/* Opens all, or says why not; *ret_unavailable: not one port can have XDP, so routes may run. */
static int open_ports(struct daemon *d, bool *ret_unavailable, struct reason *r)
{
	struct reason first = {0};
	int err = 0, opened = 0;

	*ret_unavailable = true;
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		struct reason why = {0};
		int e;

		if (!d->ports[i].used)
			continue;
		e = beside_open(d, i, &why);
		if (e == -ENOTCONN)
			links_await_peer(d, i, &why);
		if (!e || e == -ENOTCONN) {
			opened++;
			continue;
		}
		if (!plan_is_unavailable(&d->ports[i].asked, e)) {
			*ret_unavailable = false;
			*r = why;
			return e;
		}
		if (!err)
			first = why;
		err = e;
	}
	*ret_unavailable = err && !opened;
	if (err)
		*r = first;
	return err;
}

/* No XDP and no route: what could be done instead, after what would help. */
static void advise_relay(struct reason *r)
{
	static const char advice[] = "to relay TCP instead, add a route under `relay:`";
	size_t used = strlen(r->remedy);

	snprintf(r->remedy + used, sizeof(r->remedy) - used, "%s%s", used ? "; " : "", advice);
}

/* All ports' memory: of an engine that can do with no other, if one is among them. */
static void memory_plan(const struct plan *plan, struct memory_need *ret_need)
{
	*ret_need = (struct memory_need){
		.n_pools = plan->workers, .slots = plan->slots, .slot_size = PLAN_SLOT_SIZE};
	for (uint32_t i = 0; i < plan->n_ports; i++) {
		const struct engine_ops *engine = plan->ports[i].engine;

		if (!engine->memory_take || (ret_need->from && ret_need->from != engine))
			continue;
		ret_need->from = engine;
		ret_need->devices[ret_need->n_devices++] = plan->ports[i].settings.device;
	}
}

/* Ports, or routes in their stead. */
static int start_frames(struct daemon *d, const struct plan *plan, struct reason *r)
{
	struct memory_need need;
	bool unavailable;
	int err;

	d->n_workers = plan->workers;
	d->slots = plan->slots;
	set_ports(d, plan);
	memory_plan(plan, &need);
	err = memory_make(&need, &d->memory, r);
	if (!err)
		err = beside_make(d, r);
	if (!err)
		err = workers_make(d, r);
	if (!err)
		err = open_ports(d, &unavailable, r);
	else
		return err;
	if (!err) {
		if (plan->fewer.what[0])
			log_reason(LOG_LEVEL_INFO, "workers", &plan->fewer);
		if (plan->rings.what[0])
			log_reason(LOG_LEVEL_INFO, "memory", &plan->rings);
		err = workers_resume(d);
		return err ? reason_set(r, err, NULL, "out of memory") : workers_start(d, r);
	}
	if (!unavailable || !plan->fallback) {
		if (unavailable && d->config->engine == CONFIG_ENGINE_AUTO && !d->config->n_routes)
			advise_relay(r);
		return err;
	}
	close_ports(d);
	workers_free(d);
	beside_free(d);
	memory_free(&d->memory);
	d->fallback = true;
	d->fallback_why = *r;
	log_reason(LOG_LEVEL_WARN, "no XDP here, TCP is relayed instead", r);
	return 0;
}

int daemon_start(struct daemon *d, struct reason *r)
{
	struct reason why = {0};
	struct plan plan;
	int err = make_plan(d, &plan, r);

	if (!err)
		err = requests_open(d, r); /* early: it fails without having touched a device */
	if (err)
		return err;
	if (plan.frames) {
		recover(&plan);
		if (host_monitor_open(&d->monitor, &why))
			log_reason(LOG_LEVEL_WARN, "links are not watched", &why);
		err = start_frames(d, &plan, r);
		if (err)
			return err;
	}
	err = routes_start(d, r);
	if (err)
		return err;
	d->started_ns = daemon_now_ns();
	d->ready_by_ns = d->started_ns + CARRIER_WAIT_NS;
	links_refresh(d);
	return 0;
}

static void check_frame_law(const struct daemon *d)
{
	for (uint32_t i = 0; i < d->memory.n_pools; i++) {
		const struct pool *p = &d->memory.pools[i];
		uint32_t n_free = atomic_load_explicit(&p->held[HOLDER_FREE], memory_order_relaxed);

		if (pool_lost(p) || n_free != p->slots)
			log_error("worker %u: %u of %u frames came back, %lld lost", i, n_free,
				p->slots, (long long)pool_lost(p));
		else
			log_info("worker %u: all %u frames came back", i, p->slots);
	}
}

void daemon_stop(struct daemon *d)
{
	bool frames = d->memory.n_pools > 0;

	if (d->started_ns)
		routes_drain(d);
	routes_free(d);
	if (d->workers && frames) {
		workers_pause(d);
		close_ports(d);
		if (d->started_ns && !d->hung)
			check_frame_law(d);
	}
	requests_close(d);
	config_free(d->before_trial);
	workers_free(d);
	if (!d->hung) {
		beside_free(d);
		memory_free(&d->memory);
	}
	host_monitor_close(d->monitor);
	d->monitor = NULL;
}
