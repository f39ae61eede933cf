/*
 * Where a route listens and where it sends to, as written:
 * tcp:HOST:PORT, udp:HOST:PORT, unix:/path, unix:@name, fd:N, fd:NAME, file:/path,
 * file:/path?append. Parsing is pure; nothing is resolved or opened here.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct reason;

enum endpoint_kind { ENDPOINT_TCP, ENDPOINT_UDP, ENDPOINT_UNIX, ENDPOINT_FD, ENDPOINT_FILE };

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	};
	socklen_t size;
};

struct endpoint {
	enum endpoint_kind kind;
	char name[1024]; /* host, path, abstract name with its @, or descriptor */
	uint16_t port;	 /* tcp and udp */
	bool numeric;	 /* tcp and udp: `address` holds it and there is no name to resolve */
	bool append;	 /* file */
	struct address address; /* tcp and udp when numeric, unix always */
};

/* The longest text that endpoint_format and address_format write, with its end. */
#define ENDPOINT_TEXT_SIZE 1040

/* 0, or -EINVAL with the reason. */
int endpoint_parse(const char *text, struct endpoint *ret_endpoint, struct reason *reason);
bool endpoint_same(const struct endpoint *a, const struct endpoint *b);
void endpoint_format(const struct endpoint *e, char *text, size_t size);
/* "192.0.2.1:80", "[2001:db8::1]:80", "unix:/path", "unix" for a peer without a name. */
void address_format(const struct sockaddr *address, char *text, size_t size);
