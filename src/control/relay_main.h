/* `culvert relay`: the relay alone, with routes from the command line. */
#pragma once

#include <stdint.h>

#define RELAY_MAIN_ARGS 64

struct relay_main {
	unsigned int workers;
	uint64_t max_connections; /* at most UINT32_MAX; 0: what the descriptors allow */
	uint64_t drain_ns;
	const char *socket, *http;	   /* as under `control:`; NULL: none */
	const char *sets[RELAY_MAIN_ARGS]; /* KEY=VALUE, for every route */
	const char *ends[RELAY_MAIN_ARGS]; /* LISTEN TO LISTEN TO ... */
	int n_sets, n_ends;
};

/* Runs until SIGTERM or SIGINT, or, when every LISTEN is a file, until they are sent. 0, or -errno
 * after it logged why; -EINVAL: wrong usage, -EPERM or -EACCES: not permitted here. */
int relay_main(const struct relay_main *m);
/* The keys that --set takes, ended by NULL. */
const char *relay_main_key(unsigned int idx);
