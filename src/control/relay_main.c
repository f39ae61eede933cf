/* Runs a relay without ports: routes from the command line, until a signal says stop. */
#include "control/relay_main.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/reason.h"
#include "relay/relay.h"

static volatile int stopping, impatient; /* set by on_signal */

const char *relay_main_key(unsigned int idx)
{
	return route_key(idx);
}

static void on_signal(int number)
{
	(void)number;
	impatient = stopping;
	stopping = 1;
}

static int take_route(const struct relay_main *p, int i, struct route_settings *s, struct reason *r)
{
	char name[16], key[64];
	int err;

	snprintf(name, sizeof(name), "%d", i / 2 + 1);
	route_defaults(s, name);
	err = route_set(s, "listen", p->ends[i], r);
	if (err == 0)
		err = route_set(s, "to", p->ends[i + 1], r);
	for (int k = 0; k < p->n_sets && err == 0; k++) {
		const char *equals = strchr(p->sets[k], '=');

		snprintf(key, sizeof(key), "%.*s", (int)(equals - p->sets[k]), p->sets[k]);
		err = route_set(s, key, equals + 1, r);
	}
	return err < 0 ? err : route_check(s, r);
}

static void log_totals(const struct relay *relay)
{
	struct relay_stats s;
	unsigned long long bad = 0;

	for (unsigned int i = 0; i < relay_routes(relay); i++) {
		relay_stats(relay, i, &s);
		bad = 0;
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
				log_info("route %s: errors %s=%llu", s.name, relay_error_name(e),
					(unsigned long long)s.errors[e]);
		}
	}
}

static int add_routes(struct relay *relay, const struct relay_main *p)
{
	static struct route_settings settings; /* large */
	struct relay_stats s;
	struct reason r;

	for (int i = 0; i < p->n_ends; i += 2) {
		int err = take_route(p, i, &settings, &r);

		if (err == 0)
			err = relay_add(relay, &settings, &r);
		if (err < 0) {
			log_reason(LOG_LEVEL_ERROR, "", &r);
			return err;
		}
		relay_stats(relay, (unsigned int)i / 2, &s);
		log_info("route %s: listening on %s", s.name, s.listen);
	}
	return 0;
}

static void wait_for_signal(uint64_t drain_ns, struct relay *relay)
{
	sigset_t block, before;
	uint64_t cut;

	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGINT);
	sigprocmask(SIG_BLOCK, &block, &before);
	while (!stopping)
		sigsuspend(&before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	log_info("draining");
	cut = relay_drain(relay, drain_ns, &impatient);
	log_info("drained: %llu connections cut", (unsigned long long)cut);
	log_totals(relay);
}

int relay_main(const struct relay_main *m)
{
	struct relay_options options = {m->workers, m->max_connections};
	struct sigaction act = {.sa_handler = on_signal};
	static struct route_settings checked;
	struct relay *relay = NULL;
	struct reason r = {0};
	int err;

	for (int i = 0; i < m->n_ends; i += 2) {
		if (take_route(m, i, &checked, &r) < 0) {
			log_reason(LOG_LEVEL_ERROR, "", &r);
			return -EINVAL;
		}
	}
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	err = relay_create(&relay, &options, &r);
	if (err < 0) {
		log_reason(LOG_LEVEL_ERROR, "", &r);
		return err;
	}
	err = add_routes(relay, m);
	if (err == 0) {
		log_info("ready");
		wait_for_signal(m->drain_ns, relay);
	}
	relay_free(relay);
	return err == -EINVAL ? -EIO : err;
}
