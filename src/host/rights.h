/*
 * What this process may do on this machine, found out by trying and not by version.
 *
 * Changes nothing: what is opened to try is closed again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

/* Something tried: err is 0, or -errno and the reason with its remedy. */
struct host_right {
	int err;
	struct reason reason;
};

struct host_capabilities { /* effective now */
	bool net_admin, net_raw, bpf, sys_admin, perfmon, ipc_lock, sys_resource, sys_nice;
};

struct host_huge_pages {
	uint64_t total, free; /* pages of the default size */
	uint64_t size;	      /* bytes a page; 0: the kernel has none */
};

struct host_rights {
	char kernel[65]; /* uname -r */
	unsigned int kernel_major, kernel_minor;
	struct host_capabilities caps;
	bool user_namespace;	       /* not the machine's own: its capabilities count less */
	int seccomp;		       /* 0 off, 1 strict, 2 filter; -1 not known */
	bool no_new_privs;	       /* no set-uid and no file capabilities from here on */
	int unprivileged_bpf_disabled; /* the sysctl's value; -1 not known */
	char lockdown[20];	       /* "none", "integrity", "confidentiality", or empty */
	uint64_t memlock;	       /* bytes; UINT64_MAX: no limit */
	struct host_huge_pages huge;
	struct host_right program; /* bpf(2): an XDP program can be loaded */
	struct host_right xsk;	   /* socket(AF_XDP) */
	struct host_right locking; /* memlock_needed bytes can be locked for packet buffers */
	struct host_right relay;   /* TCP sockets, and splice(2) between pipes */
};

/* memlock_needed: bytes of packet buffers (UMEM). */
void host_rights_get(struct host_rights *ret, uint64_t memlock_needed);

/* Of `root`/proc/meminfo; root is "" for this machine. */
void host_huge_pages_get(const char *root, struct host_huge_pages *ret);
