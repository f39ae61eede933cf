/*
 * The TCP relay: routes that listen and carry bytes to targets, on threads of its own.
 * All calls below are made by one thread (control's); they never block on traffic.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "relay/endpoint.h"
#include "relay/route.h"

struct reason;
struct relay;

struct relay_options {
	unsigned int workers;	  /* threads; at least 1 */
	uint64_t max_connections; /* of all routes together; 0: what the descriptors allow */
	bool once; /* every route's source is a file, which is sent once; see relay_over */
};

/* How connections ended badly. */
enum relay_error {
	RELAY_ERROR_CONNECT,	     /* no target could be reached */
	RELAY_ERROR_CONNECT_TIMEOUT, /* likewise, the last one did not answer in time */
	RELAY_ERROR_RESET_CLIENT,    /* the client reset the connection */
	RELAY_ERROR_RESET_TARGET,
	RELAY_ERROR_IDLE,	/* idle_timeout */
	RELAY_ERROR_HALF_CLOSE, /* half_close_timeout */
	RELAY_ERROR_PROXY,  /* a proxy header that was wrong, late or from an untrusted network */
	RELAY_ERROR_SYSTEM, /* no descriptors, no memory, no local ports */
	RELAY_ERRORS,
};

struct relay_stats {
	char name[64];
	char listen[ENDPOINT_TEXT_SIZE]; /* with the port that was really got */
	bool source;			 /* it is a file, which is sent */
	bool listening;	      /* false: removed or replaced, its last connections are still there */
	uint64_t connections; /* accepted so far, refused ones too */
	uint64_t active;
	uint64_t bytes_in;		    /* client to target */
	uint64_t bytes_out;		    /* target to client */
	uint64_t spliced, copied, sendfile; /* bytes, by what moved them */
	uint64_t refused;		    /* by allow and deny */
	uint64_t retries;		    /* attempts at another target */
	uint64_t cut;			    /* closed by us at the end of a drain */
	uint64_t fallbacks;		    /* directions that had to stop splicing */
	uint64_t dropped; /* datagrams: not sent, or lost in a queue; a rate; too many sessions */
	uint64_t errors[RELAY_ERRORS];
	uint32_t targets, targets_up;
};

/* "connect", "connect_timeout", "reset_client", ... */
const char *relay_error_name(enum relay_error e);

/* Starts the threads. */
int relay_create(
	struct relay **ret_relay, const struct relay_options *options, struct reason *reason);
/* Binds and begins to accept. 0 or -errno with the reason. The settings are copied.
 * To change a route add the new one under the same name, then remove that name, which takes the
 * older one: when both listen at the same place the socket stays open and no one is refused. */
int relay_add(struct relay *relay, const struct route_settings *settings, struct reason *reason);
/* Stops accepting; connections live on to their end. 0, or -ENOENT. */
int relay_remove(struct relay *relay, const char *name);
/* Stops accepting everywhere and waits for connections to end, at most drain_ns; *stop_early
 * (may be NULL) set by a signal handler ends the waiting. Returns how many were cut. */
uint64_t relay_drain(struct relay *relay, uint64_t drain_ns, const volatile int *stop_early);
/* With `once`: becomes readable when a source was sent or can't be. */
int relay_over_fd(const struct relay *relay);
/* With `once`: whether that is said of all of them. */
bool relay_over(const struct relay *relay);
/* With `once`: how many were not delivered to the last byte; each is logged. */
uint32_t relay_unsent(const struct relay *relay);
/* Ends the threads. NULL is fine. */
void relay_free(struct relay *relay);

unsigned int relay_routes(const struct relay *relay);
/* Those that were added later have a higher idx. */
void relay_stats(const struct relay *relay, unsigned int idx, struct relay_stats *ret_stats);
/* Adds the numbers of one to those of another, which keeps its names and targets. */
void relay_stats_add(struct relay_stats *to, const struct relay_stats *from);
