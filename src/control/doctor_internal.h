/* Shared by the files of doctor alone. */
#pragma once

#include "control/doctor.h"

__attribute__((format(printf, 5, 6))) void doctor_say(struct doctor *d, enum doctor_status status,
	const char *subject, const char *remedy, const char *format, ...);

/* doctor_port.c. Returns true when frames can be forwarded through the port, false when the relay
 * alone could serve; sets *ret_exists. xdp: it works on this machine. */
bool doctor_port(struct doctor *d, const char *port, bool xdp, bool *ret_exists);
/* doctor_pci.c */
void doctor_pci(struct doctor *d, const char *root);
