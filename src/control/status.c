/* The running daemon as JSON: what `culvert status` shows. */
#include "control/status.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/asked.h"
#include "control/state.h"
#include "frame/pool.h"
#include <config.h>

/* Reads of a pool before a difference is believed: a worker moves slots in nanoseconds. */
#define FRAMES_READS 1000

const char *const status_link_names[] = {
	[PORT_LINK_DOWN] = "down",
	[PORT_LINK_UP] = "up",
	[PORT_LINK_GONE] = "gone",
};

void status_frames_read(const struct daemon *d, unsigned int worker, struct status_frames *ret)
{
	const struct pool *p = &d->lent.pools[worker];

	for (int tries = 0; tries < FRAMES_READS; tries++) {
		int64_t sum = 0;

		*ret = (struct status_frames){.slots = p->slots};
		for (int h = 0; h < HOLDER_COUNT; h++) {
			ret->held[h] = pool_held(p, (enum holder)h);
			sum += ret->held[h];
		}
		ret->lost = (int64_t)p->slots - sum;
		if (ret->lost == 0)
			return;
	}
}

const char *status_engine(const struct daemon *d)
{
	const char *engine = NULL;

	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const char *name;

		if (!d->ports[i].used || !d->ports[i].port)
			continue;
		name = d->ports[i].port->engine->name;
		if (engine && strcmp(engine, name) != 0)
			return "mixed";
		engine = name;
	}
	if (engine && d->relay && relay_routes(d->relay) > 0)
		return "mixed";
	return engine ? engine : d->relay ? "relay" : "none";
}

const char *status_mode(const struct daemon_port *p)
{
	if (p->port)
		return port_mode_name(p->port->mode);
	return p->at ? p->at : "closed";
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_number(struct json_object *o, const char *key, uint64_t n)
{
	json_object_object_add(o, key, json_object_new_uint64(n));
}

static struct json_object *queue_json(const struct port *p, uint32_t idx)
{
	const struct queue *q = p->queues[idx];
	struct engine_counter counters[ENGINE_COUNTERS_MAX];
	struct json_object *o = json_object_new_object(), *drops = json_object_new_object(),
			   *kernel = json_object_new_object();
	uint32_t n = p->engine->counters(p, idx, counters, ENGINE_COUNTERS_MAX);

	add_number(o, "queue", q->idx);
	add_number(o, "worker", q->worker);
	add_number(o, "rx_frames", counter_read(&q->stats.rx_frames));
	add_number(o, "rx_bytes", counter_read(&q->stats.rx_bytes));
	add_number(o, "tx_frames", counter_read(&q->stats.tx_frames));
	add_number(o, "tx_bytes", counter_read(&q->stats.tx_bytes));
	add_number(o, "tx_kicks", counter_read(&q->stats.tx_kicks));
	add_number(o, "checksums_completed", counter_read(&q->stats.checksums_completed));
	add_number(o, "checksums_offloaded", counter_read(&q->stats.checksums_offloaded));
	add_number(o, "copied", counter_read(&q->stats.copied));
	for (int r = 0; r < DROP_REASON_COUNT; r++)
		add_number(drops, drop_reason_name(r), counter_read(&q->stats.drops[r]));
	json_object_object_add(o, "drops", drops);
	for (uint32_t i = 0; i < n; i++)
		add_number(kernel, counters[i].name, counters[i].value);
	json_object_object_add(o, "kernel", kernel);
	return o;
}

static struct json_object *fast_path_json(const struct daemon *d, const struct daemon_port *dp)
{
	struct json_object *o = json_object_new_object();
	struct fast_path f;

	dp->port->engine->fast_path_read(dp->port, &f);
	json_object_object_add(o, "on", json_object_new_boolean(f.on));
	add_text(o, "peer", dp->peer >= 0 ? d->ports[dp->peer].asked.name : "");
	add_text(o, "reason", f.on ? "" : dp->fast_path.what);
	add_text(o, "remedy", f.on ? "" : dp->fast_path.remedy);
	add_number(o, "frames", f.frames);
	add_number(o, "bytes", f.bytes);
	add_number(o, "checksums_completed", f.checksums_completed);
	add_number(o, "lost_full", f.lost_full);
	add_number(o, "lost_refused", f.lost_refused);
	return o;
}

static struct json_object *port_json(const struct daemon *d, const struct daemon_port *dp)
{
	struct json_object *o = json_object_new_object(), *queues = json_object_new_array();
	const struct port *p = dp->port;
	const struct reason *why = p ? &p->step_down : &dp->closed;

	add_text(o, "name", dp->asked.name);
	add_text(o, "device", dp->asked.device);
	add_text(o, "engine", p ? p->engine->name : "");
	add_text(o, "mode", status_mode(dp));
	add_text(o, "reason", why->what);
	add_text(o, "remedy", why->remedy);
	add_text(o, "link", status_link_names[dp->link]);
	add_number(o, "ifindex", dp->ifindex);
	json_object_object_add(o, "asked", asked_port(&dp->asked));
	for (uint32_t i = 0; p && i < p->n_queues; i++)
		json_object_array_add(queues, queue_json(p, i));
	json_object_object_add(o, "queues", queues);
	if (p && p->engine->fast_path_read)
		json_object_object_add(o, "fast_path", fast_path_json(d, dp));
	return o;
}

static struct json_object *frames_json(const struct daemon *d, uint32_t worker)
{
	struct json_object *o = json_object_new_object();
	struct status_frames f;

	status_frames_read(d, worker, &f);
	add_number(o, "worker", worker);
	add_number(o, "slots", f.slots);
	add_number(o, "free", f.held[HOLDER_FREE]);
	add_number(o, "fill", f.held[HOLDER_FILL]);
	add_number(o, "worker_held", f.held[HOLDER_WORKER]);
	add_number(o, "tx", f.held[HOLDER_TX]);
	add_number(o, "driver", f.held[HOLDER_DRIVER]);
	json_object_object_add(o, "lost", json_object_new_int64(f.lost));
	return o;
}

static struct json_object *worker_json(const struct worker *w)
{
	struct json_object *o = json_object_new_object();
	struct worker_stats stats;

	worker_stats_read(w, &stats);
	add_number(o, "turns", stats.turns);
	add_number(o, "idle_turns", stats.idle_turns);
	add_number(o, "sleeps", stats.sleeps);
	return o;
}

/* A route that waits for a fallback that is not needed. */
static struct json_object *route_waiting_json(const struct config_route *route)
{
	struct json_object *o = json_object_new_object();

	add_text(o, "name", route->settings.name);
	add_text(o, "when", route->when == CONFIG_WHEN_ALWAYS ? "always" : "fallback");
	json_object_object_add(o, "running", json_object_new_boolean(false));
	return o;
}

static struct json_object *route_running_json(
	const struct relay_stats *s, const struct config_route *route)
{
	struct json_object *o = json_object_new_object(), *errors = json_object_new_object();

	add_text(o, "name", s->name);
	add_text(o, "listen", s->listen);
	add_text(o, "when", route && route->when == CONFIG_WHEN_FALLBACK ? "fallback" : "always");
	json_object_object_add(o, "running", json_object_new_boolean(s->listening));
	add_number(o, "connections", s->connections);
	add_number(o, "active", s->active);
	add_number(o, "bytes_in", s->bytes_in);
	add_number(o, "bytes_out", s->bytes_out);
	add_number(o, "spliced", s->spliced);
	add_number(o, "copied", s->copied);
	add_number(o, "sendfile", s->sendfile);
	add_number(o, "refused", s->refused);
	add_number(o, "retries", s->retries);
	add_number(o, "cut", s->cut);
	add_number(o, "fallbacks", s->fallbacks);
	add_number(o, "dropped", s->dropped);
	add_number(o, "targets", s->targets);
	add_number(o, "targets_up", s->targets_up);
	for (int e = 0; e < RELAY_ERRORS; e++)
		add_number(errors, relay_error_name(e), s->errors[e]);
	json_object_object_add(o, "errors", errors);
	return o;
}

static const struct config_route *route_named(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->n_routes; i++) {
		if (strcmp(c->routes[i]->settings.name, name) == 0)
			return c->routes[i];
	}
	return NULL;
}

static struct json_object *relay_json(const struct daemon *d)
{
	struct json_object *routes = json_object_new_array();
	struct relay_stats stats;

	for (unsigned int i = 0; d->relay && i < relay_routes(d->relay); i++) {
		relay_stats(d->relay, i, &stats);
		json_object_array_add(
			routes, route_running_json(&stats, route_named(d->config, stats.name)));
	}
	for (uint32_t i = 0; i < d->config->n_routes; i++) {
		if (!d->relay || !routes_wanted(d, d->config->routes[i]))
			json_object_array_add(routes, route_waiting_json(d->config->routes[i]));
	}
	return routes;
}

char *status_json(const struct daemon *d)
{
	struct json_object *o = json_object_new_object(), *ports = json_object_new_array(),
			   *frames = json_object_new_array(), *workers = json_object_new_array();
	char *text;

	add_text(o, "version", CULVERT_VERSION);
	add_number(o, "pid", (uint64_t)getpid());
	add_text(o, "engine", status_engine(d));
	add_text(o, "file", d->options->config_file ? d->options->config_file : "");
	json_object_object_add(o, "asked", asked_daemon(d->config));
	add_text(o, "fallback", d->fallback ? d->fallback_why.what : "");
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used)
			json_object_array_add(ports, port_json(d, &d->ports[i]));
	}
	for (uint32_t w = 0; w < d->n_workers; w++) {
		json_object_array_add(frames, frames_json(d, w));
		json_object_array_add(workers, worker_json(d->workers[w]));
	}
	json_object_object_add(o, "ports", ports);
	json_object_object_add(o, "frames", frames);
	json_object_object_add(o, "workers", workers);
	json_object_object_add(o, "relay", relay_json(d));
	text = strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
	return text;
}
