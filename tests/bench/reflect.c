/*
 * Both ends of a relay, at next to no cost: what the relay sends comes back to it on the loopback
 * as what the other end would say (reflect.bpf.c), so that the relay alone is measured.
 *
 *   reflect        prints where it listens, the relay's target; then takes lines from stdin:
 *                  ping RELAY-PORT CONNECTIONS SECONDS [SIZE]
 *                  connect RELAY-PORT AT-A-TIME SECONDS     and answers each with a line of JSON
 *
 * ping: real sockets open the connections and send the first messages. When those go round, the
 * sockets are gone without a word to the relay. When it is over the messages are let through, meet
 * no one, and the kernel's reset ends the relay's connections.
 * connect: the first SYNs are those of real sockets, which are gone before they are answered. When
 * it is over no connection that ends is followed by another.
 * Only in a network namespace of its own.
 */
#include "reflect.h"
#include "../relay/endpoint.h"
#include "reflect.skel.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <time.h>

#define PATIENCE_MS 10000 /* for what takes milliseconds */
#define WARM_UP_MS  100
#define TCX_EGRESS  47 /* BPF_TCX_EGRESS, which old headers don't have */

struct pair {
	int client, server;
	uint16_t client_port; /* in network order */
};

static struct reflect *program;
static int listener;
static char bytes[1 << 14];
static uint64_t before[REFLECT_BUCKETS];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

/* One that was just made has nothing up but its loopback; a machine's or a container's has. */
static bool own_namespace(void)
{
	struct if_nameindex *all = if_nameindex();
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool own = all && fd >= 0;

	for (struct if_nameindex *i = all; own && i->if_index; i++) {
		struct ifreq request = {0};

		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", i->if_name);
		own = !ioctl(fd, SIOCGIFFLAGS, &request) &&
		      (!(request.ifr_flags & IFF_UP) || !strcmp(i->if_name, "lo"));
	}
	if (all)
		if_freenameindex(all);
	if (fd >= 0)
		close(fd);
	return own;
}

static bool attach(void)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex("lo"),
		.attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts);

	if (!own_namespace()) {
		fprintf(stderr, "not in a network namespace of its own\n");
		return false;
	}
	libbpf_set_print(NULL);
	program = reflect__open_and_load();
	if (!program) {
		fprintf(stderr, "the BPF program can't be loaded: %s\n", strerror(errno));
		return false;
	}
	opts.prog_fd = bpf_program__fd(program->progs.reflect);
	/* Cheaper than by a classifier, which is what Linux before 6.6 has. */
	if (bpf_link_create(opts.prog_fd, hook.ifindex, (enum bpf_attach_type)TCX_EGRESS, NULL) >=
		0)
		return true;
	/* The hook and what is on it go with the namespace. */
	errno = -bpf_tc_hook_create(&hook);
	if (!errno || errno == EEXIST)
		errno = -bpf_tc_attach(&hook, &opts);
	if (errno)
		fprintf(stderr, "the BPF program can't be attached: %s\n", strerror(errno));
	return !errno;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, PATIENCE_MS) == 1;
}

/* A connection through the relay, with both its ends. */
static bool pair_open(struct pair *p, const struct endpoint *relay)
{
	struct sockaddr_in own;
	socklen_t size = sizeof(own);

	*p = (struct pair){.client = endpoint_socket(relay, 0, 0), .server = -1};
	if (fcntl(p->client, F_SETFL, 0) < 0 ||
		connect(p->client, (const struct sockaddr *)&relay->addr, relay->addr_size) ||
		getsockname(p->client, (struct sockaddr *)&own, &size))
		return false;
	p->client_port = own.sin_port;
	if (readable(listener))
		p->server = accept(listener, NULL, NULL);
	return p->server >= 0;
}

/* In repair a socket closes without sending anything. */
static void vanish(int fd)
{
	int one = 1;

	if (fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one)))
		die("TCP_REPAIR");
	if (fd >= 0)
		close(fd);
}

/* How many connections have had a round since then. */
static unsigned int moving(const struct pair *pairs, unsigned int n, uint64_t since_ns)
{
	unsigned int n_moving = 0;

	for (unsigned int i = 0; i < n; i++)
		n_moving +=
			((volatile __u64 *)program->bss->last_ns)[pairs[i].client_port] > since_ns;
	return n_moving;
}

/* How many connections have no round since then, however patiently one waits. */
static unsigned int stuck(const struct pair *pairs, unsigned int n, uint64_t since_ns)
{
	uint64_t end_ns = now_ns() + PATIENCE_MS * 1000000ull;

	while (moving(pairs, n, since_ns) < n && now_ns() < end_ns)
		sleep_ns(1000000);
	return n - moving(pairs, n, since_ns);
}

/* Sets all messages going and leaves them alone; false when some don't come back. */
static bool set_going(struct pair *pairs, unsigned int n, const struct endpoint *relay, size_t size)
{
	bool good = true;

	for (unsigned int i = 0; i < n; i++)
		pairs[i] = (struct pair){.client = -1, .server = -1};
	for (unsigned int i = 0; i < n && good; i++)
		good = pair_open(&pairs[i], relay);
	memset(program->bss->last_ns, 0, sizeof(program->bss->last_ns));
	__atomic_store_n(&program->bss->mode, REFLECT_MESSAGES, __ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < n && good; i++)
		good = send(pairs[i].client, bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
	good = good && stuck(pairs, n, 0) == 0;
	for (unsigned int i = 0; i < n; i++) {
		vanish(pairs[i].client);
		vanish(pairs[i].server);
	}
	return good;
}

/* The latency in microseconds below which `part` of all lie. */
static double latency_at(double part, uint64_t n_done)
{
	uint64_t want = (uint64_t)((double)n_done * part), seen = 0;

	for (unsigned int i = 0; i < REFLECT_BUCKETS; i++) {
		seen += program->bss->buckets[i] - before[i];
		if (seen > want)
			return (double)(((uint64_t)i << REFLECT_BUCKET_SHIFT) +
					(1u << (REFLECT_BUCKET_SHIFT - 1))) /
			       1000;
	}
	return 0;
}

/* An ordinary message both ways. */
static bool carries(const struct endpoint *relay)
{
	struct pair p;
	bool good =
		pair_open(&p, relay) && send(p.client, bytes, REFLECT_MESSAGE, MSG_NOSIGNAL) > 0 &&
		readable(p.server) && recv(p.server, bytes, sizeof(bytes), 0) == REFLECT_MESSAGE &&
		send(p.server, bytes, REFLECT_MESSAGE, MSG_NOSIGNAL) > 0 && readable(p.client) &&
		recv(p.client, bytes, sizeof(bytes), 0) == REFLECT_MESSAGE;

	close(p.client);
	if (p.server >= 0)
		close(p.server);
	return good;
}

static uint64_t counter(const __u64 *c)
{
	return __atomic_load_n(c, __ATOMIC_SEQ_CST);
}

static void set_mode(enum reflect_mode mode)
{
	__atomic_store_n(&program->bss->mode, (int)mode, __ATOMIC_SEQ_CST);
}

/* Tells what was done in so many seconds; returns when they were over. */
static uint64_t measured(double seconds)
{
	uint64_t begin_ns = now_ns(), n_done = counter(&program->bss->rounds), end_ns;

	memcpy(before, program->bss->buckets, sizeof(before));
	sleep_ns((uint64_t)(seconds * 1e9));
	n_done = counter(&program->bss->rounds) - n_done;
	end_ns = now_ns();
	printf("{\"done\": %llu, \"rate\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, ",
		(unsigned long long)n_done, (double)n_done * 1e9 / (double)(end_ns - begin_ns),
		latency_at(0.5, n_done), latency_at(0.99, n_done));
	return end_ns;
}

/* How many connections failed. */
static unsigned int ping(const struct endpoint *relay, unsigned int n, double seconds, size_t size)
{
	struct pair *pairs = calloc(n, sizeof(*pairs));
	bool going;
	unsigned int n_failed;

	if (!pairs)
		die("calloc");
	going = set_going(pairs, n, relay, size);
	/* Whoever has lost its message, or lets one wait while others go, has failed. */
	n_failed = stuck(pairs, n, measured(going ? seconds : 0));
	free(pairs);
	return going ? n_failed : n;
}

/* A socket whose SYN is sent, and that wants nothing of what comes. */
static void call(const struct endpoint *relay)
{
	int fd = endpoint_socket(relay, 0, 0);

	if (connect(fd, (const struct sockaddr *)&relay->addr, relay->addr_size) &&
		errno != EINPROGRESS)
		die("connect");
	close(fd);
}

/* How many connections failed or are stuck. */
static unsigned int connections(const struct endpoint *relay, unsigned int n, double seconds)
{
	uint64_t end_ns;

	program->bss->n_open = program->bss->n_failed = 0;
	memset(program->bss->last_ns, 0, sizeof(program->bss->last_ns));
	memset(program->bss->asked, 0, sizeof(program->bss->asked));
	set_mode(REFLECT_CONNECTIONS);
	for (unsigned int i = 0; i < n; i++)
		call(relay);
	sleep_ns(WARM_UP_MS * 1000000ull);
	end_ns = measured(seconds) + PATIENCE_MS * 1000000ull;
	set_mode(REFLECT_LAST);
	while (counter(&program->bss->n_open) && now_ns() < end_ns)
		sleep_ns(1000000);
	return (unsigned int)(counter(&program->bss->n_failed) + counter(&program->bss->n_open));
}

int main(void)
{
	unsigned int port, n, n_failed;
	struct sockaddr_in own;
	socklen_t size = sizeof(own);
	uint64_t n_before;
	struct endpoint relay;
	unsigned long message;
	char line[100], what[10], where[32];
	double seconds;
	int got, fd;

	if (!attach())
		return 1;
	listener = endpoint_listen("tcp:127.0.0.1:0", 0, 0);
	if (getsockname(listener, (struct sockaddr *)&own, &size))
		die("getsockname");
	program->bss->server_port = own.sin_port;
	while (fgets(line, sizeof(line), stdin)) {
		message = REFLECT_MESSAGE;
		got = sscanf(line, "%9s %u %u %lf %lu", what, &port, &n, &seconds, &message);
		if (got < 4 || n == 0 || message == 0 || message > sizeof(bytes)) {
			fprintf(stderr,
				"usage: ping|connect RELAY-PORT CONNECTIONS SECONDS [SIZE]\n");
			return 2;
		}
		/* Connections that were made to see whether a relay is up. */
		while ((fd = accept(listener, NULL, NULL)) >= 0)
			close(fd);
		snprintf(where, sizeof(where), "tcp:127.0.0.1:%u", port);
		relay = endpoint_parse(where);
		program->bss->relay_port = htons((uint16_t)port);
		n_before = counter(&program->bss->rounds);
		n_failed = what[0] == 'p' ? ping(&relay, n, seconds, message)
					  : connections(&relay, n, seconds);
		set_mode(REFLECT_NOT);
		n_failed += !carries(&relay);
		/* Before and after the measured seconds, too: what the relay's CPU time was for. */
		printf("\"all\": %llu, \"failed\": %u}\n",
			(unsigned long long)(counter(&program->bss->rounds) - n_before), n_failed);
		fflush(stdout);
	}
	reflect__destroy(program);
	return 0;
}
