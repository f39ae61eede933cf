/* The relay as control sees it: threads, routes, drain, numbers. */
#include "relay/relay.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reason.h"
#include "relay/access_log.h"
#include "relay/flow.h"
#include "relay/health.h"
#include "relay/listener.h"
#include "relay/relay_internal.h"
#include "relay/resolve.h"
#include "relay/share.h"
#include "relay/sockopt.h"
#include "relay/source.h"
#include "relay/udp.h"

/* How long a new route waits for the first answers of the name servers, all together. */
#define NAME_WAIT_NS  3000000000ULL
#define DRAIN_POLL_NS 10000000L
/* Descriptors that are neither connections nor pipes: loops, listeners, logs, the daemon's. */
#define DESCRIPTORS_SPARE 64

const char *relay_error_name(enum relay_error e)
{
	static const char *const names[] = {
		[RELAY_ERROR_CONNECT] = "connect",
		[RELAY_ERROR_CONNECT_TIMEOUT] = "connect_timeout",
		[RELAY_ERROR_RESET_CLIENT] = "reset_client",
		[RELAY_ERROR_RESET_TARGET] = "reset_target",
		[RELAY_ERROR_IDLE] = "idle",
		[RELAY_ERROR_HALF_CLOSE] = "half_close",
		[RELAY_ERROR_PROXY] = "proxy",
		[RELAY_ERROR_SYSTEM] = "system",
	};
	_Static_assert(sizeof(names) / sizeof(names[0]) == RELAY_ERRORS, "a name for each");

	return names[e];
}

/* A call that a loop's thread makes while control's thread waits for it. */
struct call {
	struct message message;
	int (*fn)(struct loop *loop, struct route *route);
	struct route *route;
	int result;
	sem_t done;
};

static void answer(struct loop *loop, struct message *m)
{
	struct call *c = (struct call *)(void *)m;

	c->result = c->fn(loop, c->route);
	sem_post(&c->done);
}

static int call(struct loop *loop, int (*fn)(struct loop *, struct route *), struct route *route)
{
	struct call c = {.message.fn = answer, .fn = fn, .route = route};

	sem_init(&c.done, 0, 0);
	loop_post(loop, &c.message);
	while (sem_wait(&c.done) < 0)
		assert(errno == EINTR);
	sem_destroy(&c.done);
	return c.result;
}

static int do_quit(struct loop *loop, struct route *route)
{
	(void)route;
	loop->quit = true;
	return 0;
}

static int do_stop(struct loop *loop, struct route *route)
{
	listener_stop(loop, route);
	source_stop(loop, route);
	udp_stop(loop, route);
	health_stop(loop, route);
	return 0;
}

static int do_cut(struct loop *loop, struct route *route)
{
	struct flow *next;
	int n = 0;

	(void)route;
	for (struct flow *f = loop->flows; f; f = next, n++) {
		next = f->next;
		flow_cut(f);
	}
	return n;
}

/* Each connection has two descriptors: the system's hard limit is the one to work with. */
static uint64_t raise_descriptors(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 1024;
	if (files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
		(void)getrlimit(RLIMIT_NOFILE, &files);
	}
	return files.rlim_cur;
}

static int start_thread(struct loop *loop)
{
	sigset_t all, before;
	int err;

	/* Signals are control's. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	err = pthread_create(&loop->thread, NULL, loop_run, loop);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static int start_loops(struct relay *relay)
{
	struct pipe_limits limits;
	struct pipe_budget pipes;
	int r;

	pipe_limits_read(&limits);
	pipes = pipe_plan(&limits, relay->n_loops);
	log_debug("relay: %u pipes of %u bytes and %u of %u for each worker", pipes.large,
		pipes.large_size, pipes.small, PIPE_SMALL_SIZE);
	for (unsigned int i = 0; i < relay->n_loops; i++) {
		r = loop_open(&relay->loops[i], relay, i, &pipes);
		if (r == 0)
			r = start_thread(&relay->loops[i]);
		if (r < 0) {
			loop_close(&relay->loops[i]);
			return r;
		}
		relay->n_started++;
	}
	return 0;
}

int relay_create(
	struct relay **ret_relay, const struct relay_options *options, struct reason *reason)
{
	struct relay *relay = calloc(1, sizeof(*relay));
	uint64_t files, most;
	int r = -ENOMEM;

	assert(options->workers >= 1);
	if (!relay)
		goto fail;
	relay->n_loops = options->workers;
	relay->once = options->once;
	relay->over_fd = -1;
	relay->loops = aligned_alloc(64, options->workers * ((sizeof(struct loop) + 63) & ~63UL));
	if (!relay->loops)
		goto fail;
	memset(relay->loops, 0, options->workers * sizeof(struct loop));
	files = raise_descriptors();
	most = files > 2 * DESCRIPTORS_SPARE ? (files - DESCRIPTORS_SPARE) / 2 : files / 4 + 1;
	relay->max_connections = options->max_connections && options->max_connections < most
					 ? options->max_connections
					 : most;
	if (options->once)
		relay->over_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r = options->once && relay->over_fd < 0 ? -errno : resolver_create(&relay->resolver);
	if (r == 0)
		r = start_loops(relay);
	if (r < 0)
		goto fail;
	*ret_relay = relay;
	return 0;
fail:
	relay_free(relay);
	return reason_set(reason, r, "free memory or descriptors (ulimit -n)",
		"the relay can't start: %s", strerror(-r));
}

static void route_free(struct relay *relay, struct route *route)
{
	if (!route)
		return;
	for (uint32_t i = 0; i < route->s.n_targets; i++)
		name_free(relay->resolver, route->targets[i].name);
	if (route->listen_fd >= 0)
		close(route->listen_fd);
	udp_close(route, relay->n_loops);
	access_log_close(route->log);
	free(route->counters);
	free(route->shares);
	free(route);
}

/* The oldest route of that name that listens, at that place if one is given. */
static struct route *find(struct relay *relay, const char *name, const struct endpoint *listen)
{
	for (struct route *route = relay->routes; route; route = route->next) {
		if (!route->retired && strcmp(route->s.name, name) == 0 &&
			(!listen || endpoint_same(&route->s.listen, listen)))
			return route;
	}
	return NULL;
}

/* The numbers of a route go on in those of the one that replaced it. */
static void bequeath(struct relay *relay, unsigned int idx, const struct route *route)
{
	struct route *heir = find(relay, route->s.name, NULL);
	struct relay_stats s;

	if (!heir)
		return;
	relay_stats(relay, idx, &s);
	relay_stats_add(&heir->before, &s);
}

/* Frees retired routes that no connection uses any more. */
static void reap(struct relay *relay)
{
	struct route **at = &relay->routes;
	unsigned int idx = 0;

	while (*at) {
		struct route *route = *at;

		if (route->retired &&
			!atomic_load_explicit(&route->active, memory_order_acquire)) { /* B */
			bequeath(relay, idx, route);
			*at = route->next;
			route_free(relay, route);
		} else {
			at = &route->next;
			idx++;
		}
	}
}

static int prepare_targets(struct relay *relay, struct route *route)
{
	uint64_t until = loop_clock_ns() + NAME_WAIT_NS, now;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		struct target *t = &route->targets[i];
		const struct endpoint *e;

		t->settings = &route->s.targets[i];
		e = &t->settings->endpoint;
		if ((e->kind != ENDPOINT_TCP && e->kind != ENDPOINT_UDP) || e->numeric)
			continue;
		t->name = name_new(relay->resolver, e->name, e->port);
		if (!t->name)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		now = loop_clock_ns();
		if (route->targets[i].name) /* without an answer it is tried again, and logged */
			(void)name_wait(route->targets[i].name, now < until ? until - now : 0);
	}
	return 0;
}

/* Finds out now, not at the first connection, whether the system allows the settings. */
static int try_options(struct route *route, struct reason *reason)
{
	int family = AF_INET, fd, r;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		const struct endpoint *e = &route->s.targets[i].endpoint;

		if (e->kind != ENDPOINT_TCP && e->kind != ENDPOINT_UDP)
			continue;
		if (e->numeric)
			family = e->address.sa.sa_family;
		else if (route->s.source_set)
			family = route->s.source.sa.sa_family;
		fd = e->kind == ENDPOINT_UDP ? sockopt_datagram_socket(family)
					     : sockopt_socket(&route->s, family);
		if (fd < 0)
			return reason_set(reason, fd, NULL, "route %s: socket: %s", route->s.name,
				strerror(-fd));
		if (e->kind == ENDPOINT_UDP)
			r = sockopt_datagram(fd, &route->s, family, NULL, reason);
		else
			r = sockopt_target(fd, &route->s, family, NULL, reason);
		close(fd);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct route *route_new(struct relay *relay, const struct route_settings *settings)
{
	struct route *route = calloc(1, sizeof(*route));
	size_t size = relay->n_loops * sizeof(struct counters);

	if (!route)
		return NULL;
	route->s = *settings;
	route->listen_fd = -1;
	route->counters = aligned_alloc(64, size);
	if (settings->rate)
		route->shares = shares_new(route, relay->loops, relay->n_loops);
	if (!route->counters || (settings->rate && !route->shares)) {
		free(route->counters);
		free(route->shares);
		free(route);
		return NULL;
	}
	memset(route->counters, 0, size);
	limit_init(&route->rate, settings->rate, 10000000);
	limit_init(&route->accept, settings->accept_rate, 100000000);
	return route;
}

/* A stream's listener is everyone's; of a UDP route each loop has a socket of its own; a source is
 * one loop's, by its name. */
static int start_route(struct relay *relay, struct route *route, const struct route *old)
{
	bool source = route->s.listen.kind == ENDPOINT_FILE;
	bool udp = route->s.listen.kind == ENDPOINT_UDP;
	int r = udp ? udp_open(route, old, relay->n_loops) : 0;
	unsigned int n = 0;

	for (const char *p = route->s.name; *p; p++)
		n = n * 31 + (unsigned char)*p;
	if (source)
		r = call(&relay->loops[n % relay->n_loops], source_start, route);
	for (unsigned int i = 0; i < relay->n_loops && r == 0 && !source; i++)
		r = call(&relay->loops[i], udp ? udp_start : listener_start, route);
	return r < 0 || udp ? r : call(&relay->loops[0], health_start, route);
}

static void stop_listening(struct relay *relay, struct route *route)
{
	const struct address *a = &route->s.listen.address;

	for (unsigned int i = 0; i < relay->n_loops; i++)
		call(&relay->loops[i], do_stop, route);
	route->retired = true;
	if (route->listen_fd >= 0)
		close(route->listen_fd);
	route->listen_fd = -1;
	udp_close(route, relay->n_loops);
	if (route->s.listen.kind == ENDPOINT_UNIX && a->un.sun_path[0] &&
		!find(relay, route->s.name, &route->s.listen))
		unlink(a->un.sun_path);
}

int relay_add(struct relay *relay, const struct route_settings *settings, struct reason *reason)
{
	struct route *route, *old, **end = &relay->routes;
	int r = route_check(settings, reason);

	if (r < 0)
		return r;
	reap(relay);
	route = route_new(relay, settings);
	if (!route)
		return reason_set(reason, -ENOMEM, NULL, "out of memory");
	r = try_options(route, reason);
	if (r == 0 && settings->access_log[0])
		r = access_log_open(&route->log, settings->access_log, reason);
	old = find(relay, settings->name, &settings->listen);
	if (r == 0)
		r = old && old->listen_fd >= 0 ? listener_share(route, old, reason)
					       : listener_bind(route, reason);
	if (r < 0)
		goto fail;
	r = prepare_targets(relay, route);
	if (r == 0)
		r = start_route(relay, route, old);
	if (r < 0) {
		stop_listening(relay, route);
		reason_set(reason, r,
			r == -ENOSPC ? "raise fs.epoll.max_user_watches"
				     : "free memory or descriptors (ulimit -n)",
			"route %s can't start: %s", settings->name, strerror(-r));
	}
	if (r < 0 && !atomic_load_explicit(&route->active, memory_order_acquire))
		goto fail;
	while (*end)
		end = &(*end)->next;
	*end = route; /* one that can't start is retired, and freed after its connections */
	return r;
fail:
	route_free(relay, route);
	return r;
}

int relay_remove(struct relay *relay, const char *name)
{
	struct route *route = find(relay, name, NULL);

	if (!route)
		return -ENOENT;
	stop_listening(relay, route);
	reap(relay);
	return 0;
}

uint64_t relay_drain(struct relay *relay, uint64_t drain_ns, const volatile int *stop_early)
{
	struct timespec pause = {.tv_nsec = DRAIN_POLL_NS};
	uint64_t until = loop_clock_ns() + drain_ns, cut = 0;

	for (struct route *route = relay->routes; route; route = route->next) {
		if (!route->retired)
			stop_listening(relay, route);
	}
	while (relay_load(relay) && loop_clock_ns() < until && !(stop_early && *stop_early))
		nanosleep(&pause, NULL);
	for (unsigned int i = 0; i < relay->n_loops; i++)
		cut += (uint64_t)call(&relay->loops[i], do_cut, NULL);
	return cut;
}

void relay_free(struct relay *relay)
{
	if (!relay)
		return;
	if (relay->n_started == relay->n_loops) {
		for (struct route *route = relay->routes; route; route = route->next) {
			if (!route->retired)
				stop_listening(relay, route);
		}
	}
	for (unsigned int i = 0; i < relay->n_started; i++)
		call(&relay->loops[i], do_quit, NULL);
	for (unsigned int i = 0; i < relay->n_started; i++) {
		pthread_join(relay->loops[i].thread, NULL);
		loop_close(&relay->loops[i]);
	}
	while (relay->routes) {
		struct route *route = relay->routes;

		relay->routes = route->next;
		route_free(relay, route);
	}
	resolver_free(relay->resolver);
	if (relay->over_fd >= 0)
		close(relay->over_fd);
	free(relay->loops);
	free(relay);
}

int relay_over_fd(const struct relay *relay)
{
	return relay->over_fd;
}

bool relay_over(const struct relay *relay)
{
	return !atomic_load_explicit(&relay->sources, memory_order_acquire); /* C */
}

uint32_t relay_unsent(const struct relay *relay)
{
	return atomic_load_explicit(&relay->unsent, memory_order_relaxed);
}

unsigned int relay_routes(const struct relay *relay)
{
	unsigned int n = 0;

	for (const struct route *route = relay->routes; route; route = route->next)
		n++;
	return n;
}

static void add_counters(const struct counters *c, struct relay_stats *s)
{
#define TAKE(to, from) s->to += atomic_load_explicit(&c->from, memory_order_relaxed)

	TAKE(connections, connections);
	TAKE(bytes_in, bytes[0]);
	TAKE(bytes_out, bytes[1]);
	TAKE(spliced, spliced);
	TAKE(copied, copied);
	TAKE(sendfile, sendfile);
	TAKE(refused, refused);
	TAKE(retries, retries);
	TAKE(cut, cut);
	TAKE(fallbacks, fallbacks);
	TAKE(dropped, dropped);
	for (int e = 0; e < RELAY_ERRORS; e++)
		TAKE(errors[e], errors[e]);
#undef TAKE
}

void relay_stats_add(struct relay_stats *to, const struct relay_stats *from)
{
	to->connections += from->connections;
	to->active += from->active;
	to->bytes_in += from->bytes_in;
	to->bytes_out += from->bytes_out;
	to->spliced += from->spliced;
	to->copied += from->copied;
	to->sendfile += from->sendfile;
	to->refused += from->refused;
	to->retries += from->retries;
	to->cut += from->cut;
	to->fallbacks += from->fallbacks;
	to->dropped += from->dropped;
	for (int e = 0; e < RELAY_ERRORS; e++)
		to->errors[e] += from->errors[e];
}

void relay_stats(const struct relay *relay, unsigned int idx, struct relay_stats *ret_stats)
{
	const struct route *route = relay->routes;

	memset(ret_stats, 0, sizeof(*ret_stats));
	while (idx--)
		route = route->next;
	memcpy(ret_stats->name, route->s.name, sizeof(ret_stats->name));
	memcpy(ret_stats->listen, route->listen_text, sizeof(ret_stats->listen));
	ret_stats->source = route->s.listen.kind == ENDPOINT_FILE;
	ret_stats->listening = !route->retired;
	ret_stats->active = atomic_load_explicit(&route->active, memory_order_relaxed);
	for (unsigned int i = 0; i < relay->n_loops; i++)
		add_counters(&route->counters[i], ret_stats);
	relay_stats_add(ret_stats, &route->before);
	ret_stats->targets = route->s.n_targets;
	for (uint32_t i = 0; i < route->s.n_targets; i++)
		ret_stats->targets_up +=
			!atomic_load_explicit(&route->targets[i].down, memory_order_relaxed);
}
