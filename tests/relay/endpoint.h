/*
 * Endpoints as the test programs write them: tcp:HOST:PORT (numeric, IPv6 in brackets),
 * unix:/path, unix:@abstract. What fails ends the program: these are tests.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct endpoint {
	struct sockaddr_storage addr;
	socklen_t addr_size;
};

static inline void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline bool endpoint_parse_tcp(const char *text, struct endpoint *e)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&e->addr;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&e->addr;
	char host[64];
	const char *colon = strrchr(text, ':');
	bool bracket = text[0] == '[';
	size_t size;

	if (!colon || colon == text)
		return false;
	size = (size_t)(colon - text) - (bracket ? 2 : 0);
	if (size >= sizeof(host))
		return false;
	memcpy(host, text + bracket, size);
	host[size] = 0;
	if (bracket) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)atoi(colon + 1));
		e->addr_size = sizeof(*v6);
		return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
	}
	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)atoi(colon + 1));
	e->addr_size = sizeof(*v4);
	return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

static inline struct endpoint endpoint_parse(const char *text)
{
	struct endpoint e = {0};
	struct sockaddr_un *un = (struct sockaddr_un *)&e.addr;
	size_t size;

	if (!strncmp(text, "tcp:", 4) && endpoint_parse_tcp(text + 4, &e))
		return e;
	if (strncmp(text, "unix:", 5)) {
		fprintf(stderr, "%s: not an endpoint\n", text);
		exit(2);
	}
	text += 5;
	size = strlen(text);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, text, size < sizeof(un->sun_path) ? size : sizeof(un->sun_path) - 1);
	e.addr_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
	if (text[0] == '@')
		un->sun_path[0] = 0;
	else
		e.addr_size++;
	return e;
}

/* Writes what the socket is bound to in the form endpoint_parse reads. */
static inline void endpoint_print(int fd, FILE *to)
{
	struct sockaddr_storage a = {0};
	socklen_t size = sizeof(a);
	char host[INET6_ADDRSTRLEN];

	if (getsockname(fd, (struct sockaddr *)&a, &size))
		die("getsockname");
	if (a.ss_family == AF_INET) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)&a;

		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		fprintf(to, "listening tcp:%s:%u\n", host, ntohs(v4->sin_port));
	} else if (a.ss_family == AF_INET6) {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a;

		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		fprintf(to, "listening tcp:[%s]:%u\n", host, ntohs(v6->sin6_port));
	} else {
		fprintf(to, "listening unix\n");
	}
	fflush(to);
}

/* sndbuf and rcvbuf in bytes; 0 leaves the kernel's own. */
static inline int endpoint_socket(const struct endpoint *e, int sndbuf, int rcvbuf)
{
	int one = 1;
	int fd = socket(e->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (e->addr.ss_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	}
	if (sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
	if (rcvbuf)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	return fd;
}

static inline int endpoint_listen(const char *text, int sndbuf, int rcvbuf)
{
	struct endpoint e = endpoint_parse(text);
	int fd = endpoint_socket(&e, sndbuf, rcvbuf);

	if (bind(fd, (struct sockaddr *)&e.addr, e.addr_size))
		die(text);
	if (listen(fd, 4096))
		die("listen");
	endpoint_print(fd, stdout);
	return fd;
}
