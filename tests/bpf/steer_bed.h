/* What the tests of the steering program stand on: the program loaded, a socket for its map,
 * counts. */
#pragma once

#include "../unit/unit.h"

#include "culvert/abi.h"
#include "steer.skel.h"

extern struct steer *program;
extern int socket_fd; /* AF_XDP, bound to nothing */

/* load sets program, or returns -errno. 0; 77 after saying why these tests can't be had here. */
int steer_bed_make(int (*load)(void));
void steer_bed_end(void);
/* Of queue 0, over all CPUs. */
struct culvert_outcomes outcomes(void);
