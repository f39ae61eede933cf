/* The only way to a packet's bytes: a bounds-checked view, and big-endian loads from it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* len bytes at off, or NULL when the packet is too short. */
static inline uint8_t *view(uint8_t *pkt, uint32_t pkt_len, uint32_t off, uint32_t len)
{
	if (off > pkt_len || len > pkt_len - off) /* no sum: no overflow */
		return NULL;
	return pkt + off;
}

/* p is at least two bytes of a view. */
static inline uint16_t view_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}
