/* What one direction moves in one turn of the loop is bounded, however much its source has and its
 * sink takes: others have their turn (trap 23). */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/flow.h"
#include "unit.h"

#define QUEUED (8U << 20)
#define TURN   (1U << 20)

/* A queue for `size` bytes from fds[0] to fds[1]; false where the system allows no such. */
static bool open_queue(int fds[2], int size)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	return setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) == 0;
}

/* Moves all of it by turns; returns how many it took. */
static unsigned int turns(struct flow *f)
{
	unsigned int n = 0;
	uint64_t before;
	bool more;

	do {
		before = f->dir[0].bytes;
		more = direction_move(f, 0);
		assert_true(f->dir[0].bytes - before <= 2 * TURN);
		n++;
	} while (more);
	assert_int_equal(f->dir[0].bytes, QUEUED);
	return n;
}

static void bounded(enum route_engine engine)
{
	const struct pipe_budget pipes = {.large = 1, .large_size = PIPE_LARGE_SIZE};
	struct counters counters = {0};
	struct route *route = calloc(1, sizeof(*route));
	struct loop *loop = calloc(1, sizeof(*loop));
	struct flow f = {.loop = loop, .route = route, .counters = &counters, .reset = -1};
	int in[2], out[2];
	bool queues;
	char *bytes = malloc(QUEUED);

	assert_true(route && loop && bytes);
	memset(bytes, 7, QUEUED);
	queues = open_queue(in, 4 * QUEUED);
	queues &= open_queue(out, 4 * QUEUED);
	loop->buffer = malloc(LOOP_BUFFER_SIZE);
	assert_non_null(loop->buffer);
	pipe_pool_init(&loop->pipes, &pipes);
	route->s.engine = engine;
	f.end[0] = (struct end){.fd = in[1], .side = 0, .readable = true};
	f.end[1] = (struct end){.fd = out[0], .side = 1, .writable = true};
	f.dir[0].mode = engine == ROUTE_ENGINE_COPY ? MODE_COPY : MODE_SPLICE;
	f.dir[0].no_splice = engine == ROUTE_ENGINE_COPY;
	if (queues) {
		assert_int_equal(write(in[0], bytes, QUEUED), QUEUED);
		assert_in_range(turns(&f), QUEUED / TURN / 2,
			QUEUED / TURN + 1); /* the last finds nothing */
	}
	direction_drop(&f, 0);
	pipe_pool_close(&loop->pipes);
	for (int i = 0; i < 2; i++) {
		close(in[i]);
		close(out[i]);
	}
	free(loop->buffer);
	free(loop);
	free(route);
	free(bytes);
	if (!queues) /* CAP_NET_ADMIN */
		skip();
}

static void spliced(void **state)
{
	bounded(ROUTE_ENGINE_SPLICE);
}

static void copied(void **state)
{
	bounded(ROUTE_ENGINE_COPY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spliced),
		cmocka_unit_test(copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
