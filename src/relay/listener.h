/* A route's listening socket as one loop sees it: accepts, and places connections evenly. */
#pragma once

#include "relay/loop.h"

struct route;
struct reason;

struct listener {
	struct handle handle;
	struct listener *next; /* the loop's list */
	struct loop *loop;
	struct route *route;
	struct timer timer; /* runs while paused */
	bool paused;	    /* not watched: too many connections, too fast, or no descriptors */
	bool full;	    /* paused until a connection of the route ends */
	bool closing;	    /* takes what is queued and goes */
	bool lone;	    /* the last turn took one connection */
	uint64_t seen_turn; /* loop->turn in which it was readable last */
};

/* Opens the socket that all loops share: 0 and route->listen_fd, or -errno with the reason. */
int listener_bind(struct route *route, struct reason *reason);
/* Instead of listener_bind: on the socket of the route that this one replaces. */
int listener_share(struct route *route, const struct route *old, struct reason *reason);
/* The loop's thread: begins to accept. */
int listener_start(struct loop *loop, struct route *route);
/* The loop's thread: accepts what is queued already, then forgets the socket. */
void listener_stop(struct loop *loop, struct route *route);
/* The loop's thread: a connection has ended, those that are full may go on. */
void listeners_resume(struct loop *loop);
