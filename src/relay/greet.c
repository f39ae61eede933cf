/* The PROXY header at the start of a connection: reads the client's, writes the target's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "relay/flow.h"
#include "relay/proxy.h"

static bool trusted(const struct flow *f)
{
	/* A unix socket's clients were let in by its file's permissions. */
	return f->client.sa.sa_family == AF_UNIX ||
	       route_networks_contain(&f->route->s.proxy_trust, &f->client.sa);
}

/* How much of the header is there: its size, 0: more to come, or -errno. */
static int peek(const struct flow *f, struct proxy_info *ret_info)
{
	uint8_t *bytes = f->loop->buffer;
	ssize_t n;

	do {
		n = recv(f->end[0].fd, bytes, PROXY_SIZE_MAX, MSG_PEEK | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -ENOTCONN;
	return proxy_parse(bytes, (size_t)n, ret_info);
}

void flow_greeted(struct flow *f)
{
	struct proxy_info info = {0};
	int size = peek(f, &info);

	if (size == 0) {
		if (f->end[0].hung_up) /* what is there is all there will ever be */
			size = -ENOTCONN;
		else
			return;
	}
	/* It was all there a moment ago. */
	if (size > 0 && recv(f->end[0].fd, f->loop->buffer, (size_t)size, MSG_DONTWAIT) != size)
		size = -EIO;
	if (size < 0) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_PROXY);
		return;
	}
	if (info.known) {
		memcpy(&f->client, &info.source, sizeof(f->client));
		memcpy(&f->local, &info.destination, sizeof(f->local));
	}
	if (info.known && !route_admits(&f->route->s, &f->client.sa)) {
		flow_finish(f, FLOW_END_REFUSED);
		return;
	}
	f->deadline_ns = 0;
	flow_connect(f);
	flow_arm(f);
}

void flow_greet(struct flow *f)
{
	uint64_t patience = f->route->s.connect_timeout_ns;

	if (!trusted(f)) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_PROXY);
		return;
	}
	f->state = FLOW_PROXY;
	f->deadline_ns = patience ? f->loop->now_ns + patience : 0;
}

int flow_introduce(struct flow *f)
{
	struct direction *d = &f->dir[0];
	struct proxy_info info = {0};
	struct address local = {.size = sizeof(local.un)};
	size_t size;

	if (f->route->s.proxy_send == ROUTE_PROXY_OFF || f->end[1].plain)
		return 0;
	if (f->local.sa.sa_family == AF_UNSPEC && f->end[0].inet &&
		getsockname(f->end[0].fd, &local.sa, &local.size) == 0)
		memcpy(&f->local, &local, sizeof(f->local));
	info.known = f->local.sa.sa_family != AF_UNSPEC;
	memcpy(&info.source, &f->client, sizeof(f->client));
	memcpy(&info.destination, &f->local, sizeof(f->local));
	d->held = malloc(PROXY_BUILD_MAX);
	if (!d->held)
		return -ENOMEM;
	size = proxy_build(f->route->s.proxy_send == ROUTE_PROXY_V1 ? 1 : 2, &info, d->held);
	d->held_size = (uint32_t)size;
	d->held_at = 0;
	f->header_left = (uint32_t)size;
	return 0;
}
