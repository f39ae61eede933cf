/* UDP routes: one socket to the clients, and for each of them one to a target. */
#pragma once

struct loop;
struct route;

/* The thread of loop; route->listen_fd is bound. */
int udp_start(struct loop *loop, struct route *route);
/* Ends all sessions: datagrams know no end of their own. */
void udp_stop(struct loop *loop, struct route *route);
/* The end of a turn: frees sessions that ended in it. */
void udp_bury(struct loop *loop);
