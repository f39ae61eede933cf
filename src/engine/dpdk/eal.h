/*
 * DPDK's environment in our process: started with the first port, once, without touching what is
 * not its own (affinity, signal handlers, other programs' huge page files), its log in ours.
 * Inside engine/dpdk/ only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"

/* Starts it unless it runs. n_pools: workers whose mbufs must fit into huge pages, beside `size`
 * bytes. 0, or -errno with the reason: the same for good, once it failed. */
int eal_start(uint32_t n_pools, size_t size, struct reason *r);
bool eal_has_huge_pages(void);

/* From here to eal_listen_end DPDK's complaints are kept instead of logged as warnings: not those
 * of workers, which are of ports that run. */
void eal_listen(void);
/* The first complaint since eal_listen, or "" (static). */
const char *eal_listen_end(void);
/* The last warning before that complaint, or "" (static): some drivers say the cause there. */
const char *eal_warning(void);
