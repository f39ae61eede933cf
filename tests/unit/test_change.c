/* A daemon over mem ports: frames cross, ports come and go beside those that stay, no slot is lost.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control/asked.h"
#include "control/change.h"
#include "control/running.h"
#include "control/start.h"
#include "control/state.h"
#include "control/status.h"
#include "engine/mem/mem.h"
#include "frame/pool.h"

#define TWO "ports: ['mem:a', 'mem:b']\nforward: { patch: [['mem:a', 'mem:b']] }\n"
/* Generous: the machine may be slow and shared. */
#define DEADLINE_US 60000000

static const struct daemon_options no_options;

static struct config *parse(const char *text)
{
	struct config *c = NULL;
	struct reason r = {0};

	if (config_parse(text, strlen(text), "c.yaml", &c, &r))
		fail_msg("%s; %s", r.what, r.remedy);
	c->socket[0] = '\0';
	return c;
}

static struct daemon *start(const char *text)
{
	struct daemon *d = calloc(1, sizeof(*d));
	struct reason r = {0};

	assert_non_null(d);
	d->options = &no_options;
	d->config = parse(text);
	if (daemon_start(d, &r))
		fail_msg("%s; %s", r.what, r.remedy);
	return d;
}

/* Every slot must have come back. */
static void stop(struct daemon *d)
{
	workers_pause(d);
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used)
			port_close(d, i);
	}
	for (uint32_t i = 0; i < d->memory.n_pools; i++) {
		assert_int_equal(pool_lost(&d->memory.pools[i]), 0);
		assert_int_equal(d->memory.pools[i].n_free, d->memory.pools[i].slots);
	}
	daemon_stop(d);
	config_free(d->config);
	free(d);
}

static struct queue *queue(struct daemon *d, const char *port)
{
	int idx = port_by_name(d, port);

	assert_true(idx >= 0);
	assert_non_null(d->ports[idx].port);
	return d->ports[idx].port->queues[0];
}

/* One frame in by `from` comes out by `to`, byte for byte. */
static void cross(struct daemon *d, const char *from, const char *to)
{
	uint8_t sent[100], got[2048];
	int n = -EAGAIN;

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + (size_t)from[4]);
	assert_int_equal(mem_inject(queue(d, from), sent, sizeof(sent)), 0);
	for (int waited_us = 0; n == -EAGAIN && waited_us < DEADLINE_US; waited_us += 1000) {
		n = mem_collect(queue(d, to), got, sizeof(got));
		if (n == -EAGAIN)
			usleep(1000);
	}
	assert_int_equal(n, sizeof(sent));
	assert_memory_equal(sent, got, sizeof(sent));
}

static uint64_t received(struct daemon *d, const char *port)
{
	return counter_read(&queue(d, port)->stats.rx_frames);
}

static void crosses(void **state)
{
	struct daemon *d = start(TWO);

	cross(d, "mem:a", "mem:b");
	cross(d, "mem:b", "mem:a");
	assert_int_equal(received(d, "mem:a"), 1);
	assert_string_equal(status_engine(d), "mem");
	stop(d);
}

/* The culvert that check finds is known by its own status. */
static void running_by_its_status(void **state)
{
	struct daemon *d = start(TWO);
	struct config *same = parse(TWO);
	struct config *other = parse("workers: 2\nports: [{device: 'mem:a', busy: true}, "
				     "{device: 'mem:c'}]\n");
	char *status = status_json(d);
	struct running *r = running_read(status);
	struct json_object *asked;

	assert_non_null(r);
	assert_int_equal(r->pid, getpid());
	assert_false(r->reloads); /* without a file */
	assert_int_equal(r->n_ports, 2);
	assert_string_equal(running_find(r, "mem:a", 0)->engine, "mem");
	assert_int_equal(running_find(r, "mem:b", 0)->queues, 1);
	assert_null(running_find(r, "mem:c", 0));
	assert_null(running_find(NULL, "mem:a", 0));

	asked = asked_port(&same->ports[0]);
	assert_null(asked_difference(asked, running_find(r, "mem:a", 0)->asked));
	assert_string_equal(asked_difference(asked, running_find(r, "mem:b", 0)->asked), "name");
	assert_null(asked_difference(asked, NULL)); /* an older culvert tells nothing */
	json_object_put(asked);
	asked = asked_port(&other->ports[0]);
	assert_string_equal(asked_difference(asked, running_find(r, "mem:a", 0)->asked), "busy");
	json_object_put(asked);
	asked = asked_daemon(same);
	assert_null(asked_difference(asked, r->asked));
	json_object_put(asked);
	asked = asked_daemon(other);
	assert_string_equal(asked_difference(asked, r->asked), "workers");
	json_object_put(asked);

	running_free(r);
	free(status);
	config_free(same);
	config_free(other);
	stop(d);
	assert_null(running_read(""));
	assert_null(running_read("{}"));
	assert_null(running_read("[1, 2"));
	assert_null(running_read("{\"pid\": 1, \"ports\": 3}"));
	r = running_read("{\"pid\": 1, \"ports\": [7, {\"engine\": 5}]}");
	assert_non_null(r);
	running_free(r);
}

static int detach(struct daemon *d, const char *const *ports, struct reason *r)
{
	uint32_t n = 0;

	while (ports[n])
		n++;
	return change_detach(d, ports, n, r);
}

static void attach_and_detach(void **state)
{
	struct daemon *d = start(TWO);
	struct reason r = {0};

	cross(d, "mem:a", "mem:b");
	assert_int_equal(change_attach(d, "mem:c", "mem:d", 0, &r), 0);
	cross(d, "mem:c", "mem:d");
	cross(d, "mem:d", "mem:c");
	cross(d, "mem:a", "mem:b");
	assert_int_equal(received(d, "mem:a"), 2); /* it stayed up */
	assert_int_equal(change_attach(d, "mem:c", NULL, 0, &r), -EEXIST);
	assert_int_equal(change_attach(d, "mem:e", "mem:a", 0, &r), -EINVAL);
	assert_non_null(strstr(r.what, "mem:a is patched twice"));
	assert_int_equal(port_by_name(d, "mem:e"), -1);
	assert_int_equal(detach(d, (const char *[]){"mem:c", NULL}, &r), 0);
	assert_int_equal(detach(d, (const char *[]){"mem:c", NULL}, &r), -ENOENT);
	assert_int_equal(d->ports[port_by_name(d, "mem:d")].peer, -1);
	assert_int_equal(change_attach(d, "mem:c", "mem:d", 0, &r), 0);
	cross(d, "mem:c", "mem:d");
	cross(d, "mem:b", "mem:a");
	assert_int_equal(received(d, "mem:a"), 2);
	stop(d);
}

/* Of several names all or none: what is wrong with one is seen before any port is touched. */
static void several_names(void **state)
{
	struct daemon *d = start(TWO);
	const struct snapshot *seen;
	struct reason r = {0};

	assert_int_equal(change_attach(d, "mem:c", "mem:d", 0, &r), 0);
	seen = d->snapshots[0];
	assert_int_equal(detach(d, (const char *[]){"mem:c", "nope", NULL}, &r), -ENOENT);
	assert_non_null(strstr(r.what, "nope"));
	assert_int_equal(detach(d, (const char *[]){"mem:c", "mem:c", NULL}, &r), -EINVAL);
	assert_non_null(strstr(r.what, "twice"));
	assert_int_not_equal(change_attach(d, "mem:e", "culvert-no-such", 0, &r), 0);
	assert_non_null(strstr(r.what, "culvert-no-such"));
	assert_ptr_equal(d->snapshots[0], seen); /* no worker was paused for it */
	cross(d, "mem:c", "mem:d");
	assert_int_equal(detach(d, (const char *[]){"mem:d", "mem:c", NULL}, &r), 0);
	assert_int_equal(port_by_name(d, "mem:c"), -1);
	assert_int_equal(port_by_name(d, "mem:d"), -1);
	cross(d, "mem:a", "mem:b");
	stop(d);
}

/* Frames from one port to another, one at a time, while the main thread does something else. */
struct traffic {
	struct queue *from, *to;
	_Atomic bool done;
	_Atomic uint32_t sent, lost;
};

static void *traffic_run(void *arg)
{
	uint8_t frame[60] = {0}, got[2048];
	struct traffic *t = arg;

	while (!t->done) {
		int n = -EAGAIN;

		frame[0]++;
		if (mem_inject(t->from, frame, sizeof(frame)))
			break;
		t->sent++;
		for (int waited_us = 0; n == -EAGAIN && waited_us < DEADLINE_US; waited_us += 100) {
			n = mem_collect(t->to, got, sizeof(got));
			if (n == -EAGAIN)
				usleep(100);
		}
		if (n != sizeof(frame) || memcmp(got, frame, sizeof(frame)) != 0)
			t->lost++;
	}
	return NULL;
}

/* Other ports come and go, also with frames in their rings, on the same workers' slots. */
static void others_go_on(void **state)
{
	struct daemon *d = start(TWO);
	struct traffic t = {.from = queue(d, "mem:a"), .to = queue(d, "mem:b")};
	uint8_t frame[60] = {0};
	struct reason r = {0};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, traffic_run, &t), 0);
	for (uint32_t i = 0; i < 30; i++) {
		uint32_t before = t.sent;

		assert_int_equal(change_attach(d, "mem:c", "mem:d", 0, &r), 0);
		cross(d, "mem:c", "mem:d");
		for (int k = 0; k < 20; k++)
			assert_int_equal(mem_inject(queue(d, "mem:d"), frame, sizeof(frame)), 0);
		assert_int_equal(detach(d, (const char *[]){"mem:c", "mem:d", NULL}, &r), 0);
		for (int waited_us = 0; t.sent == before && waited_us < DEADLINE_US;
			waited_us += 100)
			usleep(100);
		assert_true(t.sent > before);
	}
	t.done = true;
	pthread_join(thread, NULL);
	assert_int_equal(t.lost, 0);
	stop(d);
}

static void trial(void **state)
{
	struct daemon *d = start(TWO);
	struct reason r = {0};

	assert_int_equal(change_confirm(d, &r), -ENOENT);
	assert_int_equal(change_attach(d, "mem:c", NULL, 100, &r), 0);
	assert_int_equal(change_attach(d, "mem:d", NULL, 0, &r), -EBUSY);
	assert_int_equal(detach(d, (const char *[]){"mem:a", NULL}, &r), -EBUSY);
	change_expire(d, daemon_now_ns());
	assert_true(port_by_name(d, "mem:c") >= 0);
	change_expire(d, d->trial_ns);
	assert_int_equal(port_by_name(d, "mem:c"), -1);
	assert_int_equal(change_confirm(d, &r), -ENOENT);
	assert_int_equal(change_attach(d, "mem:c", NULL, 100, &r), 0);
	assert_int_equal(change_confirm(d, &r), 0);
	change_expire(d, UINT64_MAX);
	assert_true(port_by_name(d, "mem:c") >= 0);
	cross(d, "mem:a", "mem:b");
	stop(d);
}

static void apply(struct daemon *d, const char *text, int err, const char *what)
{
	struct config *c = parse(text);
	struct reason r = {0};

	assert_int_equal(change_apply(d, c, &r), err);
	if (err) {
		if (!strstr(r.what, what))
			fail_msg("got \"%s\", not \"%s\"", r.what, what);
		config_free(c);
	}
}

static void reload(void **state)
{
	struct daemon *d = start(TWO);
	struct queue *a;

	cross(d, "mem:a", "mem:b");
	a = queue(d, "mem:a");
	apply(d, "ports: ['mem:b', 'mem:a', 'mem:c']\nforward: { patch: [['mem:a', 'mem:c']] }\n",
		0, NULL);
	assert_ptr_equal(queue(d, "mem:a"), a); /* the order of ports does not matter */
	cross(d, "mem:a", "mem:c");
	assert_int_equal(received(d, "mem:a"), 2);
	apply(d,
		"ports: [{device: 'mem:a', rx_ring: 128}, 'mem:b']\n"
		"forward: { patch: [['mem:a', 'mem:b']] }\n",
		0, NULL);
	assert_int_equal(received(d, "mem:a"), 0); /* opened again */
	cross(d, "mem:a", "mem:b");
	cross(d, "mem:b", "mem:a");
	stop(d);
}

static void refused(void **state)
{
	struct daemon *d = start("workers: 2\n" TWO);

	cross(d, "mem:a", "mem:b");
	apply(d, "workers: 3\n" TWO, -EINVAL, "workers: changes only at a restart");
	apply(d, "workers: 2\nslots: 9000\n" TWO, -EINVAL, "slots: changes only at a restart");
	/* Its third port fails: its first is closed again, and what it closed is opened. */
	apply(d, "workers: 2\nports: ['mem:c', 'mem:a', {device: 'mem:d', queues: 1}]\n", -EINVAL,
		"mem:d has 1 queues");
	assert_int_equal(port_by_name(d, "mem:c"), -1);
	assert_true(port_by_name(d, "mem:b") >= 0);
	cross(d, "mem:a", "mem:b"); /* the old patch is back */
	assert_int_equal(received(d, "mem:a"), 2);
	stop(d);
}

/* A change fails, and a port that it closed can't be opened again at once: it is tried again. */
static void put_back_later(void **state)
{
	struct daemon *d = start("ports: ['mem:a', {device: 'mem:b', rx_ring: 64, tx_ring: 256}]\n"
				 "forward: { patch: [['mem:a', 'mem:b']] }\n");
	static uint64_t held[PLAN_SLOTS_MIN];
	struct pool *pool = &d->memory.pools[0];
	uint32_t n;
	int idx;

	workers_pause(d);
	n = pool_take(pool, held, pool->n_free, HOLDER_WORKER);
	workers_resume(d);
	apply(d, "ports: ['mem:a', 'mem:d']\n", -ENOBUFS, "mem:d");
	idx = port_by_name(d, "mem:b");
	assert_true(idx >= 0);
	assert_null(d->ports[idx].port);
	assert_non_null(strstr(d->ports[idx].closed.what, "slots"));
	workers_pause(d);
	pool_give(pool, held, n, HOLDER_WORKER);
	workers_resume(d);
	links_retry(d, d->ports[idx].retry_ns);
	cross(d, "mem:a", "mem:b");
	stop(d);
}

/* A peer that was awaited is there, but not to be had: it is not asked over and over. */
static void awaited_in_vain(void **state)
{
	struct daemon *d = start("ports: ['mem:a']\n");
	struct daemon_port *p = &d->ports[port_by_name(d, "mem:a")];
	struct reason r = {0};
	uint64_t now_ns;

	beside_close(d, 0);
	beside_join(d);
	p->backoff_s = 0; /* as of a port that never was open */
	links_await_peer(d, 0, &r);
	p->plan.settings.rx_ring = 3; /* refused */
	now_ns = p->retry_ns;
	links_retry(d, now_ns);
	assert_null(p->port);
	assert_true(p->retry_ns >= now_ns + PORT_BACKOFF_S * SECOND_NS);
	p->plan.settings.rx_ring = 64;
	links_retry(d, p->retry_ns);
	assert_non_null(p->port);
	stop(d);
}

/* Whichever descriptor is the first that can't be had: one reason, and nothing is left. */
static void few_descriptors(void **state)
{
	struct rlimit before, few;
	int first = dup(0), err = -EMFILE;

	assert_true(first >= 0);
	close(first);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	for (int spare = 0; spare < 32 && err; spare++) {
		struct daemon *d = calloc(1, sizeof(*d));
		struct reason r = {0};

		assert_non_null(d);
		d->options = &no_options;
		d->config = parse("workers: 3\n" TWO);
		few.rlim_cur = (rlim_t)(first + spare);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		err = daemon_start(d, &r);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		if (err)
			assert_non_null(strstr(r.what, "Too many open files"));
		daemon_stop(d);
		config_free(d->config);
		free(d);
	}
	assert_int_equal(err, 0);
	assert_int_equal(dup(0), first);
	close(first);
}

static void several_workers(void **state)
{
	struct daemon *d = start("workers: 2\nports: [{device: 'mem:a', queues: 3}, "
				 "{device: 'mem:b', queues: 2}]\n"
				 "forward: { patch: [['mem:a', 'mem:b']] }\n");
	struct reason r = {0};

	assert_int_equal(d->n_workers, 2);
	cross(d, "mem:a", "mem:b");
	assert_int_equal(change_attach(d, "mem:c", NULL, 0, &r), 0);
	assert_int_equal(d->ports[port_by_name(d, "mem:c")].port->n_queues, 2);
	cross(d, "mem:b", "mem:a");
	stop(d);
}

static void readers(void **state)
{
	struct daemon *d = start(TWO);
	char *text;

	cross(d, "mem:a", "mem:b");
	text = status_json(d);
	assert_non_null(text);
	assert_non_null(strstr(text, "\"rx_frames\":1"));
	assert_non_null(strstr(text, "\"lost\":0"));
	free(text);
	text = status_metrics(d);
	assert_non_null(text);
	assert_non_null(
		strstr(text, "culvert_port_rx_frames_total{port=\"mem:a\",queue=\"0\"} 1\n"));
	assert_non_null(strstr(text, "culvert_frames_lost{worker=\"0\"} 0\n"));
	free(text);
	stop(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crosses),
		cmocka_unit_test(running_by_its_status),
		cmocka_unit_test(attach_and_detach),
		cmocka_unit_test(several_names),
		cmocka_unit_test(others_go_on),
		cmocka_unit_test(trial),
		cmocka_unit_test(reload),
		cmocka_unit_test(refused),
		cmocka_unit_test(put_back_later),
		cmocka_unit_test(awaited_in_vain),
		cmocka_unit_test(few_descriptors),
		cmocka_unit_test(several_workers),
		cmocka_unit_test(readers),
	};

	log_level_set(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
