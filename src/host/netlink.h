/*
 * One rtnetlink request and its answers: a socket opened for the request, closed after it.
 * Inside host/ only.
 */
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

/* Sends req (type and payload filled in, NLM_F_REQUEST set; NLM_F_DUMP for a dump) and calls
 * each for every message of the answer (may be NULL). A dump that changed under our eyes is
 * repeated, reset (may be NULL) is called before. Returns 0, what each returned below 0, or the
 * kernel's -errno. */
int host_netlink_ask(struct nlmsghdr *req, int (*each)(const struct nlmsghdr *nlh, void *data),
	void (*reset)(void *data), void *data);
