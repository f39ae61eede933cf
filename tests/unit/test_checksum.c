/* Partial checksums are completed to the byte; everything else stays as it came. */
#include "bytes.h"
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "frame/checksum.h"

enum { IPV4 = 4, IPV6 = 6 };
enum { TCP = 6, UDP = 17, ICMP = 1 };

struct shape {
	int version;
	uint8_t proto;
	uint32_t tags;	       /* VLAN */
	uint32_t options;      /* bytes of IPv4 options, or of each IPv6 extension header: 8, 16 */
	uint8_t extensions[4]; /* IPv6 next headers in order, 255: none more */
	uint32_t payload;      /* bytes after the TCP or UDP header */
	uint32_t padding;      /* bytes after the IP packet */
};

struct packet {
	uint8_t bytes[2048];
	uint32_t len, l4, l4_len, field;
	uint16_t partial, full; /* checksums, host order */
};

static uint32_t put_ipv6(struct packet *p, const struct shape *s, uint32_t off)
{
	uint8_t *ip = p->bytes + off;
	uint8_t *next = ip + 6;
	uint32_t at = off + 40;

	ip[0] = 0x60;
	ip[7] = 64;
	for (uint32_t i = 0; i < 32; i++)
		ip[8 + i] = (uint8_t)(0x20 + i * 7);
	for (int i = 0; i < 4 && s->extensions[i] != 255; i++) {
		*next = s->extensions[i];
		next = p->bytes + at;
		next[1] = (uint8_t)(s->options / 8 - 1);
		at += s->options;
	}
	*next = s->proto;
	put16(ip + 4, at - off - 40 + p->l4_len);
	p->partial = sum16(ip + 8, 32, p->l4_len + s->proto);
	return at;
}

static uint32_t put_ipv4(struct packet *p, const struct shape *s, uint32_t off)
{
	uint8_t *ip = p->bytes + off;

	ip[0] = (uint8_t)(0x45 + s->options / 4);
	put16(ip + 2, 20 + s->options + p->l4_len);
	put16(ip + 6, 0x4000); /* don't fragment */
	ip[8] = 64;
	ip[9] = s->proto;
	memcpy(ip + 12, "\x0a\x01\x02\x03\xc0\xa8\xfe\x01", 8);
	p->partial = sum16(ip + 12, 8, p->l4_len + s->proto);
	return off + 20 + s->options;
}

/* A packet whose checksum field holds the pseudo-header's sum. */
static void make(struct packet *p, const struct shape *s)
{
	uint32_t off = 12, head = s->proto == TCP ? 20 : 8;

	memset(p, 0, sizeof(*p));
	memcpy(p->bytes, "\x02\0\0\0\0\1\x02\0\0\0\0\2", 12);
	for (uint32_t i = 0; i < s->tags; i++, off += 4) {
		put16(p->bytes + off, s->tags == 2 && i == 0 ? 0x88a8 : 0x8100);
		put16(p->bytes + off + 2, 100 + i);
	}
	put16(p->bytes + off, s->version == IPV4 ? 0x0800 : 0x86dd);
	off += 2;
	p->l4_len = head + s->payload;
	p->l4 = s->version == IPV4 ? put_ipv4(p, s, off) : put_ipv6(p, s, off);
	p->field = p->l4 + (s->proto == TCP ? 16 : 6);
	put16(p->bytes + p->l4, 12345);
	put16(p->bytes + p->l4 + 2, 80);
	if (s->proto == UDP)
		put16(p->bytes + p->l4 + 4, p->l4_len);
	else
		p->bytes[p->l4 + 12] = 0x50;
	for (uint32_t i = 0; i < s->payload; i++)
		p->bytes[p->l4 + head + i] = (uint8_t)(i * 31 + s->payload);
	p->full = (uint16_t)~sum16(p->bytes + p->l4, p->l4_len, p->partial);
	if (s->proto == UDP && p->full == 0)
		p->full = 0xffff;
	put16(p->bytes + p->field, p->partial);
	p->len = p->l4 + p->l4_len + s->padding;
	memset(p->bytes + p->l4 + p->l4_len, 0xee, s->padding);
}

/* The frame alone in memory of just its size, so that sanitizers see every byte beyond. */
static bool run(struct packet *p, uint32_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	bool done;

	assert_non_null(exact);
	memcpy(exact, p->bytes, len);
	done = checksum_complete(exact, len);
	memcpy(p->bytes, exact, len);
	free(exact);
	return done;
}

static void completed(const struct shape *s)
{
	struct packet p, expected;
	struct checksum_place place;
	uint32_t l2_len = 14 + 4 * s->tags;

	make(&p, s);
	expected = p;
	assert_true(checksum_is_partial(p.bytes, p.len, &place) ==
		    (s->version == IPV4 || p.l4 == l2_len + 40));
	if (s->version == IPV4 || p.l4 == l2_len + 40) {
		assert_int_equal(place.l2_len, l2_len);
		assert_int_equal(place.l2_len + place.l3_len, p.l4);
		assert_int_equal(place.version, s->version == IPV4 ? 4 : 6);
		assert_int_equal(place.proto, s->proto);
	}
	assert_memory_equal(p.bytes, expected.bytes, p.len);
	put16(expected.bytes + expected.field, expected.full);
	assert_true(run(&p, p.len));
	assert_memory_equal(p.bytes, expected.bytes, p.len);
	assert_false(run(&p, p.len)); /* a full checksum stays */
	assert_false(checksum_is_partial(p.bytes, p.len, &place));
	assert_memory_equal(p.bytes, expected.bytes, p.len);
}

static void untouched(struct packet *p, uint32_t len)
{
	struct packet before = *p;

	assert_false(run(p, len));
	assert_memory_equal(p->bytes, before.bytes, sizeof(before.bytes));
}

static void every_shape(void **state)
{
	static const uint8_t chains[][4] = {{255}, {0, 255}, {43, 255}, {60, 255}, {0, 60, 43, 60}};

	for (uint32_t tags = 0; tags <= 2; tags++) {
		for (uint32_t payload = 0; payload <= 1400; payload += payload < 70 ? 1 : 133) {
			struct shape s = {.tags = tags, .payload = payload};

			s.padding = payload < 18 ? 18 - payload : 0;
			for (int udp = 0; udp <= 1; udp++) {
				s.proto = udp ? UDP : TCP;
				s.version = IPV4;
				for (s.options = 0; s.options <= 40; s.options += 20)
					completed(&s);
				s.version = IPV6;
				for (int i = 0; i < 5; i++) {
					memcpy(s.extensions, chains[i], 4);
					for (s.options = 8; s.options <= 24; s.options += 16)
						completed(&s);
				}
			}
		}
	}
}

/* RFC 768: a UDP checksum of 0 is sent as 0xffff. */
static void udp_zero(void **state)
{
	struct shape s = {.version = IPV4, .proto = UDP, .payload = 2};
	struct packet p;

	make(&p, &s);
	/* The payload makes the whole sum 0xffff: its complement is 0. */
	put16(p.bytes + p.l4 + 8, 0);
	put16(p.bytes + p.l4 + 8, (uint16_t)~sum16(p.bytes + p.l4, p.l4_len, 0));
	assert_true(run(&p, p.len));
	assert_memory_equal(p.bytes + p.field, "\xff\xff", 2);
}

/* One correct checksum in 65536 equals its own pseudo-header's sum. */
static void correct_by_chance(void **state)
{
	struct shape s = {.version = IPV4, .proto = TCP, .payload = 2};
	struct packet p;

	make(&p, &s);
	put16(p.bytes + p.l4 + 20, 0);
	put16(p.bytes + p.l4 + 20, (uint16_t)~sum16(p.bytes + p.l4, p.l4_len, p.partial));
	untouched(&p, p.len);
}

static void no_checksum(void **state)
{
	struct shape s = {.version = IPV4, .proto = UDP, .payload = 20};
	struct packet p;

	make(&p, &s);
	put16(p.bytes + p.field, 0);
	untouched(&p, p.len);
}

static void truncated(void **state)
{
	struct shape shapes[] = {
		{.version = IPV4, .proto = TCP, .payload = 9, .tags = 1},
		{.version = IPV6,
			.proto = UDP,
			.payload = 9,
			.options = 8,
			.extensions = {0, 60, 43, 255}},
	};

	for (int i = 0; i < 2; i++) {
		struct packet p;

		make(&p, &shapes[i]);
		for (uint32_t len = 0; len < p.len; len++)
			untouched(&p, len);
	}
}

static void fragments(void **state)
{
	struct shape s = {.version = IPV4, .proto = UDP, .payload = 40};
	struct packet p;

	make(&p, &s);
	put16(p.bytes + 14 + 6, 0x2000); /* the first of several */
	untouched(&p, p.len);
	put16(p.bytes + 14 + 6, 0x0010); /* the last */
	untouched(&p, p.len);

	s = (struct shape){.version = IPV6,
		.proto = UDP,
		.payload = 40,
		.options = 8,
		.extensions = {44, 255}};
	make(&p, &s);
	untouched(&p, p.len);
}

static void contradictions(void **state)
{
	struct shape s = {.version = IPV4, .proto = UDP, .payload = 40, .padding = 10};
	struct packet p;

	make(&p, &s);
	put16(p.bytes + p.l4 + 4, p.l4_len + 1); /* UDP longer than IP */
	untouched(&p, p.len);
	make(&p, &s);
	put16(p.bytes + p.l4 + 4, 7); /* shorter than its own header */
	untouched(&p, p.len);
	make(&p, &s);
	p.bytes[14] = 0x44; /* header of 16 bytes */
	untouched(&p, p.len);
	make(&p, &s);
	p.bytes[14] = 0x65; /* version 6 in an IPv4 frame */
	untouched(&p, p.len);
	make(&p, &s);
	put16(p.bytes + 16, 19); /* total length below the header's */
	untouched(&p, p.len);
	make(&p, &s);
	p.bytes[23] = ICMP;
	untouched(&p, p.len);
	make(&p, &s);
	put16(p.bytes + 12, 0x0806);
	untouched(&p, p.len);
}

/* With segments left the checksum is of the last segment, RFC 8200 section 8.1. */
static void routed(void **state)
{
	struct shape s = {.version = IPV6,
		.proto = TCP,
		.payload = 11,
		.options = 24,
		.extensions = {43, 255}};
	struct packet p;
	uint8_t *header, addresses[32];

	make(&p, &s);
	header = p.bytes + 14 + 40;
	header[2] = 4;
	header[3] = 1;
	for (uint8_t i = 0; i < 16; i++)
		header[8 + i] = (uint8_t)(0xa0 + i * 3);
	memcpy(addresses, p.bytes + 14 + 8, 16);
	memcpy(addresses + 16, header + 8, 16);
	untouched(&p, p.len); /* the sum is of the next hop */
	p.partial = sum16(addresses, 32, p.l4_len + TCP);
	put16(p.bytes + p.field, 0);
	p.full = (uint16_t)~sum16(p.bytes + p.l4, p.l4_len, p.partial);
	put16(p.bytes + p.field, p.partial);
	assert_true(run(&p, p.len));
	assert_int_equal(p.bytes[p.field] << 8 | p.bytes[p.field + 1], p.full);
	header[2] = 0; /* a type we know nothing of */
	put16(p.bytes + p.field, p.partial);
	untouched(&p, p.len);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_shape),
		cmocka_unit_test(udp_zero),
		cmocka_unit_test(correct_by_chance),
		cmocka_unit_test(no_checksum),
		cmocka_unit_test(truncated),
		cmocka_unit_test(fragments),
		cmocka_unit_test(contradictions),
		cmocka_unit_test(routed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
