/*
 * The undo file of one device: what was changed on it, kept by a lock while its writer lives.
 *
 * Text, one fact a line, ended by "end"; a file without "end" was cut short before anything had
 * been changed. Inside host/ only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <linux/limits.h>
#include <sys/types.h>

#include "base/reason.h"

#define HOST_UNDO_FEATURES_MAX 16

struct host_undo {
	int fd; /* locked; -1: no file */
	char path[PATH_MAX];
	/* which interface */
	char boot[40];	 /* the kernel's boot id: settings do not outlive a boot */
	uint64_t netns;	 /* inode of the network namespace */
	uint64_t cookie; /* its cookie, never used again in a boot; 0: kernel before 5.14 */
	uint32_t ifindex;
	uint8_t mac[6];
	char name[16]; /* what it was called then */
	/* what was done */
	uint32_t n_features;
	char features[HOST_UNDO_FEATURES_MAX][32]; /* turned off; were on */
	bool brought_up;			   /* was down */
};

/* Where we are: boot, netns, cookie. */
int host_undo_here(struct host_undo *ret, struct reason *ret_reason);
/* Opens STATE_DIR/undo-NETNS-IFINDEX for u->netns and u->ifindex, making it when create, and locks
 * it. -EBUSY: a living process holds it; -ENOENT without create. */
int host_undo_open(struct host_undo *u, const char *state_dir, bool create, struct reason *r);
/* The process that holds the file of u->netns and u->ifindex, by its id, or 0; it is not locked. */
long host_undo_owner(struct host_undo *u, const char *state_dir);
/* What the file says of the interface and the changes. -ENODATA: nothing was changed. */
int host_undo_read(const struct host_undo *u, struct host_undo *ret);
int host_undo_write(const struct host_undo *u, struct reason *r);
/* Ends the lock; removes the file before when it is done with. */
void host_undo_close(struct host_undo *u, bool done);
