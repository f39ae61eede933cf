/* Reads addresses and default routes from rtnetlink. */
#include "host/addresses.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_addr.h>
#include <sys/socket.h>

#include "host/netlink.h"

struct found_addresses {
	uint32_t ifindex;
	struct host_address *items;
	size_t n;
};

static int on_address(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	struct found_addresses *found = data;
	struct host_address a = {.family = ifa->ifa_family, .prefix_len = ifa->ifa_prefixlen};
	const struct nlattr *attr, *own = NULL;
	struct host_address *grown;
	size_t len;

	if (nlh->nlmsg_type != RTM_NEWADDR || ifa->ifa_index != found->ifindex ||
		(ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6))
		return 0;
	/* With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL ours. */
	host_attr_each (attr, nlh, sizeof(*ifa)) {
		if (mnl_attr_get_type(attr) == IFA_LOCAL)
			own = attr;
		else if (mnl_attr_get_type(attr) == IFA_ADDRESS && !own)
			own = attr;
	}
	len = ifa->ifa_family == AF_INET ? 4 : 16;
	if (!own || mnl_attr_get_payload_len(own) < len)
		return 0;
	memcpy(a.bytes, mnl_attr_get_payload(own), len);
	grown = reallocarray(found->items, found->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[found->n++] = a;
	found->items = grown;
	return 0;
}

static void forget_addresses(void *data)
{
	struct found_addresses *found = data;

	free(found->items);
	found->items = NULL;
	found->n = 0;
}

int host_addresses_get(uint32_t ifindex, struct host_address **ret_addresses, size_t *ret_n,
	struct reason *ret_reason)
{
	char buf[256];
	struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
	struct found_addresses found = {.ifindex = ifindex};
	int err;

	req->nlmsg_type = RTM_GETADDR;
	req->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(req, sizeof(struct ifaddrmsg));
	err = host_netlink_ask(req, on_address, forget_addresses, &found);
	if (err) {
		forget_addresses(&found);
		return reason_set(ret_reason, err, reason_remedy(err, NULL),
			"can't read the addresses of device %u: %s", ifindex, strerror(-err));
	}
	*ret_addresses = found.items;
	*ret_n = found.n;
	return 0;
}

struct found_routes {
	uint32_t *items;
	size_t n;
};

static int add_route(struct found_routes *found, uint32_t ifindex)
{
	uint32_t *grown;

	for (size_t i = 0; i < found->n; i++)
		if (found->items[i] == ifindex)
			return 0;
	grown = reallocarray(found->items, found->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[found->n++] = ifindex;
	found->items = grown;
	return 0;
}

static int add_next_hops(struct found_routes *found, const struct nlattr *attr)
{
	const struct rtnexthop *hop = mnl_attr_get_payload(attr);
	int left = mnl_attr_get_payload_len(attr);
	int err = 0;

	while (!err && left >= (int)sizeof(*hop) && hop->rtnh_len >= sizeof(*hop) &&
		hop->rtnh_len <= left) {
		err = add_route(found, (uint32_t)hop->rtnh_ifindex);
		left -= RTNH_ALIGN(hop->rtnh_len);
		hop = RTNH_NEXT(hop);
	}
	return err;
}

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;
	int err = 0;

	if (nlh->nlmsg_type != RTM_NEWROUTE || rtm->rtm_dst_len != 0 ||
		rtm->rtm_type != RTN_UNICAST || rtm->rtm_flags & RTM_F_CLONED)
		return 0;
	host_attr_each (attr, nlh, sizeof(*rtm)) {
		if (mnl_attr_get_type(attr) == RTA_OIF)
			err = add_route(data, mnl_attr_get_u32(attr));
		else if (mnl_attr_get_type(attr) == RTA_MULTIPATH)
			err = add_next_hops(data, attr);
		if (err)
			return err;
	}
	return 0;
}

static void forget_routes(void *data)
{
	struct found_routes *found = data;

	free(found->items);
	found->items = NULL;
	found->n = 0;
}

int host_default_routes(uint32_t **ret_ifindexes, size_t *ret_n, struct reason *ret_reason)
{
	static const unsigned char families[] = {AF_INET, AF_INET6};
	struct found_routes all = {0};
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(families); i++) {
		char buf[256];
		struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
		struct found_routes found = {0};
		struct rtmsg *rtm;

		req->nlmsg_type = RTM_GETROUTE;
		req->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		rtm = mnl_nlmsg_put_extra_header(req, sizeof(*rtm));
		rtm->rtm_family = families[i];
		err = host_netlink_ask(req, on_route, forget_routes, &found);
		for (size_t k = 0; !err && k < found.n; k++)
			err = add_route(&all, found.items[k]);
		forget_routes(&found);
		/* A kernel without IPv6 has no such routes. */
		if (err == -EAFNOSUPPORT || err == -EOPNOTSUPP)
			err = 0;
	}
	if (err) {
		forget_routes(&all);
		return reason_set(
			ret_reason, err, NULL, "can't read the routes: %s", strerror(-err));
	}
	*ret_ifindexes = all.items;
	*ret_n = all.n;
	return 0;
}
