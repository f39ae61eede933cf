/* Listens to rtnetlink's groups for links and addresses. */
#include "host/monitor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "host/netlink.h"

struct host_monitor {
	struct mnl_socket *nl;
	void (*each)(const struct host_event *e, void *data); /* for the time of a read */
	void *data;
	int n;
	char answer[32768]; /* a netlink message is at most this long (NLMSG_GOODSIZE of dumps) */
};

int host_monitor_open(struct host_monitor **ret_monitor, struct reason *ret_reason)
{
	struct host_monitor *m;
	int err;

	m = calloc(1, sizeof(*m));
	if (!m)
		return reason_set(ret_reason, -ENOMEM, NULL, "no memory to watch the links");
	m->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!m->nl) {
		err = -errno;
		goto fail;
	}
	if (mnl_socket_bind(m->nl, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
		    MNL_SOCKET_AUTOPID) < 0) {
		err = -errno;
		goto fail;
	}
	*ret_monitor = m;
	return 0;
fail:
	host_monitor_close(m);
	return reason_set(ret_reason, err, NULL, "can't watch the links: %s", strerror(-err));
}

int host_monitor_fd(const struct host_monitor *m)
{
	return mnl_socket_get_fd(m->nl);
}

static void tell(struct host_monitor *m, const struct host_event *e)
{
	m->n++;
	if (m->each)
		m->each(e, m->data);
}

static void on_link(struct host_monitor *m, const struct nlmsghdr *nlh)
{
	const struct ifinfomsg *ifm = mnl_nlmsg_get_payload(nlh);
	struct host_event e = {.kind = HOST_EVENT_LINK, .ifindex = (uint32_t)ifm->ifi_index};
	const struct nlattr *attr;

	/* A bridge reports its ports under its own family: RTM_DELLINK then means that the
	 * device left the bridge, not that it is gone. */
	if (ifm->ifi_family != AF_UNSPEC)
		return;
	if (nlh->nlmsg_type == RTM_DELLINK)
		e.kind = HOST_EVENT_LINK_GONE;
	else
		e.admin_up = ifm->ifi_flags & IFF_UP;
	e.up = e.admin_up && ifm->ifi_flags & IFF_LOWER_UP;
	host_attr_each (attr, nlh, sizeof(*ifm)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type == IFLA_IFNAME)
			snprintf(e.name, sizeof(e.name), "%s", mnl_attr_get_str(attr));
		else if (type == IFLA_MTU)
			e.mtu = mnl_attr_get_u32(attr);
		else if (type == IFLA_ADDRESS && mnl_attr_get_payload_len(attr) == sizeof(e.mac))
			memcpy(e.mac, mnl_attr_get_payload(attr), sizeof(e.mac));
	}
	tell(m, &e);
}

static int on_message(const struct nlmsghdr *nlh, void *data)
{
	struct host_monitor *m = data;
	const struct ifaddrmsg *ifa;
	struct host_event e = {.kind = HOST_EVENT_ADDRESSES};

	switch (nlh->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK: on_link(m, nlh); break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		ifa = mnl_nlmsg_get_payload(nlh);
		e.ifindex = ifa->ifa_index;
		tell(m, &e);
		break;
	default: break;
	}
	return MNL_CB_OK;
}

int host_monitor_read(
	struct host_monitor *m, void (*each)(const struct host_event *e, void *data), void *data)
{
	m->each = each;
	m->data = data;
	m->n = 0;
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(m->nl, m->answer, sizeof(m->answer));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return m->n;
		if (n < 0 && errno == ENOBUFS) {
			tell(m, &(struct host_event){.kind = HOST_EVENT_OVERRUN});
			continue;
		}
		if (n < 0)
			return -errno;
		if (n == 0)
			return m->n;
		/* Sequence and port 0: reports are nobody's answer. */
		if (mnl_cb_run(m->answer, (size_t)n, 0, 0, on_message, m) < 0)
			return -errno;
	}
}

void host_monitor_close(struct host_monitor *m)
{
	if (!m)
		return;
	if (m->nl)
		mnl_socket_close(m->nl);
	free(m);
}
