/* What the workers see: made from the ports as they are, published, freed when let go of. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/state.h"

static void snapshot_free(struct snapshot *s)
{
	if (s)
		free(s->rx);
	free(s);
}

static uint32_t queues_of(const struct daemon *d, uint32_t worker, struct queue **ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct port *port = d->ports[i].apart ? NULL : d->ports[i].port;

		for (uint32_t q = 0; port && q < port->n_queues; q++) {
			if (port->queues[q]->worker != worker)
				continue;
			if (ret)
				ret[n] = port->queues[q];
			n++;
		}
	}
	return n;
}

static void join_patches(const struct daemon *d, struct patch *patch)
{
	patch_init(patch);
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		if (d->ports[i].used && d->ports[i].peer > (int)i)
			patch_join(patch, i, (uint32_t)d->ports[i].peer);
	}
}

static struct snapshot *snapshot_make(const struct daemon *d, uint32_t worker)
{
	uint32_t n = queues_of(d, worker, NULL);
	struct snapshot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->rx = calloc(n ? n : 1, sizeof(struct queue *));
	if (!s->rx) {
		free(s);
		return NULL;
	}
	s->n_rx = queues_of(d, worker, s->rx);
	for (uint32_t i = s->n_rx; i-- > 0;) {
		uint32_t idx = s->rx[i]->port->index;

		/* The lowest of the worker's queues there. Without carrier nothing is sent. */
		if (d->ports[idx].link == PORT_LINK_UP)
			s->tx[idx] = s->rx[i];
	}
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		s->busy = s->busy || (d->ports[i].port && d->ports[i].asked.busy);
	join_patches(d, &s->patch);
	return s;
}

static void publish(struct daemon *d, uint32_t worker, struct snapshot *s)
{
	worker_publish(d->workers[worker], s);
	snapshot_free(d->snapshots[worker]);
	d->snapshots[worker] = s;
}

void workers_pause(struct daemon *d)
{
	for (uint32_t i = 0; i < d->n_workers; i++)
		publish(d, i, NULL);
}

int workers_resume(struct daemon *d)
{
	int err = 0;

	for (uint32_t i = 0; i < d->n_workers; i++) {
		struct snapshot *s = snapshot_make(d, i);

		if (!s)
			err = -ENOMEM;
		publish(d, i, s);
	}
	if (err)
		log_error("out of memory: some workers stand still");
	fast_path_update(d);
	return err;
}

int workers_make(struct daemon *d, struct reason *r)
{
	int err = 0;

	d->workers = calloc(d->n_workers, sizeof(struct worker *));
	d->snapshots = calloc(d->n_workers, sizeof(struct snapshot *));
	if (!d->workers || !d->snapshots)
		err = -ENOMEM;
	for (uint32_t i = 0; !err && i < d->n_workers; i++) {
		struct worker_settings s = {.idx = i, .cpu = -1};

		err = worker_create(&s, &d->workers[i]);
	}
	if (!err)
		return 0;
	workers_free(d);
	return reason_set(r, err, reason_remedy(err, NULL), "no worker: %s", strerror(-err));
}

int workers_start(struct daemon *d, struct reason *r)
{
	for (uint32_t i = 0; i < d->n_workers; i++) {
		int err = worker_start(d->workers[i]);

		if (err)
			return reason_set(r, err, "fewer `workers:`, or a higher limit of tasks",
				"worker %u does not start: %s", i, strerror(-err));
	}
	return 0;
}

void workers_free(struct daemon *d)
{
	for (uint32_t i = 0; i < d->n_workers; i++) {
		if (d->workers)
			worker_destroy(d->workers[i]);
		if (d->snapshots)
			snapshot_free(d->snapshots[i]);
	}
	free(d->workers);
	free(d->snapshots);
	d->workers = NULL;
	d->snapshots = NULL;
	d->n_workers = 0;
}
