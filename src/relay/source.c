/* Opens files that are sources, waits for writers of FIFOs, and starts a flow for each reading. */
#include "relay/source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reason.h"
#include "relay/flow.h"
#include "relay/relay_internal.h"

/* A daemon's file for which no target can be reached is tried again, ever more rarely. */
#define RETRY_NS     2000000000ULL
#define RETRY_MAX_NS 32000000000ULL

struct source {
	struct handle handle; /* of fd, while waiting */
	struct timer timer;   /* the next attempt */
	struct source *next;  /* the loop's list */
	struct loop *loop;
	struct route *route; /* NULL: stopped, only flows are left */
	int fd;		     /* -1: a flow has it, or it is not open */
	bool fifo;	     /* has a name, and so perhaps further writers */
	dev_t dev;	     /* which FIFO it is */
	ino_t ino;
	bool waiting;	   /* fd is watched for its first writer */
	bool reading;	   /* a flow has not come to its end yet */
	bool told;	   /* the log has heard of a target that can't be reached */
	uint32_t n_flows;  /* that will call source_over */
	uint64_t pause_ns; /* before the next attempt */
};

int source_open(const struct route *route, struct reason *reason)
{
	const char *path = route->s.listen.name;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY), err = fd < 0 ? errno : 0;
	struct stat st;

	if (!err && fstat(fd, &st) < 0)
		err = errno;
	if (!err && S_ISDIR(st.st_mode))
		err = EISDIR;
	if (!err)
		return fd;
	if (fd >= 0)
		close(fd);
	return reason_set(reason, -err,
		err == EACCES	? "make it readable for the user that culvert runs as"
		: err == EISDIR ? "name a file in it"
		: err == ENXIO	? "a socket is written unix:/path"
				: reason_remedy(-err, "name a file that exists"),
		"route %s: can't read %.200s: %s", route->s.name, path, strerror(err));
}

/* Who may still come to write: a pipe without a name has its writers already. */
static void look_at(struct source *s)
{
	struct stat st;
	struct statfs fs;

	if (fstat(s->fd, &st) < 0 || fstatfs(s->fd, &fs) < 0)
		return;
	s->fifo = S_ISFIFO(st.st_mode) && fs.f_type != PIPEFS_MAGIC;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
}

/* Tells control that this source has come to its end. */
static void report(struct source *s, bool sent)
{
	struct relay *relay = s->loop->relay;
	uint64_t one = 1;

	if (!relay->once)
		return;
	if (!sent)
		atomic_fetch_add_explicit(&relay->unsent, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&relay->sources, 1, memory_order_release); /* C */
	if (write(relay->over_fd, &one, sizeof(one)) < 0)
		return; /* it never fills */
}

static void unwatch(struct source *s)
{
	if (s->waiting)
		(void)epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->waiting = false;
}

static void send_now(struct source *s)
{
	/* A source has no address: balancing by source takes it for one client. */
	static const struct sockaddr nobody = {.sa_family = AF_UNIX};
	struct loop *loop = s->loop;
	int fd = s->fd;

	unwatch(s);
	s->fd = -1;
	s->reading = true;
	s->n_flows++;
	atomic_fetch_add_explicit(&s->route->active, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&loop->load, 1, memory_order_relaxed);
	counter_add(&s->route->counters[loop->idx].connections, 1);
	flow_start(loop, s->route, fd, &nobody, s);
}

/* The first byte of a writer, or one that came and went. */
static void on_writer(struct loop *loop, struct handle *h, uint32_t events)
{
	struct source *s = (struct source *)(void *)h;

	if (s->waiting)
		send_now(s);
}

static void later(struct source *s)
{
	timer_start(&s->loop->timers, &s->timer, s->loop->now_ns + s->pause_ns);
}

/* Opens it anew. The old descriptor of a FIFO is closed after that: a writer that finds no
 * reader gets SIGPIPE. */
static void reopen(struct source *s)
{
	struct reason why = {0};
	int fd = source_open(s->route, &why);

	if (s->fd >= 0)
		close(s->fd);
	s->fd = fd < 0 ? -1 : fd;
	if (fd < 0) {
		log_reason(LOG_LEVEL_WARN, "", &why);
		later(s);
	}
}

/* Two readers would part a stream: a route that was replaced reads on to the end first. */
static bool read_by_another(const struct source *s)
{
	for (const struct source *o = s->loop->sources; o; o = o->next) {
		if (o != s && o->reading && o->dev == s->dev && o->ino == s->ino)
			return true;
	}
	return false;
}

static void begin(struct source *s)
{
	int r;

	timer_stop(&s->loop->timers, &s->timer);
	if (s->waiting || s->reading)
		return;
	if (s->fd < 0)
		reopen(s);
	if (s->fd < 0)
		return;
	if (!s->fifo) {
		send_now(s);
		return;
	}
	if (read_by_another(s)) /* stopped_reading calls again */
		return;
	r = loop_watch(s->loop, s->fd, &s->handle, EPOLLIN);
	s->waiting = r == 0;
	if (r < 0) {
		loop_exhausted(s->loop, "epoll_ctl", -r);
		later(s);
	}
}

static void stopped_reading(struct source *s)
{
	s->reading = false;
	for (struct source *o = s->loop->sources; o; o = o->next) {
		if (o == s || !o->route || !o->fifo || o->waiting || o->reading || o->fd < 0)
			continue;
		reopen(o); /* one that was open meanwhile takes an end that it saw for its own */
		begin(o);
	}
}

static void on_timer(struct timer *t, void *context)
{
	begin((struct source *)(void *)((char *)t - offsetof(struct source, timer)));
}

int source_start(struct loop *loop, struct route *route)
{
	struct source *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->handle.fn = on_writer;
	s->timer.fn = on_timer;
	s->loop = loop;
	s->route = route;
	s->fd = route->listen_fd;
	route->listen_fd = -1;
	s->pause_ns = RETRY_NS;
	look_at(s);
	/* The one that this replaces gets nothing new; control stops it in a moment. */
	for (struct source *o = loop->sources; o; o = o->next) {
		if (o->route && strcmp(o->route->s.name, route->s.name) == 0)
			unwatch(o);
	}
	s->next = loop->sources;
	loop->sources = s;
	if (loop->relay->once)
		atomic_fetch_add_explicit(&loop->relay->sources, 1, memory_order_relaxed);
	begin(s);
	return 0;
}

static void forget(struct source *s)
{
	struct source **at = &s->loop->sources;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	timer_stop(&s->loop->timers, &s->timer);
	if (s->fd >= 0)
		close(s->fd);
	free(s);
}

void source_stop(struct loop *loop, struct route *route)
{
	struct source *s = loop->sources;

	while (s && s->route != route)
		s = s->next;
	if (!s)
		return;
	unwatch(s);
	if (loop->relay->once && s->fd >= 0) {
		log_error("route %s: %s was not sent: stopped before anybody wrote to it",
			route->s.name, route->s.listen.name);
		report(s, false);
	}
	s->route = NULL;
	if (!s->n_flows) {
		forget(s);
		return;
	}
	timer_stop(&loop->timers, &s->timer);
	if (s->fd >= 0) /* whoever comes to write finds no reader */
		close(s->fd);
	s->fd = -1;
}

/* Why it was not sent, and what helps. */
static void explain(const struct flow *f, unsigned int how, char *text, size_t size)
{
	const char *why = "it was cut at the end of the drain";

	switch ((int)how - FLOW_END_ERROR) {
	case RELAY_ERROR_CONNECT:
		snprintf(text, size,
			"no target could be reached: %s; start it, or correct its address",
			strerrordesc_np(f->last_err ? f->last_err : EHOSTUNREACH));
		return;
	case RELAY_ERROR_CONNECT_TIMEOUT:
		why = "no target answered within connect_timeout; a firewall may drop it";
		break;
	case RELAY_ERROR_RESET_CLIENT: why = "it can't be read to its end"; break;
	case RELAY_ERROR_RESET_TARGET: why = "the target reset the connection"; break;
	case RELAY_ERROR_IDLE: why = "nothing moved for idle_timeout; raise it"; break;
	case RELAY_ERROR_HALF_CLOSE:
		why = "the target did not end the connection within half_close_timeout; raise it";
		break;
	case RELAY_ERROR_SYSTEM:
		why = f->last_err ? strerrordesc_np(f->last_err) : "out of memory";
		break;
	default: break;
	}
	snprintf(text, size, "%s", why);
}

/* No target was reached, so nothing of it is lost: a daemon tries again. */
static bool again(struct source *s, const struct flow *f, const char *why)
{
	if (f->opened || s->loop->relay->once || !s->route)
		return false;
	if (!s->told)
		log_warn("route %s: %s is not sent yet: %s; it is tried again and again",
			s->route->s.name, s->route->s.listen.name, why);
	s->told = true;
	if (s->fifo)
		reopen(s);
	later(s);
	s->pause_ns = s->pause_ns < RETRY_MAX_NS ? 2 * s->pause_ns : RETRY_MAX_NS;
	return true;
}

/* A FIFO may have further writers. */
static void next_writer(struct source *s)
{
	if (!s->route || !s->fifo || s->loop->relay->once)
		return;
	reopen(s);
	if (s->fd >= 0)
		begin(s);
}

void source_read(struct source *s)
{
	stopped_reading(s);
	s->told = false;
	s->pause_ns = RETRY_NS;
	next_writer(s);
}

void source_over(struct source *s, const struct flow *f, unsigned int how)
{
	const struct route_settings *r = &f->route->s;
	bool sent = how == FLOW_END_DONE;
	char why[160], to[ENDPOINT_TEXT_SIZE];

	s->n_flows--;
	if (!f->sent)
		stopped_reading(s);
	if (!sent) {
		explain(f, how, why, sizeof(why));
		if (again(s, f, why))
			return;
		log_error("route %s: %s was not sent, or not all of it (%llu bytes were): %s",
			r->name, r->listen.name, (unsigned long long)f->dir[0].bytes, why);
	} else if (!s->fifo || s->loop->relay->once) {
		endpoint_format(&f->target->settings->endpoint, to, sizeof(to));
		log_info("route %s: %s was sent to %s, %llu bytes", r->name, r->listen.name, to,
			(unsigned long long)f->dir[0].bytes);
	}
	report(s, sent);
	if (!f->sent)
		next_writer(s);
	if (!s->route && !s->n_flows)
		forget(s);
}

void source_refused(struct source *s, int err)
{
	s->n_flows--;
	stopped_reading(s);
	if (!s->loop->relay->once) {
		if (s->fifo)
			reopen(s);
		later(s);
		return;
	}
	log_error("route %s: %s was not sent: %s", s->route->s.name, s->route->s.listen.name,
		strerrordesc_np(err));
	report(s, false);
}
