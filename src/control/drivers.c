/*
 * Opens and closes ports whose drivers may hang: each call in a thread of its own, while control
 * answers signals and whoever only reads.
 *
 * Nothing but the engine's call runs there, and what it gets is its own. A driver's call can't be
 * broken off: where culvert is to end and it does not come back, the thread is left behind with the
 * slots that were lent for it, and ends with the process.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "control/state.h"

/* The thread's from its start until done_fd is readable, then control's. */
struct call {
	const struct engine_ops *engine;
	struct port *port; /* that close takes, or open makes */
	/* Of open. */
	const struct memory *memory;
	struct port_settings settings;
	struct config_port asked; /* whose strings the settings have */
	struct reason reason;
	int err;
	int done_fd;
};

/* A thread's until the process ends, and what it may touch. */
static struct call *volatile left_behind;

static void *call_main(void *arg)
{
	struct call *c = arg;
	uint64_t done = 1;
	ssize_t n;

	pthread_setname_np(pthread_self(), "driver");
	if (c->port)
		c->engine->close(c->port);
	else
		c->err = c->engine->open(&c->settings, c->memory, &c->port, &c->reason);
	n = write(c->done_fd, &done, sizeof(done));
	(void)n; /* there is room: it is the first */
	return NULL;
}

static struct call *call_make(const struct daemon_port *p)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->engine = p->plan.engine;
	c->asked = p->asked;
	c->done_fd = eventfd(0, EFD_CLOEXEC);
	if (c->done_fd >= 0)
		return c;
	free(c);
	return NULL;
}

static void call_free(struct call *c)
{
	close(c->done_fd);
	free(c);
}

/* 0; -ECANCELED: it hangs, and c is the thread's; another -errno: it was not made. */
static int run(struct daemon *d, struct daemon_port *p, struct call *c, const char *what)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, call_main, c);
	bool done;

	if (err)
		return -err;
	p->at = what;
	done = daemon_await(d, c->done_fd);
	p->at = NULL;
	if (done) {
		pthread_join(thread, NULL);
		return 0;
	}
	pthread_detach(thread);
	left_behind = c;
	d->hung = c->engine;
	log_warn("port %s (%s): its driver has not come back from %s it: culvert ends without it",
		p->asked.name, p->asked.device, what);
	return -ECANCELED;
}

int driver_open(struct daemon *d, struct daemon_port *p, const struct port_settings *s,
	const struct memory *m, struct reason *r)
{
	struct call *c = call_make(p);
	int err;

	if (!c)
		return reason_set(r, -ENOMEM, NULL, "no memory, or no descriptor, to open it");
	c->memory = m;
	assert(!s->host_addresses); /* they are the caller's, who may go before the thread does */
	c->settings = *s;
	c->settings.name = c->asked.name;
	c->settings.device = c->asked.device;
	reason_set(&p->closed, 0, NULL, "its driver has not come back yet");
	err = run(d, p, c, "opening");
	if (err == -ECANCELED)
		return reason_set(r, err, NULL, "culvert is stopping");
	if (err) {
		reason_set(r, err, "allow culvert more tasks", "no thread to open it: %s",
			strerror(-err));
	} else if (c->err) {
		err = c->err;
		*r = c->reason;
	} else {
		p->port = c->port;
	}
	call_free(c);
	return err;
}

void driver_close(struct daemon *d, struct daemon_port *p)
{
	struct call *c = call_make(p);
	struct port *port = p->port;
	int err;

	p->port = NULL; /* nobody reads its counters meanwhile */
	if (!c) {
		port->engine->close(port);
		return;
	}
	c->port = port;
	reason_set(&p->closed, 0, NULL, "its driver has not come back yet");
	err = run(d, p, c, "closing");
	if (err == -ECANCELED)
		return;
	if (err)
		port->engine->close(port);
	call_free(c);
}
