/* PROXY headers: written, read back, cut short, and spoilt. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "relay/proxy.h"
#include "unit.h"

static void address(union proxy_address *a, const char *text, uint16_t port)
{
	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, text, &a->in.sin_addr) == 1) {
		a->sa.sa_family = AF_INET;
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &a->in6.sin6_addr), 1);
		a->sa.sa_family = AF_INET6;
	}
	a->in.sin_port = htons(port);
}

static int parse(const char *text, struct proxy_info *info)
{
	return proxy_parse((const uint8_t *)text, strlen(text), info);
}

static void round_trip(unsigned int version, const char *from, const char *to)
{
	struct proxy_info info = {.known = true}, again;
	uint8_t bytes[PROXY_BUILD_MAX + 1];
	size_t size;

	address(&info.source, from, 1);
	address(&info.destination, to, 65535);
	size = proxy_build(version, &info, bytes);
	assert_in_range(size, 16, PROXY_BUILD_MAX - 1);
	bytes[size] = 'x'; /* what follows is not the header's */
	assert_int_equal(proxy_parse(bytes, size + 1, &again), size);
	assert_true(again.known);
	assert_memory_equal(&again.source, &info.source, sizeof(info.source));
	assert_memory_equal(&again.destination, &info.destination, sizeof(info.destination));
	for (size_t part = 0; part < size; part++)
		assert_int_equal(proxy_parse(bytes, part, &again), 0);
}

static void both_versions_come_back(void **state)
{
	round_trip(1, "192.0.2.1", "198.51.100.255");
	round_trip(2, "192.0.2.1", "198.51.100.255");
	round_trip(1, "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
	round_trip(2, "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
}

static void bytes_are_those_of_the_text(void **state)
{
	struct proxy_info info = {.known = true};
	uint8_t bytes[PROXY_BUILD_MAX];
	static const uint8_t v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\0\7"
				    "\1\xbb";

	address(&info.source, "::ffff:192.0.2.1", 7);
	address(&info.destination, "198.51.100.2", 443);
	assert_int_equal(proxy_build(2, &info, bytes), sizeof(v2) - 1);
	assert_memory_equal(bytes, v2, sizeof(v2) - 1);
	bytes[proxy_build(1, &info, bytes)] = 0;
	assert_string_equal((char *)bytes, "PROXY TCP4 192.0.2.1 198.51.100.2 7 443\r\n");
	address(&info.destination, "2001:db8::1", 443); /* of two families: not told */
	bytes[proxy_build(1, &info, bytes)] = 0;
	assert_string_equal((char *)bytes, "PROXY UNKNOWN\r\n");
	assert_int_equal(proxy_build(2, &info, bytes), 16);
	assert_int_equal(bytes[12], 0x20);
}

static void unknown_and_local_say_nothing(void **state)
{
	struct proxy_info info;
	static const uint8_t local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\3abc";

	assert_int_equal(parse("PROXY UNKNOWN\r\n", &info), 15);
	assert_false(info.known);
	assert_int_equal(parse("PROXY UNKNOWN a b c d e\r\n", &info), 25);
	assert_int_equal(proxy_parse(local, sizeof(local) - 1, &info), 19);
	assert_false(info.known);
}

static void bad_headers_are_refused(void **state)
{
	static const char *const bad[] = {"GET / HTTP/1.1\r\n", "PROXY TCP4\r\n", "PROXY \r\n",
		"PROXX", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
		"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
		"PROXY TCP4 ::1 ::1 1 2\r\n", "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
		"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
		"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "\r\n\r\nx"};
	struct proxy_info info;
	char longest[200];
	uint8_t v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b...........";

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i], &info), -EINVAL);
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "PROXY ", 6);
	longest[107] = 0;
	assert_int_equal(parse(longest, &info), -EINVAL);
	assert_int_equal(proxy_parse(v2, sizeof(v2) - 1, &info), -EINVAL); /* too short for TCP4 */
	v2[12] = 0x31;							   /* version 3 */
	assert_int_equal(proxy_parse(v2, sizeof(v2) - 1, &info), -EINVAL);
	v2[12] = 0x21;
	v2[14] = 0xff; /* 65 kB of extensions */
	assert_int_equal(proxy_parse(v2, sizeof(v2) - 1, &info), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_versions_come_back),
		cmocka_unit_test(bytes_are_those_of_the_text),
		cmocka_unit_test(unknown_and_local_say_nothing),
		cmocka_unit_test(bad_headers_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
