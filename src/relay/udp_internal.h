/* A UDP route as one loop sees it, and its sessions; all of it is that loop's thread's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "relay/datagram.h"
#include "relay/relay_internal.h"

#define UDP_BUCKETS 4096U

struct udp;

/* A client, known by its address and port, and its socket to a target. */
struct session {
	struct handle handle;
	struct session *next; /* of its bucket */
	struct udp *udp;
	struct timer timer;
	struct target *target; /* NULL: it has none any more and ends */
	int fd;		       /* -1: over */
	uint32_t lost;	       /* by fd so far */
	uint32_t tried;	       /* targets since the last answer; bit i: target i */
	uint32_t attempts;
	uint32_t ticket; /* of the target's address, if it has a name */
	uint64_t started_ns, last_ns, bytes[2];
	struct client client;
	struct datagram_local local; /* where the client sent to: answers come from there */
};

struct udp {
	struct handle handle;
	struct udp *next; /* the loop's list */
	struct loop *loop;
	struct route *route;
	struct counters *counters;
	struct datagram_batch *batch;
	int fd;	       /* to the clients; the route's */
	uint32_t lost; /* by fd so far */
	struct session *buckets[UDP_BUCKETS];
};

/* n datagrams went no further. */
static inline void udp_drop(struct udp *u, uint64_t n)
{
	counter_add(&u->counters->dropped, n);
}
/* A socket has lost `now` in all; *seen of them are counted already. A datagram that was queued
 * before the last of these tells of fewer: it was there when the route took the socket over. */
static inline void udp_count_lost(struct udp *u, uint32_t *seen, uint32_t now)
{
	if ((int32_t)(now - *seen) <= 0)
		return;
	udp_drop(u, (uint32_t)(now - *seen));
	*seen = now;
}

/* udp.c: answers of the target; what a session's handle calls. */
void udp_on_answers(struct loop *loop, struct handle *h, uint32_t events);

/* The client's session, a new one if need be. NULL: not allowed or no room; n datagrams were
 * counted as refused or dropped. */
struct session *session_of(struct udp *u, const struct client *client, unsigned int n);
/* The target sent something. */
void session_answered(struct session *s);
/* Whether an error of a connected socket says that the target can't be reached. */
bool session_is_refusal(int err);
/* The target can't be reached: another one takes its place, or the session ends (fd -1). A sole
 * target stays, for it may come back. */
void session_refused(struct session *s, int err);
void session_end(struct session *s, unsigned int how);
