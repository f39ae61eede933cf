/* Parses networks and tells whether an address lies in one. */
#include "base/cidr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"

static void map_v4(uint32_t address_be, struct in6_addr *ret_mapped)
{
	memset(ret_mapped, 0, sizeof(*ret_mapped));
	ret_mapped->s6_addr[10] = 0xff;
	ret_mapped->s6_addr[11] = 0xff;
	memcpy(&ret_mapped->s6_addr[12], &address_be, 4);
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
	unsigned int bytes = bits / 8, rest = bits % 8;

	if (memcmp(a, b, bytes) != 0)
		return false;
	return rest == 0 || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0;
}

int cidr_parse(const char *text, struct cidr *ret_cidr)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t size = slash ? (size_t)(slash - text) : strlen(text);
	struct cidr c = {0};
	struct in_addr v4;
	uint64_t length;
	unsigned int offset = 0;

	if (size == 0 || size >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, size);
	host[size] = 0;
	if (inet_pton(AF_INET, host, &v4) == 1) {
		map_v4(v4.s_addr, &c.network);
		offset = 96;
	} else if (inet_pton(AF_INET6, host, &c.network) != 1) {
		return -EINVAL;
	}
	length = 128 - offset;
	if (slash && units_number(slash + 1, 0, length, &length) < 0)
		return -EINVAL;
	c.length = (uint8_t)(length + offset);
	for (unsigned int bit = c.length; bit < 128; bit++) {
		if (c.network.s6_addr[bit / 8] & (0x80 >> bit % 8))
			return -EINVAL;
	}
	*ret_cidr = c;
	return 0;
}

bool cidr_contains(const struct cidr *c, const struct sockaddr *address)
{
	struct in6_addr a;

	if (address->sa_family == AF_INET)
		map_v4(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr, &a);
	else if (address->sa_family == AF_INET6)
		a = ((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
	else
		return false;
	return same_prefix(c->network.s6_addr, a.s6_addr, c->length);
}
