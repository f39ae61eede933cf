/*
 * One rtnetlink request and its answers: a socket opened for the request, closed after it.
 * Inside host/ only.
 */
#pragma once

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

/* libmnl's loops, without their narrowing of pointer differences. */
#define host_attr_each_within(attr, begin, end)                                          \
	for ((attr) = (begin); mnl_attr_ok((attr), (int)((end) - (const char *)(attr))); \
		(attr) = mnl_attr_next(attr))
#define host_attr_each(attr, nlh, offset)                                      \
	host_attr_each_within(attr, mnl_nlmsg_get_payload_offset(nlh, offset), \
		(const char *)mnl_nlmsg_get_payload_tail(nlh))
#define host_attr_each_nested(attr, nest)                       \
	host_attr_each_within(attr, mnl_attr_get_payload(nest), \
		(const char *)mnl_attr_get_payload(nest) + mnl_attr_get_payload_len(nest))

/* Sends req (type and payload filled in, NLM_F_REQUEST set; NLM_F_DUMP for a dump) and calls
 * each for every message of the answer (may be NULL). A dump that changed under our eyes is
 * repeated, reset (may be NULL) is called before. Returns 0, what each returned below 0, or the
 * kernel's -errno. */
int host_netlink_ask(struct nlmsghdr *req, int (*each)(const struct nlmsghdr *nlh, void *data),
	void (*reset)(void *data), void *data);
