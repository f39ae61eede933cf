/* From configuration and facts to a plan: engines, workers, memory, rings, peers, routes. */
#include "control/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool plan_is_unavailable(const struct config_port *asked, int err)
{
	if (err == -EOPNOTSUPP)
		return asked->mode == PORT_MODE_AUTO && asked->require <= PORT_MODE_SKB;
	return err == -EPERM || err == -EACCES || err == -ENOSYS || err == -EAFNOSUPPORT;
}

/* Devices whose driver hands over frames with partial checksums: the other end is a network stack
 * on the same machine, which leaves them to a NIC that is not there. */
static bool is_virtual(const char *device, const struct plan_facts *f)
{
	static const char *const dpdk[] = {
		"dpdk:net_tap", "dpdk:net_virtio_user", "dpdk:net_vhost", "dpdk:net_pcap", NULL};
	static const char *const names[] = {"veth", "tun", "tap", "virtio_net", "bridge", NULL};

	for (int i = 0; names[i]; i++) {
		if (strcmp(f->kind, names[i]) == 0 || strcmp(f->driver, names[i]) == 0)
			return true;
	}
	for (int i = 0; dpdk[i]; i++) {
		if (strncmp(device, dpdk[i], strlen(dpdk[i])) == 0)
			return true;
	}
	return false;
}

static int plan_engine(const struct config *c, struct plan_port *p, struct reason *r)
{
	const struct config_port *asked = p->asked;
	const char *wanted = config_engine_words[c->engine];
	struct reason why = {0};

	p->engine = engine_find(asked->device, &why);
	if (!p->engine) {
		config_fail(c, asked->line, r, why.remedy, "port %s: %s", asked->name, why.what);
		return -EOPNOTSUPP;
	}
	if (c->engine == CONFIG_ENGINE_AUTO || strcmp(p->engine->name, wanted) == 0 ||
		strcmp(p->engine->name, "mem") == 0)
		return 0;
	return config_fail(c, asked->line, r,
		c->engine == CONFIG_ENGINE_DPDK
			? "write device: dpdk:net_af_packet0,iface=eth0, or take engine auto"
			: "name a network interface such as eth0, or take engine auto",
		"port %s: device %s is not for engine %s", asked->name, asked->device, wanted);
}

static int plan_port(const struct config *c, const struct config_port *asked,
	const struct plan_facts *f, struct plan_port *p, struct reason *r)
{
	int err;

	*p = (struct plan_port){.asked = asked, .peer = -1};
	err = plan_engine(c, p, r);
	if (err)
		return err;
	p->queues = f->queues ? f->queues : c->workers;
	if (asked->queues && f->queues && asked->queues > f->queues)
		return config_fail(c, asked->line, r, p->engine->more_queues,
			"port %s: %u queues asked for, %s has %u", asked->name, asked->queues,
			asked->device, f->queues);
	if (asked->queues)
		p->queues = asked->queues;
	p->settings = (struct port_settings){
		.name = asked->name,
		.device = asked->device,
		.mode = (enum port_mode)asked->mode,
		.require = (enum port_mode)asked->require,
		.queues = p->queues,
		.rx_ring = asked->rx_ring ? asked->rx_ring : PLAN_RING_DEFAULT,
		.tx_ring = asked->tx_ring ? asked->tx_ring : PLAN_RING_DEFAULT,
		.busy = asked->busy,
		.keep_host = asked->keep_host,
		.fast_path = c->fast_path == CONFIG_FAST_PATH_AUTO,
		.complete_checksums =
			asked->checksums == CONFIG_CHECKSUMS_ON ||
			(asked->checksums == CONFIG_CHECKSUMS_AUTO && is_virtual(asked->device, f)),
	};
	return 0;
}

/* Names differ where one is an alternative name, which the machine alone knows. */
static int check_interfaces(
	const struct config *c, const struct plan_facts *facts, struct reason *r)
{
	for (uint32_t i = 0; i < c->n_ports; i++) {
		const struct config_port *p = &c->ports[i];

		for (uint32_t k = 0; facts[i].ifindex && k < i; k++) {
			if (facts[i].ifindex == facts[k].ifindex)
				return config_fail(c, p->line, r, "name each device once",
					"%s and %s are names of one interface, of port %s and "
					"port %s",
					c->ports[k].device, p->device, c->ports[k].name, p->name);
		}
	}
	return 0;
}

static void plan_workers(const struct config *c, struct plan *plan)
{
	plan->workers = c->workers;
	for (uint32_t i = 0; i < plan->n_ports; i++) {
		const struct plan_port *p = &plan->ports[i];

		if (p->queues >= plan->workers)
			continue;
		plan->workers = p->queues;
		reason_set(&plan->fewer, 0, p->engine->more_queues,
			"%u of %u workers: each needs a queue of its own, and port %s has %u",
			p->queues, c->workers, p->asked->name, p->queues);
	}
}

/* Slots that the queues of one worker can hold at once: what is on its way in and out. */
static uint64_t slots_of(const struct plan_port *p, uint32_t workers)
{
	uint64_t queues = (p->queues + workers - 1) / workers;

	uint64_t a_queue = (uint64_t)p->settings.rx_ring + p->settings.tx_ring;

	if (strcmp(p->engine->name, "dpdk") == 0)
		a_queue += PLAN_DPDK_SLOTS;
	return queues * a_queue;
}

/* Halves the rings that were not asked for; false: none can be halved. */
static bool halve_rings(struct plan *plan)
{
	bool halved = false;

	for (uint32_t i = 0; i < plan->n_ports; i++) {
		struct plan_port *p = &plan->ports[i];

		if (!p->asked->rx_ring && p->settings.rx_ring > PLAN_RING_LEAST) {
			p->settings.rx_ring /= 2;
			halved = true;
		}
		if (!p->asked->tx_ring && p->settings.tx_ring > PLAN_RING_LEAST) {
			p->settings.tx_ring /= 2;
			halved = true;
		}
	}
	return halved;
}

static bool has_dpdk(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->n_ports; i++) {
		if (strcmp(plan->ports[i].engine->name, "dpdk") == 0)
			return true;
	}
	return false;
}

static int plan_memory(const struct config *c, struct plan *plan, struct reason *r)
{
	uint64_t limit = c->slots ? c->slots : PLAN_SLOTS_MAX, need;

	for (;;) {
		need = 0;
		for (uint32_t i = 0; i < plan->n_ports; i++)
			need += slots_of(&plan->ports[i], plan->workers);
		if (need <= limit || !halve_rings(plan))
			break;
		reason_set(&plan->rings, 0, "give more memory with `slots:`",
			"rings are smaller than %u, so that they fit into %u slots a worker",
			PLAN_RING_DEFAULT, (uint32_t)limit);
	}
	if (c->slots && need > limit) {
		char remedy[96];

		snprintf(remedy, sizeof(remedy), "write slots: %llu, or smaller rings",
			(unsigned long long)need);
		return reason_set(r, -EINVAL, remedy,
			"slots: %u are too few for the rings of one worker, which can hold %llu "
			"frames",
			c->slots, (unsigned long long)need);
	}
	plan->slots = c->slots ? c->slots : PLAN_SLOTS_MIN;
	if (!c->slots && need > plan->slots)
		plan->slots = (uint32_t)need;
	if (!c->slots && has_dpdk(plan))
		plan->slots += PLAN_DPDK_SPARE;
	return 0;
}

/* A DPDK port can have memory of its own, so that its rings need not fit. */
static bool plan_fit_dpdk(struct plan_port *p, uint32_t workers, uint32_t slots_free)
{
	struct plan_port fits = *p;

	if (strcmp(p->engine->name, "dpdk") != 0)
		return false;
	slots_free /= 2; /* the other half for its peer, which comes next */
	while (slots_of(&fits, workers) > slots_free && fits.settings.rx_ring > PLAN_RING_LEAST) {
		fits.settings.rx_ring /= 2;
		if (fits.settings.tx_ring > fits.settings.rx_ring)
			fits.settings.tx_ring = fits.settings.rx_ring;
	}
	if (slots_of(&fits, workers) <= slots_free)
		p->settings = fits.settings;
	return true;
}

int plan_fit(struct plan_port *p, uint32_t workers, uint32_t slots_free, struct reason *r)
{
	if (plan_fit_dpdk(p, workers, slots_free))
		return 0;
	while (slots_of(p, workers) > slots_free) {
		uint32_t *ring = p->settings.rx_ring >= p->settings.tx_ring ? &p->settings.rx_ring
									    : &p->settings.tx_ring;

		if (*ring <= PLAN_RING_LEAST)
			return reason_set(r, -ENOBUFS,
				"restart with more memory: `slots:` in the configuration",
				"port %s: its queues need %llu slots a worker, %u are left",
				p->asked->name, (unsigned long long)slots_of(p, workers),
				slots_free);
		*ring /= 2;
	}
	return 0;
}

int plan_make(const struct config *c, const struct plan_facts *facts, struct plan *ret_plan,
	struct reason *r)
{
	struct plan plan = {.workers = c->workers};
	int err;

	for (uint32_t i = 0; i < c->n_routes; i++) {
		if (c->routes[i]->when == CONFIG_WHEN_ALWAYS)
			plan.n_always++;
		else
			plan.n_fallback++;
	}
	plan.frames = c->n_ports > 0 && c->engine != CONFIG_ENGINE_RELAY;
	plan.fallback = c->engine == CONFIG_ENGINE_AUTO && c->n_routes > 0;
	for (uint32_t i = 0; plan.frames && i < c->n_ports; i++) {
		err = plan_port(c, &c->ports[i], &facts[i], &plan.ports[i], r);
		if (err)
			return err;
		plan.n_ports++;
		if (c->ports[i].require != PORT_MODE_AUTO)
			plan.fallback = false;
	}
	err = plan.frames ? check_interfaces(c, facts, r) : 0;
	if (err)
		return err;
	for (uint32_t i = 0; plan.frames && i < c->n_patches; i++) {
		int a = config_port_find(c, c->patches[i].a);
		int b = config_port_find(c, c->patches[i].b);

		plan.ports[a].peer = b;
		plan.ports[b].peer = a;
		plan.ports[a].settings.partial_checksums =
			plan.ports[b].settings.complete_checksums;
		plan.ports[b].settings.partial_checksums =
			plan.ports[a].settings.complete_checksums;
	}
	if (plan.frames) {
		plan_workers(c, &plan);
		err = plan_memory(c, &plan, r);
		if (err)
			return err;
	}
	*ret_plan = plan;
	return 0;
}
