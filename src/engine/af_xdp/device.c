/* Reads what the engine must know of a network device: by ioctl and netlink, as they follow the
 * process's network namespace where /sys may show another's. */
#include "engine/af_xdp/device.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/version.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The first message is longer, but its head is all that is read. */
#define ANSWER_SIZE 256

/* The receive queues of drivers that don't answer ETHTOOL_GCHANNELS (tun): by /sys, where it shows
 * this device. */
static uint32_t count_in_sysfs(const struct device *d)
{
	char path[128];
	unsigned int ifindex = 0;
	uint32_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/net/%s/ifindex", d->name);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%u", &ifindex) != 1)
			ifindex = 0;
		fclose(f);
	}
	if (ifindex != d->ifindex)
		return 1;
	do {
		snprintf(path, sizeof(path), "/sys/class/net/%s/queues/rx-%u", d->name, n);
	} while (access(path, F_OK) == 0 && ++n < 1024);
	return n ? n : 1;
}

static void read_ethtool(int fd, struct ifreq *request, struct device *d)
{
	struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};

	request->ifr_data = (char *)&driver;
	if (ioctl(fd, SIOCETHTOOL, request) == 0) {
		driver.driver[sizeof(driver.driver) - 1] = '\0';
		snprintf(d->driver, sizeof(d->driver), "%s", driver.driver);
	}
	request->ifr_data = (char *)&channels;
	if (ioctl(fd, SIOCETHTOOL, request) == 0)
		d->rx_queues = channels.combined_count + channels.rx_count;
	if (d->rx_queues == 0)
		d->rx_queues = count_in_sysfs(d);
}

static uint32_t read_kernel(void)
{
	unsigned int major, minor;
	struct utsname name;

	if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return 0;
	return (uint32_t)KERNEL_VERSION(major, minor, 0);
}

/* An alternative name may be too long for an ioctl. 0: there is none of that name. */
static uint32_t ifindex_by_long_name(const char *name)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg link;
		struct nlattr attribute;
		char name[ALTIFNAMSIZ];
	} ask = {
		.head = {.nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
		.attribute = {.nla_type = IFLA_ALT_IFNAME},
	};
	union {
		struct nlmsghdr head;
		char bytes[ANSWER_SIZE];
	} answer;
	size_t size = strlen(name) + 1;
	uint32_t ifindex = 0;
	ssize_t n;
	int fd;

	if (size > sizeof(ask.name))
		return 0;
	memcpy(ask.name, name, size);
	ask.attribute.nla_len = (uint16_t)(sizeof(ask.attribute) + size);
	ask.head.nlmsg_len = (uint32_t)(offsetof(__typeof__(ask), name) + NLA_ALIGN(size));
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return 0;
	if (send(fd, &ask, ask.head.nlmsg_len, 0) >= 0) {
		n = recv(fd, &answer, sizeof(answer), 0);
		if (n >= (ssize_t)NLMSG_LENGTH(sizeof(ask.link)) &&
			answer.head.nlmsg_type == RTM_NEWLINK)
			ifindex = (uint32_t)((const struct ifinfomsg *)NLMSG_DATA(&answer.head))
					  ->ifi_index;
	}
	close(fd);
	return ifindex;
}

/* 0: there is none of that name. */
static uint32_t ifindex_of(int fd, const char *name)
{
	struct ifreq request = {0};

	if (strlen(name) >= sizeof(request.ifr_name))
		return ifindex_by_long_name(name);
	strcpy(request.ifr_name, name);
	return ioctl(fd, SIOCGIFINDEX, &request) < 0 ? 0 : (uint32_t)request.ifr_ifindex;
}

int device_read(const char *name, struct device *ret_device, struct reason *r)
{
	struct ifreq request = {0};
	struct device d = {0};
	int fd, err = 0;

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return reason_set(r, -errno, reason_remedy(-errno, NULL),
			"%s: no socket to read it by: %s", name, strerror(errno));
	d.ifindex = ifindex_of(fd, name);
	request.ifr_ifindex = (int)d.ifindex;
	if (d.ifindex == 0 || ioctl(fd, SIOCGIFNAME, &request) < 0) {
		close(fd);
		return reason_set(r, -ENODEV, "`ip link` lists the devices of this namespace",
			"there is no network device %s here", name);
	}
	snprintf(d.name, sizeof(d.name), "%s", request.ifr_name);
	d.kernel = read_kernel();
	if (ioctl(fd, SIOCGIFMTU, &request) == 0)
		d.mtu = (uint32_t)request.ifr_mtu;
	else
		err = -errno;
	if (!err && ioctl(fd, SIOCGIFFLAGS, &request) == 0)
		d.up = (request.ifr_flags & IFF_UP) != 0;
	if (!err && ioctl(fd, SIOCGIFHWADDR, &request) == 0) {
		d.ethernet = request.ifr_hwaddr.sa_family == ARPHRD_ETHER ||
			     request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
		memcpy(d.mac, request.ifr_hwaddr.sa_data, sizeof(d.mac));
	}
	if (!err)
		read_ethtool(fd, &request, &d);
	close(fd);
	if (err)
		return reason_set(r, err, NULL, "%s can't be read: %s", name, strerror(-err));
	*ret_device = d;
	return 0;
}
