/*
 * UDP routes: each loop has a socket to the clients, and for each of its clients one to a target.
 * The kernel deals clients to the loops' sockets by their addresses (SO_REUSEPORT), so that one
 * client is always the same loop's.
 */
#pragma once

struct loop;
struct reason;
struct route;

/* Control's thread: the sockets of n loops, for a route whose listen_fd is bound; those of the
 * route that it replaces (or NULL) are shared. 0 or -errno; udp_close undoes it. */
int udp_open(struct route *route, const struct route *old, unsigned int n);
void udp_close(struct route *route, unsigned int n);
/* The thread of loop. */
int udp_start(struct loop *loop, struct route *route);
/* Ends all sessions: datagrams know no end of their own. */
void udp_stop(struct loop *loop, struct route *route);
/* The end of a turn: frees sessions that ended in it. */
void udp_bury(struct loop *loop);
