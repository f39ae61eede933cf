/* Endpoints as an operator writes them, and the words that refuse bad ones. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/reason.h"
#include "relay/endpoint.h"
#include "unit.h"

static void round_trip(const char *text)
{
	struct endpoint e;
	char again[ENDPOINT_TEXT_SIZE];

	assert_int_equal(endpoint_parse(text, &e, NULL), 0);
	endpoint_format(&e, again, sizeof(again));
	assert_string_equal(again, text);
}

static void good_ones_come_back_as_written(void **state)
{
	round_trip("tcp:10.0.0.2:80");
	round_trip("tcp:[2001:db8::1]:443");
	round_trip("tcp:example.org:65535");
	round_trip("tcp:*:0");
	round_trip("udp:127.0.0.1:53");
	round_trip("unix:/run/x.sock");
	round_trip("unix:@name");
	round_trip("fd:web");
	round_trip("file:/var/tmp/a");
	round_trip("file:/var/tmp/a?append");
}

static void addresses_need_no_resolving(void **state)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse("tcp:10.0.0.2:80", &e, NULL), 0);
	assert_true(e.numeric);
	assert_int_equal(e.address.in.sin_family, AF_INET);
	assert_int_equal(ntohs(e.address.in.sin_port), 80);
	assert_int_equal(ntohl(e.address.in.sin_addr.s_addr), 0x0a000002);
	assert_int_equal(endpoint_parse("tcp:[::1]:80", &e, NULL), 0);
	assert_true(e.numeric);
	assert_int_equal(e.address.in6.sin6_family, AF_INET6);
	assert_int_equal(endpoint_parse("tcp:localhost:80", &e, NULL), 0);
	assert_false(e.numeric);
	assert_int_equal(endpoint_parse("unix:@ab", &e, NULL), 0);
	assert_int_equal(e.address.un.sun_path[0], 0);
	assert_int_equal(e.address.size, offsetof(struct sockaddr_un, sun_path) + 3);
}

static void bad_ones_are_told_why(void **state)
{
	static const char *const bad[] = {"", "tcp:", "tcp:80", "tcp::80", "tcp:a:", "tcp:a:65536",
		"tcp:a:-1", "tcp:a:8 0", "tcp:::1:80", "tcp:[::1]", "tcp:[a]:1", "tcp:[[::1]]:1",
		"tcp:[*]:1", "tcp:a b:1", "10.0.0.1:80", "unix:", "unix:/", "unix:relative",
		"unix:@", "file:x", "file:", "fd:", "http://a:80"};
	struct endpoint e;
	char path[200];

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct reason r = {0};

		assert_int_equal(endpoint_parse(bad[i], &e, &r), -EINVAL);
		assert_true(r.what[0] && r.remedy[0]);
	}
	memset(path, 'a', sizeof(path));
	memcpy(path, "unix:/", 6);
	path[5 + 108] = 0; /* a path of 108 bytes: one too many */
	assert_int_equal(endpoint_parse(path, &e, NULL), -EINVAL);
	path[5 + 107] = 0;
	assert_int_equal(endpoint_parse(path, &e, NULL), 0);
}

static void addresses_are_written_for_people(void **state)
{
	struct address a = {0};
	char text[64];

	a.in6.sin6_family = AF_INET6;
	a.in6.sin6_port = htons(80);
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &a.in6.sin6_addr);
	address_format(&a.sa, text, sizeof(text));
	assert_string_equal(text, "192.0.2.1:80");
	inet_pton(AF_INET6, "2001:db8::1", &a.in6.sin6_addr);
	address_format(&a.sa, text, sizeof(text));
	assert_string_equal(text, "[2001:db8::1]:80");
	memset(&a, 0, sizeof(a));
	a.sa.sa_family = AF_UNIX;
	address_format(&a.sa, text, sizeof(text));
	assert_string_equal(text, "unix");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_ones_come_back_as_written),
		cmocka_unit_test(addresses_need_no_resolving),
		cmocka_unit_test(bad_ones_are_told_why),
		cmocka_unit_test(addresses_are_written_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
