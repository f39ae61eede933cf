/*
 * What culvert changes on a device, and the undo of each change.
 *
 * Every change is written to an undo file before it is made:
 *   STATE_DIR/undo-NETNS-IFINDEX
 * The file is flock'd for as long as the process that made the changes lives, so that a later
 * one knows whether they are still wanted. What was changed is put back by
 * host_settings_restore, or after a crash by host_settings_recover of the next start; only on the
 * same interface (index, MAC, namespace, boot), and only settings that still are as we set them.
 * A rename does not matter: everything goes by index.
 *
 * Order: take before XDP is attached (virtio_net refuses to change offloads while it is), restore
 * after it was detached.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"

#define HOST_STATE_DIR "/run/culvert"

struct host_settings_wanted {
	bool gro_off;	       /* no merged frames: GRO, GRO in hardware, LRO */
	bool vlan_off;	       /* VLAN tags stay in the frame, no VLAN is filtered */
	bool up;	       /* IFF_UP */
	bool promiscuous;      /* receives what is for others; ends with the process */
	const char *state_dir; /* NULL: HOST_STATE_DIR */
};

/* What frames need to arrive as they were sent. */
#define HOST_SETTINGS_FRAMES                                                        \
	{                                                                           \
		.gro_off = true, .vlan_off = true, .up = true, .promiscuous = true, \
		.state_dir = NULL                                                   \
	}

struct host_settings;

/* Makes the changes on device (a name or an alternative name). -EBUSY: another culvert has the
 * device; -ENODEV, -EPERM. On failure everything is as before. */
int host_settings_take(const char *device, const struct host_settings_wanted *wanted,
	struct host_settings **ret_settings, struct reason *ret_reason);

/* What was changed, in words: "rx-gro off, up"; empty when nothing had to be. Lives as long as
 * the handle. */
const char *host_settings_changes(const struct host_settings *s);
/* Offloads that were to be turned off and are still on ("rx-vlan-filter"), or empty. */
const char *host_settings_refused(const struct host_settings *s);

/* Puts back what was changed and frees s; takes NULL. A device that is gone is no error. On
 * failure (-errno and the reason) the undo file stays for the next start. */
int host_settings_restore(struct host_settings *s, struct reason *ret_reason);

/* Puts back what processes that are dead left changed in this namespace. each (may be NULL) gets
 * one line for every device ("eth0: put back rx-gro on"). Returns how many devices were put
 * back, or -errno with the reason of the last that could not be. No directory: 0. */
int host_settings_recover(const char *state_dir, void (*each)(const char *line, void *data),
	void *data, struct reason *ret_reason);

/* The culvert that has the device now, by its process id; 0: none. */
long host_settings_holder(uint32_t ifindex, const char *state_dir);

/* Which offloads take would turn off, in words, changing nothing: for `doctor`. */
int host_settings_preview(const char *device, const struct host_settings_wanted *wanted,
	char *ret_text, size_t size, struct reason *ret_reason);
