/* Writes, reads and locks the undo file of a device. */
#include "host/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* asm-generic/socket.h, kernel 5.14 */
#endif

#define FILE_SIZE_MAX 2048
/* A process that was just killed holds its locks until its last descriptor is closed. */
#define LOCK_TRIES   20
#define LOCK_WAIT_NS 25000000L

static void read_boot_id(char *ret, size_t size)
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	ret[0] = '\0';
	if (!f)
		return;
	if (fgets(ret, (int)size, f))
		ret[strcspn(ret, "\n")] = '\0';
	fclose(f);
}

int host_undo_here(struct host_undo *ret, struct reason *ret_reason)
{
	socklen_t len = sizeof(ret->cookie);
	struct stat st;
	int fd;

	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	/* Of the thread: settings may be made by one that has changed its namespace. */
	if (stat("/proc/thread-self/ns/net", &st) < 0)
		return reason_set(ret_reason, -errno, "mount -t proc proc /proc",
			"can't tell the network namespace: %s", strerror(errno));
	ret->netns = st.st_ino;
	read_boot_id(ret->boot, sizeof(ret->boot));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &ret->cookie, &len) < 0)
		ret->cookie = 0;
	close(fd);
	return 0;
}

static const char *remedy_of(int err)
{
	return err == EROFS ? "it must be writable: ReadWritePaths= of its unit, or a tmpfs there"
			    : "run as root";
}

static int make_dir(const char *dir, struct reason *r)
{
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return reason_set(r, -errno, remedy_of(errno),
			"can't make %.200s, where changes of devices are noted for their undo: %s",
			dir, strerror(errno));
	return 0;
}

static long owner_pid(int fd)
{
	char text[FILE_SIZE_MAX + 1];
	ssize_t n = pread(fd, text, FILE_SIZE_MAX, 0);
	const char *at;

	if (n < 0)
		return 0;
	text[n] = '\0';
	at = strstr(text, "\npid ");
	return at ? strtol(at + 5, NULL, 10) : 0;
}

static int lock(int fd)
{
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == LOCK_TRIES)
			return -errno;
		nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
	}
	return 0;
}

/* 1: locked, but somebody removed the file meanwhile. */
static int open_once(struct host_undo *u, bool create, struct reason *r)
{
	struct stat ours, named;
	int fd, err;

	fd = open(u->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0644);
	if (fd < 0)
		return reason_set(r, -errno, remedy_of(errno),
			"can't open %.200s, where changes of the device are noted: %s", u->path,
			strerror(errno));
	err = lock(fd);
	if (err == -EWOULDBLOCK) {
		reason_set(r, -EBUSY, "stop it, or use another device",
			"another culvert (process %ld) already has the device", owner_pid(fd));
		close(fd);
		return -EBUSY;
	}
	if (err) {
		close(fd);
		return reason_set(r, err, NULL, "can't lock %.200s: %s", u->path, strerror(-err));
	}
	if (fstat(fd, &ours) < 0 || stat(u->path, &named) < 0 || ours.st_ino != named.st_ino ||
		ours.st_dev != named.st_dev) {
		close(fd);
		return 1;
	}
	u->fd = fd;
	return 0;
}

static void set_path(struct host_undo *u, const char *state_dir)
{
	snprintf(u->path, sizeof(u->path), "%s/undo-%" PRIu64 "-%u", state_dir, u->netns,
		u->ifindex);
}

long host_undo_owner(struct host_undo *u, const char *state_dir)
{
	long pid = 0;
	int fd;

	set_path(u, state_dir);
	fd = open(u->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	/* Whoever starts at this moment tries again (lock above). */
	if (flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		pid = owner_pid(fd);
	close(fd);
	return pid;
}

int host_undo_open(struct host_undo *u, const char *state_dir, bool create, struct reason *r)
{
	int err;

	if (create) {
		err = make_dir(state_dir, r);
		if (err)
			return err;
	}
	set_path(u, state_dir);
	do
		err = open_once(u, create, r);
	while (err > 0);
	return err;
}

static void parse_line(struct host_undo *u, char *line, bool *ret_end)
{
	char *value = strchr(line, ' ');

	if (!value) {
		if (strcmp(line, "end") == 0)
			*ret_end = true;
		else if (strcmp(line, "up") == 0)
			u->brought_up = true;
		return;
	}
	*value++ = '\0';
	if (strcmp(line, "boot") == 0)
		snprintf(u->boot, sizeof(u->boot), "%s", value);
	else if (strcmp(line, "netns") == 0)
		u->netns = strtoull(value, NULL, 10);
	else if (strcmp(line, "cookie") == 0)
		u->cookie = strtoull(value, NULL, 10);
	else if (strcmp(line, "ifindex") == 0)
		u->ifindex = (uint32_t)strtoul(value, NULL, 10);
	else if (strcmp(line, "name") == 0)
		snprintf(u->name, sizeof(u->name), "%s", value);
	else if (strcmp(line, "mac") == 0)
		sscanf(value, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &u->mac[0], &u->mac[1], &u->mac[2],
			&u->mac[3], &u->mac[4], &u->mac[5]);
	else if (strcmp(line, "off") == 0 && u->n_features < HOST_UNDO_FEATURES_MAX)
		snprintf(u->features[u->n_features++], sizeof(u->features[0]), "%s", value);
}

int host_undo_read(const struct host_undo *u, struct host_undo *ret)
{
	char text[FILE_SIZE_MAX + 1];
	char *line, *save = NULL;
	bool end = false;
	ssize_t n;

	n = pread(u->fd, text, FILE_SIZE_MAX, 0);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	for (line = strtok_r(text, "\n", &save); line && !end; line = strtok_r(NULL, "\n", &save))
		parse_line(ret, line, &end);
	return end ? 0 : -ENODATA;
}

int host_undo_write(const struct host_undo *u, struct reason *r)
{
	char text[FILE_SIZE_MAX];
	size_t size = 0;
	ssize_t n;
	FILE *f;

	f = fmemopen(text, sizeof(text), "w");
	if (!f)
		return reason_set(r, -errno, NULL, "no memory for an undo file");
	fprintf(f, "culvert-undo 1\npid %ld\nboot %s\nnetns %" PRIu64 "\ncookie %" PRIu64 "\n",
		(long)getpid(), u->boot, u->netns, u->cookie);
	fprintf(f, "ifindex %u\nname %s\nmac %02x:%02x:%02x:%02x:%02x:%02x\n", u->ifindex, u->name,
		u->mac[0], u->mac[1], u->mac[2], u->mac[3], u->mac[4], u->mac[5]);
	for (uint32_t i = 0; i < u->n_features; i++)
		fprintf(f, "off %s\n", u->features[i]);
	fprintf(f, "%send\n", u->brought_up ? "up\n" : "");
	size = (size_t)ftell(f);
	if (fclose(f) != 0)
		return reason_set(r, -EIO, NULL, "no room for an undo file");
	if (ftruncate(u->fd, 0) < 0)
		n = -1;
	else
		n = pwrite(u->fd, text, size, 0);
	if (n == (ssize_t)size)
		return 0;
	if (n >= 0)
		errno = ENOSPC;
	return reason_set(r, -errno, "make room there",
		"can't write %.200s, where changes of the device are noted: %s", u->path,
		strerror(errno));
}

void host_undo_close(struct host_undo *u, bool done)
{
	if (u->fd < 0)
		return;
	/* Under the lock: nobody else can have taken this file for theirs. */
	if (done)
		unlink(u->path);
	close(u->fd);
	u->fd = -1;
}
