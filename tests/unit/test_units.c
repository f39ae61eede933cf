/* Durations, sizes, rates and networks as they are written in a configuration. */
#include <arpa/inet.h>
#include <errno.h>

#include "base/cidr.h"
#include "base/units.h"
#include "unit.h"

static void durations(void **state)
{
	uint64_t ns;

	assert_int_equal(units_duration("10s", &ns), 0);
	assert_int_equal(ns, 10000000000ULL);
	assert_int_equal(units_duration("500ms", &ns), 0);
	assert_int_equal(ns, 500000000);
	assert_int_equal(units_duration("2m", &ns), 0);
	assert_int_equal(ns, 120000000000ULL);
	assert_int_equal(units_duration("0", &ns), 0);
	assert_int_equal(ns, 0);
	assert_int_equal(units_duration("10", &ns), -EINVAL);
	assert_int_equal(units_duration("", &ns), -EINVAL);
	assert_int_equal(units_duration("-1s", &ns), -EINVAL);
	assert_int_equal(units_duration("1s ", &ns), -EINVAL);
	assert_int_equal(units_duration("99999999999999d", &ns), -EINVAL);
	assert_int_equal(units_duration("99999999999999999999s", &ns), -EINVAL);
}

static void rates(void **state)
{
	uint64_t n;

	assert_int_equal(units_rate("512", &n), 0);
	assert_int_equal(n, 512);
	assert_int_equal(units_rate("64k", &n), 0);
	assert_int_equal(n, 65536);
	assert_int_equal(units_rate("1MiB", &n), 0);
	assert_int_equal(n, 1 << 20);
	assert_int_equal(units_rate("2G", &n), 0);
	assert_int_equal(n, 2ULL << 30);
	assert_int_equal(units_rate("1x", &n), -EINVAL);
	assert_int_equal(units_rate("1Ms", &n), -EINVAL);
	assert_int_equal(units_rate("99999999999T", &n), -EINVAL);
	assert_int_equal(units_rate("10M/s", &n), 0);
	assert_int_equal(n, 10 << 20);
	assert_int_equal(units_rate("10M", &n), 0);
	assert_int_equal(units_rate("10M/m", &n), -EINVAL);
}

static void numbers_and_words(void **state)
{
	uint64_t n;
	bool b;

	assert_int_equal(units_number("7", 1, 9, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(units_number("10", 1, 9, &n), -ERANGE);
	assert_int_equal(units_number("1.5", 1, 9, &n), -EINVAL);
	assert_int_equal(units_bool("yes", &b), 0);
	assert_true(b);
	assert_int_equal(units_bool("off", &b), 0);
	assert_false(b);
	assert_int_equal(units_bool("maybe", &b), -EINVAL);
}

static bool in(const char *network, const char *address)
{
	struct cidr c;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	assert_int_equal(cidr_parse(network, &c), 0);
	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
		return cidr_contains(&c, (struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, address, &v6.sin6_addr), 1);
	return cidr_contains(&c, (struct sockaddr *)&v6);
}

static void networks(void **state)
{
	struct cidr c;

	assert_true(in("10.0.0.0/8", "10.1.2.3"));
	assert_false(in("10.0.0.0/8", "11.1.2.3"));
	assert_true(in("10.1.2.3", "10.1.2.3"));
	assert_true(in("10.0.0.0/8", "::ffff:10.1.2.3"));
	assert_true(in("0.0.0.0/0", "1.2.3.4"));
	assert_false(in("0.0.0.0/0", "2001:db8::1"));
	assert_true(in("::/0", "1.2.3.4"));
	assert_true(in("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(in("2001:db8::/33", "2001:db8:8000::1"));
	assert_int_equal(cidr_parse("10.0.0.1/8", &c), -EINVAL);
	assert_int_equal(cidr_parse("10.0.0.0/33", &c), -EINVAL);
	assert_int_equal(cidr_parse("10.0.0/8", &c), -EINVAL);
	assert_int_equal(cidr_parse("2001:db8::/129", &c), -EINVAL);
	assert_int_equal(cidr_parse("", &c), -EINVAL);
	assert_int_equal(cidr_parse("/8", &c), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations),
		cmocka_unit_test(rates),
		cmocka_unit_test(numbers_and_words),
		cmocka_unit_test(networks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
