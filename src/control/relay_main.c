/* Runs a relay without ports: routes from the command line, until a signal says stop. */
#include "control/relay_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/daemon.h"

const char *relay_main_key(unsigned int idx)
{
	return route_key(idx);
}

static int put_text(const char *text, char *ret, size_t size, struct reason *r)
{
	if (!text)
		return 0;
	if (strlen(text) >= size)
		return reason_set(
			r, -EINVAL, "choose a shorter one", "\"%.80s...\" is too long", text);
	strcpy(ret, text);
	return 0;
}

/* The route of ends i and i + 1. */
static int take_route(const struct relay_main *m, int i, struct config *c, struct reason *r)
{
	struct config_route *route = config_route_add(c, 0, r);
	struct route_settings *s;
	char key[64];
	int err;

	if (!route)
		return -EINVAL;
	s = &route->settings;
	snprintf(s->name, sizeof(s->name), "%d", i / 2 + 1);
	err = route_set(s, "listen", m->ends[i], r);
	if (err == 0)
		err = route_set(s, "to", m->ends[i + 1], r);
	for (int k = 0; k < m->n_sets && err == 0; k++) {
		const char *equals = strchr(m->sets[k], '=');

		snprintf(key, sizeof(key), "%.*s", (int)(equals - m->sets[k]), m->sets[k]);
		err = route_set(s, key, equals + 1, r);
	}
	return err;
}

static int take_all(const struct relay_main *m, struct config *c, struct reason *r)
{
	int err = put_text(m->socket, c->socket, sizeof(c->socket), r);

	if (!err)
		err = put_text(m->http, c->http, sizeof(c->http), r);
	for (int i = 0; i < m->n_ends && !err; i += 2)
		err = take_route(m, i, c, r);
	c->once = true;
	for (uint32_t i = 0; i < c->n_routes; i++)
		c->once &= c->routes[i]->settings.listen.kind == ENDPOINT_FILE;
	c->workers = m->workers;
	c->max_connections = (uint32_t)m->max_connections;
	c->drain_ns = m->drain_ns;
	return err ? err : config_check(c, r);
}

int relay_main(const struct relay_main *m)
{
	const struct daemon_options options = {0};
	struct config *c = config_new();
	struct reason r = {0};
	int err;

	if (!c) {
		log_error("out of memory");
		return -ENOMEM;
	}
	err = take_all(m, c, &r);
	if (err) {
		log_reason(LOG_LEVEL_ERROR, "", &r);
		config_free(c);
		return err;
	}
	err = daemon_run(c, &options, &r);
	if (err && r.what[0])
		log_reason(LOG_LEVEL_ERROR, "", &r);
	return err == -EINVAL ? -EIO : err;
}
