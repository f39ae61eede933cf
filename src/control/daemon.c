/* The daemon's one loop: signals, links, retries, requests. */
#include "control/daemon.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "control/change.h"
#include "control/requests.h"
#include "control/server.h"
#include "control/start.h"
#include "control/state.h"

/* What an epoll event is about. */
enum source { SOURCE_SIGNAL, SOURCE_LINKS, SOURCE_SOCKET, SOURCE_HTTP, SOURCE_SENT };

/* libmicrohttpd's own time-outs need a look now and then. */
#define SERVERS_MS 1000
/* For a driver to come back once culvert is to end. */
#define HANG_NS (5 * SECOND_NS)

static int watch(struct daemon *d, int fd, enum source source)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u32 = source};

	return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* Before any thread starts: they inherit the mask. */
static int open_signals(struct daemon *d, sigset_t *ret_before)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, ret_before);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->signal_fd < 0 || d->epoll_fd < 0)
		return -errno;
	return watch(d, d->signal_fd, SOURCE_SIGNAL);
}

static void reload(struct daemon *d)
{
	struct reason r = {0};

	d->reload = false;
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
		(unsigned long long)(daemon_now_ns() / 1000));
	if (change_reload(d, &r))
		log_reason(LOG_LEVEL_ERROR, "not reloaded", &r);
	else
		log_info("%s", change_reloaded(d));
	sd_notify(0, "READY=1");
}

static void read_signals(struct daemon *d)
{
	struct signalfd_siginfo info;
	struct sigaction hangup = {.sa_handler = SIG_DFL};

	sigaction(SIGHUP, NULL, &hangup);
	while (read(d->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo != SIGHUP)
			d->stopping = true;
		else if (d->options->config_file)
			d->reload = true;
		else if (hangup.sa_handler != SIG_IGN) /* nohup(1) */
			d->stopping = true; /* nothing to read again: the terminal is gone */
	}
}

/* Carriers may be away for seconds after XDP was attached. */
static bool carriers_missing(const struct daemon *d)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct daemon_port *p = &d->ports[i];

		if (p->used && p->port && p->awaited && p->link == PORT_LINK_DOWN)
			return true;
	}
	return false;
}

static void check_ready(struct daemon *d, uint64_t now_ns)
{
	if (d->ready || (carriers_missing(d) && now_ns < d->ready_by_ns))
		return;
	d->ready = true;
	for (uint32_t i = 0; i < PORTS_MAX; i++) {
		const struct daemon_port *p = &d->ports[i];

		if (p->used && p->port && p->link == PORT_LINK_DOWN)
			log_warn("port %s (%s) has no carrier; is the other end up?", p->asked.name,
				p->asked.device);
	}
	log_info("ready");
	sd_notify(0, "READY=1");
}

static int wait_ms(const struct daemon *d, uint64_t now_ns)
{
	int ms = links_wait_ms(d, now_ns), fast_ms = fast_path_wait_ms(d, now_ns);
	int most = !d->ready						 ? 100
		   : d->unix_server || d->http_server || d->before_trial ? SERVERS_MS
									 : -1;

	if (fast_ms >= 0 && (most < 0 || fast_ms < most))
		most = fast_ms;
	return ms < 0 || (most >= 0 && most < ms) ? most : ms;
}

static void answer(struct daemon *d)
{
	if (d->unix_server)
		server_run(d->unix_server);
	if (d->http_server)
		server_run(d->http_server);
}

bool daemon_await(struct daemon *d, int fd)
{
	struct pollfd fds[] = {
		{.fd = fd, .events = POLLIN},
		{.fd = d->signal_fd, .events = POLLIN},
		{.fd = d->unix_server ? server_fd(d->unix_server) : -1, .events = POLLIN},
		{.fd = d->http_server ? server_fd(d->http_server) : -1, .events = POLLIN},
		{.fd = d->monitor ? host_monitor_fd(d->monitor) : -1, .events = POLLIN},
	};
	uint64_t until_ns = d->stopping ? daemon_now_ns() + HANG_NS : UINT64_MAX;

	while (!fds[0].revents && daemon_now_ns() < until_ns) {
		bool impatient = d->stopping;

		(void)poll(fds, sizeof(fds) / sizeof(fds[0]), SERVERS_MS);
		if (fds[1].revents)
			read_signals(d);
		if (fds[1].revents && impatient)
			break; /* a second one */
		if (d->stopping && !impatient)
			until_ns = daemon_now_ns() + HANG_NS;
		if (fds[4].revents)
			links_read_beside(d);
		answer(d);
	}
	return fds[0].revents;
}

/* What is due by now. */
static void look_after(struct daemon *d, uint64_t now_ns)
{
	links_retry(d, now_ns);
	if (d->stopping)
		return;
	links_poll(d);
	if (!d->ready)
		links_refresh(d);
	change_expire(d, now_ns);
	fast_path_check(d, now_ns);
	check_ready(d, now_ns);
}

static void loop(struct daemon *d)
{
	struct epoll_event events[8];

	while (!d->stopping) {
		int n;

		look_after(d, daemon_now_ns());
		n = epoll_wait(d->epoll_fd, events, 8,
			d->stopping || d->reload ? 0 : wait_ms(d, daemon_now_ns()));
		for (int i = 0; i < n; i++) {
			switch ((enum source)events[i].data.u32) {
			case SOURCE_SIGNAL: read_signals(d); break;
			case SOURCE_LINKS: links_read(d); break;
			case SOURCE_SENT: d->stopping |= relay_over(d->relay); break;
			case SOURCE_SOCKET:
			case SOURCE_HTTP: break; /* below */
			}
		}
		if (d->reload && !d->stopping)
			reload(d);
		answer(d);
		while (!d->stopping && d->unix_server && server_change(d->unix_server))
			answer(d);
	}
}

/* What a driver that hangs may touch, until the process ends. */
static struct daemon *volatile left_behind;

int daemon_run(struct config *c, const struct daemon_options *o, struct reason *r)
{
	struct daemon *d = calloc(1, sizeof(*d));
	sigset_t before;
	int err;

	if (!d) {
		config_free(c);
		return reason_set(r, -ENOMEM, NULL, "out of memory");
	}
	d->options = o;
	d->config = c;
	d->signal_fd = d->epoll_fd = -1;
	err = open_signals(d, &before);
	if (err)
		reason_set(r, err, reason_remedy(err, NULL), "no signal descriptor: %s",
			strerror(-err));
	if (!err)
		err = daemon_start(d, r);
	if (!err && d->monitor)
		err = watch(d, host_monitor_fd(d->monitor), SOURCE_LINKS);
	if (!err && d->unix_server)
		err = watch(d, server_fd(d->unix_server), SOURCE_SOCKET);
	if (!err && d->http_server)
		err = watch(d, server_fd(d->http_server), SOURCE_HTTP);
	if (!err && d->config->once)
		err = watch(d, relay_over_fd(d->relay), SOURCE_SENT);
	if (err && !r->what[0])
		reason_set(r, err, NULL, "no event loop: %s", strerror(-err));
	if (!err)
		loop(d);
	if (err == -ECANCELED && d->stopping)
		err = 0; /* told to while it started */
	if (!err) {
		log_info("stopping");
		sd_notify(0, "STOPPING=1");
	}
	daemon_stop(d);
	if (!err && d->unsent)
		err = -EIO;
	d->stopping = true;
	if (d->signal_fd >= 0) {
		read_signals(d); /* impatient ones would kill us when unblocked */
		close(d->signal_fd);
	}
	if (d->epoll_fd >= 0)
		close(d->epoll_fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	config_free(d->config);
	if (d->hung)
		left_behind = d;
	else
		free(d);
	return err;
}
