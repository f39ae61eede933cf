/* Configuration and facts to a plan. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/plan.h"

static struct config *parse(const char *text)
{
	struct config *c = NULL;
	struct reason r = {0};

	if (config_parse(text, strlen(text), "c.yaml", &c, &r))
		fail_msg("%s; %s", r.what, r.remedy);
	return c;
}

static const struct plan_facts *facts(uint32_t a, uint32_t b, uint32_t c)
{
	static struct plan_facts f[PORTS_MAX];

	for (uint32_t i = 0; i < PORTS_MAX; i++)
		f[i] = (struct plan_facts){.ifindex = i + 1, .queues = 1};
	f[0].queues = a;
	f[1].queues = b;
	f[2].queues = c;
	return f;
}

static void make(const struct config *c, const struct plan_facts *f, struct plan *plan)
{
	struct reason r = {0};

	if (plan_make(c, f, plan, &r))
		fail_msg("%s; %s", r.what, r.remedy);
}

static void workers_and_peers(void **state)
{
	struct config *c = parse("workers: 4\nports: ['mem:a', 'mem:b', 'mem:c']\n"
				 "forward: { patch: [['mem:a', 'mem:c']] }\n");
	struct plan plan;

	make(c, facts(4, 8, 4), &plan);
	assert_int_equal(plan.workers, 4);
	assert_string_equal(plan.fewer.what, "");
	assert_int_equal(plan.ports[0].peer, 2);
	assert_int_equal(plan.ports[1].peer, -1);
	assert_int_equal(plan.ports[2].peer, 0);
	assert_int_equal(plan.ports[1].queues, 8);
	make(c, facts(4, 2, 3), &plan);
	assert_int_equal(plan.workers, 2);
	assert_non_null(strstr(plan.fewer.what, "port mem:b has 2"));
	config_free(c);
}

static void one_interface_twice(void **state)
{
	struct config *c = parse("ports: ['mem:a', 'mem:b']\n");
	struct plan_facts f[2] = {{.ifindex = 7, .queues = 1}, {.ifindex = 7, .queues = 1}};
	struct reason r = {0};
	struct plan plan;

	assert_int_equal(plan_make(c, f, &plan, &r), -EINVAL);
	assert_non_null(strstr(r.what, "mem:a and mem:b are names of one interface"));
	f[1].ifindex = 8;
	assert_int_equal(plan_make(c, f, &plan, &r), 0);
	config_free(c);
}

static void memory(void **state)
{
	struct config *c = parse("ports: ['mem:a', 'mem:b', 'mem:c']\n");
	struct plan plan;
	struct reason r = {0};

	make(c, facts(1, 1, 1), &plan);
	assert_int_equal(plan.slots, 3 * 2 * 2048);
	make(c, facts(64, 64, 64), &plan); /* too many queues for rings of the usual size */
	assert_int_equal(plan.slots, 3 * 64 * 2 * PLAN_RING_LEAST);
	assert_int_equal(plan.ports[0].settings.rx_ring, PLAN_RING_LEAST);
	assert_non_null(strstr(plan.rings.what, "rings are smaller"));
	config_free(c);

	c = parse("slots: 1024\nports: [{device: 'mem:a', rx_ring: 1024}, 'mem:b']\n");
	assert_int_equal(plan_make(c, facts(1, 1, 1), &plan, &r), -EINVAL);
	assert_non_null(strstr(r.what, "1024 are too few"));
	assert_non_null(strstr(r.remedy, "slots: 1792")); /* 1024 and three of 256 */
	config_free(c);

	c = parse("slots: 2048\nports: ['mem:a', 'mem:b']\n");
	make(c, facts(1, 1, 1), &plan);
	assert_int_equal(plan.slots, 2048);
	assert_int_equal(plan.ports[1].settings.tx_ring, 512);
	config_free(c);
}

static void queues(void **state)
{
	struct config *c = parse("ports: [{device: 'mem:a', queues: 3}]\n");
	struct plan plan;
	struct reason r = {0};

	make(c, facts(4, 0, 0), &plan);
	assert_int_equal(plan.ports[0].settings.queues, 3);
	assert_int_equal(plan_make(c, facts(2, 0, 0), &plan, &r), -EINVAL);
	assert_non_null(strstr(r.what, "c.yaml:1: port mem:a: 3 queues asked for, mem:a has 2"));
	config_free(c);
}

static void checksums(void **state)
{
	struct config *c = parse("ports: [{device: 'mem:a'}, {device: 'mem:b', checksums: off},"
				 " {device: 'mem:c', checksums: on}, 'mem:d', 'mem:e']\n");
	struct plan_facts f[PORTS_MAX] = {0};
	struct plan plan;

	strcpy(f[0].kind, "veth");
	strcpy(f[1].driver, "virtio_net");
	strcpy(f[2].driver, "igb");
	strcpy(f[3].driver, "virtio_net");
	strcpy(f[4].driver, "igb");
	make(c, f, &plan);
	assert_true(plan.ports[0].settings.complete_checksums);
	assert_false(plan.ports[1].settings.complete_checksums);
	assert_true(plan.ports[2].settings.complete_checksums);
	assert_true(plan.ports[3].settings.complete_checksums);
	assert_false(plan.ports[4].settings.complete_checksums);
	config_free(c);
}

#define ROUTES                                                                                  \
	"relay:\n- {name: a, listen: 'tcp:127.0.0.1:1', to: 'tcp:127.0.0.1:2', when: always}\n" \
	"- {name: b, listen: 'tcp:127.0.0.1:3', to: 'tcp:127.0.0.1:4'}\n"

static void fallback(void **state)
{
	struct config *c = parse("ports: ['mem:a']\n" ROUTES);
	struct plan plan;

	make(c, facts(1, 1, 1), &plan);
	assert_true(plan.frames);
	assert_true(plan.fallback);
	assert_int_equal(plan.n_always, 1);
	assert_int_equal(plan.n_fallback, 1);
	c->ports[0].require = PORT_MODE_SKB;
	make(c, facts(1, 1, 1), &plan);
	assert_false(plan.fallback);
	c->ports[0].require = PORT_MODE_AUTO;
	c->engine = CONFIG_ENGINE_AF_XDP;
	make(c, facts(1, 1, 1), &plan);
	assert_false(plan.fallback);
	c->engine = CONFIG_ENGINE_RELAY;
	make(c, facts(1, 1, 1), &plan);
	assert_false(plan.frames);
	assert_int_equal(plan.n_ports, 0);
	config_free(c);
	c = parse("ports: ['mem:a']\n");
	make(c, facts(1, 1, 1), &plan);
	assert_false(plan.fallback);
	config_free(c);
}

static void unavailable(void **state)
{
	struct config_port asked = {.mode = PORT_MODE_AUTO};

	assert_true(plan_is_unavailable(&asked, -EPERM));
	assert_true(plan_is_unavailable(&asked, -EOPNOTSUPP));
	assert_false(plan_is_unavailable(&asked, -ENODEV));
	assert_false(plan_is_unavailable(&asked, -ENOBUFS)); /* too few slots */
	assert_false(plan_is_unavailable(&asked, -EBUSY));
	asked.mode = PORT_MODE_ZERO_COPY;
	assert_true(plan_is_unavailable(&asked, -EPERM));
	assert_false(plan_is_unavailable(&asked, -EOPNOTSUPP));
}

static void fit(void **state)
{
	struct config *c = parse("ports: ['mem:a']\n");
	struct plan plan;
	struct reason r = {0};

	make(c, facts(2, 1, 1), &plan);
	assert_int_equal(plan_fit(&plan.ports[0], 1, 8192, &r), 0);
	assert_int_equal(plan.ports[0].settings.rx_ring, 2048);
	assert_int_equal(plan_fit(&plan.ports[0], 1, 4096, &r), 0);
	assert_int_equal(plan.ports[0].settings.rx_ring, 1024);
	assert_int_equal(plan.ports[0].settings.tx_ring, 1024);
	assert_int_equal(plan_fit(&plan.ports[0], 1, 100, &r), -ENOBUFS);
	assert_non_null(strstr(r.remedy, "slots:"));
	config_free(c);
}

static void fit_of_dpdk(void **state)
{
	static const struct engine_ops dpdk = {.name = "dpdk"};
	struct config *c = parse("ports: ['mem:a']\n");
	struct plan plan;
	struct reason r = {0};

	make(c, facts(2, 1, 1), &plan);
	plan.ports[0].engine = &dpdk;
	assert_int_equal(plan_fit(&plan.ports[0], 1, 100, &r), 0); /* memory of its own */
	assert_int_equal(plan.ports[0].settings.rx_ring, 2048);
	assert_int_equal(plan_fit(&plan.ports[0], 1, 4096, &r), 0);
	assert_int_equal(plan.ports[0].settings.rx_ring, 256);
	assert_int_equal(plan.ports[0].settings.tx_ring, 256);
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_and_peers),
		cmocka_unit_test(one_interface_twice),
		cmocka_unit_test(memory),
		cmocka_unit_test(queues),
		cmocka_unit_test(checksums),
		cmocka_unit_test(fallback),
		cmocka_unit_test(unavailable),
		cmocka_unit_test(fit),
		cmocka_unit_test(fit_of_dpdk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
