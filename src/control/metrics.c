/* The running daemon in Prometheus's text format, for a scrape of /metrics. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/state.h"
#include "control/status.h"
#include "frame/pool.h"

/* A label's value: backslash, quote and newline are escaped. buf of size bytes is returned. */
static const char *label(char *buf, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 3 < size; text++) {
		if (*text == '\\' || *text == '"' || *text == '\n')
			buf[n++] = '\\';
		buf[n++] = *text == '\n' ? 'n' : *text;
	}
	buf[n] = '\0';
	return buf;
}

static void head(FILE *to, const char *name, const char *type, const char *help)
{
	fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Calls f for every queue of every open port. */
static void each_queue(const struct daemon *d, FILE *to,
	void (*f)(FILE *to, const char *port, const struct port *p, uint32_t idx, const void *arg),
	const void *arg)
{
	char name[160];

	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct port *p = d->ports[i].used ? d->ports[i].port : NULL;

		for (uint32_t q = 0; p && q < p->n_queues; q++)
			f(to, label(name, sizeof(name), p->name), p, q, arg);
	}
}

static const struct queue_metric {
	const char *name, *help;
	size_t offset;
} queue_metrics[] = {
#define METRIC(field, help)                                                                \
	{                                                                                  \
		"culvert_port_" #field "_total", help, offsetof(struct queue_stats, field) \
	}
	METRIC(rx_frames, "Frames received."),
	METRIC(rx_bytes, "Bytes received."),
	METRIC(tx_frames, "Frames put on the transmit ring."),
	METRIC(tx_bytes, "Bytes put on the transmit ring."),
	METRIC(tx_kicks, "System calls made to start transmission."),
	METRIC(checksums_completed, "Partial TCP and UDP checksums completed."),
	METRIC(checksums_offloaded, "Partial checksums left to the device that sends the frame."),
	METRIC(copied, "Frames copied between engines that share no memory."),
#undef METRIC
};

static void queue_metric(
	FILE *to, const char *port, const struct port *p, uint32_t idx, const void *arg)
{
	const struct queue_metric *m = arg;
	const struct queue *q = p->queues[idx];
	const struct counter *c =
		(const struct counter *)(const void *)((const char *)&q->stats + m->offset);

	fprintf(to, "%s{port=\"%s\",queue=\"%" PRIu32 "\"} %" PRIu64 "\n", m->name, port, q->idx,
		counter_read(c));
}

static void queue_drops(
	FILE *to, const char *port, const struct port *p, uint32_t idx, const void *arg)
{
	const struct queue *q = p->queues[idx];

	for (int r = 0; r < DROP_REASON_COUNT; r++)
		fprintf(to,
			"culvert_drops_total{port=\"%s\",queue=\"%" PRIu32
			"\",reason=\"%s\"} %" PRIu64 "\n",
			port, q->idx, drop_reason_name(r), counter_read(&q->stats.drops[r]));
}

/* arg: of which sort, bool is_level. */
static void queue_kernel(
	FILE *to, const char *port, const struct port *p, uint32_t idx, const void *arg)
{
	struct engine_counter counters[ENGINE_COUNTERS_MAX];
	uint32_t n = p->engine->counters(p, idx, counters, ENGINE_COUNTERS_MAX);
	bool levels = *(const bool *)arg;

	for (uint32_t i = 0; i < n; i++) {
		if (counters[i].is_level == levels)
			fprintf(to,
				"culvert_kernel_%s{port=\"%s\",queue=\"%" PRIu32
				"\",counter=\"%s\"} %" PRIu64 "\n",
				levels ? "level" : "total", port, p->queues[idx]->idx,
				counters[i].name, counters[i].value);
	}
}

static void ports(const struct daemon *d, FILE *to)
{
	for (size_t i = 0; i < sizeof(queue_metrics) / sizeof(queue_metrics[0]); i++) {
		head(to, queue_metrics[i].name, "counter", queue_metrics[i].help);
		each_queue(d, to, queue_metric, &queue_metrics[i]);
	}
	head(to, "culvert_drops_total", "counter",
		"Frames dropped, by reason, at the queue they arrived on.");
	each_queue(d, to, queue_drops, NULL);
	head(to, "culvert_kernel_total", "counter", "Counters of the kernel or the driver.");
	each_queue(d, to, queue_kernel, &(bool){false});
	head(to, "culvert_kernel_level", "gauge", "What they have at hand, and in use.");
	each_queue(d, to, queue_kernel, &(bool){true});
}

static const struct fast_path_metric {
	const char *name, *help;
	size_t offset;
} fast_path_metrics[] = {
#define METRIC(field, help)                                                                   \
	{                                                                                     \
		"culvert_fast_path_" #field "_total", help, offsetof(struct fast_path, field) \
	}
	METRIC(frames, "Frames that the kernel forwarded by itself, the lost included."),
	METRIC(bytes, "Bytes of them."),
	METRIC(checksums_completed, "Partial TCP and UDP checksums completed in the kernel."),
	METRIC(lost_full, "Frames of them lost: the peer had no room, or they were too long."),
	METRIC(lost_refused, "Frames of them lost: the peer took none."),
#undef METRIC
};

/* By the port on which frames arrived. */
static void fast_paths(const struct daemon *d, FILE *to)
{
	struct fast_path f;
	char name[160];

	for (size_t i = 0; i < sizeof(fast_path_metrics) / sizeof(fast_path_metrics[0]); i++) {
		head(to, fast_path_metrics[i].name, "counter", fast_path_metrics[i].help);
		for (uint32_t k = 0; k < PORTS_MAX; k++) {
			const struct port *p = d->ports[k].used ? d->ports[k].port : NULL;
			uint64_t value;

			if (!p || !p->engine->fast_path_read)
				continue;
			p->engine->fast_path_read(p, &f);
			memcpy(&value, (const char *)&f + fast_path_metrics[i].offset,
				sizeof(value));
			fprintf(to, "%s{port=\"%s\"} %" PRIu64 "\n", fast_path_metrics[i].name,
				label(name, sizeof(name), p->name), value);
		}
	}
}

static void modes(const struct daemon *d, FILE *to)
{
	char name[160], reason[700];

	head(to, "culvert_port_mode", "gauge", "What a port got, and why it is nothing better.");
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct daemon_port *dp = &d->ports[i];
		const struct port *p = dp->port;

		if (!dp->used)
			continue;
		fprintf(to,
			"culvert_port_mode{port=\"%s\",engine=\"%s\",mode=\"%s\",reason=\"%s\"} "
			"1\n",
			label(name, sizeof(name), dp->asked.name), p ? p->engine->name : "",
			status_mode(dp),
			label(reason, sizeof(reason), p ? p->step_down.what : dp->closed.what));
	}
	head(to, "culvert_port_up", "gauge", "1: the port is open and has a carrier.");
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used)
			fprintf(to, "culvert_port_up{port=\"%s\"} %d\n",
				label(name, sizeof(name), d->ports[i].asked.name),
				d->ports[i].port && d->ports[i].link == PORT_LINK_UP);
	}
}

static void frames(const struct daemon *d, FILE *to)
{
	head(to, "culvert_frames", "gauge", "Slots of the shared memory, by who holds them.");
	for (uint32_t w = 0; w < d->n_workers; w++) {
		struct status_frames f;

		status_frames_read(d, w, &f);
		for (int h = 0; h < HOLDER_COUNT; h++)
			fprintf(to, "culvert_frames{worker=\"%" PRIu32 "\",holder=\"%s\"} %u\n", w,
				holder_name((enum holder)h), f.held[h]);
	}
	head(to, "culvert_frames_lost", "gauge", "Slots that nobody holds: 0, or there is a bug.");
	for (uint32_t w = 0; w < d->n_workers; w++) {
		struct status_frames f;

		status_frames_read(d, w, &f);
		fprintf(to, "culvert_frames_lost{worker=\"%" PRIu32 "\"} %" PRId64 "\n", w, f.lost);
	}
}

static const struct route_metric {
	const char *name, *type, *help;
	size_t offset;
} route_metrics[] = {
#define METRIC(name, type, field, help)                                                \
	{                                                                              \
		"culvert_relay_" name, type, help, offsetof(struct relay_stats, field) \
	}
	METRIC("connections_total", "counter", connections, "Connections accepted."),
	METRIC("active", "gauge", active, "Connections open now."),
	METRIC("in_bytes_total", "counter", bytes_in, "Bytes from clients to targets."),
	METRIC("out_bytes_total", "counter", bytes_out, "Bytes from targets to clients."),
	METRIC("spliced_bytes_total", "counter", spliced, "Bytes moved by splice(2)."),
	METRIC("copied_bytes_total", "counter", copied, "Bytes moved by recv and send."),
	METRIC("sendfile_bytes_total", "counter", sendfile, "Bytes moved by sendfile(2)."),
	METRIC("refused_total", "counter", refused, "Connections refused by allow and deny."),
	METRIC("retries_total", "counter", retries, "Attempts at another target."),
	METRIC("cut_total", "counter", cut, "Connections cut at the end of a drain."),
	METRIC("dropped_total", "counter", dropped, "Datagrams dropped."),
	METRIC("fallbacks_total", "counter", fallbacks, "Directions that had to stop splicing."),
#undef METRIC
};

/* A route and what it replaced have one name, and one series. False: it was told before. */
static bool route_stats(const struct daemon *d, unsigned int idx, struct relay_stats *ret)
{
	struct relay_stats other;

	relay_stats(d->relay, idx, ret);
	for (unsigned int i = 0; i < relay_routes(d->relay); i++) {
		relay_stats(d->relay, i, &other);
		if (i == idx || strcmp(other.name, ret->name) != 0)
			continue;
		if (i < idx)
			return false;
		relay_stats_add(ret, &other);
	}
	return true;
}

static void routes(const struct daemon *d, FILE *to)
{
	struct relay_stats s;
	char name[160];

	for (size_t i = 0; i < sizeof(route_metrics) / sizeof(route_metrics[0]); i++) {
		head(to, route_metrics[i].name, route_metrics[i].type, route_metrics[i].help);
		for (unsigned int r = 0; r < relay_routes(d->relay); r++) {
			uint64_t value;

			if (!route_stats(d, r, &s))
				continue;
			memcpy(&value, (const char *)&s + route_metrics[i].offset, sizeof(value));
			fprintf(to, "%s{route=\"%s\"} %" PRIu64 "\n", route_metrics[i].name,
				label(name, sizeof(name), s.name), value);
		}
	}
	head(to, "culvert_relay_errors_total", "counter", "Connections that ended badly, by how.");
	for (unsigned int r = 0; r < relay_routes(d->relay); r++) {
		if (!route_stats(d, r, &s))
			continue;
		for (int e = 0; e < RELAY_ERRORS; e++)
			fprintf(to,
				"culvert_relay_errors_total{route=\"%s\",error=\"%s\"} %" PRIu64
				"\n",
				label(name, sizeof(name), s.name), relay_error_name(e),
				s.errors[e]);
	}
}

char *status_metrics(const struct daemon *d)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (!to)
		return NULL;
	ports(d, to);
	fast_paths(d, to);
	modes(d, to);
	frames(d, to);
	if (d->relay)
		routes(d, to);
	if (fclose(to)) {
		free(text);
		return NULL;
	}
	return text;
}
