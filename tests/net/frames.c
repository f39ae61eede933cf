/* Sends seeded frames in at one end and checks what comes out at the other, from one process. */
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "craft.h"
#include "wire.h"

#define FLOWS_MAX   1024u
#define BURST	    64u
#define WINDOW	    32u	  /* frames on the way at once in `exact` */
#define PATIENCE_MS 20000 /* a machine that does three other things is slow, not broken */

static const char usage[] =
	"usage: frames exact|flows|blast --from WIRE --to WIRE [--both] [options]\n"
	"  a WIRE is NETNS-FILE:DEVICE\n"
	"  exact: --sizes LOW-HIGH[/STEP] (may be repeated) --rotate (one kind a size) --seed N\n"
	"         --without KIND (may be repeated)\n"
	"         --unordered (the receiver's NIC has a driver that hands frames of a kind over\n"
	"          together: __netif_receive_skb_list_core() in the kernel; flows tells the "
	"order)\n"
	"  flows: --flows N --count N (frames of each flow) --size BYTES --window N\n"
	"  blast: --seconds S --size BYTES --flows N\n";

struct options {
	const char *from, *to;
	bool both, rotate, unordered, without[CRAFT_KINDS];
	uint32_t low[16], high[16], step[16], n_sizes;
	uint32_t flows, size, window;
	uint64_t count, seed;
	double seconds;
};

/* One direction; a thread owns it. */
struct lane {
	const struct options *o;
	struct wire *in, *out; /* we send into in; it comes out at out */
	uint8_t src[6];	       /* marks our frames among the hosts' own */
	uint64_t sent, received, lost, disordered, corrupt, strays;
	uint64_t next[FLOWS_MAX];
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The next frame of ours; others (neighbour discovery of the hosts) are strays. */
static uint32_t receive_ours(struct lane *l, uint8_t *buf, int timeout_ms)
{
	uint64_t end = now_ms() + (uint64_t)timeout_ms;

	for (;;) {
		uint32_t n = wire_receive(l->out, buf, CRAFT_SIZE_MAX + 64, timeout_ms);

		if (n && memcmp(buf + 6, l->src, 6) == 0)
			return n;
		l->strays += n != 0;
		if (n == 0 && now_ms() >= end)
			return 0;
	}
}

/* ---- exact: every frame comes out as it went in, in order ---- */

struct plan {
	enum craft_kind kind;
	uint32_t size;
};

static struct plan *plan_make(const struct options *o, size_t *ret_n)
{
	size_t n = 0, max = 0;
	struct plan *plan;

	for (uint32_t i = 0; i < o->n_sizes; i++)
		max += ((o->high[i] - o->low[i]) / o->step[i] + 1) * CRAFT_KINDS;
	plan = calloc(max, sizeof(*plan));
	if (!plan)
		exit(1);
	for (uint32_t i = 0; i < o->n_sizes; i++) {
		for (uint32_t size = o->low[i]; size <= o->high[i]; size += o->step[i]) {
			for (uint32_t k = 0; k < CRAFT_KINDS; k++) {
				if (size < craft_size_min(k) || o->without[k])
					continue;
				if (o->rotate && k != size / o->step[i] % CRAFT_KINDS)
					continue;
				plan[n++] = (struct plan){.kind = k, .size = size};
			}
		}
	}
	*ret_n = n;
	return plan;
}

static void differ(const struct lane *l, const struct plan *p, uint64_t i, const uint8_t *want,
	const uint8_t *got, uint32_t got_size)
{
	uint32_t at = 0;

	while (at < p->size && at < got_size && want[at] == got[at])
		at++;
	fprintf(stderr,
		"%s -> %s: frame %" PRIu64
		" (%s, %u bytes) came out as %u bytes, first difference at %u\n",
		l->in->name, l->out->name, i, craft_name(p->kind), p->size, got_size, at);
	for (uint32_t b = at & ~15u; b < (at & ~15u) + 32; b++)
		fprintf(stderr, "%s%02x/%02x", b % 16 ? " " : "\n  sent/got ",
			b < p->size ? want[b] : 0, b < got_size ? got[b] : 0);
	fprintf(stderr, "\n");
}

/* Which frame of [first, end) this is that has not come yet; end: none. */
static size_t find_due(const struct lane *l, const struct plan *plan, size_t first, size_t end,
	const bool *taken, const uint8_t *got, uint32_t got_size)
{
	uint8_t want[CRAFT_SIZE_MAX + 64];

	for (size_t i = first; i < end; i++) {
		if (taken[i - first] || plan[i].size != got_size)
			continue;
		craft(plan[i].kind, plan[i].size, l->o->seed + i, l->src, want);
		if (memcmp(want, got, got_size) == 0)
			return i;
	}
	return end;
}

/* Sends frames [first, end) of the plan into every lane, then takes them out at the other side. */
static bool exact_window(
	struct lane *lanes, size_t n_lanes, const struct plan *plan, size_t first, size_t end)
{
	uint8_t want[CRAFT_SIZE_MAX + 64], got[CRAFT_SIZE_MAX + 64];
	bool taken[WINDOW];

	for (size_t a = 0; a < n_lanes; a++) {
		struct lane *l = &lanes[a];
		for (size_t i = first; i < end; i++) {
			craft(plan[i].kind, plan[i].size, l->o->seed + i, l->src, want);
			if (!wire_send(l->in, want, plan[i].size)) {
				fprintf(stderr, "%s: can't send %s of %u bytes: %m\n", l->in->name,
					craft_name(plan[i].kind), plan[i].size);
				return false;
			}
			l->sent++;
		}
	}
	for (size_t a = 0; a < n_lanes; a++) {
		struct lane *l = &lanes[a];
		memset(taken, 0, sizeof(taken));
		for (size_t i = first; i < end; i++) {
			uint32_t n = receive_ours(l, got, PATIENCE_MS);

			craft(plan[i].kind, plan[i].size, l->o->seed + i, l->src, want);
			if (n == 0) {
				fprintf(stderr,
					"%s -> %s: %s of %u bytes (or one before it) is lost\n",
					l->in->name, l->out->name, craft_name(plan[i].kind),
					plan[i].size);
				return false;
			}
			size_t is = find_due(l, plan, first, end, taken, got, n);
			if (is == end || (is != i && !l->o->unordered)) {
				differ(l, &plan[i], i, want, got, n);
				if (is != end)
					fprintf(stderr, "it is frame %zu, which came early\n", is);
				return false;
			}
			taken[is - first] = true;
			l->received++;
		}
	}
	return true;
}

static bool exact(struct lane *lanes, size_t n_lanes)
{
	size_t n;
	struct plan *plan = plan_make(lanes[0].o, &n);
	bool good = true;

	for (size_t i = 0; i < n && good; i += WINDOW)
		good = exact_window(lanes, n_lanes, plan, i, i + WINDOW < n ? i + WINDOW : n);
	free(plan);
	return good;
}

/* ---- flows: numbered frames of many flows, at most a window of them on the way ---- */

static void flow_check(struct lane *l, const uint8_t *got, uint32_t n)
{
	uint8_t want[CRAFT_SIZE_MAX + 64];
	uint64_t number;
	uint32_t flow;

	memcpy(&flow, got + CRAFT_FLOW_AT, 4);
	memcpy(&number, got + CRAFT_FLOW_AT + 4, 8);
	if (n != l->o->size || flow >= l->o->flows) {
		l->corrupt++;
		return;
	}
	craft_flow(flow, number, l->o->size, l->src, want);
	if (memcmp(want, got, n) != 0)
		l->corrupt++;
	if (number < l->next[flow]) {
		l->disordered++;
	} else {
		l->next[flow] = number + 1;
	}
}

static void *flows_lane(void *arg)
{
	struct lane *l = arg;
	uint64_t total = l->o->count * l->o->flows;
	uint8_t frame[CRAFT_SIZE_MAX + 64];

	while (l->received < total) {
		while (l->sent < total && l->sent - l->received < l->o->window) {
			craft_flow((uint32_t)(l->sent % l->o->flows), l->sent / l->o->flows,
				l->o->size, l->src, frame);
			if (!wire_send(l->in, frame, l->o->size)) {
				fprintf(stderr, "%s: can't send: %m\n", l->in->name);
				return NULL;
			}
			l->sent++;
		}
		uint32_t n = receive_ours(l, frame, PATIENCE_MS);
		if (n == 0)
			break;
		do {
			flow_check(l, frame, n);
			l->received++;
		} while ((n = receive_ours(l, frame, 0)) != 0);
	}
	l->lost = l->sent - l->received;
	return NULL;
}

/* ---- blast: as fast as this machine sends, whatever becomes of it ---- */

static void *blast_lane(void *arg)
{
	struct lane *l = arg;
	uint64_t end = now_ms() + (uint64_t)(l->o->seconds * 1000);
	static __thread uint8_t frames[BURST][CRAFT_SIZE_MAX + 64];
	struct mmsghdr m[BURST] = {0};
	struct iovec io[BURST];
	int on = 1;

	setsockopt(l->in->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	for (uint32_t i = 0; i < BURST; i++) {
		craft_flow(i % l->o->flows, i, l->o->size, l->src, frames[i]);
		io[i] = (struct iovec){.iov_base = frames[i], .iov_len = l->o->size};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &io[i], .msg_iovlen = 1};
	}
	while (now_ms() < end) {
		/* A frame the far end has no room for is an error here (ENOBUFS) and a count in
		 * the device: skip it and go on. */
		int n = sendmmsg(l->in->fd, m, BURST, 0);
		l->sent += n > 0 ? (uint64_t)n : 0;
	}
	return NULL;
}

static void run_lanes(struct lane *lanes, size_t n, void *(*body)(void *))
{
	pthread_t threads[2];

	for (size_t i = 0; i < n; i++) {
		if (pthread_create(&threads[i], NULL, body, &lanes[i]) != 0)
			exit(1);
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static bool sizes_parse(struct options *o, const char *text)
{
	uint32_t i = o->n_sizes++;

	if (i == 16)
		return false;
	o->step[i] = 1;
	if (sscanf(text, "%u-%u/%u", &o->low[i], &o->high[i], &o->step[i]) < 2)
		return false;
	return o->low[i] >= 14 && o->low[i] <= o->high[i] && o->high[i] <= CRAFT_SIZE_MAX &&
	       o->step[i] > 0;
}

static bool without_parse(struct options *o, const char *name)
{
	for (uint32_t k = 0; k < CRAFT_KINDS; k++) {
		if (strcmp(craft_name(k), name) == 0)
			return o->without[k] = true;
	}
	return false;
}

static bool options_parse(struct options *o, int argc, char **argv)
{
	static const struct option names[] = {{"from", 1, NULL, 'f'}, {"to", 1, NULL, 't'},
		{"both", 0, NULL, 'b'}, {"rotate", 0, NULL, 'r'}, {"sizes", 1, NULL, 's'},
		{"seed", 1, NULL, 'e'}, {"flows", 1, NULL, 'n'}, {"count", 1, NULL, 'c'},
		{"size", 1, NULL, 'z'}, {"window", 1, NULL, 'w'}, {"seconds", 1, NULL, 'd'},
		{"without", 1, NULL, 'o'}, {"unordered", 0, NULL, 'u'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'f': o->from = optarg; break;
		case 't': o->to = optarg; break;
		case 'b': o->both = true; break;
		case 'r': o->rotate = true; break;
		case 'u': o->unordered = true; break;
		case 's':
			if (!sizes_parse(o, optarg))
				return false;
			break;
		case 'o':
			if (!without_parse(o, optarg))
				return false;
			break;
		case 'e': o->seed = strtoull(optarg, NULL, 0); break;
		case 'n': o->flows = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'c': o->count = strtoull(optarg, NULL, 0); break;
		case 'z': o->size = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'w': o->window = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 'd': o->seconds = strtod(optarg, NULL); break;
		default: return false;
		}
	}
	return o->from && o->to && o->flows > 0 && o->flows <= FLOWS_MAX && o->size >= 64 &&
	       o->size <= CRAFT_SIZE_MAX;
}

static bool report(const struct lane *lanes, size_t n)
{
	bool good = true;

	printf("[");
	for (size_t i = 0; i < n; i++) {
		const struct lane *l = &lanes[i];

		printf("%s{\"sent\": %" PRIu64 ", \"received\": %" PRIu64 ", \"lost\": %" PRIu64
		       ", \"disordered\": %" PRIu64 ", \"corrupt\": %" PRIu64
		       ", \"strays\": %" PRIu64 ", \"lost_here\": %u}",
			i ? ", " : "", l->sent, l->received, l->lost, l->disordered, l->corrupt,
			l->strays, wire_lost(l->out));
		good = good && l->lost == 0 && l->disordered == 0 && l->corrupt == 0;
	}
	printf("]\n");
	return good;
}

int main(int argc, char **argv)
{
	struct options o = {.flows = 1, .size = 64, .window = 256, .count = 1000, .seconds = 1};
	static struct lane lanes[2];
	struct wire ends[2];
	bool good = true;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlive the test */
	if (argc < 2 || !options_parse(&o, argc - 1, argv + 1)) {
		fputs(usage, stderr);
		return 2;
	}
	wire_open(&ends[0], o.from);
	wire_open(&ends[1], o.to);
	for (uint8_t i = 0; i < 2; i++) {
		lanes[i] = (struct lane){.o = &o,
			.in = &ends[i],
			.out = &ends[1 - i],
			.src = {0x02, 0xc0, 0xde, (uint8_t)(o.seed >> 8), (uint8_t)o.seed, i}};
	}
	size_t n = o.both ? 2 : 1;
	if (strcmp(argv[1], "exact") == 0 && o.n_sizes > 0) {
		good = exact(lanes, n);
	} else if (strcmp(argv[1], "flows") == 0) {
		run_lanes(lanes, n, flows_lane);
	} else if (strcmp(argv[1], "blast") == 0) {
		run_lanes(lanes, n, blast_lane);
	} else {
		fputs(usage, stderr);
		return 2;
	}
	return report(lanes, n) && good ? 0 : 1;
}
