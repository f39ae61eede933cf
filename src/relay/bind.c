/* Opens the socket on which a route listens, or takes it over from who started us. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/reason.h"
#include "base/units.h"
#include "relay/holder.h"
#include "relay/listener.h"
#include "relay/live.h"
#include "relay/sockopt.h"
#include "relay/source.h"

/* sd_listen_fds(3): inherited descriptors begin here. */
#define FIRST_FD 3

static int find_named(const char *name, uint64_t n)
{
	const char *names = getenv("LISTEN_FDNAMES");
	size_t size = strlen(name);

	for (uint64_t i = 0; names && i < n; i++) {
		const char *colon = strchr(names, ':');
		size_t length = colon ? (size_t)(colon - names) : strlen(names);

		if (length == size && memcmp(names, name, size) == 0)
			return (int)(FIRST_FD + i);
		names = colon ? colon + 1 : NULL;
	}
	return -1;
}

/* fd:N is the descriptor N, fd:NAME one of systemd's. */
static int inherited(struct route *route, struct reason *reason)
{
	const char *name = route->s.listen.name, *count = getenv("LISTEN_FDS"),
		   *pid = getenv("LISTEN_PID");
	uint64_t n = 0, number, owner;
	int fd = -1, listening = 0, copy, r;
	socklen_t size = sizeof(listening);
	struct address a = {.size = sizeof(a.un)};

	if (count && pid && units_number(pid, 1, INT32_MAX, &owner) == 0 &&
		owner == (uint64_t)getpid() && units_number(count, 1, 1024, &n) < 0)
		n = 0;
	if (units_number(name, 0, INT32_MAX, &number) == 0)
		fd = (int)number;
	else
		fd = find_named(name, n);
	if (fd < 0)
		return reason_set(reason, -EBADF, "check FileDescriptorName= of the .socket unit",
			"listen fd:%s: no descriptor of that name was handed over", name);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || !listening)
		return reason_set(reason, -EBADF, "use ListenStream= in the .socket unit",
			"listen fd:%s: descriptor %d is no listening stream socket", name, fd);
	/* A copy: the route closes what it listens on, the next one may inherit it again. */
	copy = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FD);
	r = copy < 0 || fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK) < 0 ? -errno : 0;
	if (r == 0 && getsockname(copy, &a.sa, &a.size) < 0)
		r = -errno;
	if (r < 0)
		reason_set(
			reason, r, reason_remedy(r, NULL), "listen fd:%s: %s", name, strerror(-r));
	/* Who opened it knows nothing of the route's options. */
	if (r == 0)
		r = sockopt_listener(copy, &route->s, a.sa.sa_family, reason);
	if (r == 0)
		return copy;
	if (copy >= 0)
		close(copy);
	return r;
}

static int resolve_listen(
	const struct endpoint *e, struct address *ret_address, struct reason *reason)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
	char port[8];
	int err;

	if (e->kind == ENDPOINT_UNIX || e->numeric) {
		*ret_address = e->address;
		return 0;
	}
	snprintf(port, sizeof(port), "%u", e->port);
	err = getaddrinfo(e->name, port, &hints, &list);
	if (err)
		return reason_set(reason, -ENOENT, "write an address of this machine, or *",
			"listen: %s: %s", e->name, gai_strerror(err));
	memcpy(&ret_address->sa, list->ai_addr, list->ai_addrlen);
	ret_address->size = list->ai_addrlen;
	freeaddrinfo(list);
	return 0;
}

/* A socket file that nobody listens on any more is in the way: takes it away. */
static void remove_stale(const struct address *a)
{
	struct stat st;
	int fd;

	if (a->sa.sa_family != AF_UNIX || !a->un.sun_path[0] || lstat(a->un.sun_path, &st) < 0 ||
		!S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &a->sa, a->size) < 0 && errno == ECONNREFUSED)
		unlink(a->un.sun_path);
	close(fd);
}

static int bind_failed(
	const struct route *route, const struct address *a, int err, struct reason *reason)
{
	char text[ENDPOINT_TEXT_SIZE], holder[64], remedy[128] = "";
	const struct endpoint *e = &route->s.listen;
	bool udp = e->kind == ENDPOINT_UDP;

	endpoint_format(e, text, sizeof(text));
	if (err == EADDRINUSE && holder_find(a, udp, holder, sizeof(holder)))
		return reason_set(reason, -err, "stop it, or listen elsewhere",
			"route %s: can't listen on %.128s: in use by %s", route->s.name, text,
			holder);
	if (err == EADDRINUSE && e->kind == ENDPOINT_UNIX)
		snprintf(remedy, sizeof(remedy), "`ss -lxp` says who holds it");
	else if (err == EADDRINUSE)
		snprintf(remedy, sizeof(remedy),
			"`ss -ln%cp sport = :%u` as root says who holds it", udp ? 'u' : 't',
			e->port);
	else if (err == EACCES && e->kind != ENDPOINT_UNIX)
		snprintf(remedy, sizeof(remedy),
			"give CAP_NET_BIND_SERVICE, or lower net.ipv4.ip_unprivileged_port_start");
	else if (err == EADDRNOTAVAIL)
		snprintf(remedy, sizeof(remedy), "`ip address` lists this machine's addresses");
	return reason_set(reason, -err, remedy, "route %s: can't listen on %.128s: %s",
		route->s.name, text, strerror(err));
}

static int open_type(const struct route *route, int family)
{
	if (route->s.listen.kind != ENDPOINT_UDP)
		return sockopt_socket(&route->s, family);
	return sockopt_datagram_socket(family);
}

static int open_socket(struct route *route, struct reason *reason)
{
	struct address a = {0};
	int r = resolve_listen(&route->s.listen, &a, reason), fd, one = 1, zero = 0;
	bool udp = route->s.listen.kind == ENDPOINT_UDP;

	if (r < 0)
		return r;
	fd = open_type(route, a.sa.sa_family);
	if (fd == -EAFNOSUPPORT && strcmp(route->s.listen.name, "*") == 0) {
		memset(&a, 0, sizeof(a));
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons(route->s.listen.port);
		a.size = sizeof(a.in);
		fd = open_type(route, AF_INET);
	}
	if (fd < 0)
		return bind_failed(route, &a, -fd, reason);
	r = udp ? 0 : sockopt_listener(fd, &route->s, a.sa.sa_family, reason);
	if (r < 0)
		goto fail;
	if (a.sa.sa_family != AF_UNIX && !udp)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (strcmp(route->s.listen.name, "*") == 0)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	remove_stale(&a);
	if (bind(fd, &a.sa, a.size) < 0 || (!udp && listen(fd, (int)route->s.backlog) < 0)) {
		r = bind_failed(route, &a, errno, reason);
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return r;
}

int listener_bind(struct route *route, struct reason *reason)
{
	struct address a = {.size = sizeof(a.un)};
	char text[ENDPOINT_TEXT_SIZE - 8];
	int fd;

	if (route->s.listen.kind == ENDPOINT_FD)
		fd = inherited(route, reason);
	else if (route->s.listen.kind == ENDPOINT_FILE)
		fd = source_open(route, reason);
	else
		fd = open_socket(route, reason);
	if (fd < 0)
		return fd;
	route->listen_fd = fd;
	endpoint_format(&route->s.listen, route->listen_text, sizeof(route->listen_text));
	if (route->s.listen.kind != ENDPOINT_UNIX && route->s.listen.kind != ENDPOINT_FILE &&
		getsockname(fd, &a.sa, &a.size) == 0 && a.sa.sa_family != AF_UNIX) {
		address_format(&a.sa, text, sizeof(text));
		snprintf(route->listen_text, sizeof(route->listen_text), "%s:%s",
			route->s.listen.kind == ENDPOINT_UDP ? "udp" : "tcp", text);
	}
	return 0;
}

int listener_share(struct route *route, const struct route *old, struct reason *reason)
{
	struct address a = {.size = sizeof(a.un)};
	int fd = fcntl(old->listen_fd, F_DUPFD_CLOEXEC, FIRST_FD), r = 0;

	if (fd < 0 || getsockname(fd, &a.sa, &a.size) < 0)
		r = reason_set(
			reason, -errno, NULL, "route %s: %s", route->s.name, strerror(errno));
	else if (route->s.listen.kind == ENDPOINT_TCP && route->s.mptcp != old->s.mptcp)
		r = reason_set(reason, -EINVAL, "restart culvert",
			"route %s: mptcp: changes only at a restart", route->s.name);
	else if (route->s.listen.kind != ENDPOINT_UDP)
		r = sockopt_listener(fd, &route->s, a.sa.sa_family, reason);
	if (r == 0 && route->s.listen.kind != ENDPOINT_UDP)
		sockopt_listener_forget(fd, &old->s, &route->s, a.sa.sa_family);
	if (r == 0 && route->s.listen.kind != ENDPOINT_UDP)
		(void)listen(fd, (int)route->s.backlog);
	if (r < 0 && fd >= 0)
		close(fd);
	if (r < 0)
		return r;
	route->listen_fd = fd;
	memcpy(route->listen_text, old->listen_text, sizeof(route->listen_text));
	return 0;
}
