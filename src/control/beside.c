/*
 * Ports are opened and closed while the workers go on with the others.
 *
 * An open takes a tenth of a second, and seconds where the kernel is still busy with the device;
 * but it takes slots from the pools, which have no lock. So it gets pools of its own, beside the
 * workers': slots are lent to them before an open, and what they have is taken back after an open
 * or a close. Only for these two moments do the workers stand still.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/state.h"
#include "frame/pool.h"

int beside_make(struct daemon *d, struct reason *r)
{
	d->lent = d->memory;
	d->lent.n_pools = 0;
	d->lent.pools = calloc(d->memory.n_pools, sizeof(*d->lent.pools));
	for (uint32_t i = 0; d->lent.pools && i < d->memory.n_pools; i++) {
		if (pool_beside_init(&d->lent.pools[i], &d->memory.pools[i]))
			break;
		d->lent.n_pools++;
	}
	if (d->lent.n_pools == d->memory.n_pools)
		return 0;
	beside_free(d);
	return reason_set(r, -ENOMEM, NULL, "out of memory");
}

void beside_free(struct daemon *d)
{
	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_beside_fini(&d->lent.pools[i]);
	free(d->lent.pools);
	d->lent = (struct memory){0};
}

/* Queues that a worker has of it, at most. */
static uint32_t queues_each(const struct daemon *d, uint32_t idx)
{
	return (d->ports[idx].plan.queues + d->n_workers - 1) / d->n_workers;
}

/* n slots of every worker's, or as many as are free. */
static void lend(struct daemon *d, uint32_t n)
{
	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_lend(&d->memory.pools[i], &d->lent.pools[i], n);
}

static void take_back(struct daemon *d)
{
	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_take_back(&d->memory.pools[i], &d->lent.pools[i]);
}

static void set_pools(struct port *port, const struct memory *from, const struct memory *to)
{
	for (uint32_t i = 0; port && i < port->n_queues; i++) {
		struct queue *q = port->queues[i];

		if (q->pool == &from->pools[q->worker])
			q->pool = &to->pools[q->worker];
	}
}

/* Before the start and at the end there is nobody to wait for. */
static bool workers_run(const struct daemon *d)
{
	return d->started_ns && !d->stopping;
}

int beside_open(struct daemon *d, uint32_t idx, struct reason *r)
{
	struct daemon_port *p = &d->ports[idx];
	bool beside = workers_run(d);
	int err;

	if (d->stopping)
		return reason_set(r, -ECANCELED, NULL, "culvert is stopping");
	p->apart = beside;
	if (beside)
		workers_pause(d);
	lend(d, beside ? queues_each(d, idx) * p->plan.settings.rx_ring : d->slots);
	if (beside)
		workers_resume(d);
	err = port_open(d, idx, &d->lent, r);
	if (d->hung)
		return err; /* what is lent stays with it */
	if (beside)
		workers_pause(d);
	set_pools(p->port, &d->lent, &d->memory);
	take_back(d);
	if (beside)
		workers_resume(d);
	return err;
}

void beside_close(struct daemon *d, uint32_t idx)
{
	struct daemon_port *p = &d->ports[idx];
	bool beside = workers_run(d);

	p->apart = true;
	workers_pause(d);
	if (d->hung) { /* it has what is lent; and this is the end */
		port_close(d, idx);
		return;
	}
	lend(d, queues_each(d, idx) * BATCH_SIZE); /* for what comes while what waits is counted */
	set_pools(p->port, &d->memory, &d->lent);
	if (beside)
		workers_resume(d);
	port_close(d, idx);
	if (d->hung)
		return;
	if (beside)
		workers_pause(d);
	take_back(d);
	if (beside)
		workers_resume(d);
}

void beside_join(struct daemon *d)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		d->ports[i].apart = false;
	workers_resume(d);
}
