/* Asks the kernel one rtnetlink question and hands over the answers. */
#include "host/netlink.h"

#include <errno.h>
#include <stdint.h>

#include <sys/socket.h>

/* A netlink answer is at most 32 KiB a message (NLMSG_GOODSIZE of a dump, net/netlink). */
#define ANSWER_SIZE 32768
/* A dump is interrupted by every change of the table; more than this is a storm. */
#define DUMP_TRIES 16

struct asker {
	int (*each)(const struct nlmsghdr *nlh, void *data);
	void *data;
	int err;
};

static int on_message(const struct nlmsghdr *nlh, void *data)
{
	struct asker *a = data;

	if (a->each && !a->err)
		a->err = a->each(nlh, a->data);
	return MNL_CB_OK;
}

static int receive(struct mnl_socket *nl, unsigned int seq, unsigned int port, struct asker *a)
{
	static _Thread_local char answer[ANSWER_SIZE];
	ssize_t n;
	int more;

	for (;;) {
		n = mnl_socket_recvfrom(nl, answer, sizeof(answer));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		more = mnl_cb_run(answer, (size_t)n, seq, port, on_message, a);
		if (more < 0)
			return -errno; /* EINTR: the dump is inconsistent */
		if (more == MNL_CB_STOP)
			return 0;
	}
}

static int ask_once(struct nlmsghdr *req, struct asker *a)
{
	struct mnl_socket *nl;
	int err;

	nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ||
		mnl_socket_sendto(nl, req, req->nlmsg_len) < 0)
		err = -errno;
	else
		err = receive(nl, req->nlmsg_seq, mnl_socket_get_portid(nl), a);
	mnl_socket_close(nl);
	return err;
}

int host_netlink_ask(struct nlmsghdr *req, int (*each)(const struct nlmsghdr *nlh, void *data),
	void (*reset)(void *data), void *data)
{
	struct asker a = {.each = each, .data = data};
	int err = -EINTR;

	req->nlmsg_seq = 1;
	if (!(req->nlmsg_flags & NLM_F_DUMP))
		req->nlmsg_flags |= NLM_F_ACK;
	for (int i = 0; i < DUMP_TRIES && err == -EINTR; i++) {
		a.err = 0;
		if (reset)
			reset(data);
		err = ask_once(req, &a);
	}
	return err ? err : a.err;
}
