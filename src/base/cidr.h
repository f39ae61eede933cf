/* A network written as ADDRESS or ADDRESS/LENGTH, of either family. Pure. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct cidr {
	/* IPv4 is kept as ::ffff:a.b.c.d, so that one comparison serves both families. */
	struct in6_addr network;
	uint8_t length; /* 0 to 128 */
};

/* 0, or -EINVAL (not an address, a length too long, or bits set behind the length). */
int cidr_parse(const char *text, struct cidr *ret_cidr);
bool cidr_contains(const struct cidr *c, const struct sockaddr *address);
