/* Batches of sends: their order, what becomes of full, closed and refused ones. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relay/send_batch.h"
#include "unit.h"

#define PATIENCE_S 30
#define PAIRS	   (SEND_BATCH_SENDS + 8)

/* A connection over which the test sends at [0] and receives at [1]. */
struct pair {
	int fd[2];
	unsigned int calls; /* of done */
	ssize_t n;	    /* its last result */
	uint32_t size;
};

static struct pair pairs[PAIRS];
static unsigned int order[2 * PAIRS], n_order;

static void on_done(void *owner, unsigned int tag, const uint8_t *bytes, uint32_t size, ssize_t n)
{
	struct pair *p = owner;

	assert_ptr_equal(p, &pairs[tag]);
	assert_non_null(bytes);
	p->calls++;
	p->n = n;
	p->size = size;
	assert_true(n_order < 2 * PAIRS);
	order[n_order++] = tag;
}

static void pair_open(struct pair *p, int send_buffer)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	struct timeval patience = {.tv_sec = PATIENCE_S};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	memset(p, 0, sizeof(*p));
	assert_true(listener >= 0);
	if (send_buffer) /* the accepted end inherits it */
		assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &send_buffer,
					 sizeof(send_buffer)),
			0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &size), 0);
	p->fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(p->fd[0] >= 0);
	if (send_buffer)
		assert_int_equal(setsockopt(p->fd[0], SOL_SOCKET, SO_SNDBUF, &send_buffer,
					 sizeof(send_buffer)),
			0);
	assert_int_equal(connect(p->fd[0], (struct sockaddr *)&a, sizeof(a)), 0);
	p->fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(p->fd[1] >= 0);
	close(listener);
	assert_int_equal(setsockopt(p->fd[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	assert_int_equal(
		setsockopt(p->fd[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
}

static void pair_close(struct pair *p)
{
	close(p->fd[0]);
	close(p->fd[1]);
}

static void receive(int fd, uint8_t *bytes, size_t size)
{
	while (size) {
		ssize_t n = recv(fd, bytes, size, 0);

		assert_true(n > 0);
		bytes += n;
		size -= (size_t)n;
	}
}

/* Byte number at of the stream of pair i. */
static uint8_t stream(unsigned int i, size_t at)
{
	return (uint8_t)(at * 7 + at / 251 + i * 31);
}

static void add(struct send_batch *b, unsigned int i, size_t at, uint32_t size)
{
	uint8_t bytes[SEND_BATCH_BYTES];

	for (uint32_t k = 0; k < size; k++)
		bytes[k] = stream(i, at + k);
	send_batch_add(b, pairs[i].fd[0], &pairs[i], i, bytes, size);
	memset(bytes, 0xee, sizeof(bytes)); /* the batch has a copy */
}

static void check_received(unsigned int i, size_t at, uint32_t size)
{
	uint8_t *got = malloc(size);

	assert_non_null(got);
	receive(pairs[i].fd[1], got, size);
	for (uint32_t k = 0; k < size; k++)
		assert_int_equal(got[k], stream(i, at + k));
	free(got);
}

/* More than fit into one batch, of every size, round after round. */
static void test_order(void **state)
{
	static const uint32_t sizes[] = {1, 64, 100, 1448, 2048, 4095, SEND_BATCH_BYTES};
	struct send_batch *b = send_batch_open(on_done);
	size_t at = 0;

	(void)state;
	assert_true(send_batch_works(b));
	for (unsigned int i = 0; i < PAIRS; i++)
		pair_open(&pairs[i], 0);
	for (unsigned int round = 0; round < sizeof(sizes) / sizeof(*sizes); round++) {
		n_order = 0;
		for (unsigned int i = 0; i < PAIRS; i++)
			add(b, i, at, sizes[round]);
		send_batch_flush(b);
		assert_int_equal(n_order, PAIRS);
		for (unsigned int i = 0; i < PAIRS; i++) {
			assert_int_equal(order[i], i);
			assert_int_equal(pairs[i].calls, round + 1);
			assert_int_equal(pairs[i].size, sizes[round]);
			assert_int_equal(pairs[i].n, sizes[round]);
			check_received(i, at, sizes[round]);
		}
		at += sizes[round];
	}
	n_order = 0;
	send_batch_flush(b);
	assert_int_equal(n_order, 0);
	assert_true(send_batch_works(b));
	add(b, 3, at, 10); /* a lone one */
	send_batch_flush(b);
	assert_int_equal(n_order, 1);
	check_received(3, at, 10);
	add(b, 4, at, 10); /* closing sends what is left */
	send_batch_close(b);
	check_received(4, at, 10);
	for (unsigned int i = 0; i < PAIRS; i++)
		pair_close(&pairs[i]);
}

/* Tiny buffers: short sends and EAGAIN lose and repeat nothing. */
static void test_short(void **state)
{
	struct send_batch *b = send_batch_open(on_done);
	size_t sent[2] = {0, 0}, got[2] = {0, 0};
	unsigned int full = 0;

	(void)state;
	assert_true(send_batch_works(b));
	for (unsigned int i = 0; i < 2; i++)
		pair_open(&pairs[i], 1);
	for (unsigned int round = 0; round < 200; round++) {
		for (unsigned int i = 0; i < 2; i++)
			add(b, i, sent[i], SEND_BATCH_BYTES - i);
		n_order = 0;
		send_batch_flush(b);
		assert_int_equal(n_order, 2);
		for (unsigned int i = 0; i < 2; i++) {
			assert_true(pairs[i].n > 0 || pairs[i].n == -EAGAIN);
			assert_true(pairs[i].n <= (ssize_t)pairs[i].size);
			if (pairs[i].n > 0)
				sent[i] += (size_t)pairs[i].n;
			if (pairs[i].n == (ssize_t)pairs[i].size)
				continue;
			full++;
			check_received(i, got[i], (uint32_t)(sent[i] - got[i]));
			got[i] = sent[i];
		}
	}
	assert_true(full > 0);
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t more;

		if (sent[i] > got[i])
			check_received(i, got[i], (uint32_t)(sent[i] - got[i]));
		assert_int_equal(recv(pairs[i].fd[1], &more, 1, MSG_DONTWAIT), -1);
		pair_close(&pairs[i]);
	}
	assert_true(send_batch_works(b));
	send_batch_close(b);
}

/* One connection's end is its own: no signal, and the others' bytes arrive. */
static void test_lost(void **state)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	struct send_batch *b = send_batch_open(on_done);
	uint8_t byte;

	(void)state;
	assert_true(send_batch_works(b));
	for (unsigned int i = 0; i < 4; i++)
		pair_open(&pairs[i], 0);
	assert_int_equal(shutdown(pairs[1].fd[0], SHUT_WR), 0);
	assert_int_equal(setsockopt(pairs[2].fd[1], SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(pairs[2].fd[1]);
	/* Returns when the reset is there. */
	assert_int_equal(recv(pairs[2].fd[0], &byte, 1, 0), -1);
	for (unsigned int i = 0; i < 4; i++)
		add(b, i, 0, 64);
	send_batch_flush(b);
	assert_int_equal(pairs[0].n, 64);
	assert_int_equal(pairs[1].n, -EPIPE);
	assert_true(pairs[2].n == -EPIPE || pairs[2].n == -ECONNRESET);
	assert_int_equal(pairs[3].n, 64);
	check_received(0, 0, 64);
	check_received(3, 0, 64);
	assert_true(send_batch_works(b));
	send_batch_close(b);
	for (unsigned int i = 0; i < 4; i++)
		pair_close(&pairs[i]);
}

/* From here on this process' system call nr fails with EPERM, as container filters have it. */
static int refuse(unsigned int nr)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(*code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

/* What a child found wrong, 0: nothing. */
static int verdict(int (*child)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int setup_refused(void)
{
	struct send_batch *b;

	if (refuse(SYS_io_uring_setup) < 0)
		return 1;
	b = send_batch_open(on_done);
	if (b || send_batch_works(b))
		return 2;
	send_batch_flush(b);
	send_batch_close(b);
	return 0;
}

static void test_setup_refused(void **state)
{
	(void)state;
	assert_int_equal(verdict(setup_refused), 0);
}

/* The batch was opened in time; then the kernel takes nothing more. */
static int enter_refused(void)
{
	struct send_batch *b = send_batch_open(on_done);

	if (!send_batch_works(b) || refuse(SYS_io_uring_enter) < 0)
		return 1;
	n_order = 0;
	for (unsigned int i = 0; i < 3; i++)
		add(b, i, 0, 64);
	send_batch_flush(b);
	for (unsigned int i = 0; i < 3; i++) {
		if (pairs[i].calls != 1 || pairs[i].n != 64)
			return 2;
	}
	if (send_batch_works(b))
		return 3;
	add(b, 0, 64, 64);
	add(b, 1, 64, 64);
	send_batch_flush(b);
	send_batch_close(b);
	return n_order == 5 ? 0 : 4;
}

static void test_enter_refused(void **state)
{
	uint8_t more;

	(void)state;
	for (unsigned int i = 0; i < 3; i++)
		pair_open(&pairs[i], 0);
	assert_int_equal(verdict(enter_refused), 0);
	check_received(0, 0, 128);
	check_received(1, 0, 128);
	check_received(2, 0, 64);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(recv(pairs[i].fd[1], &more, 1, MSG_DONTWAIT), -1);
		pair_close(&pairs[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_short),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_setup_refused),
		cmocka_unit_test(test_enter_refused),
	};
	struct send_batch *b = send_batch_open(on_done);

	if (!b) {
		printf("skipped: no io_uring here, so there are no batches\n");
		return 77;
	}
	send_batch_close(b);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
