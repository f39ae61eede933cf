/* The other end of memif and vhost-user devices: is it there, or did it leave its socket? */
#include "engine/dpdk/peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <rte_config.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/dpdk/callbacks.h"

#define LISTENS 0x10000u /* __SO_ACCEPTCON in the flags of /proc/net/unix (linux/net.h) */
/* For a peer to answer a first question; it is asked again later. */
#define ANSWER_MS 300

/* The value of ",key=" in the device's arguments; false: not there. */
static bool argument(const struct dpdk_device *d, const char *key, char *ret, size_t size)
{
	char pattern[32];
	const char *at;

	snprintf(pattern, sizeof(pattern), ",%s=", key);
	at = strstr(d->devargs, pattern);
	if (!at)
		return false;
	at += strlen(pattern);
	snprintf(ret, size, "%.*s", (int)strcspn(at, ","), at);
	return true;
}

/* Nobody will ever listen at what is something else. */
static int socket_or_none(const char *name, const char *path, struct reason *r)
{
	struct stat s;

	if (stat(path, &s) < 0 || S_ISSOCK(s.st_mode))
		return 0;
	return reason_set(
		r, -EEXIST, "take another path", "%s: %s is there, and is no socket", name, path);
}

static int parse_virtio_user(struct dpdk_device *d, struct reason *r)
{
	char server[8];
	struct stat s;

	if (argument(d, "server", server, sizeof(server)) && strcmp(server, "0") != 0)
		return reason_set(r, -EINVAL,
			"leave it out and let the other end listen, culvert waits for it; or take "
			"net_vhost0,iface=PATH",
			"%s: with server=%s culvert would answer nobody until its peer comes",
			d->name, server);
	if (!argument(d, "path", d->peer, sizeof(d->peer)))
		return reason_set(r, -EINVAL,
			"write dpdk:net_virtio_user0,path=/run/vhost.sock, where its peer listens",
			"%s needs path=", d->name);
	if (stat(d->peer, &s) == 0 && S_ISCHR(s.st_mode)) {
		d->peer[0] = '\0'; /* /dev/vhost-net: the kernel is its peer */
		return 0;
	}
	if (strncmp(d->peer, "/dev/", 5) == 0 && stat(d->peer, &s) < 0)
		return reason_set(r, -ENODEV,
			"`modprobe vhost-net`, or a path= where a program listens",
			"%s: there is no %s", d->name, d->peer);
	return socket_or_none(d->name, d->peer, r);
}

/* The defaults are those of the driver (rte_eth_memif.c). */
static int parse_memif(struct dpdk_device *d, struct reason *r)
{
	char role[16] = "client", abstract[8] = "yes", path[sizeof(d->peer)] = "/run/memif.sock";
	char id[16] = "0", *end;
	bool server;

	argument(d, "role", role, sizeof(role));
	argument(d, "socket-abstract", abstract, sizeof(abstract));
	argument(d, "socket", path, sizeof(path));
	server = strcmp(role, "server") == 0 || strcmp(role, "master") == 0;
	if (!server && strcmp(role, "client") != 0 && strcmp(role, "slave") != 0)
		return reason_set(r, -EINVAL,
			"write role=server at one end, role=client at the other",
			"%s: there is no role %s", d->name, role);
	argument(d, "id", id, sizeof(id));
	d->memif_id = (uint32_t)strtoul(id, &end, 10);
	if (*end || id[0] == '-')
		return reason_set(r, -EINVAL, "write id=1", "%s: id=%s is no number", d->name, id);
	d->abstract = strcmp(abstract, "no") != 0;
	snprintf(server ? d->listen : d->peer, sizeof(d->peer), "%s", path);
	return d->abstract || server ? 0 : socket_or_none(d->name, path, r);
}

static bool is_memif(const struct dpdk_device *d)
{
	return strncmp(d->name, "net_memif", 9) == 0;
}

int peer_parse(struct dpdk_device *d, struct reason *r)
{
	char client[8];

	if (strncmp(d->name, "net_virtio_user", 15) == 0)
		return parse_virtio_user(d, r);
	if (is_memif(d))
		return parse_memif(d, r);
	/* As a client net_vhost connects again by itself. */
	if (strncmp(d->name, "net_vhost", 9) == 0 &&
		!(argument(d, "client", client, sizeof(client)) && strcmp(client, "0") != 0))
		argument(d, "iface", d->listen, sizeof(d->listen));
	return 0;
}

/* Abstract names are those of this network namespace, as this file is. */
static bool abstract_listens(const char *name)
{
	FILE *f = fopen("/proc/net/unix", "re");
	char line[256], at[128];
	bool found = !f; /* the driver will see */

	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned int flags;

		if (sscanf(line, "%*s %*s %*s %x %*s %*s %*s @%127[^\n]", &flags, at) == 2)
			found = flags & LISTENS && strcmp(at, name) == 0;
	}
	if (f)
		fclose(f);
	return found;
}

/* Asks with a type of socket that no peer has, so that none sees us: 0 (or another error that the
 * driver will meet and tell), -ENOENT, -ECONNREFUSED: a dead one's. */
static int path_ask(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return 0;
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 &&
		(errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED))
		err = errno == ECONNREFUSED ? -ECONNREFUSED : -ENOENT;
	close(fd);
	return err;
}

/* virtio_user waits without end for a peer that hangs, and all changes with it: so it is asked for
 * its features first (vhost-user protocol: request, flags with the version, size; then 8 bytes). */
static bool vhost_user_answers(const char *path)
{
	const uint32_t get_features[3] = {1, 1, 0};
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct pollfd p = {.events = POLLIN};
	uint32_t answer[5];
	bool good;

	p.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (p.fd < 0)
		return true; /* the driver will see */
	if (connect(p.fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		good = errno != EAGAIN;
	else
		good = send(p.fd, get_features, sizeof(get_features), MSG_NOSIGNAL) ==
			       sizeof(get_features) &&
		       poll(&p, 1, ANSWER_MS) == 1 &&
		       recv(p.fd, answer, sizeof(answer), 0) == sizeof(answer);
	close(p.fd);
	return good;
}

int peer_check(const struct dpdk_device *d, struct reason *r)
{
	if (!d->peer[0])
		return 0;
	if (d->abstract ? abstract_listens(d->peer) : path_ask(d->peer) == 0) {
		if (is_memif(d) || vhost_user_answers(d->peer))
			return 0;
		return reason_set(r, -ENOTCONN,
			"is that a vhost-user socket, and its program well?",
			"%s waits for its peer: what listens at %s does not answer", d->name,
			d->peer);
	}
	return reason_set(r, -ENOTCONN, "start the other end: it is opened as soon as that listens",
		"%s waits for its peer: nobody listens at %s%s", d->name, d->peer,
		d->abstract ? " (abstract)" : "");
}

/* Our memif devices: several may share a socket. */
static struct memif {
	bool used, server;
	char socket[sizeof(((struct dpdk_device *)0)->listen)];
	uint32_t id;
} memifs[RTE_MAX_ETHPORTS];

static const char *memif_socket(const struct dpdk_device *d)
{
	return d->listen[0] ? d->listen : d->peer;
}

static bool shares(const struct memif *m, const struct dpdk_device *d)
{
	return m->used && m->server == (d->listen[0] != '\0') &&
	       strcmp(m->socket, memif_socket(d)) == 0;
}

static struct memif *memif_find(const struct dpdk_device *d)
{
	for (int i = 0; i < RTE_MAX_ETHPORTS; i++) {
		if (shares(&memifs[i], d) && memifs[i].id == d->memif_id)
			return &memifs[i];
	}
	return NULL;
}

/* Do we listen there? */
static bool memif_listens(const struct dpdk_device *d)
{
	for (int i = 0; i < RTE_MAX_ETHPORTS; i++) {
		if (shares(&memifs[i], d))
			return d->listen[0] != '\0';
	}
	return false;
}

int peer_take_socket(const struct dpdk_device *d, struct reason *r)
{
	struct stat s;

	/* The driver would find that out, and keep the device's name for good (rte_eth_memif.c,
	 * memif_create). */
	if (is_memif(d) && memif_find(d))
		return reason_set(r, -EBUSY,
			"give each device on that socket an id=N of its own, or another socket",
			"%s: another port has id=%u at %s", d->name, d->memif_id, memif_socket(d));
	if (!d->listen[0] || d->abstract || stat(d->listen, &s) < 0)
		return 0; /* the driver will see */
	if (!S_ISSOCK(s.st_mode))
		return socket_or_none(d->name, d->listen, r);
	if (is_memif(d) && memif_listens(d))
		return 0; /* ours, shared */
	if (path_ask(d->listen) == 0)
		return reason_set(r, -EBUSY, "stop that, or take another path",
			"%s: a program that runs listens at %s already", d->name, d->listen);
	unlink(d->listen); /* a dead one's */
	return 0;
}

static bool listens_at(int fd, const struct dpdk_device *d)
{
	struct sockaddr_un at = {0};
	socklen_t size = sizeof(at) - 1, int_size = sizeof(int);
	int listening = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_size) == 0 && listening &&
	       getsockname(fd, (struct sockaddr *)&at, &size) == 0 && at.sun_family == AF_UNIX &&
	       strcmp(at.sun_path + (d->abstract ? 1 : 0), d->listen) == 0;
}

/* Puts one in its place on which nothing ever happens, until EAL's thread knows nothing of it. */
static void park(int fd)
{
	int nothing = eventfd(0, EFD_CLOEXEC);

	if (nothing < 0)
		return;
	dup3(nothing, fd, O_CLOEXEC);
	close(nothing);
	if (callback_forget(fd))
		close(fd);
}

void peer_plugged(const struct dpdk_device *d)
{
	struct memif *m = memifs;

	if (!is_memif(d))
		return;
	while (m < memifs + RTE_MAX_ETHPORTS && m->used)
		m++;
	if (m == memifs + RTE_MAX_ETHPORTS)
		return;
	*m = (struct memif){.used = true, .server = d->listen[0], .id = d->memif_id};
	snprintf(m->socket, sizeof(m->socket), "%s", memif_socket(d));
}

/* net_memif frees what its listening socket's callback works on, and leaves both the socket open
 * and the callback registered (DPDK 22.11, memif_socket_remove_device): who connects then would
 * crash us, and nobody could listen there again. */
void peer_unplugged(const struct dpdk_device *d)
{
	struct memif *m = is_memif(d) ? memif_find(d) : NULL;
	const struct dirent *e;
	DIR *fds;

	if (!m)
		return;
	m->used = false;
	if (!m->server || memif_listens(d))
		return;
	fds = opendir("/proc/self/fd");
	while (fds && (e = readdir(fds))) {
		int fd = atoi(e->d_name);

		if (fd > STDERR_FILENO && listens_at(fd, d))
			park(fd);
	}
	if (fds)
		closedir(fds);
}
