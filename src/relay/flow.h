/*
 * One connection: two ends, and a direction from each to the other.
 *
 * Both descriptors are watched edge-triggered and once: `readable` and `writable` stay true
 * until the kernel says EAGAIN. A turn moves a bounded number of bytes; a flow with more to do
 * waits in the loop's ready list behind the others.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "relay/live.h"
#include "relay/loop.h"

struct end {
	struct handle handle;
	int fd;	      /* -1 when closed or not open yet */
	uint8_t side; /* 0 client, 1 target: its index in flow->end */
	bool inet;    /* TCP: has a send queue to wait for and can be reset */
	bool file;    /* not watched: always ready */
	bool plain;   /* no socket: read and write, not recv and send */
	bool fifo;    /* has an end of stream only behind a writer */
	bool readable, writable;
	bool hung_up; /* RDHUP or HUP seen: after the bytes comes the end */
	bool failed;  /* ERR seen: reading, or end_error, will tell */
	bool lost;    /* a write found it gone: what is left to read ends with a reset */
	bool urgent;  /* urgent data: short reads say nothing, splice stops early */
};

enum direction_mode {
	MODE_COPY,
	MODE_SPLICE,
	MODE_SENDFILE,
	MODE_DISCARD, /* nobody wants these bytes */
};

struct direction {
	enum direction_mode mode;
	bool no_splice;	    /* refused here, or forbidden */
	bool drain_by_copy; /* what is in the pipe must be read out of it */
	bool ended;	    /* the source said so */
	bool closed;	    /* and the sink was told, or is gone */
	bool queued;	    /* bytes are in the loop's batch of sends */
	uint8_t small_turns;
	uint8_t used;	   /* USED_ bits: what moved bytes */
	struct pipe *pipe; /* only while it holds bytes, or within a turn */
	uint32_t pipe_bytes;
	uint32_t held_size, held_at; /* bytes that the sink had no room for */
	uint8_t *held;
	uint64_t bytes;
	struct limit limit;
};

enum used { USED_COPY = 1, USED_SPLICE = 2, USED_SENDFILE = 4 };

enum flow_state { FLOW_PROXY, FLOW_CONNECTING, FLOW_OPEN, FLOW_OVER };

enum flow_end {
	FLOW_END_DONE,
	FLOW_END_ERROR, /* ERROR + enum relay_error */
	FLOW_END_CUT = FLOW_END_ERROR + RELAY_ERRORS,
	FLOW_END_REFUSED, /* the client that the PROXY header names is not let in */
};

struct client {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
};

struct flow {
	struct end end[2];
	struct direction dir[2]; /* dir[i] reads end[i] and writes end[1 - i] */
	struct loop *loop;
	struct route *route;
	struct target *target;
	struct counters *counters;
	enum flow_state state;
	uint32_t tried; /* targets, a bit each */
	uint32_t attempts;
	uint32_t ticket;      /* of the address that is tried, if the target has a name */
	int last_err;	      /* of the last attempt */
	uint32_t header_left; /* bytes of a PROXY header in dir[0].held: not the client's */
	uint32_t ahead;	 /* bytes, held or still in the client's queue, that went with the SYN */
	bool ready;	 /* in the loop's ready list */
	bool limited;	 /* a rate, and nothing else, holds its bytes up */
	bool back_first; /* at its turn: the direction that moves first alternates */
	int8_t reset;	 /* the side that reset the connection; -1 */
	struct timer timer;
	uint64_t started_ns, last_ns; /* last_ns: when a byte last moved */
	uint64_t half_ns;	      /* when the first direction closed; 0 */
	uint64_t deadline_ns;	      /* of the state: connecting, the header, a pending reset */
	uint64_t wait_ns; /* when a rate lets bytes through, or a full target is asked again; 0 */
	struct client client;	   /* who it comes from, as a proxy header may say */
	struct client local;	   /* where it came to, when a header has to say so */
	struct flow *next, **link; /* the loop's list */
	struct flow *ready_next;
	union {
		struct flow *share_next; /* of a queue for a rate, */
		struct flow *dead_next;	 /* or of those that are over */
	};
	struct flow **share_link; /* NULL: in no such queue */
	struct source *source;	  /* end[0] is a file that is sent; or NULL */
	bool opened;		  /* a target was reached */
	bool sent;		  /* the source's last byte was written */
	uint32_t file_room;	  /* what is left of the chunk's room in the file */
	uint64_t file_at;	  /* and where it begins */
	struct append *append;	  /* end[1] is a regular file that is appended to; or NULL */
};

/* The loop owns fd and counts the flow in its load already. With a source, fd is its file. */
void flow_start(struct loop *loop, struct route *route, int fd, const struct sockaddr *client,
	struct source *source);
/* Carries on: called when a descriptor or a timer says so. */
void flow_run(struct flow *f);
/* Closes what is open and frees it at the end of the turn. */
void flow_finish(struct flow *f, unsigned int how);
/* Ends it at once with a reset: the drain is over. */
void flow_cut(struct flow *f);
/* Starts its timer as its state and settings ask for. */
void flow_arm(struct flow *f);
/* Puts it behind the others of this loop. */
void flow_later(struct flow *f);

/* ending.c: counts and logs how a connection or session ended. */
struct ending {
	const struct route *route;
	const struct target *target;   /* or NULL */
	const struct sockaddr *client; /* NULL: it was a source */
	uint64_t bytes[2];
	uint8_t used; /* USED_ bits */
	uint64_t duration_ns;
	uint32_t attempts;
};
void ending_tell(const struct ending *e, struct counters *counters, unsigned int how);
/* greet.c: expects the client's PROXY header; something of it came; puts ours before the client's
 * first byte (0 or -ENOMEM). */
void flow_greet(struct flow *f);
void flow_greeted(struct flow *f);
int flow_introduce(struct flow *f);

/* connect.c: tries targets until one is under way; ends the flow when there is none. */
void flow_connect(struct flow *f);
/* connect.c: an event on end[1] while connecting. */
void flow_connected(struct flow *f);
/* connect.c: the target was full when it was asked. */
void flow_connect_again(struct flow *f);
/* connect.c: the present attempt failed with -errno; goes on with the next target. */
void flow_connect_failed(struct flow *f, int err);

/* move.c: moves what can be moved from end[i]. True when there is more to do at once. */
bool direction_move(struct flow *f, unsigned int i);
bool direction_pending(const struct direction *d);
/* What the rates let through now; 0 sets f->wait_ns. */
uint64_t direction_allowed(struct flow *f, unsigned int i);
/* The target has the first n bytes of dir[0] already: takes them from where they are. False when
 * the client is gone with them. */
bool direction_sent_ahead(struct flow *f, uint32_t n);
/* Nothing of it is in the batch of sends any more. */
void direction_settle(struct flow *f, unsigned int i);
/* A send_batch_done; the owner is a flow, the tag its direction. */
void direction_sent(void *owner, unsigned int i, const uint8_t *bytes, uint32_t size, ssize_t n);
/* The socket's pending error, which this takes from it. */
int end_error(const struct end *e);
/* Forgets undelivered bytes; the direction is over. */
void direction_drop(struct flow *f, unsigned int i);
