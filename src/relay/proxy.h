/*
 * The PROXY protocol, versions 1 and 2, as www.haproxy.org/download/2.6/doc/proxy-protocol.txt
 * has it: read from bytes and written into bytes, nothing else.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address of either family; AF_UNSPEC when not known. */
union proxy_address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct proxy_info {
	bool known; /* false: LOCAL, UNKNOWN, or a family without ports */
	union proxy_address source, destination;
};

/* The longest header that is accepted, with its extensions. */
#define PROXY_SIZE_MAX 4096
/* The longest that proxy_build writes: version 1 for IPv6. */
#define PROXY_BUILD_MAX 108

/* The size of the header at the start of bytes, 0 when there is more to come, or -EINVAL. */
int proxy_parse(const uint8_t *bytes, size_t size, struct proxy_info *ret_info);
/* Writes a header of version 1 or 2 and returns its size. Addresses of different families, or
 * none, are told as UNKNOWN or LOCAL. */
size_t proxy_build(
	unsigned int version, const struct proxy_info *info, uint8_t bytes[PROXY_BUILD_MAX]);
