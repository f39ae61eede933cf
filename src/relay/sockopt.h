/* The socket options that a route's settings ask for. */
#pragma once

#include <stdbool.h>

struct client;
struct reason;
struct route_settings;

/* A stream socket of a family, MPTCP if the route wants it and the kernel has it. fd or -errno. */
int sockopt_socket(const struct route_settings *s, int family);
/* For the listener; what it has, accepted sockets inherit. 0 or -errno with the reason. */
int sockopt_listener(int fd, const struct route_settings *s, int family, struct reason *reason);
/* Takes from a listener what the settings before asked for and those that follow do not. */
void sockopt_listener_forget(
	int fd, const struct route_settings *before, const struct route_settings *s, int family);
/* For a socket that will connect to a target; client may be NULL. 0 or -errno with the reason. */
int sockopt_target(int fd, const struct route_settings *s, int family, const struct client *client,
	struct reason *reason);
/* Whether such a socket, once connected, has the handshake's acknowledgement wait for the first
 * bytes to the target. */
bool sockopt_holds_ack(const struct route_settings *s);
/* An acknowledgement that waits goes now; without one nothing happens. */
void sockopt_send_ack(int fd);
/* A datagram socket of a family: fd or -errno. */
int sockopt_datagram_socket(int family);
/* As sockopt_target, for a datagram socket. */
int sockopt_datagram(int fd, const struct route_settings *s, int family,
	const struct client *client, struct reason *reason);
