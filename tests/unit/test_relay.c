/* The relay as control drives it: routes come, change and go while connections live. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/reason.h"
#include "relay/relay.h"
#include "unit.h"

#define PATIENCE_S 30

static struct relay *relay;
static struct route_settings settings;

static void patience(int fd)
{
	struct timeval limit = {.tv_sec = PATIENCE_S};

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
}

static int target_open(char *text, size_t size)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t a_size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	patience(fd);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &a_size), 0);
	snprintf(text, size, "tcp:127.0.0.1:%u", ntohs(a.sin_port));
	return fd;
}

static uint16_t route_port(unsigned int idx)
{
	struct relay_stats s;

	relay_stats(relay, idx, &s);
	return (uint16_t)atoi(strrchr(s.listen, ':') + 1);
}

static int client_open(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	patience(fd);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static int target_accept(int target)
{
	int fd = accept4(target, NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	patience(fd);
	return fd;
}

static void crosses(int from, int to, char byte)
{
	char got = 0;

	assert_int_equal(write(from, &byte, 1), 1);
	assert_int_equal(read(to, &got, 1), 1);
	assert_int_equal(got, byte);
}

static void add(const char *to)
{
	struct reason r = {0};

	route_defaults(&settings, "web");
	assert_int_equal(route_set(&settings, "listen", "tcp:127.0.0.1:0", &r), 0);
	assert_int_equal(route_set(&settings, "to", to, &r), 0);
	if (relay_add(relay, &settings, &r) < 0)
		fail_msg("%s", r.what);
}

static int start(void **state)
{
	struct relay_options options = {.workers = 2};

	return relay_create(&relay, &options, NULL);
}

static int stop(void **state)
{
	relay_free(relay);
	return 0;
}

static void a_route_changes_without_refusing_anyone(void **state)
{
	char to_old[64], to_new[64];
	int old_target = target_open(to_old, sizeof(to_old));
	int new_target = target_open(to_new, sizeof(to_new)), a, b, c, d;
	struct relay_stats s;
	uint16_t port;

	add(to_old);
	port = route_port(0);
	a = client_open(port);
	b = target_accept(old_target);
	crosses(a, b, 'x');
	add(to_new);
	assert_int_equal(route_port(1), port);
	assert_int_equal(relay_remove(relay, "web"), 0);
	c = client_open(port);
	d = target_accept(new_target);
	crosses(c, d, 'y');
	crosses(a, b, 'z'); /* who was there stays with what was there */
	crosses(b, a, '!');
	assert_int_equal(relay_routes(relay), 2);
	/* The byte is there before it is counted. */
	for (int i = 0; i < PATIENCE_S * 100; i++) {
		relay_stats(relay, 0, &s);
		if (s.bytes_out)
			break;
		usleep(10000);
	}
	assert_int_equal(s.active, 1);
	assert_int_equal(s.bytes_in, 2);
	assert_int_equal(s.bytes_out, 1);
	close(a);
	close(b);
	close(c);
	close(d);
	close(old_target);
	close(new_target);
}

static void a_drain_waits_and_then_cuts(void **state)
{
	char to[64], byte;
	int target = target_open(to, sizeof(to)), a, b, c, d;
	struct timespec before, after;

	add(to);
	a = client_open(route_port(0));
	b = target_accept(target);
	c = client_open(route_port(0));
	d = target_accept(target);
	crosses(a, b, 'x');
	crosses(c, d, 'x');
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(relay_drain(relay, 200000000, NULL), 2);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true((after.tv_sec - before.tv_sec) * 1000 +
			    (after.tv_nsec - before.tv_nsec) / 1000000 >=
		    199);
	assert_int_equal(read(a, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(read(d, &byte, 1), -1);
	assert_int_equal(relay_drain(relay, 60000000000ULL, NULL), 0); /* nothing to wait for */
	close(a);
	close(b);
	close(c);
	close(d);
	close(target);
}

static void wrong_routes_leave_nothing_behind(void **state)
{
	struct reason r = {0};
	char to[64], listen_on[80];
	int target = target_open(to, sizeof(to));

	route_defaults(&settings, "web");
	assert_int_equal(route_set(&settings, "listen", to, &r), 0); /* taken by the target */
	assert_int_equal(route_set(&settings, "to", to, &r), 0);
	assert_int_equal(relay_add(relay, &settings, &r), -EADDRINUSE);
	assert_non_null(strstr(r.what, "in use"));
	assert_int_equal(relay_routes(relay), 0);
	assert_int_equal(relay_remove(relay, "web"), -ENOENT);
	snprintf(listen_on, sizeof(listen_on), "unix:/tmp/culvert-unit-%d", (int)getpid());
	route_defaults(&settings, "web");
	assert_int_equal(route_set(&settings, "listen", listen_on, &r), 0);
	assert_int_equal(route_set(&settings, "to", to, &r), 0);
	assert_int_equal(relay_add(relay, &settings, &r), 0);
	assert_int_equal(access(listen_on + 5, F_OK), 0);
	assert_int_equal(relay_add(relay, &settings, &r), 0);
	assert_int_equal(relay_remove(relay, "web"), 0);
	assert_int_equal(access(listen_on + 5, F_OK), 0); /* the newer one's */
	assert_int_equal(relay_remove(relay, "web"), 0);
	assert_int_equal(access(listen_on + 5, F_OK), -1);
	close(target);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_route_changes_without_refusing_anyone, start, stop),
		cmocka_unit_test_setup_teardown(a_drain_waits_and_then_cuts, start, stop),
		cmocka_unit_test_setup_teardown(wrong_routes_leave_nothing_behind, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
