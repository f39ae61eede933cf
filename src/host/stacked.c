/* Finds devices that stand on another, and their addresses. */
#include "host/stacked.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_link.h>
#include <sys/socket.h>

#include "host/addresses.h"
#include "host/netlink.h"

struct device {
	uint32_t ifindex;
	uint32_t lower;	 /* ifindex of the device it was made on; 0: none in this namespace */
	uint32_t master; /* of what it is a part of; 0: none */
	char name[16];
	char kind[32];
	bool above; /* it stands on the device in question, or is it */
};

struct found {
	struct device *items;
	size_t n;
};

static void read_kind(const struct nlattr *nest, struct device *d)
{
	const struct nlattr *attr;

	host_attr_each_nested (attr, nest)
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			snprintf(d->kind, sizeof(d->kind), "%s", mnl_attr_get_str(attr));
}

static int on_link(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *ifm = mnl_nlmsg_get_payload(nlh);
	struct device d = {.ifindex = (uint32_t)ifm->ifi_index}, *grown;
	const struct nlattr *attr;
	struct found *found = data;
	bool elsewhere = false;

	if (nlh->nlmsg_type != RTM_NEWLINK)
		return 0;
	host_attr_each (attr, nlh, sizeof(*ifm)) {
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			snprintf(d.name, sizeof(d.name), "%s", mnl_attr_get_str(attr));
			break;
		case IFLA_LINK: d.lower = mnl_attr_get_u32(attr); break;
		case IFLA_LINK_NETNSID: elsewhere = true; break;
		case IFLA_MASTER: d.master = mnl_attr_get_u32(attr); break;
		case IFLA_LINKINFO: read_kind(attr, &d); break;
		default: break;
		}
	}
	if (elsewhere)
		d.lower = 0;
	grown = reallocarray(found->items, found->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[found->n++] = d;
	found->items = grown;
	return 0;
}

static void forget(void *data)
{
	struct found *found = data;

	free(found->items);
	*found = (struct found){0};
}

static bool is_one_of(const char *kind, const char *const kinds[])
{
	for (; *kinds; kinds++) {
		if (strcmp(kind, *kinds) == 0)
			return true;
	}
	return false;
}

/* A veth's IFLA_LINK is its peer, a tunnel's the way of its packets: neither stands on it. A VRF
 * leaves its parts their addresses. */
static bool stands_on(const struct device *upper, const struct device *lower)
{
	static const char *const on[] = {
		"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", NULL};
	static const char *const of[] = {"bridge", "bond", "team", NULL};

	return (upper->lower == lower->ifindex && is_one_of(upper->kind, on)) ||
	       (lower->master == upper->ifindex && is_one_of(upper->kind, of));
}

/* Marks d and what stands on what is marked; each device is asked once. */
static void mark(struct found *found, struct device *d)
{
	d->above = true;
	for (size_t i = 0; i < found->n; i++) {
		if (!found->items[i].above && stands_on(&found->items[i], d))
			mark(found, &found->items[i]);
	}
}

/* The first address that others may know; false: none. */
static bool address_of(uint32_t ifindex, char *ret_text, socklen_t size)
{
	struct host_address *all = NULL;
	bool found = false;
	size_t n = 0;

	if (host_addresses_get(ifindex, &all, &n, NULL))
		return false;
	for (size_t i = 0; i < n && !found; i++) {
		const uint8_t *b = all[i].bytes;

		if (all[i].family == AF_INET6 && b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
			continue; /* fe80::/10 */
		found = inet_ntop(all[i].family, b, ret_text, size) != NULL;
	}
	free(all);
	return found;
}

bool host_stacked(uint32_t ifindex, const char *name, struct reason *ret_reason)
{
	char buf[256], address[INET6_ADDRSTRLEN], remedy[128];
	struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
	struct found found = {0};
	bool stacked = false;

	req->nlmsg_type = RTM_GETLINK;
	req->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(req, sizeof(struct ifinfomsg));
	if (host_netlink_ask(req, on_link, forget, &found))
		forget(&found);
	for (size_t i = 0; i < found.n; i++) {
		if (found.items[i].ifindex == ifindex)
			mark(&found, &found.items[i]);
	}
	for (size_t i = 0; i < found.n && !stacked; i++) {
		const struct device *d = &found.items[i];

		if (!d->above || d->ifindex == ifindex ||
			!address_of(d->ifindex, address, sizeof(address)))
			continue;
		stacked = true;
		snprintf(remedy, sizeof(remedy),
			"move the address to %s itself, or forward through another device", name);
		reason_set(ret_reason, 0, remedy,
			"this host's address %s is on %s (%s), which stands on %s: frames for it "
			"are forwarded, and the host can't be reached there",
			address, d->name, d->kind, name);
	}
	forget(&found);
	return stacked;
}
