/* The daemon's status as tables for a person. */
#include "cli/table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#define NAME_WIDTH   12 /* columns, at least */
#define DEVICE_WIDTH 15

static const char *text(struct json_object *o, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, key, &value) || !value)
		return "";
	return json_object_get_string(value);
}

static uint64_t number(struct json_object *o, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(o, key, &value) ? json_object_get_uint64(value) : 0;
}

static struct json_object *list(struct json_object *o, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(o, key, &value) &&
			       json_object_is_type(value, json_type_array)
		       ? value
		       : NULL;
}

static size_t length(struct json_object *array)
{
	return array ? json_object_array_length(array) : 0;
}

/* The element of a list with this name, or NULL. */
static struct json_object *named(struct json_object *array, const char *name)
{
	for (size_t i = 0; i < length(array); i++) {
		struct json_object *o = json_object_array_get_idx(array, i);

		if (strcmp(text(o, "name"), name) == 0)
			return o;
	}
	return NULL;
}

/* Of a column: DPDK's devices have long names. */
static int widest(struct json_object *array, const char *key, int least)
{
	for (size_t i = 0; i < length(array); i++) {
		int len = (int)strlen(text(json_object_array_get_idx(array, i), key));

		least = len > least ? len : least;
	}
	return least;
}

static uint64_t queues_sum(struct json_object *port, const char *key)
{
	struct json_object *queues = port ? list(port, "queues") : NULL;
	uint64_t sum = 0;

	for (size_t i = 0; i < length(queues); i++)
		sum += number(json_object_array_get_idx(queues, i), key);
	return sum;
}

static struct json_object *fast_path(struct json_object *port)
{
	struct json_object *value;

	return port && json_object_object_get_ex(port, "fast_path", &value) ? value : NULL;
}

/* rx_... or tx_frames or _bytes, through user space and by the kernel. Bytes of frames that were
 * lost on their way to the peer are not known, and stay in. */
static uint64_t moved(struct json_object *ports, struct json_object *port, const char *direction,
	const char *what)
{
	struct json_object *f = fast_path(port);
	char key[32];
	uint64_t sum;

	snprintf(key, sizeof(key), "%s_%s", direction, what);
	sum = queues_sum(port, key);
	if (direction[0] == 'r')
		return f ? sum + number(f, what) : sum;
	for (size_t i = 0; port && i < length(ports); i++) {
		f = fast_path(json_object_array_get_idx(ports, i));
		if (!f || strcmp(text(f, "peer"), text(port, "name")) != 0)
			continue;
		sum += number(f, what);
		if (strcmp(what, "frames") == 0)
			sum -= number(f, "lost_full") + number(f, "lost_refused");
	}
	return sum;
}

/* "1.05M" of a rate; "-" without an earlier sample. */
static const char *rate(char *buf, size_t size, uint64_t now, uint64_t before, double seconds)
{
	static const char units[] = {' ', 'k', 'M', 'G', 'T'};
	double value;
	size_t unit = 0;

	if (seconds <= 0) {
		snprintf(buf, size, "-");
		return buf;
	}
	value = now >= before ? (double)(now - before) / seconds : 0;
	for (; value >= 1000 && unit < sizeof(units) - 1; unit++)
		value /= 1000;
	snprintf(buf, size, unit ? "%.2f%c" : "%.0f", value, units[unit]);
	return buf;
}

/* Or about to be, or to be open. */
static bool is_closed(struct json_object *port)
{
	return !text(port, "engine")[0];
}

static void print_why(FILE *to, struct json_object *port)
{
	fprintf(to, "%s%s%s\n", text(port, "reason"), text(port, "remedy")[0] ? "; " : "",
		text(port, "remedy"));
}

static void print_port(FILE *to, struct json_object *ports, struct json_object *port,
	struct json_object *ports_before, double seconds)
{
	struct json_object *before = named(ports_before, text(port, "name"));
	int name_width = widest(ports, "name", NAME_WIDTH);
	int device_width = widest(ports, "device", DEVICE_WIDTH);
	char rx[16], tx[16], rx_bits[16], tx_bits[16];

	if (is_closed(port)) { /* it has no queues, so nothing to count */
		fprintf(to, "%-*s %-*s %-7s %-10s %-5s %s: ", name_width, text(port, "name"),
			device_width, text(port, "device"), "-", "-", text(port, "link"),
			text(port, "mode"));
		print_why(to, port);
		return;
	}
	if (!before)
		seconds = 0;
#define RATE(buf, direction, what, times)                                     \
	rate(buf, sizeof(buf), moved(ports, port, direction, what) * (times), \
		moved(ports_before, before, direction, what) * (times), seconds)
	fprintf(to, "%-*s %-*s %-7s %-10s %-5s %6zu %14" PRIu64 " %14" PRIu64 " %8s %8s %8s %8s\n",
		name_width, text(port, "name"), device_width, text(port, "device"),
		text(port, "engine"), text(port, "mode"), text(port, "link"),
		length(list(port, "queues")), moved(ports, port, "rx", "frames"),
		moved(ports, port, "tx", "frames"), RATE(rx, "rx", "frames", 1),
		RATE(tx, "tx", "frames", 1), RATE(rx_bits, "rx", "bytes", 8),
		RATE(tx_bits, "tx", "bytes", 8));
#undef RATE
}

static void print_fast_path(FILE *to, struct json_object *port)
{
	struct json_object *f = fast_path(port);
	bool on = f && strcmp(text(f, "on"), "true") == 0;

	if (f && (on || number(f, "frames")))
		fprintf(to,
			"  %s: the kernel forwarded %" PRIu64 " frames to %s, %" PRIu64 " lost\n",
			text(port, "name"), number(f, "frames"), text(f, "peer"),
			number(f, "lost_full") + number(f, "lost_refused"));
	if (f && !on && strcmp(text(f, "reason"), "not asked for") != 0)
		fprintf(to, "  %s: no fast path: %s%s%s\n", text(port, "name"), text(f, "reason"),
			text(f, "remedy")[0] ? "; " : "", text(f, "remedy"));
}

static void print_ports(
	FILE *to, struct json_object *now, struct json_object *before, double seconds)
{
	struct json_object *ports = list(now, "ports");

	if (!length(ports))
		return;
	fprintf(to, "%-*s %-*s %-7s %-10s %-5s %6s %14s %14s %8s %8s %8s %8s\n",
		widest(ports, "name", NAME_WIDTH), "PORT", widest(ports, "device", DEVICE_WIDTH),
		"DEVICE", "ENGINE", "MODE", "LINK", "QUEUES", "RX FRAMES", "TX FRAMES", "RX/s",
		"TX/s", "RX bit/s", "TX bit/s");
	for (size_t i = 0; i < length(ports); i++) {
		struct json_object *port = json_object_array_get_idx(ports, i);

		print_port(to, ports, port, before ? list(before, "ports") : NULL, seconds);
	}
	for (size_t i = 0; i < length(ports); i++) {
		struct json_object *port = json_object_array_get_idx(ports, i);

		if (is_closed(port) || !text(port, "reason")[0])
			continue;
		fprintf(to, "  %s: ", text(port, "name"));
		print_why(to, port);
	}
	for (size_t i = 0; i < length(ports); i++)
		print_fast_path(to, json_object_array_get_idx(ports, i));
}

/* One line for each counter that is not zero. */
static void print_counters(FILE *to, struct json_object *port, const char *group)
{
	struct json_object *queues = list(port, "queues");

	for (size_t i = 0; i < length(queues); i++) {
		struct json_object *queue = json_object_array_get_idx(queues, i), *counters;

		if (!json_object_object_get_ex(queue, group, &counters))
			continue;
		json_object_object_foreach(counters, name, value)
		{
			uint64_t n = json_object_get_uint64(value);

			if (n)
				fprintf(to, "  %s queue %" PRIu64 " %s %s: %" PRIu64 "\n",
					text(port, "name"), number(queue, "queue"), group, name, n);
		}
	}
}

static void print_frames(FILE *to, struct json_object *now)
{
	struct json_object *frames = list(now, "frames");

	if (!length(frames))
		return;
	fprintf(to, "%-12s %10s %10s %10s %10s %10s %10s %6s\n", "FRAMES", "SLOTS", "FREE", "FILL",
		"WORKER", "TX", "DRIVER", "LOST");
	for (size_t i = 0; i < length(frames); i++) {
		struct json_object *f = json_object_array_get_idx(frames, i);

		fprintf(to,
			"worker %-5" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
			" %10" PRIu64 " %10" PRIu64 " %6s\n",
			number(f, "worker"), number(f, "slots"), number(f, "free"),
			number(f, "fill"), number(f, "worker_held"), number(f, "tx"),
			number(f, "driver"), text(f, "lost"));
	}
}

static void print_routes(
	FILE *to, struct json_object *now, struct json_object *before, double seconds)
{
	struct json_object *routes = list(now, "relay");

	if (!length(routes))
		return;
	fprintf(to, "%-12s %-28s %-8s %-11s %8s %11s %9s %9s\n", "ROUTE", "LISTEN", "RUNNING",
		"CONNECTIONS", "ACTIVE", "BYTES", "IN bit/s", "OUT bit/s");
	for (size_t i = 0; i < length(routes); i++) {
		struct json_object *r = json_object_array_get_idx(routes, i);
		struct json_object *b =
			before ? named(list(before, "relay"), text(r, "name")) : NULL;
		double s = b ? seconds : 0;
		char in[16], out[16];

		fprintf(to, "%-12s %-28s %-8s %11" PRIu64 " %8" PRIu64 " %11" PRIu64 " %9s %9s\n",
			text(r, "name"), text(r, "listen"),
			strcmp(text(r, "running"), "true") == 0 ? "yes" : "no",
			number(r, "connections"), number(r, "active"),
			number(r, "bytes_in") + number(r, "bytes_out"),
			rate(in, sizeof(in), number(r, "bytes_in") * 8,
				b ? number(b, "bytes_in") * 8 : 0, s),
			rate(out, sizeof(out), number(r, "bytes_out") * 8,
				b ? number(b, "bytes_out") * 8 : 0, s));
	}
}

void table_print(FILE *to, struct json_object *now, struct json_object *before, double seconds)
{
	struct json_object *ports = list(now, "ports");

	fprintf(to, "culvert %s, process %s, engine %s%s%s\n\n", text(now, "version"),
		text(now, "pid"), text(now, "engine"), text(now, "fallback")[0] ? ": " : "",
		text(now, "fallback"));
	print_ports(to, now, before, seconds);
	for (size_t i = 0; i < length(ports); i++) {
		print_counters(to, json_object_array_get_idx(ports, i), "drops");
		print_counters(to, json_object_array_get_idx(ports, i), "kernel");
	}
	if (length(ports))
		fputc('\n', to);
	print_frames(to, now);
	print_routes(to, now, before, seconds);
}
