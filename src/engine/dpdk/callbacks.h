/*
 * What drivers register with EAL's interrupt thread for sockets that listen: net_memif leaves it
 * there (peer.c), and it can be taken back only by who knows the function.
 * Inside engine/dpdk/ only.
 */
#pragma once

#include <stdbool.h>

/* Takes back what was registered for the descriptor, on which nothing happens any more. False:
 * nothing is known of it, and EAL still has its number. */
bool callback_forget(int fd);
