/* Errors of the kernel in words for the operator; each returns err as it came, or the errno that
 * engine.h promises for it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"
#include "engine/engine.h"

struct device;
struct xdp_holder;
struct socket_settings;

int explain_socket(int err, struct reason *r);
int explain_memory(int err, size_t size, struct reason *r);
int explain_rings(int err, const struct socket_settings *s, struct reason *r);
int explain_bind(int err, const struct socket_settings *s, struct reason *r);
int explain_load(int err, struct reason *r);
int explain_no_zero_copy(const struct device *d, struct reason *r);
void explain_as_asked(enum port_mode mode, struct reason *r);
/* holder: the XDP program that has the device, NULL where there is none; flags: XDP_FLAGS_*. */
int explain_attach(int err, const struct device *d, uint32_t flags, const struct xdp_holder *holder,
	struct reason *r);
/* Fatal: a lower step of the ladder would meet the same. */
int explain_is_fatal(int err);
