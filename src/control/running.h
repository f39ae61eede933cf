/* The culvert that runs already, by what its `status` tells: what `check` must know of it. */
#pragma once

#include <json-c/json.h>

#include "control/configuration.h"

struct running_port {
	const char *name, *device;
	const char *engine;  /* that it got; empty: it is closed */
	enum port_mode mode; /* likewise */
	uint32_t queues;
	uint32_t ifindex;	   /* of the network device that it is or stands on, 0: none */
	struct reason why;	   /* it is no better mode */
	struct json_object *asked; /* asked.h; NULL: not told */
};

struct running {
	long pid;
	bool reloads;		   /* it was started with a configuration file */
	struct json_object *asked; /* asked.h; NULL: not told */
	uint32_t n_ports;
	struct running_port ports[PORTS_MAX];
	struct json_object *status; /* the strings are in it */
};

/* From the text of `status --json`. NULL: it is none, or there is no memory. */
struct running *running_read(const char *status);
void running_free(struct running *r);
/* The open port of that device: by the name it was given or, where ifindex is not 0, by that. NULL:
 * none, or nothing runs (r may be NULL). */
const struct running_port *running_find(
	const struct running *r, const char *device, uint32_t ifindex);
