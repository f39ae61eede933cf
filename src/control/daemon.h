/*
 * The running daemon: birth and death in order, and one loop between them.
 *
 * Everything in src/control is called by the one control thread, but for the calls that drivers.c
 * makes of an engine; workers and the relay have threads of their own.
 */
#pragma once

#include <stdbool.h>

#include "control/configuration.h"

struct daemon_options {
	const char *config_file; /* read again by reload; NULL: there is none */
	/* What the command line says above the file, put onto what reload read; may be NULL. */
	int (*override)(struct config *c, void *data, struct reason *r);
	void *override_data;
};

/* Runs until SIGINT or SIGTERM, or (c->once) until all files are sent, and takes c. 0; or -errno
 * with the reason, and everything is as it was: -EPERM and -EACCES mean not permitted here. -EIO
 * without a reason: a file was not delivered, which was logged. */
int daemon_run(struct config *c, const struct daemon_options *o, struct reason *r);
