/* Changes to the running daemon: all or nothing. Inside control/ only. */
#pragma once

#include <stdint.h>

struct config;
struct daemon;
struct reason;

/* From d->config to c, which is taken on success: what is the same in both stays up with its
 * counters. On failure (-errno with the reason) everything is as it was, and c stays the caller's.
 */
int change_apply(struct daemon *d, struct config *c, struct reason *r);
/* The file again. */
int change_reload(struct daemon *d, struct reason *r);
/* In words, after a success. */
const char *change_reloaded(const struct daemon *d);
/* device; peer: a device to add as well, or a port that is there, or NULL. confirm_s: undone after
 * so many seconds unless change_confirm is called before; 0: for good. */
int change_attach(struct daemon *d, const char *device, const char *peer, uint64_t confirm_s,
	struct reason *r);
/* All n ports (names or devices), or none. */
int change_detach(struct daemon *d, const char *const *ports, uint32_t n, struct reason *r);
int change_confirm(struct daemon *d, struct reason *r);
/* Undoes a trial whose time is over. */
void change_expire(struct daemon *d, uint64_t now_ns);
