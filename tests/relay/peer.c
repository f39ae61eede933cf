/*
 * Both ends of byte-exact transfers: a server and a client that send each other a seeded
 * pattern at once and check every byte, the order, and how each direction ends.
 *
 *   peer serve [options] ENDPOINT      until stdin closes, then a line of JSON
 *   peer load [options] ENDPOINT       runs its connections, then a line of JSON
 *
 * A connection opens with a struct plan from the client, so that both know what to expect.
 * The exit code is 0 only if every connection did what its plan says.
 */
#include "endpoint.h"

#include <getopt.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

#define PLAN_MAGIC 0x7065657221u
#define BUFFER	   (256 * 1024)

enum kind {
	KIND_PLAIN,	   /* both at once; the server's last 16 bytes say what it got */
	KIND_AFTER_EOF,	   /* the server starts when the client has shut down its side */
	KIND_SERVER_FIRST, /* the client starts when the server has shut down its side */
	KIND_SERVER_RESET, /* the server resets after `stop` bytes */
	KIND_CLIENT_RESET, /* the client resets after `stop` bytes */
	KIND_HOLD,	   /* one byte comes back, then nothing moves */
	KIND_REST,	   /* likewise until stdin closes; then as KIND_PLAIN */
	KIND_RANDOM,	   /* the client draws one of the first five */
	KINDS,
};

static const char *const kind_names[] = {"plain", "after-eof", "server-first", "server-reset",
	"client-reset", "hold", "rest", "random"};

/* The first bytes of every connection, client to server. */
struct plan {
	uint64_t magic;
	uint64_t kind;
	uint64_t seed;
	uint64_t up; /* pattern bytes from the client, after the plan */
	uint64_t down;
	uint64_t stop;
	uint64_t chunk; /* most bytes in one send, of the server */
	uint64_t spare;
};

/* The server's last bytes where the kind has them. */
struct verdict {
	uint64_t received;
	uint64_t bad; /* 0, or 1 + the offset of the first wrong byte */
};

struct end {
	int fd;
	bool server, connecting, tx_done, rx_eof, held;
	bool resets; /* the socket knows resets: unix sockets don't */
	struct plan plan;
	struct verdict verdict;
	size_t plan_got; /* server: bytes of the plan received */
	uint64_t tx, rx; /* bytes sent and received, plan and verdict included */
	size_t chunk;
	uint32_t events;
	const char *failure;
};

struct options {
	uint64_t connections, concurrent, up, down, chunk, server_chunk, stop, seed;
	int sndbuf, rcvbuf, deadline_s;
	enum kind kind;
};

static struct {
	uint64_t ok, bad, live, held, opened, resets, bytes_up, bytes_down;
	char failure[256];
} total;

static struct options opt = {.connections = 1,
	.concurrent = 64,
	.chunk = BUFFER,
	.server_chunk = BUFFER,
	.seed = 1,
	.deadline_s = 120};
static int epoll_fd;
static struct end **resting; /* the client's of KIND_REST, opt.connections of them */
static bool rested;	     /* they go on */
static uint8_t buffer[BUFFER], expected[BUFFER];

/* splitmix64: one independent word for each eight bytes of a stream. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static void pattern(uint8_t *to, uint64_t seed, uint64_t off, size_t size)
{
	uint64_t base = mix(seed);

	while (size) {
		uint64_t word = mix(base + off / 8);
		size_t skip = off % 8, n = 8 - skip < size ? 8 - skip : size;

		memcpy(to, (uint8_t *)&word + skip, n);
		to += n;
		off += n;
		size -= n;
	}
}

static bool plan_has_verdict(const struct plan *p)
{
	return p->kind == KIND_PLAIN || p->kind == KIND_AFTER_EOF || p->kind == KIND_REST;
}

/* How far this end's stream may go now. */
static uint64_t tx_allowed(const struct end *e)
{
	const struct plan *p = &e->plan;

	if (e->server) {
		if (e->plan_got < sizeof(*p))
			return 0;
		if (p->kind == KIND_AFTER_EOF && !e->rx_eof)
			return 0;
		return p->down + (plan_has_verdict(p) && e->rx_eof ? sizeof(struct verdict) : 0);
	}
	if (p->kind == KIND_HOLD || (p->kind == KIND_SERVER_FIRST && !e->rx_eof) ||
		(p->kind == KIND_REST && !rested))
		return sizeof(*p);
	if (p->kind == KIND_CLIENT_RESET)
		return sizeof(*p) + p->stop;
	return sizeof(*p) + p->up;
}

/* The whole of this end's stream, after which it shuts down its side. */
static uint64_t tx_whole(const struct end *e)
{
	const struct plan *p = &e->plan;

	if (e->server && e->plan_got < sizeof(*p))
		return UINT64_MAX;
	/* Who will reset does not shut down before: the other end could take it for the end. */
	if (p->kind == KIND_HOLD || (e->server && p->kind == KIND_SERVER_RESET))
		return UINT64_MAX;
	if (e->server)
		return p->down + (plan_has_verdict(p) ? sizeof(struct verdict) : 0);
	return sizeof(*p) + p->up;
}

/* Bytes [off, off + size) of the stream that `server` (or the client) sends; returns how
 * many it wrote, at least 1: the parts of a stream are not joined. */
static size_t stream(const struct end *e, bool server, uint8_t *to, uint64_t off, size_t size)
{
	const struct plan *p = &e->plan;
	const uint8_t *part = server ? (const uint8_t *)&e->verdict : (const uint8_t *)p;
	uint64_t start = server ? p->down : 0,
		 end = start + (server ? sizeof(e->verdict) : sizeof(*p));

	if (off >= start && off < end) {
		size = end - off < size ? end - off : size;
		memcpy(to, part + (off - start), size);
		return size;
	}
	if (server && size > start - off)
		size = start - off;
	pattern(to, server ? ~p->seed : p->seed, server ? off : off - end, size);
	return size;
}

static void end_finish(struct end *e, const char *failure)
{
	if (failure) {
		total.bad++;
		if (!total.failure[0])
			snprintf(total.failure, sizeof(total.failure),
				"%s %s (up %llu down %llu stop %llu): %s after %llu out %llu in",
				e->server ? "server" : "client", kind_names[e->plan.kind % KINDS],
				(unsigned long long)e->plan.up, (unsigned long long)e->plan.down,
				(unsigned long long)e->plan.stop, failure,
				(unsigned long long)e->tx, (unsigned long long)e->rx);
	} else {
		total.ok++;
	}
	total.bytes_up += e->server ? e->rx : e->tx;
	total.bytes_down += e->server ? e->tx : e->rx;
	total.live--;
	close(e->fd);
	free(e);
}

static void end_reset(struct end *e)
{
	struct linger l = {.l_onoff = 1};

	/* A unix socket has no reset: closing with bytes unread is the nearest it has. */
	setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	end_finish(e, NULL);
}

/* The connection was reset: was it meant to be? */
static void end_was_reset(struct end *e, int err)
{
	uint64_t kind = e->plan.kind;

	total.resets++;
	if (e->server && (kind == KIND_CLIENT_RESET || kind == KIND_HOLD || e->plan_got < 64))
		end_finish(e, NULL);
	else if (!e->server && kind == KIND_SERVER_RESET)
		end_finish(e, NULL);
	else
		end_finish(e, err == ETIMEDOUT	    ? "timed out"
			      : err == ECONNREFUSED ? "refused"
						    : "reset");
}

/* Everything both sides had to say was said. */
static void end_judge(struct end *e)
{
	const struct plan *p = &e->plan;

	if (e->server) {
		if (e->plan_got < sizeof(*p))
			end_finish(e, e->plan_got ? "plan cut short" : NULL);
		else if (p->kind == KIND_HOLD)
			end_finish(e, NULL);
		else if (p->kind == KIND_CLIENT_RESET)
			end_finish(e, !e->resets ? NULL : "end of stream instead of a reset");
		else if (e->rx != sizeof(*p) + p->up)
			end_finish(e, "stream cut short");
		else
			end_finish(e, e->verdict.bad ? "wrong byte" : NULL);
		return;
	}
	if (p->kind == KIND_SERVER_RESET)
		end_finish(e, !e->resets ? NULL : "end of stream instead of a reset");
	else if (e->rx != p->down + (plan_has_verdict(p) ? sizeof(struct verdict) : 0))
		end_finish(e, "stream cut short");
	else
		end_finish(e, NULL);
}

/* Checks what came in; false if e is gone. */
static bool end_check(struct end *e, size_t size)
{
	size_t done = 0;

	if (e->server && e->plan_got < sizeof(e->plan)) {
		size_t n = sizeof(e->plan) - e->plan_got;

		n = n < size ? n : size;
		memcpy((uint8_t *)&e->plan + e->plan_got, buffer, n);
		e->plan_got += n;
		e->rx += n;
		done = n;
		if (e->plan_got < sizeof(e->plan))
			return true;
		if (e->plan.magic != PLAN_MAGIC) {
			end_finish(e, "not a plan");
			return false;
		}
		e->chunk = e->plan.chunk ? e->plan.chunk : BUFFER;
	}
	/* What the client expects of the server's verdict. */
	if (!e->server)
		e->verdict = (struct verdict){.received = e->plan.up};
	while (done < size) {
		size_t n = stream(e, !e->server, expected, e->rx, size - done);

		if (memcmp(expected, buffer + done, n)) {
			e->verdict.bad = 1 + e->rx;
			end_finish(e, "wrong byte");
			return false;
		}
		done += n;
		e->rx += n;
	}
	if (e->server) {
		e->verdict.received = e->rx - sizeof(e->plan);
		if (e->plan.kind == KIND_SERVER_RESET && e->verdict.received >= e->plan.stop) {
			end_reset(e);
			return false;
		}
	} else if ((e->plan.kind == KIND_HOLD || e->plan.kind == KIND_REST) && !e->held && e->rx) {
		e->held = true;
		if (resting)
			resting[total.held] = e;
		total.held++;
	}
	return true;
}

static bool end_read(struct end *e)
{
	for (int turn = 0; turn < 4 && !e->rx_eof; turn++) {
		ssize_t n = recv(e->fd, buffer, sizeof(buffer), 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			end_was_reset(e, errno);
			return false;
		}
		if (!n)
			e->rx_eof = true;
		else if (!end_check(e, (size_t)n))
			return false;
	}
	return true;
}

static bool end_write(struct end *e)
{
	for (int turn = 0; turn < 16 && e->tx < tx_allowed(e); turn++) {
		uint64_t left = tx_allowed(e) - e->tx;
		size_t size =
			stream(e, e->server, buffer, e->tx, left < e->chunk ? left : e->chunk);
		ssize_t n = send(e->fd, buffer, size, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			end_was_reset(e, errno);
			return false;
		}
		e->tx += (uint64_t)n;
	}
	if (!e->server && e->plan.kind == KIND_CLIENT_RESET && e->tx == tx_allowed(e)) {
		end_reset(e);
		return false;
	}
	if (!e->tx_done && e->tx == tx_whole(e)) {
		e->tx_done = true;
		shutdown(e->fd, SHUT_WR);
	}
	return true;
}

static void end_event(struct end *e)
{
	uint32_t events = 0;

	if (e->connecting) {
		int err = 0;
		socklen_t size = sizeof(err);

		getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &err, &size);
		e->connecting = false;
		if (err) {
			end_was_reset(e, err);
			return;
		}
	}
	if (!end_read(e) || !end_write(e))
		return;
	if (e->server && e->rx_eof &&
		(e->plan_got < sizeof(e->plan) || e->plan.kind == KIND_HOLD)) {
		end_judge(e);
		return;
	}
	if (e->rx_eof && e->tx_done) {
		end_judge(e);
		return;
	}
	if (!e->rx_eof)
		events |= EPOLLIN;
	if (e->tx < tx_allowed(e))
		events |= EPOLLOUT;
	/* Nothing more will be said or heard, yet the plan is not fulfilled. */
	if (!events && !e->tx_done && e->rx_eof) {
		end_finish(e, "end of stream too early");
		return;
	}
	if (events != e->events) {
		struct epoll_event ev = {.events = events, .data.ptr = e};

		e->events = events;
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, e->fd, &ev);
	}
}

static struct end *end_new(int fd, bool server)
{
	struct end *e = calloc(1, sizeof(*e));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = e};
	int domain = 0;

	if (!e)
		die("calloc");
	*e = (struct end){.fd = fd, .server = server, .chunk = opt.chunk, .events = ev.events};
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &(socklen_t){sizeof(domain)});
	e->resets = domain != AF_UNIX;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl");
	total.live++;
	total.opened++;
	return e;
}

static void plan_draw(struct plan *p, uint64_t number)
{
	uint64_t r = mix(opt.seed * 1000003 + number);

	*p = (struct plan){.magic = PLAN_MAGIC,
		.kind = opt.kind,
		.seed = r,
		.up = opt.up,
		.down = opt.down,
		.stop = opt.stop,
		.chunk = opt.server_chunk};
	if (opt.kind == KIND_HOLD || opt.kind == KIND_REST)
		p->down = 1;
	if (opt.kind != KIND_RANDOM)
		return;
	/* Mostly whole conversations; sizes spread evenly over their logarithm. */
	p->kind = r % 8 < 3 ? KIND_PLAIN : r % 8 - 3;
	p->up = mix(r + 1) % (1 + (opt.up >> (mix(r + 2) % 20)));
	p->down = mix(r + 3) % (1 + (opt.down >> (mix(r + 4) % 20)));
	p->stop = p->up ? mix(r + 5) % p->up : 0;
	p->chunk = 1 + mix(r + 6) % opt.server_chunk;
}

static void client_open(const struct endpoint *to)
{
	int fd = endpoint_socket(to, opt.sndbuf, opt.rcvbuf);
	struct end *e = end_new(fd, false);

	plan_draw(&e->plan, total.opened);
	e->connecting = true;
	while (connect(fd, (const struct sockaddr *)&to->addr, to->addr_size)) {
		if (errno == EINPROGRESS)
			return;
		/* A unix listener with a full backlog. */
		if (errno != EAGAIN && errno != EINTR) {
			end_was_reset(e, errno);
			return;
		}
		usleep(1000);
	}
}

static void server_accept(int listener)
{
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		int one = 1;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		end_new(fd, true);
	}
}

static void report(void)
{
	printf("{\"ok\": %llu, \"bad\": %llu, \"live\": %llu, \"resets\": %llu, \"up\": %llu, "
	       "\"down\": %llu, \"failure\": \"%s\"}\n",
		(unsigned long long)total.ok, (unsigned long long)total.bad,
		(unsigned long long)total.live, (unsigned long long)total.resets,
		(unsigned long long)total.bytes_up, (unsigned long long)total.bytes_down,
		total.failure);
	fflush(stdout);
}

static void watch(int fd, void *ptr)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = ptr};

	/* A regular file or /dev/null as stdin cannot be watched, and says nothing. */
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) && errno != EPERM)
		die("epoll_ctl");
}

static int turn(int timeout_ms, const void *special)
{
	struct epoll_event ev[64];
	int n = epoll_wait(epoll_fd, ev, 64, timeout_ms), hit = 0;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr == special)
			hit = 1;
		else if (ev[i].data.ptr == &total)
			hit |= 2;
		else
			end_event(ev[i].data.ptr);
	}
	return hit;
}

static int serve(const char *where)
{
	int listener = endpoint_listen(where, opt.sndbuf, opt.rcvbuf);

	watch(listener, &opt);
	watch(0, &total);
	for (;;) {
		int hit = turn(-1, &opt);

		if (hit & 1)
			server_accept(listener);
		if (hit & 2)
			break;
	}
	report();
	return total.bad != 0;
}

/* The rest is over: what the connections have left to say, they say now. */
static void go_on(void)
{
	rested = true;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
	for (uint64_t i = 0; i < total.held; i++) {
		struct end *e = resting[i];
		struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = e};

		e->events = ev.events;
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, e->fd, &ev);
	}
}

static int load(const char *where)
{
	struct endpoint to = endpoint_parse(where);
	time_t end_s = time(NULL) + opt.deadline_s;
	bool rest = opt.kind == KIND_REST, hold = rest || opt.kind == KIND_HOLD, told = false;

	if (hold)
		watch(0, &total);
	if (rest)
		resting = calloc(opt.connections, sizeof(*resting));
	if (rest && !resting)
		die("calloc");
	while (total.opened < opt.connections || total.live) {
		/* Of connections to hold, a few at a time until they are held. */
		while (total.opened < opt.connections &&
			total.live - (hold ? total.held : 0) < opt.concurrent)
			client_open(&to);
		if (turn(1000, &opt) & 2 && told) {
			if (!rest)
				break;
			go_on();
		}
		if (hold && total.bad)
			break;
		if (hold && !told && total.held == opt.connections) {
			printf("held %llu\n", (unsigned long long)total.held);
			fflush(stdout);
			told = true;
		}
		if (time(NULL) >= end_s && !told) {
			snprintf(total.failure, sizeof(total.failure), "%llu connections stalled",
				(unsigned long long)total.live);
			total.bad += total.live + 1;
			break;
		}
	}
	report();
	free(resting);
	return total.bad != 0;
}

static uint64_t parse_size(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	return n << (*end == 'k' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0);
}

static enum kind parse_kind(const char *text)
{
	for (unsigned int i = 0; i < sizeof(kind_names) / sizeof(*kind_names); i++)
		if (!strcmp(kind_names[i], text))
			return i;
	fprintf(stderr, "%s: no such kind\n", text);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"connections", 1, NULL, 'n'},
		{"concurrent", 1, NULL, 'c'}, {"up", 1, NULL, 'u'}, {"down", 1, NULL, 'd'},
		{"chunk", 1, NULL, 'k'}, {"server-chunk", 1, NULL, 'K'}, {"stop", 1, NULL, 's'},
		{"seed", 1, NULL, 'S'}, {"kind", 1, NULL, 't'}, {"sndbuf", 1, NULL, 'w'},
		{"rcvbuf", 1, NULL, 'r'}, {"deadline", 1, NULL, 'D'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'n': opt.connections = parse_size(optarg); break;
		case 'c': opt.concurrent = parse_size(optarg); break;
		case 'u': opt.up = parse_size(optarg); break;
		case 'd': opt.down = parse_size(optarg); break;
		case 'k': opt.chunk = parse_size(optarg); break;
		case 'K': opt.server_chunk = parse_size(optarg); break;
		case 's': opt.stop = parse_size(optarg); break;
		case 'S': opt.seed = parse_size(optarg); break;
		case 't': opt.kind = parse_kind(optarg); break;
		case 'w': opt.sndbuf = (int)parse_size(optarg); break;
		case 'r': opt.rcvbuf = (int)parse_size(optarg); break;
		case 'D': opt.deadline_s = (int)parse_size(optarg); break;
		default: return 2;
		}
	}
	opt.chunk = opt.chunk && opt.chunk < BUFFER ? opt.chunk : BUFFER;
	opt.server_chunk =
		opt.server_chunk && opt.server_chunk < BUFFER ? opt.server_chunk : BUFFER;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (argc - optind != 2 || epoll_fd < 0) {
		fprintf(stderr, "usage: peer serve|load [options] ENDPOINT\n");
		return 2;
	}
	if (!strcmp(argv[optind], "serve"))
		return serve(argv[optind + 1]);
	return load(argv[optind + 1]);
}
