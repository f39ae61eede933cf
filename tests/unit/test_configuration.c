/* Configuration text to struct, and every error with its line. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/configuration.h"

static struct config *good(const char *text)
{
	struct config *c = NULL;
	struct reason r = {0};

	if (config_parse(text, strlen(text), "c.yaml", &c, &r))
		fail_msg("%s; %s", r.what, r.remedy);
	return c;
}

static void bad(const char *text, const char *what, const char *remedy)
{
	struct config *c = NULL;
	struct reason r = {0};

	assert_int_equal(config_parse(text, strlen(text), "c.yaml", &c, &r), -EINVAL);
	assert_null(c);
	if (!strstr(r.what, what) || !strstr(r.remedy, remedy))
		fail_msg("got \"%s; %s\", not \"%s; %s\"", r.what, r.remedy, what, remedy);
}

static void everything(void **state)
{
	struct config *c =
		good("workers: 2\nslots: 16384\nengine: af_xdp\n"
		     "ports:\n"
		     "  - { name: wan, device: eth0, mode: copy, require: xdp, queues: 4,\n"
		     "      rx_ring: 1024, tx_ring: 512, busy: yes, keep_host: off,\n"
		     "      checksums: on }\n"
		     "  - eth1\n"
		     "forward:\n  patch: [[wan, eth1]]\n  fast_path: auto\n"
		     "relay:\n"
		     "  - { name: web, listen: \"tcp:127.0.0.1:80\", when: always,\n"
		     "      to: [\"tcp:10.0.0.2:80\", \"tcp:10.0.0.3:80\"] }\n"
		     "control: { socket: /tmp/s, http: \"127.0.0.1:9464\" }\n"
		     "log: debug\ndrain: 500ms\nmax_connections: 5000\n");

	assert_int_equal(c->workers, 2);
	assert_int_equal(c->slots, 16384);
	assert_int_equal(c->engine, CONFIG_ENGINE_AF_XDP);
	assert_int_equal(c->fast_path, CONFIG_FAST_PATH_AUTO);
	assert_int_equal(c->n_ports, 2);
	assert_string_equal(c->ports[0].name, "wan");
	assert_string_equal(c->ports[0].device, "eth0");
	assert_int_equal(c->ports[0].mode, PORT_MODE_COPY);
	assert_int_equal(c->ports[0].require, PORT_MODE_SKB);
	assert_int_equal(c->ports[0].queues, 4);
	assert_int_equal(c->ports[0].rx_ring, 1024);
	assert_int_equal(c->ports[0].tx_ring, 512);
	assert_true(c->ports[0].busy);
	assert_false(c->ports[0].keep_host);
	assert_int_equal(c->ports[0].checksums, CONFIG_CHECKSUMS_ON);
	assert_string_equal(c->ports[1].name, "eth1");
	assert_true(c->ports[1].keep_host);
	assert_int_equal(c->n_patches, 1);
	assert_int_equal(c->n_routes, 1);
	assert_int_equal(c->routes[0]->when, CONFIG_WHEN_ALWAYS);
	assert_string_equal(c->routes[0]->settings.name, "web");
	assert_int_equal(c->routes[0]->settings.n_targets, 2);
	assert_string_equal(c->socket, "/tmp/s");
	assert_string_equal(c->http, "127.0.0.1:9464");
	assert_int_equal(c->log, LOG_LEVEL_DEBUG);
	assert_int_equal(c->drain_ns, 500000000);
	assert_int_equal(c->max_connections, 5000);
	config_free(c);
}

static void defaults(void **state)
{
	struct config *c = good("ports: [eth0]\n");

	assert_int_equal(c->workers, 1);
	assert_int_equal(c->slots, 0);
	assert_int_equal(c->fast_path, CONFIG_FAST_PATH_OFF);
	assert_int_equal(c->engine, CONFIG_ENGINE_AUTO);
	assert_int_equal(c->log, LOG_LEVEL_INFO);
	assert_int_equal(c->drain_ns, 10000000000ULL);
	assert_string_equal(c->socket, CONFIG_SOCKET);
	assert_string_equal(c->http, "");
	config_free(c);
}

static void unknown_keys(void **state)
{
	bad("ports: [a]\nworker: 2\n", "c.yaml:2: unknown key \"worker\"", "\"workers\"?");
	bad("ports:\n  - device: a\n    mod: copy\n", "c.yaml:3: unknown key \"mod\"", "\"mode\"?");
	bad("ports: [a]\nxyzzyx: 2\n", "unknown key", "knows workers slots");
	bad("relay:\n  - lisen: tcp:1.2.3.4:5\n", "c.yaml:2: unknown key \"lisen\"", "\"listen\"?");
	bad("ports: [a]\nforward: { pach: [] }\n", "c.yaml:2: unknown key", "\"patch\"?");
	bad("ports: [a]\nforward: { fast_path: on }\n", "c.yaml:2: fast_path: \"on\"",
		"off or auto");
	bad("ports: [a]\nlog: info\nlog: warn\n", "c.yaml:3: key \"log\" is there twice", "remove");
}

static void wrong_types(void **state)
{
	bad("workers: many\nports: [a]\n", "c.yaml:1: workers: \"many\"", "a number from 1");
	bad("workers: 0\nports: [a]\n", "workers: \"0\"", "from 1 to 256");
	bad("workers: -1\nports: [a]\n", "workers: \"-1\"", "from 1 to 256");
	bad("workers: [1]\nports: [a]\n", "workers: one value expected, found a list", "");
	bad("ports: eth0\n", "c.yaml:1: ports: a list expected, found one value", "- ");
	bad("ports:\n", "ports: a list expected, found nothing", "");
	bad("ports: [[a]]\n", "a port: a mapping expected, found a list", "");
	bad("ports: [{device: a, busy: 3}]\n", "busy: \"3\"", "true or false");
	bad("ports: [{device: a, mode: fast}]\n", "mode: \"fast\"", "zero-copy");
	bad("ports: [{device: a, rx_ring: 1000}]\n", "1000 is no power of two", "2048");
	bad("ports: [a]\nmax_connections: 0\n", "c.yaml:2: max_connections: \"0\"", "from 1");
	bad("ports: [a]\ndrain: soon\n", "c.yaml:2: drain: \"soon\"", "10s");
	bad("ports: [a]\nengine: fast\n", "engine: \"fast\"", "auto, af_xdp, dpdk or relay");
	bad("ports: [a]\nlog: loud\n", "log: \"loud\"", "error, warn");
	bad("ports: [a]\nforward: []\n", "forward: a mapping expected, found a list", "");
	bad("ports: [a]\nforward: { patch: [a] }\n", "a pair of ports expected", "[PORT, PORT]");
	bad("ports: [a]\nforward: { patch: [[a]] }\n", "a list of another length", "");
	bad("- a\n", "the configuration: a mapping expected, found a list", "");
	bad("? [a]\n: b\n", "one value expected, found a list", "KEY: VALUE");
}

static void not_fitting(void **state)
{
	bad("ports: [{name: a}]\n", "c.yaml:1: port a has no device", "device:");
	bad("ports:\n- eth0\n- eth0\n", "c.yaml:3: device eth0 is used twice", "once");
	bad("ports:\n- {name: a, device: b}\n- {name: a, device: c}\n",
		"c.yaml:3: two ports are called a", "its own name");
	bad("ports: [a, b, c]\nforward:\n  patch:\n  - [a, b]\n  - [a, c]\n",
		"c.yaml:5: patch: port a is patched twice", "one peer");
	bad("ports: [lan, wan]\nforward:\n  patch: [[lan, wen]]\n",
		"c.yaml:3: patch: no port is called wen", "\"wan\"?");
	bad("ports: [a, b]\nforward: { patch: [[a, a]] }\n", "patched to itself", "different");
	bad("ports: [{device: a, mode: skb, require: copy}]\n", "mode skb is below", "require");
	bad("engine: relay\nports: [a]\n", "no relay route", "relay:");
	bad("relay: [{listen: \"tcp:1.2.3.4:5\"}]\n", "c.yaml:1: ", "");
	bad("relay:\n- {name: x, listen: \"tcp:1.2.3.4:5\", to: \"tcp:1.2.3.4:6\"}\n"
	    "- {name: x, listen: \"tcp:1.2.3.4:7\", to: \"tcp:1.2.3.4:6\"}\n",
		"c.yaml:3: two relay routes are called x", "its own name");
	bad("relay:\n- {name: x, listen: \"tcp:1.2.3.4:5\", to: \"tcp:1.2.3.4:6\"}\n"
	    "- {name: y, listen: \"tcp:1.2.3.4:5\", to: \"tcp:1.2.3.4:6\"}\n",
		"c.yaml:3: the routes x and y both listen on tcp:1.2.3.4:5", "another port");
	bad("relay:\n- listen: \"tcp:1.2.3.4:5\"\n  to: nowhere\n", "c.yaml:3: ", "");
	bad("log: info\n", "nothing to do", "ports:");
	bad("", "the file is empty", "ports:");
	bad("ports: [a]\n---\nports: [b]\n", "c.yaml:3: a second document", "---");
}

static void not_yaml(void **state)
{
	bad("ports: [a\n", "not YAML", "indentation");
	bad("ports: [*a]\n", "not YAML", "");
	bad("\tports: [a]\n", "c.yaml:1: not YAML", "");
	bad("ports: [a]\nforward: &x { patch: [[a, *x]] }\n", "one value expected", "");
}

static void changes(void **state)
{
	struct config *c = good("ports: [a, b, c]\nforward: { patch: [[a, b]] }\n"), *copy;
	struct reason r = {0};

	copy = config_copy(c);
	assert_non_null(copy);
	assert_int_equal(config_port_remove(c, "b"), 0);
	assert_int_equal(c->n_ports, 2);
	assert_int_equal(c->n_patches, 0);
	assert_string_equal(c->ports[1].name, "c");
	assert_int_equal(config_port_remove(c, "b"), -ENOENT);
	assert_int_equal(config_patch_add(c, "a", "c", 0, &r), 0);
	assert_int_equal(config_check(c, &r), 0);
	assert_int_equal(copy->n_ports, 3);
	assert_int_equal(copy->n_patches, 1);
	config_free(copy);
	config_free(c);
}

static void long_device(void **state)
{
	static const char device[] = "dpdk:net_af_packet0,iface=a-device-with-a-name,qpairs=4,"
				     "blocksz=4096,framesz=2048";
	struct config *c = config_new();
	struct config_port *p;
	struct reason r = {0};

	p = config_port_add(c, NULL, device, 0, &r);
	assert_non_null(p);
	assert_string_equal(p->name, "port1");
	assert_string_equal(p->device, device);
	config_free(c);
	c = good("ports: "
		 "['dpdk:net_af_packet0,iface=a-device-with-a-name,qpairs=4,blocksz=4096']\n");
	assert_string_equal(c->ports[0].name, "port1");
	config_free(c);
}

static void too_many(void **state)
{
	struct config *c = config_new();
	struct reason r = {0};
	char device[16];

	for (int i = 0; i < PORTS_MAX; i++) {
		snprintf(device, sizeof(device), "eth%d", i);
		assert_non_null(config_port_add(c, NULL, device, 0, &r));
	}
	assert_null(config_port_add(c, NULL, "one-more", 0, &r));
	assert_non_null(strstr(r.what, "more than 64 ports"));
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything),
		cmocka_unit_test(defaults),
		cmocka_unit_test(unknown_keys),
		cmocka_unit_test(wrong_types),
		cmocka_unit_test(not_fitting),
		cmocka_unit_test(not_yaml),
		cmocka_unit_test(changes),
		cmocka_unit_test(long_device),
		cmocka_unit_test(too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
