/* The relay's routes: which of them run, started, changed, drained. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "control/state.h"

bool routes_wanted(const struct daemon *d, const struct config_route *route)
{
	return d->fallback || route->when == CONFIG_WHEN_ALWAYS ||
	       d->config->engine == CONFIG_ENGINE_RELAY || d->config->n_ports == 0;
}

static int add(struct daemon *d, const struct config_route *route, struct reason *r)
{
	struct relay_stats s;
	int err = relay_add(d->relay, &route->settings, r);

	if (err)
		return err;
	relay_stats(d->relay, relay_routes(d->relay) - 1, &s); /* the newest */
	log_info("route %s: %s %s", s.name, s.source ? "sends" : "listening on", s.listen);
	return 0;
}

static int make(struct daemon *d, struct reason *r)
{
	struct relay_options o = {
		.workers = d->config->workers,
		.max_connections = d->config->max_connections,
		.once = d->config->once,
	};

	return d->relay ? 0 : relay_create(&d->relay, &o, r);
}

int routes_start(struct daemon *d, struct reason *r)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < d->config->n_routes; i++) {
		const struct config_route *route = d->config->routes[i];

		if (!routes_wanted(d, route))
			continue;
		err = make(d, r);
		if (!err)
			err = add(d, route, r);
	}
	if (err)
		routes_free(d);
	return err;
}

void routes_free(struct daemon *d)
{
	relay_free(d->relay);
	d->relay = NULL;
}

static const struct config_route *route_find(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->n_routes; i++) {
		if (strcmp(c->routes[i]->settings.name, name) == 0)
			return c->routes[i];
	}
	return NULL;
}

/* Both come from route_defaults, which zeroes what lies between fields. */
static bool same(const struct config_route *a, const struct config_route *b)
{
	// NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
	return a && b && memcmp(&a->settings, &b->settings, sizeof(a->settings)) == 0;
}

static bool runs(const struct daemon *d, const char *name)
{
	struct relay_stats s;

	for (unsigned int i = 0; d->relay && i < relay_routes(d->relay); i++) {
		relay_stats(d->relay, i, &s);
		if (s.listening && strcmp(s.name, name) == 0)
			return true;
	}
	return false;
}

/* A changed route that listens where it did is replaced there, and no one is refused meanwhile. */
static bool stays(
	const struct daemon *d, const struct config_route *before, const struct config_route *now)
{
	return now && routes_wanted(d, now) &&
	       endpoint_same(&before->settings.listen, &now->settings.listen);
}

int routes_change(struct daemon *d, const struct config *old, struct reason *r)
{
	int err = 0;

	for (uint32_t i = 0; i < old->n_routes; i++) {
		const char *name = old->routes[i]->settings.name;

		if (!runs(d, name) || stays(d, old->routes[i], route_find(d->config, name)))
			continue;
		relay_remove(d->relay, name);
		log_info("route %s: closed", name);
	}
	for (uint32_t i = 0; !err && i < d->config->n_routes; i++) {
		const struct config_route *route = d->config->routes[i];
		const char *name = route->settings.name;
		bool replaces = runs(d, name);

		if (!routes_wanted(d, route) || (replaces && same(route_find(old, name), route)))
			continue;
		err = make(d, r);
		if (!err)
			err = add(d, route, r);
		if (!err && replaces)
			relay_remove(d->relay, name);
	}
	return err;
}

static volatile int impatient; /* written by on_signal, read by relay_drain */

static void on_signal(int number)
{
	(void)number;
	impatient = 1;
}

static void log_totals(const struct daemon *d)
{
	struct relay_stats s;

	for (unsigned int i = 0; i < relay_routes(d->relay); i++) {
		unsigned long long bad = 0;

		relay_stats(d->relay, i, &s);
		for (int e = 0; e < RELAY_ERRORS; e++)
			bad += s.errors[e];
		log_info("route %s: connections=%llu bytes_in=%llu bytes_out=%llu spliced=%llu "
			 "copied=%llu sendfile=%llu refused=%llu retries=%llu cut=%llu "
			 "fallbacks=%llu dropped=%llu errors=%llu",
			s.name, (unsigned long long)s.connections, (unsigned long long)s.bytes_in,
			(unsigned long long)s.bytes_out, (unsigned long long)s.spliced,
			(unsigned long long)s.copied, (unsigned long long)s.sendfile,
			(unsigned long long)s.refused, (unsigned long long)s.retries,
			(unsigned long long)s.cut, (unsigned long long)s.fallbacks,
			(unsigned long long)s.dropped, bad);
		for (int e = 0; e < RELAY_ERRORS; e++) {
			if (s.errors[e])
				log_info("route %s: errors %s=%llu", s.name,
					relay_error_name((enum relay_error)e),
					(unsigned long long)s.errors[e]);
		}
	}
}

void routes_drain(struct daemon *d)
{
	struct sigaction act = {.sa_handler = on_signal};
	sigset_t set, before;
	uint64_t cut;

	if (!d->relay)
		return;
	/* Until now signals came by signalfd, blocked; a second one ends the waiting. */
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_UNBLOCK, &set, &before);
	log_info("draining");
	cut = relay_drain(d->relay, d->config->drain_ns, &impatient);
	log_info("drained: %llu connections cut", (unsigned long long)cut);
	d->unsent = relay_unsent(d->relay);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	log_totals(d);
}
