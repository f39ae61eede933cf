/* Finds partial TCP and UDP checksums and completes them. */
#include "frame/checksum.h"

#include <string.h>

#include "frame/view.h"

#define ETHERTYPE_IPV4	 0x0800
#define ETHERTYPE_IPV6	 0x86dd
#define ETHERTYPE_VLAN	 0x8100
#define ETHERTYPE_QINQ	 0x88a8
#define PROTO_TCP	 6
#define PROTO_UDP	 17
#define PROTO_HOP	 0  /* hop-by-hop options, RFC 8200 */
#define PROTO_ROUTING	 43 /* RFC 8200 */
#define PROTO_DEST	 60 /* destination options, RFC 8200 */
#define ROUTING_HOME	 2  /* home address at byte 8, RFC 6275 section 6.4 */
#define ROUTING_SEGMENTS 4  /* last segment at byte 8, RFC 8754 section 2 */
#define EXTENSIONS_MAX	 8  /* headers looked through: more than any stack sends */

/* Where the transport header is, and what its pseudo-header is made of. */
struct transport {
	uint8_t *at;
	uint32_t len; /* bytes from `at` to the end of the IP packet */
	uint8_t proto;
	const uint8_t *source, *destination;
	uint32_t address_len;
};

/* Sums of 16-bit words in memory order: one's complement addition does not mind the byte order
 * (RFC 1071, section 2), so nothing is swapped until the result is written. */
static uint64_t sum_bytes(const uint8_t *p, uint32_t len, uint64_t sum)
{
	uint32_t word;
	uint16_t half = 0;

	for (; len >= sizeof(word); p += sizeof(word), len -= (uint32_t)sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		sum += word;
	}
	if (len >= sizeof(half)) {
		memcpy(&half, p, sizeof(half));
		sum += half;
		p += sizeof(half);
		len -= (uint32_t)sizeof(half);
	}
	if (len) {
		half = 0;
		memcpy(&half, p, 1);
		sum += half;
	}
	return sum;
}

static uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static bool ipv4_find(uint8_t *data, uint32_t len, uint32_t off, struct transport *ret)
{
	uint8_t *ip = view(data, len, off, 20);
	uint32_t head, total;

	if (!ip || ip[0] >> 4 != 4)
		return false;
	head = (ip[0] & 15u) * 4;
	total = view_be16(ip + 2);
	if (head < 20 || total < head || !view(data, len, off, total))
		return false;
	if (view_be16(ip + 6) & 0x3fff) /* more fragments, or not the first */
		return false;
	*ret = (struct transport){
		.at = ip + head,
		.len = total - head,
		.proto = ip[9],
		.source = ip + 12,
		.destination = ip + 16,
		.address_len = 4,
	};
	return true;
}

/* The checksum is of the final destination, which a routing header with segments left carries. */
static const uint8_t *routing_destination(
	const uint8_t *header, uint32_t header_len, const uint8_t *destination)
{
	if (header[3] == 0)
		return destination;
	if ((header[2] != ROUTING_HOME && header[2] != ROUTING_SEGMENTS) || header_len < 24)
		return NULL;
	return header + 8;
}

static bool ipv6_find(uint8_t *data, uint32_t len, uint32_t off, struct transport *ret)
{
	uint8_t *ip = view(data, len, off, 40);
	const uint8_t *destination;
	uint32_t left, at = off + 40;
	uint8_t next;

	if (!ip || ip[0] >> 4 != 6)
		return false;
	left = view_be16(ip + 4);
	next = ip[6];
	destination = ip + 24;
	if (!view(data, len, at, left))
		return false;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		uint8_t *header = data + at;
		uint32_t header_len;

		if (next != PROTO_HOP && next != PROTO_ROUTING && next != PROTO_DEST)
			break;
		if (left < 8)
			return false;
		header_len = 8 + header[1] * 8u;
		if (header_len > left)
			return false;
		if (next == PROTO_ROUTING) {
			destination = routing_destination(header, header_len, destination);
			if (!destination)
				return false;
		}
		next = header[0];
		at += header_len;
		left -= header_len;
	}
	*ret = (struct transport){
		.at = data + at,
		.len = left,
		.proto = next,
		.source = ip + 8,
		.destination = destination,
		.address_len = 16,
	};
	return true;
}

static bool transport_find(uint8_t *data, uint32_t len, struct transport *ret)
{
	uint32_t off = 12;

	for (int tags = 0; tags <= 2; tags++, off += 4) {
		const uint8_t *type = view(data, len, off, 2);

		if (!type)
			return false;
		switch (view_be16(type)) {
		case ETHERTYPE_IPV4: return ipv4_find(data, len, off + 2, ret);
		case ETHERTYPE_IPV6: return ipv6_find(data, len, off + 2, ret);
		case ETHERTYPE_VLAN:
		case ETHERTYPE_QINQ: break;
		default: return false;
		}
	}
	return false;
}

/* The checksum field and how many bytes it covers; NULL: neither TCP nor UDP, or cut. */
static uint8_t *field_find(const struct transport *t, uint32_t *ret_len)
{
	uint32_t len = t->len;

	if (t->proto == PROTO_TCP && len >= 20) {
		*ret_len = len;
		return t->at + 16;
	}
	if (t->proto == PROTO_UDP && len >= 8) {
		uint32_t udp_len = view_be16(t->at + 4);

		if (udp_len < 8 || udp_len > len)
			return NULL;
		*ret_len = udp_len;
		return t->at + 6;
	}
	return NULL;
}

/* The checksum field, if it holds just the pseudo-header's sum; else NULL. */
static uint8_t *partial_find(uint8_t *data, uint32_t len, struct transport *ret_transport,
	uint32_t *ret_covered, uint64_t *ret_pseudo)
{
	struct transport *t = ret_transport;
	uint8_t tail[4];
	uint8_t *field;
	uint64_t pseudo;
	uint16_t now;

	if (!transport_find(data, len, t))
		return NULL;
	field = field_find(t, ret_covered);
	if (!field)
		return NULL;

	/* RFC 9293 section 3.1, RFC 8200 section 8.1; a length here is below 65536. */
	tail[0] = 0;
	tail[1] = t->proto;
	tail[2] = (uint8_t)(*ret_covered >> 8);
	tail[3] = (uint8_t)*ret_covered;
	pseudo = sum_bytes(tail, sizeof(tail), 0);
	pseudo = sum_bytes(t->source, t->address_len, pseudo);
	pseudo = sum_bytes(t->destination, t->address_len, pseudo);
	memcpy(&now, field, sizeof(now));
	*ret_pseudo = pseudo;
	return now == sum_fold(pseudo) ? field : NULL;
}

bool checksum_complete(uint8_t *data, uint32_t len)
{
	struct transport t;
	uint64_t pseudo, segment;
	uint32_t covered;
	uint16_t whole;
	uint8_t *field = partial_find(data, len, &t, &covered, &pseudo);

	if (!field)
		return false;
	/* The field holds the pseudo-header's sum, so the segment's own sum has that in it. */
	segment = sum_bytes(t.at, covered, 0);
	if (sum_fold(segment + pseudo) == 0xffff) /* one correct checksum in 65536 looks partial */
		return false;
	whole = (uint16_t)~sum_fold(segment);
	if (whole == 0 && t.proto == PROTO_UDP) /* 0 means "no checksum", RFC 768 */
		whole = 0xffff;
	memcpy(field, &whole, sizeof(whole));
	return true;
}

bool checksum_is_partial(uint8_t *data, uint32_t len, struct checksum_place *ret_place)
{
	struct transport t;
	const uint8_t *ip;
	uint64_t pseudo;
	uint32_t covered;

	if (!partial_find(data, len, &t, &covered, &pseudo))
		return false;
	ip = t.source - (t.address_len == 4 ? 12 : 8);
	*ret_place = (struct checksum_place){
		.l2_len = (uint32_t)(ip - data),
		.l3_len = (uint32_t)(t.at - ip),
		.version = t.address_len == 4 ? 4 : 6,
		.proto = t.proto,
	};
	return ret_place->version == 4 || ret_place->l3_len == 40;
}
