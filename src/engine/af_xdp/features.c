/* Asks the kernel which kinds of XDP a device's driver has: the netdev family of generic netlink
 * (Documentation/netlink/specs/netdev.yaml, Linux 6.3). */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "engine/af_xdp/device.h"

/* linux/netdev.h, which Debian 12 lacks. */
#define NETDEV_COMMAND_DEV_GET	      1
#define NETDEV_ATTRIBUTE_IFINDEX      1
#define NETDEV_ATTRIBUTE_XDP_FEATURES 3

/* The kernel answers at once or never. */
#define ANSWER_MAX_S 2

struct message {
	struct nlmsghdr head;
	struct genlmsghdr generic;
	uint8_t attributes[8192];
};

static void message_start(struct message *m, uint16_t family, uint8_t command)
{
	memset(m, 0, NLMSG_HDRLEN + GENL_HDRLEN);
	m->head.nlmsg_len = NLMSG_HDRLEN + GENL_HDRLEN;
	m->head.nlmsg_type = family;
	m->head.nlmsg_flags = NLM_F_REQUEST;
	m->generic.cmd = command;
	m->generic.version = 1;
}

/* size is small and known here. */
static void message_add(struct message *m, uint16_t type, const void *value, uint16_t size)
{
	struct nlattr *a = (struct nlattr *)((uint8_t *)m + m->head.nlmsg_len);

	a->nla_type = type;
	a->nla_len = (uint16_t)(NLA_HDRLEN + size);
	memcpy((uint8_t *)a + NLA_HDRLEN, value, size);
	m->head.nlmsg_len += NLA_ALIGN(a->nla_len);
}

/* Sends m and puts the answer in its place. */
static int message_ask(int fd, struct message *m)
{
	ssize_t n;

	if (send(fd, m, m->head.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(fd, m, sizeof(*m), 0);
	if (n < 0)
		return -errno;
	if (n < NLMSG_HDRLEN || m->head.nlmsg_len > (size_t)n)
		return -EBADMSG;
	if (m->head.nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(&m->head);

		return m->head.nlmsg_len >= NLMSG_LENGTH(sizeof(*e)) && e->error ? e->error
										 : -EBADMSG;
	}
	return m->head.nlmsg_len < NLMSG_HDRLEN + GENL_HDRLEN ? -EBADMSG : 0;
}

/* The value of an attribute of at least size bytes, or NULL. */
static const void *message_find(const struct message *m, uint16_t type, size_t size)
{
	size_t left = m->head.nlmsg_len - NLMSG_HDRLEN - GENL_HDRLEN;
	const uint8_t *at = m->attributes;

	while (left >= NLA_HDRLEN) {
		const struct nlattr *a = (const struct nlattr *)at;
		size_t step = NLA_ALIGN(a->nla_len);

		if (a->nla_len < NLA_HDRLEN || a->nla_len > left)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type && a->nla_len >= NLA_HDRLEN + size)
			return at + NLA_HDRLEN;
		if (step >= left)
			return NULL;
		at += step;
		left -= step;
	}
	return NULL;
}

static int ask(int fd, uint32_t ifindex, struct message *m, uint64_t *ret_features)
{
	const void *value;
	uint16_t family;
	int err;

	message_start(m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	message_add(m, CTRL_ATTR_FAMILY_NAME, "netdev", sizeof("netdev"));
	err = message_ask(fd, m);
	if (err)
		return err;
	value = message_find(m, CTRL_ATTR_FAMILY_ID, sizeof(family));
	if (!value)
		return -EBADMSG;
	memcpy(&family, value, sizeof(family));

	message_start(m, family, NETDEV_COMMAND_DEV_GET);
	message_add(m, NETDEV_ATTRIBUTE_IFINDEX, &ifindex, sizeof(ifindex));
	err = message_ask(fd, m);
	if (err)
		return err;
	value = message_find(m, NETDEV_ATTRIBUTE_XDP_FEATURES, sizeof(*ret_features));
	if (!value)
		return -EBADMSG;
	memcpy(ret_features, value, sizeof(*ret_features));
	return 0;
}

int device_xdp_features(uint32_t ifindex, uint64_t *ret_features)
{
	struct timeval patience = {.tv_sec = ANSWER_MAX_S};
	struct message m;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	err = ask(fd, ifindex, &m, ret_features);
	close(fd);
	return err;
}
