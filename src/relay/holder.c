/* Finds the process that holds an address: its socket's inode in /proc/net, then whose
 * descriptor that is. Other users' processes are visible to root only. */
#include "relay/holder.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay/endpoint.h"

#define TCP_LISTEN_STATE 0x0a /* include/net/tcp_states.h */

/* The inode of the socket that listens on (or, for UDP, is bound to) a port; 0: none. */
static uint64_t inode_of_port(const char *table, uint16_t port, bool datagram)
{
	char line[512];
	uint64_t inode = 0, found;
	unsigned int local, state;
	FILE *f = fopen(table, "re");

	if (!f)
		return 0;
	while (!inode && fgets(line, sizeof(line), f)) {
		/* sl local:port remote:port state tx:rx tr:when retransmits uid timeout inode */
		if (sscanf(line,
			    " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s "
			    "%" SCNu64,
			    &local, &state, &found) == 3 &&
			local == port && (datagram || state == TCP_LISTEN_STATE))
			inode = found;
	}
	fclose(f);
	return inode;
}

static uint64_t inode_of_path(const char *path)
{
	char line[512];
	uint64_t inode = 0, found;
	int at;
	FILE *f = fopen("/proc/net/unix", "re");

	if (!f)
		return 0;
	while (!inode && fgets(line, sizeof(line), f)) {
		/* num: refcount protocol flags type state inode path */
		at = 0;
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %" SCNu64 " %n", &found, &at) != 1 || !at)
			continue;
		line[strcspn(line, "\n")] = 0;
		if (strcmp(line + at, path) == 0)
			inode = found;
	}
	fclose(f);
	return inode;
}

static bool holds(const char *pid, const char *link)
{
	char path[300], to[64];
	bool found = false;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path);
	if (!fds)
		return false;
	for (struct dirent *e = readdir(fds); e && !found; e = readdir(fds)) {
		ssize_t n = readlinkat(dirfd(fds), e->d_name, to, sizeof(to) - 1);

		if (n <= 0)
			continue;
		to[n] = 0;
		found = strcmp(to, link) == 0;
	}
	closedir(fds);
	return found;
}

static void write_process(const char *pid, char *text, size_t size)
{
	char path[300], name[32] = "?";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = 0;
		fclose(f);
	}
	snprintf(text, size, "%s (pid %.10s)", name, pid);
}

bool holder_find(const struct address *a, bool datagram, char *text, size_t size)
{
	uint64_t inode = 0;
	bool found = false;
	char link[64], path[110];
	DIR *proc;

	if (a->sa.sa_family == AF_UNIX) {
		snprintf(path, sizeof(path), "%s%.107s", a->un.sun_path[0] ? "" : "@",
			a->un.sun_path + !a->un.sun_path[0]);
		inode = inode_of_path(path);
	} else {
		uint16_t port = ntohs(a->in.sin_port);

		inode = inode_of_port(datagram ? "/proc/net/udp" : "/proc/net/tcp", port, datagram);
		if (!inode)
			inode = inode_of_port(
				datagram ? "/proc/net/udp6" : "/proc/net/tcp6", port, datagram);
	}
	proc = inode ? opendir("/proc") : NULL;
	if (!proc)
		return false;
	snprintf(link, sizeof(link), "socket:[%" PRIu64 "]", inode);
	for (struct dirent *e = readdir(proc); e && !found; e = readdir(proc)) {
		if (e->d_name[0] < '0' || e->d_name[0] > '9' || !holds(e->d_name, link))
			continue;
		write_process(e->d_name, text, size);
		found = true;
	}
	closedir(proc);
	return found;
}
