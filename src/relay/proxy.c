/* Reads and writes PROXY protocol headers. */
#include "relay/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

/* The numbers below are those of the protocol's text, sections 2.1 and 2.2. */
#define V1_SIZE_MAX   107
#define V2_HEAD_SIZE  16
#define V2_LOCAL      0x20
#define V2_PROXY      0x21
#define V2_TCP4	      0x11
#define V2_TCP6	      0x21
#define V2_TCP4_BYTES 12
#define V2_TCP6_BYTES 36

static const uint8_t v2_signature[12] = {
	0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static int take_address(const char *text, int family, union proxy_address *ret_address)
{
	memset(ret_address, 0, sizeof(*ret_address));
	ret_address->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET)
		return inet_pton(AF_INET, text, &ret_address->in.sin_addr) == 1 ? 0 : -EINVAL;
	return inet_pton(AF_INET6, text, &ret_address->in6.sin6_addr) == 1 ? 0 : -EINVAL;
}

static int take_port(const char *text, union proxy_address *address)
{
	uint64_t port;

	if (units_number(text, 0, 65535, &port) < 0)
		return -EINVAL;
	/* Both families have the port at the same place. */
	address->in.sin_port = htons((uint16_t)port);
	return 0;
}

/* line is a header of version 1 without its CR LF. */
static int parse_v1(char *line, struct proxy_info *info)
{
	char *words[6], *rest = line;
	int n = 0, family;

	for (char *word; n < 6 && (word = strsep(&rest, " "));)
		words[n++] = word;
	if (n >= 2 && strcmp(words[1], "UNKNOWN") == 0)
		return 0; /* whatever follows it is to be ignored */
	if (n != 6 || rest)
		return -EINVAL;
	if (strcmp(words[1], "TCP4") == 0)
		family = AF_INET;
	else if (strcmp(words[1], "TCP6") == 0)
		family = AF_INET6;
	else
		return -EINVAL;
	if (take_address(words[2], family, &info->source) < 0 ||
		take_address(words[3], family, &info->destination) < 0 ||
		take_port(words[4], &info->source) < 0 ||
		take_port(words[5], &info->destination) < 0)
		return -EINVAL;
	info->known = true;
	return 0;
}

static int read_v1(const uint8_t *bytes, size_t size, struct proxy_info *info)
{
	char line[V1_SIZE_MAX + 1];
	size_t most = size < V1_SIZE_MAX ? size : V1_SIZE_MAX, end;
	const uint8_t *lf = memchr(bytes, '\n', most);

	if (!lf)
		return size < V1_SIZE_MAX ? 0 : -EINVAL;
	end = (size_t)(lf - bytes);
	if (end == 0 || bytes[end - 1] != '\r' || memchr(bytes, 0, end))
		return -EINVAL;
	memcpy(line, bytes, end - 1);
	line[end - 1] = 0;
	if (parse_v1(line, info) < 0)
		return -EINVAL;
	return (int)end + 1;
}

static void read_v2_tcp4(const uint8_t *b, struct proxy_info *info)
{
	info->source.in.sin_family = info->destination.in.sin_family = AF_INET;
	memcpy(&info->source.in.sin_addr, b, 4);
	memcpy(&info->destination.in.sin_addr, b + 4, 4);
	memcpy(&info->source.in.sin_port, b + 8, 2);
	memcpy(&info->destination.in.sin_port, b + 10, 2);
	info->known = true;
}

static void read_v2_tcp6(const uint8_t *b, struct proxy_info *info)
{
	info->source.in6.sin6_family = info->destination.in6.sin6_family = AF_INET6;
	memcpy(&info->source.in6.sin6_addr, b, 16);
	memcpy(&info->destination.in6.sin6_addr, b + 16, 16);
	memcpy(&info->source.in6.sin6_port, b + 32, 2);
	memcpy(&info->destination.in6.sin6_port, b + 34, 2);
	info->known = true;
}

static int read_v2(const uint8_t *bytes, size_t size, struct proxy_info *info)
{
	size_t payload;

	if (size < V2_HEAD_SIZE)
		return 0;
	payload = (size_t)bytes[14] << 8 | bytes[15];
	if ((bytes[12] != V2_LOCAL && bytes[12] != V2_PROXY) ||
		payload > PROXY_SIZE_MAX - V2_HEAD_SIZE)
		return -EINVAL;
	if (size - V2_HEAD_SIZE < payload)
		return 0;
	if (bytes[12] == V2_PROXY && bytes[13] == V2_TCP4) {
		if (payload < V2_TCP4_BYTES)
			return -EINVAL;
		read_v2_tcp4(bytes + V2_HEAD_SIZE, info);
	} else if (bytes[12] == V2_PROXY && bytes[13] == V2_TCP6) {
		if (payload < V2_TCP6_BYTES)
			return -EINVAL;
		read_v2_tcp6(bytes + V2_HEAD_SIZE, info);
	}
	return (int)(V2_HEAD_SIZE + payload);
}

int proxy_parse(const uint8_t *bytes, size_t size, struct proxy_info *ret_info)
{
	static const char v1[] = "PROXY ";
	struct proxy_info info = {0};
	size_t n1 = size < 6 ? size : 6, n2 = size < 12 ? size : 12;
	int r;

	if (memcmp(bytes, v1, n1) == 0)
		r = size < 6 ? 0 : read_v1(bytes, size, &info);
	else if (memcmp(bytes, v2_signature, n2) == 0)
		r = read_v2(bytes, size, &info);
	else
		r = -EINVAL;
	if (r > 0)
		*ret_info = info;
	return r;
}

static size_t build_v1(const struct proxy_info *info, int family, uint8_t *bytes)
{
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
	const void *from = &info->source.in.sin_addr, *to = &info->destination.in.sin_addr;

	if (family == AF_UNSPEC)
		return (size_t)snprintf((char *)bytes, PROXY_BUILD_MAX, "PROXY UNKNOWN\r\n");
	if (family == AF_INET6) {
		from = &info->source.in6.sin6_addr;
		to = &info->destination.in6.sin6_addr;
	}
	inet_ntop(family, from, source, sizeof(source));
	inet_ntop(family, to, destination, sizeof(destination));
	return (size_t)snprintf((char *)bytes, PROXY_BUILD_MAX, "PROXY TCP%c %s %s %u %u\r\n",
		family == AF_INET ? '4' : '6', source, destination, ntohs(info->source.in.sin_port),
		ntohs(info->destination.in.sin_port));
}

static size_t build_v2(const struct proxy_info *info, int family, uint8_t *b)
{
	size_t payload = 0;

	memcpy(b, v2_signature, sizeof(v2_signature));
	b[12] = family == AF_UNSPEC ? V2_LOCAL : V2_PROXY;
	b[13] = 0;
	b[14] = 0;
	if (family == AF_INET) {
		b[13] = V2_TCP4;
		payload = V2_TCP4_BYTES;
		memcpy(b + 16, &info->source.in.sin_addr, 4);
		memcpy(b + 20, &info->destination.in.sin_addr, 4);
		memcpy(b + 24, &info->source.in.sin_port, 2);
		memcpy(b + 26, &info->destination.in.sin_port, 2);
	} else if (family == AF_INET6) {
		b[13] = V2_TCP6;
		payload = V2_TCP6_BYTES;
		memcpy(b + 16, &info->source.in6.sin6_addr, 16);
		memcpy(b + 32, &info->destination.in6.sin6_addr, 16);
		memcpy(b + 48, &info->source.in6.sin6_port, 2);
		memcpy(b + 50, &info->destination.in6.sin6_port, 2);
	}
	b[15] = (uint8_t)payload;
	return V2_HEAD_SIZE + payload;
}

/* ::ffff:a.b.c.d is told as what it is. */
static void unmap(union proxy_address *a)
{
	union proxy_address v4 = {.in.sin_family = AF_INET};

	if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return;
	memcpy(&v4.in.sin_addr, &a->in6.sin6_addr.s6_addr[12], 4);
	v4.in.sin_port = a->in6.sin6_port;
	*a = v4;
}

size_t proxy_build(
	unsigned int version, const struct proxy_info *info, uint8_t bytes[PROXY_BUILD_MAX])
{
	struct proxy_info told = *info;
	int family = AF_UNSPEC;

	unmap(&told.source);
	unmap(&told.destination);
	if (told.known && told.source.sa.sa_family == told.destination.sa.sa_family &&
		(told.source.sa.sa_family == AF_INET || told.source.sa.sa_family == AF_INET6))
		family = told.source.sa.sa_family;
	return version == 1 ? build_v1(&told, family, bytes) : build_v2(&told, family, bytes);
}
