/* Reads one network device from netlink, ethtool and, for PCI facts, sysfs. */
#include "host/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <unistd.h>

#include "host/ethtool.h"
#include "host/netlink.h"

/* ALTIFNAMSIZ of linux/if.h: with its NUL. */
#define NAME_SIZE_MAX 128

static void read_xdp(const struct nlattr *nest, struct host_link *link)
{
	const struct nlattr *attr;

	host_attr_each_nested (attr, nest) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type == IFLA_XDP_ATTACHED)
			link->xdp = (enum host_xdp)mnl_attr_get_u8(attr);
		/* PROG_ID is absent when several modes are in use at once. */
		else if (type == IFLA_XDP_PROG_ID || (type == IFLA_XDP_DRV_PROG_ID) ||
			 (type == IFLA_XDP_SKB_PROG_ID && !link->xdp_program_id))
			link->xdp_program_id = mnl_attr_get_u32(attr);
	}
}

static void read_kind(const struct nlattr *nest, struct host_link *link)
{
	const struct nlattr *attr;

	host_attr_each_nested (attr, nest)
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			snprintf(link->kind, sizeof(link->kind), "%s", mnl_attr_get_str(attr));
}

static void read_attr(const struct nlattr *attr, struct host_link *link)
{
	switch (mnl_attr_get_type(attr)) {
	case IFLA_IFNAME:
		snprintf(link->name, sizeof(link->name), "%s", mnl_attr_get_str(attr));
		break;
	case IFLA_MTU: link->mtu = mnl_attr_get_u32(attr); break;
	case IFLA_ADDRESS:
		if (mnl_attr_get_payload_len(attr) == sizeof(link->mac))
			memcpy(link->mac, mnl_attr_get_payload(attr), sizeof(link->mac));
		break;
	case IFLA_OPERSTATE: link->operstate = mnl_attr_get_u8(attr); break;
	case IFLA_NUM_RX_QUEUES: link->rx_queues_max = mnl_attr_get_u32(attr); break;
	case IFLA_NUM_TX_QUEUES: link->tx_queues_max = mnl_attr_get_u32(attr); break;
	case IFLA_MASTER: link->master = mnl_attr_get_u32(attr); break;
	case IFLA_LINKINFO: read_kind(attr, link); break;
	case IFLA_XDP: read_xdp(attr, link); break;
	default: break;
	}
}

static int on_link(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *ifm = mnl_nlmsg_get_payload(nlh);
	struct host_link *link = data;
	const struct nlattr *attr;

	if (nlh->nlmsg_type != RTM_NEWLINK)
		return 0;
	link->ifindex = (uint32_t)ifm->ifi_index;
	link->ethernet = ifm->ifi_type == ARPHRD_ETHER;
	link->loopback = ifm->ifi_flags & IFF_LOOPBACK;
	link->up = ifm->ifi_flags & IFF_UP;
	link->carrier = ifm->ifi_flags & IFF_LOWER_UP;
	host_attr_each (attr, nlh, sizeof(*ifm))
		read_attr(attr, link);
	return 0;
}

/* Queues that are in use now. Without ETHTOOL_GCHANNELS all that were allocated are. */
static void read_queues(struct host_link *link)
{
	struct ethtool_channels c;

	link->rx_queues = link->rx_queues_max ? link->rx_queues_max : 1;
	link->tx_queues = link->tx_queues_max ? link->tx_queues_max : 1;
	if (host_ethtool_channels(link->ifindex, &c))
		return;
	/* None in use: a tap device without a reader. One is there all the same. */
	if (c.combined_count + c.rx_count)
		link->rx_queues = c.combined_count + c.rx_count;
	else if (c.max_combined + c.max_rx)
		link->rx_queues = 1;
	if (c.combined_count + c.tx_count)
		link->tx_queues = c.combined_count + c.tx_count;
	else if (c.max_combined + c.max_tx)
		link->tx_queues = 1;
	/* Some say at most 0 here; what was allocated is a bound too. */
	if (c.max_combined + c.max_rx)
		link->rx_queues_max = c.max_combined + c.max_rx;
	if (c.max_combined + c.max_tx)
		link->tx_queues_max = c.max_combined + c.max_tx;
}

static int pci_numa_node(const char *pci)
{
	char path[96];
	int node = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", pci);
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%d", &node) != 1)
		node = -1;
	fclose(f);
	return node;
}

static bool is_pci_address(const char *text)
{
	unsigned int domain, bus, slot, function;
	int end = 0;

	return sscanf(text, "%x:%x:%x.%x%n", &domain, &bus, &slot, &function, &end) == 4 &&
	       text[end] == '\0';
}

static void read_driver(struct host_link *link)
{
	struct ethtool_drvinfo info;

	link->numa_node = -1;
	if (host_ethtool_driver(link->ifindex, &info))
		return;
	snprintf(link->driver, sizeof(link->driver), "%.31s", info.driver);
	if (!is_pci_address(info.bus_info))
		return;
	snprintf(link->pci, sizeof(link->pci), "%.31s", info.bus_info);
	link->numa_node = pci_numa_node(link->pci);
}

static int get(struct nlmsghdr *req, const char *what, struct host_link *ret_link, struct reason *r)
{
	struct host_link link = {0};
	int err;

	err = host_netlink_ask(req, on_link, NULL, &link);
	if (!err && !link.ifindex)
		err = -ENODEV;
	if (err == -ENODEV)
		return reason_set(r, err, "ip -br link shows the devices of this namespace",
			"there is no network device %s in this network namespace", what);
	if (err)
		return reason_set(r, err, reason_remedy(err, NULL),
			"can't ask the kernel about %s: %s", what, strerror(-err));
	read_queues(&link);
	read_driver(&link);
	*ret_link = link;
	return 0;
}

int host_link_get(const char *name, struct host_link *ret_link, struct reason *ret_reason)
{
	char buf[512];
	struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
	size_t len = strlen(name);

	if (len == 0 || len >= NAME_SIZE_MAX)
		return reason_set(ret_reason, -ENODEV,
			"ip -br link shows the devices of this namespace",
			"'%.140s' is not the name of a network device (1 to %d characters)", name,
			NAME_SIZE_MAX - 1);
	req->nlmsg_type = RTM_GETLINK;
	req->nlmsg_flags = NLM_F_REQUEST;
	mnl_nlmsg_put_extra_header(req, sizeof(struct ifinfomsg));
	/* IFLA_IFNAME finds alternative names too, but has room for short ones only. */
	mnl_attr_put_strz(req, len < IFNAMSIZ ? IFLA_IFNAME : IFLA_ALT_IFNAME, name);
	return get(req, name, ret_link, ret_reason);
}

int host_link_get_index(uint32_t ifindex, struct host_link *ret_link, struct reason *ret_reason)
{
	char buf[512], what[32];
	struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifm;

	snprintf(what, sizeof(what), "number %u", ifindex);
	req->nlmsg_type = RTM_GETLINK;
	req->nlmsg_flags = NLM_F_REQUEST;
	ifm = mnl_nlmsg_put_extra_header(req, sizeof(*ifm));
	ifm->ifi_index = (int)ifindex;
	return get(req, what, ret_link, ret_reason);
}

const char *host_xdp_name(enum host_xdp xdp)
{
	static const char *const names[] = {[HOST_XDP_NONE] = "none",
		[HOST_XDP_DRIVER] = "driver",
		[HOST_XDP_SKB] = "skb",
		[HOST_XDP_HARDWARE] = "hardware",
		[HOST_XDP_MULTI] = "several"};

	return (unsigned int)xdp < sizeof(names) / sizeof(names[0]) ? names[xdp] : "unknown";
}

const char *host_operstate_name(uint8_t operstate)
{
	static const char *const names[] = {
		"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"};

	return operstate < sizeof(names) / sizeof(names[0]) ? names[operstate] : "unknown";
}

int host_link_set_up(uint32_t ifindex, bool up, struct reason *ret_reason)
{
	char buf[512];
	struct nlmsghdr *req = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifm;
	int err;

	req->nlmsg_type = RTM_NEWLINK;
	req->nlmsg_flags = NLM_F_REQUEST;
	ifm = mnl_nlmsg_put_extra_header(req, sizeof(*ifm));
	ifm->ifi_index = (int)ifindex;
	ifm->ifi_flags = up ? IFF_UP : 0;
	ifm->ifi_change = IFF_UP;
	err = host_netlink_ask(req, NULL, NULL, NULL);
	if (err)
		reason_set(ret_reason, err,
			err == -EPERM ? "run as root, or with CAP_NET_ADMIN" : NULL,
			"can't bring device %u %s: %s", ifindex, up ? "up" : "down",
			strerror(-err));
	return err;
}
