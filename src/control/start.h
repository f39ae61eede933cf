/* Birth and death of the daemon, in order. Inside control/ only. */
#pragma once

struct daemon;
struct reason;

/* Settings of dead predecessors put back, memory, ports, workers, routes. On failure call
 * daemon_stop as well. */
int daemon_start(struct daemon *d, struct reason *r);
/* In the opposite order; takes what daemon_start left half done. */
void daemon_stop(struct daemon *d);
