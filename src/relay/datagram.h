/*
 * Datagrams by the batch, with what the kernel says beside each: into what pieces it is to be
 * cut, to which address it came, how many were lost before it.
 *
 * Where the kernel joins equal datagrams (UDP_GRO) they travel as one and are cut again by the
 * kernel on their way out (UDP_SEGMENT): never joined for who receives them.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "relay/flow.h"

#define DATAGRAM_BATCH	 16
#define DATAGRAM_SIZE	 65536
#define DATAGRAM_CONTROL 128

/* Where a datagram came to: its answers go out from there. */
struct datagram_local {
	bool known;
	bool v6;
	union {
		struct in_pktinfo v4;
		struct in6_pktinfo v6_info;
	};
};

struct datagram_batch {
	struct mmsghdr messages[DATAGRAM_BATCH];
	struct iovec parts[DATAGRAM_BATCH];
	struct client peers[DATAGRAM_BATCH];
	uint16_t pieces[DATAGRAM_BATCH]; /* the size of the datagrams that it joins; 0: it is one */
	uint8_t control[DATAGRAM_BATCH][DATAGRAM_CONTROL] __attribute__((aligned(8)));
	uint8_t bytes[DATAGRAM_BATCH][DATAGRAM_SIZE];
};

/* Has the kernel join equal datagrams, say what it lost and, if asked, where they came to. */
void datagram_prepare(int fd, bool local);
/* Fills the batch from fd: how many, or -errno. */
int datagram_receive(struct datagram_batch *b, int fd);
/* Reads what came beside message idx. *lost, where the kernel says it: all that the socket
 * has lost so far. */
void datagram_read(struct datagram_batch *b, unsigned int idx, struct datagram_local *ret_local,
	uint32_t *lost);
/* Prepares message idx, as it came, for sending: to a peer, or NULL where the socket is connected;
 * from local where that is known, or NULL. */
void datagram_write(struct datagram_batch *b, unsigned int idx, struct client *peer,
	const struct datagram_local *local);
/* How many datagrams message idx is. */
unsigned int datagram_count(const struct datagram_batch *b, unsigned int idx);
/* All that the socket has lost so far, most for want of room; wraps. */
uint32_t datagram_lost(int fd);
socklen_t client_size(const struct client *c);
