/* Devices that the kernel wants back while a port has them: they are unbound from vfio-pci, or
 * unplugged, and whoever does it waits until the port lets go. Inside engine/dpdk/ only. */
#pragma once

#include <stdatomic.h>

/* Sets *flag, in a thread of EAL's, when the device of that name is wanted; until wanted_forget()
 * of the same two. Returns 0 or -errno. */
int wanted_watch(const char *name, atomic_bool *flag);
void wanted_forget(const char *name, atomic_bool *flag);
