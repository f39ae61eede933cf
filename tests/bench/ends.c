/*
 * Ends so cheap that what is between them is what gets measured.
 *
 *   ends sink ENDPOINT                       takes and throws away (MSG_TRUNC)
 *   ends bulk ENDPOINT CONNECTIONS SIZE      sends SIZE bytes on each (sendfile of a memfd)
 *   ends echo ENDPOINT                       answers what it gets
 *   ends ping ENDPOINT CONNECTIONS SECONDS [SIZE]   one message in flight on each
 *   ends once ENDPOINT                       reads a request, answers 64 bytes, closes
 *   ends connect ENDPOINT AT-A-TIME SECONDS  connect, 64 bytes, answer, close
 *   ends stream ENDPOINT SIZE SECONDS        one connection, writes of SIZE
 *   ends transfer ENDPOINT SIZE SECONDS      connect, SIZE bytes, close, one after another
 *
 * Servers run until stdin closes. Clients print a line of JSON. An endpoint is as in
 * tests/relay/endpoint.h.
 */
#include "../relay/endpoint.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <time.h>

#define MEMORY	 (1 << 20) /* bytes of the memfd that bulk sends over and over */
#define MESSAGES 64
#define BUCKETS	 4096 /* of latencies, in steps of 1/64 octave of a nanosecond */

struct conn {
	int fd;
	bool connecting, sent;
	uint64_t left, begin_ns;
	size_t got;
};

static char buffer[1 << 20];
static int epoll_fd;
static uint64_t buckets[BUCKETS], n_done, n_failed, bytes;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void latency_add(uint64_t ns)
{
	unsigned int log = 63 - (unsigned int)__builtin_clzll(ns | 64);

	buckets[log * 64 + ((ns >> (log - 6)) & 63)]++;
	n_done++;
}

/* The latency in microseconds below which `part` of all lie. */
static double latency_at(double part)
{
	uint64_t want = (uint64_t)((double)n_done * part), seen = 0;

	for (unsigned int i = 6 * 64; i < BUCKETS; i++) {
		seen += buckets[i];
		if (seen > want)
			return (double)((64ull + i % 64) << (i / 64 - 6)) / 1000;
	}
	return 0;
}

static void watch(int fd, uint32_t events, void *ptr)
{
	struct epoll_event ev = {.events = events, .data.ptr = ptr};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) && errno != EPERM)
		die("epoll_ctl");
}

static struct conn *conn_open(struct conn *c, const struct endpoint *to)
{
	*c = (struct conn){
		.fd = endpoint_socket(to, 0, 0), .connecting = true, .begin_ns = now_ns()};
	if (connect(c->fd, (const struct sockaddr *)&to->addr, to->addr_size) &&
		errno != EINPROGRESS) {
		close(c->fd);
		n_failed++;
		return NULL;
	}
	watch(c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c);
	return c;
}

/* Serves one connection's event; false when it is over. */
static bool serve_event(const char *mode, int fd)
{
	for (int turns = 0; turns < 16; turns++) {
		ssize_t n = recv(fd, buffer, sizeof(buffer), mode[0] == 's' ? MSG_TRUNC : 0);

		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		/* Answers are small: the socket's buffer always has room for them. */
		if (mode[0] != 's' && send(fd, buffer, (size_t)n, MSG_NOSIGNAL) < 0)
			return false;
		if (mode[0] == 'o')
			return false;
		if (mode[0] == 'e')
			return true;
	}
	return true;
}

static int serve(const char *mode, const char *where)
{
	int listener = endpoint_listen(where, 0, 0), fd, one = 1;
	struct epoll_event ev[64];

	watch(listener, EPOLLIN, (void *)(intptr_t)listener);
	watch(0, EPOLLIN, NULL);
	for (;;) {
		int n = epoll_wait(epoll_fd, ev, 64, -1);

		for (int i = 0; i < n; i++) {
			int at = (int)(intptr_t)ev[i].data.ptr;

			if (!at)
				return 0;
			if (at != listener) {
				if (!serve_event(mode, at))
					close(at);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				watch(fd, EPOLLIN, (void *)(intptr_t)fd);
			}
		}
	}
}

/* Sends what is left; true when all is out and the other end has closed too. */
static bool bulk_event(struct conn *c, int memory)
{
	while (c->left) {
		off_t off = 0;
		size_t size = c->left < MEMORY ? c->left : MEMORY;
		ssize_t n = sendfile(c->fd, memory, &off, size);

		if (n < 0 && errno == EAGAIN)
			return false;
		if (n <= 0)
			die("sendfile");
		c->left -= (uint64_t)n;
		bytes += (uint64_t)n;
	}
	if (!c->sent) {
		c->sent = true;
		shutdown(c->fd, SHUT_WR);
	}
	/* The end of the answer says that everything has arrived. */
	return recv(c->fd, buffer, sizeof(buffer), 0) == 0;
}

static int bulk(const struct endpoint *to, unsigned int n, uint64_t size)
{
	struct conn *conns = calloc(n, sizeof(*conns));
	struct epoll_event ev[64];
	int memory = memfd_create("bulk", MFD_CLOEXEC);
	unsigned int open = n;
	uint64_t begin;

	if (!conns || memory < 0 || write(memory, buffer, MEMORY) != MEMORY)
		die("memory");
	for (unsigned int i = 0; i < n; i++) {
		if (!conn_open(&conns[i], to))
			die("connect");
		conns[i].left = size;
	}
	begin = now_ns();
	while (open) {
		int got = epoll_wait(epoll_fd, ev, 64, -1);

		for (int i = 0; i < got; i++) {
			struct conn *c = ev[i].data.ptr;

			if (bulk_event(c, memory)) {
				close(c->fd);
				open--;
			}
		}
	}
	printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)bytes,
		(double)(now_ns() - begin) / 1e9);
	free(conns);
	close(memory);
	return 0;
}

static void conn_send(struct conn *c, size_t size)
{
	c->begin_ns = c->connecting ? c->begin_ns : now_ns();
	c->connecting = false;
	c->sent = true;
	c->got = 0;
	if (send(c->fd, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
		n_failed++;
}

/* Drives one message at a time on the connection; true when a `once` one is over. */
static bool small_event(struct conn *c, size_t size, bool once)
{
	if (!c->sent) {
		conn_send(c, size);
		return false;
	}
	for (;;) {
		ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);

		if (n < 0 && errno == EAGAIN)
			return false;
		if (n <= 0) {
			if (n < 0 || c->got < size)
				n_failed++;
			else
				latency_add(now_ns() - c->begin_ns);
			return true;
		}
		c->got += (size_t)n;
		if (!once && c->got == size) {
			latency_add(now_ns() - c->begin_ns);
			conn_send(c, size);
		}
	}
}

static int small(const struct endpoint *to, unsigned int n, double seconds, size_t size, bool once)
{
	struct conn *conns = calloc(n, sizeof(*conns));
	struct epoll_event ev[64];
	uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), now = begin;

	if (!conns)
		die("calloc");
	for (unsigned int i = 0; i < n; i++)
		conn_open(&conns[i], to);
	while (now < end && n_failed < 1000) {
		int got = epoll_wait(epoll_fd, ev, 64, 100);

		for (int i = 0; i < got; i++) {
			struct conn *c = ev[i].data.ptr;

			if (!small_event(c, size, once))
				continue;
			close(c->fd);
			if (once)
				conn_open(c, to);
		}
		now = now_ns();
	}
	printf("{\"done\": %llu, \"failed\": %llu, \"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": "
	       "%.1f}\n",
		(unsigned long long)n_done, (unsigned long long)n_failed,
		(double)n_done * 1e9 / (double)(now - begin), latency_at(0.5), latency_at(0.99));
	free(conns);
	return n_failed != 0;
}

static int dial(const struct endpoint *to)
{
	int fd = endpoint_socket(to, 0, 0);

	if (fcntl(fd, F_SETFL, 0) < 0 ||
		connect(fd, (const struct sockaddr *)&to->addr, to->addr_size))
		die("connect");
	return fd;
}

/* The end of the answer says that everything has arrived. */
static void finish(int fd)
{
	shutdown(fd, SHUT_WR);
	while (recv(fd, buffer, sizeof(buffer), 0) > 0)
		;
	close(fd);
}

static void send_whole(int fd, size_t size)
{
	while (size) {
		ssize_t n = send(
			fd, buffer, size < sizeof(buffer) ? size : sizeof(buffer), MSG_NOSIGNAL);

		if (n < 0)
			die("send");
		size -= (size_t)n;
	}
}

static int stream(const struct endpoint *to, size_t size, double seconds, bool transfers)
{
	uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
	int fd = transfers ? -1 : dial(to);

	do {
		if (transfers)
			fd = dial(to);
		send_whole(fd, size);
		n_done++;
		if (transfers)
			finish(fd);
	} while (now_ns() < end);
	if (!transfers)
		finish(fd);
	printf("{\"done\": %llu, \"rate\": %.1f}\n", (unsigned long long)n_done,
		(double)n_done * 1e9 / (double)(now_ns() - begin));
	return 0;
}

int main(int argc, char **argv)
{
	struct endpoint to;
	unsigned int n;
	double amount;

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (argc == 3)
		return serve(argv[1], argv[2]);
	if (argc < 5) {
		fprintf(stderr,
			"usage: ends sink|echo|once ENDPOINT | bulk|ping|connect|stream|transfer "
			"ENDPOINT N AMOUNT\n");
		return 2;
	}
	to = endpoint_parse(argv[2]);
	n = (unsigned int)atoi(argv[3]);
	amount = atof(argv[4]);
	if (!strcmp(argv[1], "stream") || !strcmp(argv[1], "transfer"))
		return stream(&to, n, amount, argv[1][0] == 't');
	if (!strcmp(argv[1], "bulk"))
		return bulk(&to, n, (uint64_t)amount);
	return small(
		&to, n, amount, argc > 5 ? (size_t)atoi(argv[5]) : MESSAGES, argv[1][0] == 'c');
}
