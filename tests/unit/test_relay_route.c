/* The keys of a route: what they set, what they refuse. */
#include <errno.h>
#include <string.h>

#include "base/reason.h"
#include "relay/route.h"
#include "unit.h"

static struct route_settings s;

static int set(const char *key, const char *value)
{
	struct reason r = {0};
	int err = route_set(&s, key, value, &r);

	if (err)
		assert_true(r.what[0]);
	return err;
}

static int fresh(void **state)
{
	route_defaults(&s, "web");
	return 0;
}

static void targets_have_weights(void **state)
{
	assert_int_equal(set("to", "tcp:a:1 weight=3"), 0);
	assert_int_equal(set("to", "tcp:b:2 backup, unix:/c"), 0);
	assert_int_equal(s.n_targets, 3);
	assert_int_equal(s.targets[0].weight, 3);
	assert_false(s.targets[0].backup);
	assert_true(s.targets[1].backup);
	assert_int_equal(s.targets[2].weight, 1);
	assert_int_equal(set("to", "tcp:b:2 weight=0"), -EINVAL);
	assert_int_equal(set("to", "tcp:b:2 weight=257"), -EINVAL);
	assert_int_equal(set("to", "tcp:b:2 spare"), -EINVAL);
	while (s.n_targets < ROUTE_TARGETS_MAX)
		assert_int_equal(set("to", "tcp:b:2"), 0);
	assert_int_equal(set("to", "tcp:b:2"), -EINVAL);
}

static void values_reach_their_fields(void **state)
{
	assert_int_equal(set("engine", "splice"), 0);
	assert_int_equal(s.engine, ROUTE_ENGINE_SPLICE);
	assert_int_equal(set("balance", "source_hash"), 0);
	assert_int_equal(s.balance, ROUTE_SOURCE_HASH);
	assert_int_equal(set("idle_timeout", "2m"), 0);
	assert_int_equal(s.idle_timeout_ns, 120000000000ULL);
	assert_int_equal(set("idle_timeout", "off"), 0);
	assert_int_equal(s.idle_timeout_ns, 0);
	assert_int_equal(set("rate", "10M/s"), 0);
	assert_int_equal(s.rate, 10 << 20);
	assert_int_equal(set("max_connections", "7"), 0);
	assert_int_equal(s.max_connections, 7);
	assert_int_equal(set("allow", "10.0.0.0/8, 192.0.2.0/24"), 0);
	assert_int_equal(s.allow.n, 2);
	assert_int_equal(set("mark", "0x10"), 0);
	assert_int_equal(s.mark, 16);
	assert_int_equal(set("nodelay", "no"), 0);
	assert_false(s.nodelay);
	assert_int_equal(set("keepalive", "30s"), 0);
	assert_int_equal(s.keepalive_idle_s, 30);
	assert_int_equal(set("congestion", "cubic"), 0);
	assert_string_equal(s.congestion, "cubic");
	assert_int_equal(set("proxy_send", "v2"), 0);
	assert_int_equal(s.proxy_send, ROUTE_PROXY_V2);
	assert_int_equal(set("access_log", "file:/tmp/x"), 0);
	assert_string_equal(s.access_log, "/tmp/x");
	assert_int_equal(set("access_log", "journal"), 0);
	assert_string_equal(s.access_log, "journal");
	assert_int_equal(set("access_log", "syslog"), -EINVAL);
}

static void sources_have_port_ranges(void **state)
{
	assert_int_equal(set("source", "10.0.0.1"), 0);
	assert_int_equal(s.source_port_min, 0);
	assert_int_equal(set("source", "10.0.0.1:1000-2000"), 0);
	assert_int_equal(s.source_port_min, 1000);
	assert_int_equal(s.source_port_max, 2000);
	assert_int_equal(set("source", "2001:db8::1"), 0);
	assert_int_equal(s.source.sa.sa_family, AF_INET6);
	assert_int_equal(set("source", "[2001:db8::1]:5000"), 0);
	assert_int_equal(s.source_port_max, 5000);
	assert_int_equal(set("source", "10.0.0.1:2000-1000"), -EINVAL);
	assert_int_equal(set("source", "10.0.0"), -EINVAL);
	assert_int_equal(set("source", ""), -EINVAL);
}

static void nonsense_is_refused(void **state)
{
	struct reason r = {0};

	assert_int_equal(set("engine", "sendfile"), -EINVAL);
	assert_int_equal(set("engine", "auto|splice"), -EINVAL);
	assert_int_equal(set("idle_timeout", "soon"), -EINVAL);
	assert_int_equal(set("rate", "fast"), -EINVAL);
	assert_int_equal(set("nodelay", "1"), -EINVAL);
	assert_int_equal(set("mark", "0x100000000"), -EINVAL);
	assert_int_equal(set("backlog", "0"), -EINVAL);
	assert_int_equal(set("health_failures", "0"), -EINVAL);
	assert_int_equal(set("congestion", "a-very-long-name-indeed"), -EINVAL);
	assert_int_equal(set("deny", "10.0.0.1/8"), -EINVAL);
	assert_int_equal(set("access_log", "relative"), -EINVAL);
	assert_int_equal(route_set(&s, "balanced", "x", &r), -EINVAL);
	assert_non_null(strstr(r.remedy, "balance"));
}

static void the_whole_must_fit(void **state)
{
	struct reason r = {0};

	assert_int_equal(route_check(&s, &r), -EINVAL);
	assert_int_equal(set("listen", "tcp:*:80"), 0);
	assert_int_equal(route_check(&s, &r), -EINVAL);
	assert_int_equal(set("to", "tcp:a:0"), 0);
	assert_int_equal(route_check(&s, &r), -EINVAL);
	s.n_targets = 0;
	assert_int_equal(set("to", "udp:a:1"), 0);
	assert_int_equal(route_check(&s, &r), -EINVAL);
	s.n_targets = 0;
	assert_int_equal(set("to", "tcp:a:1"), 0);
	assert_int_equal(route_check(&s, &r), 0);
	assert_int_equal(set("proxy_accept", "yes"), 0);
	assert_int_equal(route_check(&s, &r), -EINVAL);
	assert_int_equal(set("proxy_trust", "10.0.0.0/8"), 0);
	assert_int_equal(route_check(&s, &r), 0);
}

static void every_key_is_named(void **state)
{
	unsigned int n = 0;

	for (; route_key(n); n++)
		assert_int_equal(set(route_key(n), "\x01 is no value of any key"), -EINVAL);
	assert_true(n > 25);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(targets_have_weights, fresh),
		cmocka_unit_test_setup(values_reach_their_fields, fresh),
		cmocka_unit_test_setup(sources_have_port_ranges, fresh),
		cmocka_unit_test_setup(nonsense_is_refused, fresh),
		cmocka_unit_test_setup(the_whole_must_fit, fresh),
		cmocka_unit_test_setup(every_key_is_named, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
