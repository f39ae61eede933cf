/* Parses endpoints and writes them out again. */
#include "relay/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/reason.h"
#include "base/units.h"

static const char *const kinds[] = {
	[ENDPOINT_TCP] = "tcp:",
	[ENDPOINT_UDP] = "udp:",
	[ENDPOINT_UNIX] = "unix:",
	[ENDPOINT_FD] = "fd:",
	[ENDPOINT_FILE] = "file:",
};

/* Fills e->address when e->name is an address; "*" is every address of both families. */
static void take_numeric(struct endpoint *e)
{
	struct address *a = &e->address;

	if (inet_pton(AF_INET, e->name, &a->in.sin_addr) == 1) {
		a->in.sin_family = AF_INET;
		a->in.sin_port = htons(e->port);
		a->size = sizeof(a->in);
		e->numeric = true;
	} else if (strcmp(e->name, "*") == 0 ||
		   inet_pton(AF_INET6, e->name, &a->in6.sin6_addr) == 1) {
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = htons(e->port);
		a->size = sizeof(a->in6);
		e->numeric = true;
	}
}

static int parse_inet(const char *text, struct endpoint *e, struct reason *reason)
{
	const char *colon = strrchr(text, ':'), *host = text;
	size_t size = colon ? (size_t)(colon - text) : 0;
	bool bracketed = false;
	struct in6_addr v6;
	uint64_t port;

	if (!colon)
		return reason_set(reason, -EINVAL, "write HOST:PORT", "\"%s\" has no port", text);
	if (units_number(colon + 1, 0, 65535, &port) < 0)
		return reason_set(reason, -EINVAL, "write a port from 0 to 65535",
			"\"%s\" is no port", colon + 1);
	if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
		host++;
		size -= 2;
		bracketed = true;
	} else if (memchr(host, ':', size)) {
		return reason_set(reason, -EINVAL, "write IPv6 addresses as [ADDRESS]:PORT",
			"\"%s\" has too many colons", text);
	}
	if (size == 0 || size > 253)
		return reason_set(reason, -EINVAL, "write HOST:PORT; * is every address",
			"\"%s\" has %s", text, size ? "a host name over 253 bytes" : "no host");
	memcpy(e->name, host, size);
	e->name[size] = 0;
	e->port = (uint16_t)port;
	if (bracketed ? inet_pton(AF_INET6, e->name, &v6) != 1 : strpbrk(e->name, "[] ") != NULL)
		return reason_set(reason, -EINVAL, "write HOST:PORT or [IPv6 ADDRESS]:PORT",
			"\"%s\" is neither a name nor an address", e->name);
	take_numeric(e);
	return 0;
}

static int parse_unix(const char *text, struct endpoint *e, struct reason *reason)
{
	struct sockaddr_un *un = &e->address.un;
	size_t size = strlen(text);

	if (text[0] != '/' && text[0] != '@')
		return reason_set(reason, -EINVAL, "write unix:/path or unix:@name",
			"\"%s\" is neither a path nor an abstract name", text);
	/* unix(7): a path needs its terminating zero, an abstract name has a leading one. */
	if (size >= sizeof(un->sun_path) || size < 2)
		return reason_set(reason, -EINVAL, "use a name of 2 to 107 bytes",
			"a unix socket's name can't be %zu bytes", size);
	memcpy(e->name, text, size + 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, text, size);
	e->address.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
	if (text[0] == '@') {
		un->sun_path[0] = 0;
		e->address.size--;
	}
	return 0;
}

static int parse_file(const char *text, struct endpoint *e, struct reason *reason)
{
	const char *option = strrchr(text, '?');
	size_t size = strlen(text);

	if (option && strcmp(option, "?append") == 0) {
		e->append = true;
		size = (size_t)(option - text);
	}
	if (text[0] != '/' || size >= sizeof(e->name))
		return reason_set(reason, -EINVAL, "write file:/path or file:/path?append",
			"\"%s\" is no absolute path of less than %zu bytes", text, sizeof(e->name));
	memcpy(e->name, text, size);
	e->name[size] = 0;
	return 0;
}

int endpoint_parse(const char *text, struct endpoint *ret_endpoint, struct reason *reason)
{
	struct endpoint e = {0};
	int r = -EINVAL;

	for (int kind = 0; kind <= ENDPOINT_FILE; kind++) {
		size_t size = strlen(kinds[kind]);

		if (strncmp(text, kinds[kind], size) != 0)
			continue;
		e.kind = (enum endpoint_kind)kind;
		text += size;
		if (kind == ENDPOINT_TCP || kind == ENDPOINT_UDP) {
			r = parse_inet(text, &e, reason);
		} else if (kind == ENDPOINT_UNIX) {
			r = parse_unix(text, &e, reason);
		} else if (kind == ENDPOINT_FILE) {
			r = parse_file(text, &e, reason);
		} else if (*text && strlen(text) < 256) {
			memcpy(e.name, text, strlen(text) + 1);
			r = 0;
		} else {
			r = reason_set(reason, -EINVAL, "write fd:3 or fd:NAME",
				"fd: needs a number or a name");
		}
		if (r == 0)
			*ret_endpoint = e;
		return r;
	}
	return reason_set(reason, -EINVAL,
		"write tcp:HOST:PORT, udp:HOST:PORT, unix:/path, unix:@name, fd:NAME or file:/path",
		"\"%.200s\" is no endpoint", text);
}

bool endpoint_same(const struct endpoint *a, const struct endpoint *b)
{
	return a->kind == b->kind && a->port == b->port && a->append == b->append &&
	       strcmp(a->name, b->name) == 0;
}

void endpoint_format(const struct endpoint *e, char *text, size_t size)
{
	bool v6 = strchr(e->name, ':') != NULL;

	if (e->kind == ENDPOINT_TCP || e->kind == ENDPOINT_UDP)
		snprintf(text, size, "%s%s%s%s:%u", kinds[e->kind], v6 ? "[" : "", e->name,
			v6 ? "]" : "", e->port);
	else
		snprintf(text, size, "%s%s%s", kinds[e->kind], e->name, e->append ? "?append" : "");
}

void address_format(const struct sockaddr *address, char *text, size_t size)
{
	const struct sockaddr_in *in = (const void *)address;
	const struct sockaddr_in6 *in6 = (const void *)address;
	const struct sockaddr_un *un = (const void *)address;
	char host[INET6_ADDRSTRLEN];

	if (address->sa_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(in6->sin6_port));
	} else if (address->sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else if (address->sa_family == AF_UNIX && un->sun_path[0]) {
		snprintf(text, size, "unix:%.107s", un->sun_path);
	} else {
		snprintf(text, size, "unix");
	}
}
