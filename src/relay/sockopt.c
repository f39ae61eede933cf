/* Sets socket options and says which one was refused. */
#include "relay/sockopt.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/reason.h"
#include "relay/flow.h"
#include "relay/route.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

/* One connection asks for this many ports of a range before it gives up. */
#define PORT_TRIES 64

int sockopt_socket(const struct route_settings *s, int family)
{
	int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, fd;

	if (s->mptcp && family != AF_UNIX) {
		fd = socket(family, type, IPPROTO_MPTCP);
		if (fd >= 0)
			return fd;
	}
	fd = socket(family, type, 0);
	return fd < 0 ? -errno : fd;
}

static int set_int(int fd, int level, int option, int value, const char *key, struct reason *reason)
{
	const char *remedy = NULL;

	if (setsockopt(fd, level, option, &value, sizeof(value)) == 0)
		return 0;
	if (errno == EPERM)
		remedy = "run with CAP_NET_ADMIN, or remove the key";
	else if (errno == ENOPROTOOPT || errno == EOPNOTSUPP)
		remedy = "this kernel has it not, or not together with mptcp: remove one of them";
	return reason_set(reason, -errno, remedy, "%s: %s", key, strerror(errno));
}

static int set_text(int fd, int level, int option, const char *value, const char *key,
	const char *remedy, struct reason *reason)
{
	if (setsockopt(fd, level, option, value, (socklen_t)strlen(value)) == 0)
		return 0;
	return reason_set(reason, -errno, remedy, "%s: %s: %s", key, value, strerror(errno));
}

static int set_tcp(int fd, const struct route_settings *s, struct reason *reason)
{
	uint64_t ms = s->user_timeout_ns / 1000000;
	int r = 0;

	if (s->nodelay)
		r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1, "nodelay", reason);
	/* RFC 6093: urgent data is part of the stream and must not fall out of it. */
	if (r == 0) {
		r = set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1, "urgent data", reason);
		if (r == -EOPNOTSUPP) /* MPTCP has none */
			r = 0;
	}
	if (r == 0 && s->keepalive)
		r = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "keepalive", reason);
	if (r == 0 && s->keepalive_idle_s)
		r = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)s->keepalive_idle_s, "keepalive",
			reason);
	if (r == 0 && s->user_timeout_ns)
		r = set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms < INT32_MAX ? (int)ms : INT32_MAX,
			"user_timeout", reason);
	if (r == 0 && s->congestion[0])
		r = set_text(fd, IPPROTO_TCP, TCP_CONGESTION, s->congestion, "congestion",
			"sysctl net.ipv4.tcp_allowed_congestion_control lists what may be used",
			reason);
	if (r == 0 && s->mark)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)s->mark, "mark", reason);
	return r;
}

static int set_transparent(int fd, int family, struct reason *reason)
{
	if (family == AF_INET6)
		return set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1, "transparent", reason);
	return set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1, "transparent", reason);
}

/* The reason begins with whose options they are. */
static int told(int r, const struct route_settings *s, struct reason *reason)
{
	struct reason of_key;

	if (r == 0 || !reason)
		return r;
	of_key = *reason;
	return reason_set(reason, r, of_key.remedy, "route %s: %.220s", s->name, of_key.what);
}

int sockopt_listener(int fd, const struct route_settings *s, int family, struct reason *reason)
{
	int r;

	if (family == AF_UNIX)
		return 0;
	r = set_tcp(fd, s, reason);
	/* The queue of connections whose data came with the SYN; like the backlog of others. */
	if (r == 0 && s->fast_open)
		r = set_int(fd, IPPROTO_TCP, TCP_FASTOPEN, 256, "fast_open", reason);
	if (r == 0 && s->transparent)
		r = set_transparent(fd, family, reason);
	return told(r, s, reason);
}

void sockopt_listener_forget(
	int fd, const struct route_settings *before, const struct route_settings *s, int family)
{
	const struct {
		bool forget;
		int level, option;
	} options[] = {
		{before->nodelay && !s->nodelay, IPPROTO_TCP, TCP_NODELAY},
		{before->keepalive && !s->keepalive, SOL_SOCKET, SO_KEEPALIVE},
		{before->keepalive_idle_s && !s->keepalive_idle_s, IPPROTO_TCP, TCP_KEEPIDLE},
		{before->user_timeout_ns && !s->user_timeout_ns, IPPROTO_TCP, TCP_USER_TIMEOUT},
		{before->congestion[0] && !s->congestion[0], IPPROTO_TCP, TCP_CONGESTION},
		{before->mark && !s->mark, SOL_SOCKET, SO_MARK},
		{before->fast_open && !s->fast_open, IPPROTO_TCP, TCP_FASTOPEN},
		{before->transparent && !s->transparent,
			family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP,
			family == AF_INET6 ? IPV6_TRANSPARENT : IP_TRANSPARENT},
	};
	/* What the system gives a socket of which nobody asked anything. */
	int fresh = family == AF_UNIX ? -1 : socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char value[16]; /* a number, or an algorithm's name */

	if (fresh < 0)
		return;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		int level = options[i].level, option = options[i].option;
		socklen_t size = sizeof(value);

		if (options[i].forget && getsockopt(fresh, level, option, value, &size) == 0)
			(void)setsockopt(fd, level, option, value, size);
	}
	close(fresh);
}

/* IPv4 in IPv6's clothes is undressed when the target is IPv4. False: of no use there. */
static bool client_source(const struct client *client, int family, struct address *ret_source)
{
	memset(ret_source, 0, sizeof(*ret_source));
	ret_source->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET && client->sa.sa_family == AF_INET) {
		ret_source->in.sin_addr = client->in.sin_addr;
	} else if (family == AF_INET && client->sa.sa_family == AF_INET6 &&
		   IN6_IS_ADDR_V4MAPPED(&client->in6.sin6_addr)) {
		memcpy(&ret_source->in.sin_addr, &client->in6.sin6_addr.s6_addr[12], 4);
	} else if (family == AF_INET6 && client->sa.sa_family == AF_INET6 &&
		   !IN6_IS_ADDR_V4MAPPED(&client->in6.sin6_addr)) {
		ret_source->in6.sin6_addr = client->in6.sin6_addr;
	} else {
		return false;
	}
	ret_source->size = family == AF_INET ? sizeof(ret_source->in) : sizeof(ret_source->in6);
	return true;
}

/* Ports of a range are taken in turn by all loops. Who asks for one says with SO_REUSEADDR that
 * only the whole four-tuple must be free. */
static int bind_port(
	int fd, const struct route_settings *s, const struct address *source, struct reason *reason)
{
	static _Atomic uint32_t turn;
	uint32_t n = s->source_port_max - s->source_port_min + 1U;
	struct address a = *source;
	int r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1, "source", reason);

	for (uint32_t i = 0; r == 0 && i < n && i < PORT_TRIES; i++) {
		uint32_t at = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % n;

		a.in.sin_port = htons((uint16_t)(s->source_port_min + at));
		if (bind(fd, &a.sa, a.size) == 0)
			return 0;
		if (errno != EADDRINUSE)
			break;
	}
	return r < 0 ? r
		     : reason_set(reason, -errno, "use an address of this machine, and free ports",
			       "source: %s", strerror(errno));
}

static int bind_source(
	int fd, const struct route_settings *s, const struct address *source, struct reason *reason)
{
	int r;

	if (s->source_port_min)
		return bind_port(fd, s, source, reason);
	/* ip(7): the port is chosen at connect, when the whole four-tuple is known. */
	r = set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, "source", reason);
	if (r < 0)
		return r;
	if (bind(fd, &source->sa, source->size) < 0)
		return reason_set(reason, -errno, "use an address of this machine", "source: %s",
			strerror(errno));
	return 0;
}

/* Which interface and address a socket sends from. */
static int set_origin(int fd, const struct route_settings *s, int family,
	const struct client *client, struct reason *reason)
{
	struct address source;
	int r = 0;

	if (s->interface[0])
		r = set_text(fd, SOL_SOCKET, SO_BINDTODEVICE, s->interface, "interface",
			"`ip link` lists the interfaces; CAP_NET_RAW may be needed", reason);
	if (r == 0 && s->transparent)
		r = set_transparent(fd, family, reason);
	if (r < 0)
		return r;
	if (s->transparent && client && client_source(client, family, &source))
		return bind_source(fd, s, &source, reason);
	if (s->source_set && s->source.sa.sa_family == family)
		return bind_source(fd, s, &s->source, reason);
	return 0;
}

bool sockopt_holds_ack(const struct route_settings *s)
{
	/* With fast open there is none to hold; MPTCP has something to say in that segment. */
	return !s->fast_open && !s->mptcp;
}

/* On a socket that connects, the kernel takes this as a promise of bytes (tcp_input.c,
 * tcp_rcv_synsent_state_process): it keeps the acknowledgement that ends the handshake, for 200 ms
 * at most, so that it goes with them. */
static void hold_ack(int fd)
{
	int seconds = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

void sockopt_send_ack(int fd)
{
	int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

int sockopt_target(int fd, const struct route_settings *s, int family, const struct client *client,
	struct reason *reason)
{
	int r;

	if (family == AF_UNIX)
		return 0;
	r = set_tcp(fd, s, reason);
	if (r == 0 && s->fast_open && client) /* a probe wants the answer */
		r = set_int(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1, "fast_open", reason);
	if (r == 0 && client && sockopt_holds_ack(s))
		hold_ack(fd);
	return told(r < 0 ? r : set_origin(fd, s, family, client, reason), s, reason);
}

int sockopt_datagram_socket(int family)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

int sockopt_datagram(int fd, const struct route_settings *s, int family,
	const struct client *client, struct reason *reason)
{
	int r = 0;

	if (s->mark)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)s->mark, "mark", reason);
	return told(r < 0 ? r : set_origin(fd, s, family, client, reason), s, reason);
}
