/* Tries what culvert needs of the kernel, and finds out why it is refused. */
#include "host/rights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cap-ng.h>
#include <linux/bpf.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif

/* First line of a file, without its newline; empty when it can't be read. */
static void read_line(const char *path, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");

	ret[0] = '\0';
	if (!f)
		return;
	if (fgets(ret, (int)size, f))
		ret[strcspn(ret, "\n")] = '\0';
	else
		ret[0] = '\0';
	fclose(f);
}

/* The number after "KEY:" in a file like /proc/self/status; fallback without it. */
static int64_t read_key(const char *path, const char *key, int64_t fallback)
{
	size_t key_len = strlen(key);
	FILE *f = fopen(path, "re");
	int64_t value = fallback;
	char line[256];

	if (!f)
		return fallback;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, key_len) == 0 && line[key_len] == ':')
			value = strtoll(line + key_len + 1, NULL, 10);
	fclose(f);
	return value;
}

void host_huge_pages_get(const char *root, struct host_huge_pages *ret)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	ret->total = (uint64_t)read_key(path, "HugePages_Total", 0);
	ret->free = (uint64_t)read_key(path, "HugePages_Free", 0);
	ret->size = (uint64_t)read_key(path, "Hugepagesize", 0) * 1024; /* it says kB */
}

static void read_capabilities(struct host_capabilities *c)
{
	capng_get_caps_process();
	c->net_admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN);
	c->net_raw = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_RAW);
	c->bpf = capng_have_capability(CAPNG_EFFECTIVE, CAP_BPF);
	c->sys_admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
	c->perfmon = capng_have_capability(CAPNG_EFFECTIVE, CAP_PERFMON);
	c->ipc_lock = capng_have_capability(CAPNG_EFFECTIVE, CAP_IPC_LOCK);
	c->sys_resource = capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_RESOURCE);
	c->sys_nice = capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_NICE);
}

/* The machine's own user namespace maps every id onto itself (user_namespaces(7)). */
static bool in_user_namespace(void)
{
	unsigned long inside, outside, n;
	char map[128];

	read_line("/proc/self/uid_map", map, sizeof(map));
	if (sscanf(map, "%lu %lu %lu", &inside, &outside, &n) != 3)
		return false;
	return inside != 0 || outside != 0 || n != UINT32_MAX;
}

/* "none [integrity] confidentiality" -> "integrity" */
static void read_lockdown(char *ret, size_t size)
{
	char line[128];
	char *open, *close_;

	ret[0] = '\0';
	read_line("/sys/kernel/security/lockdown", line, sizeof(line));
	open = strchr(line, '[');
	close_ = open ? strchr(open, ']') : NULL;
	if (!close_)
		return;
	*close_ = '\0';
	snprintf(ret, size, "%s", open + 1);
}

static int refuse(struct host_right *right, int err, const char *remedy, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static int refuse(struct host_right *right, int err, const char *remedy, const char *format, ...)
{
	char what[sizeof(right->reason.what)];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	right->err = err;
	return reason_set(&right->reason, err, remedy, "%s", what);
}

/* The smallest XDP program: return XDP_PASS. */
static int load_program(void)
{
	static const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_XDP};
	long fd;

	attr.insns = (uint64_t)(uintptr_t)insns;
	attr.insn_cnt = sizeof(insns) / sizeof(insns[0]);
	attr.license = (uint64_t)(uintptr_t) "GPL";
	fd = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	if (fd < 0)
		return -errno;
	close((int)fd);
	return 0;
}

/* The capabilities that an XDP program needs and that are missing, or "". */
static const char *missing_for_program(const struct host_rights *r)
{
	const struct host_capabilities *c = &r->caps;

	if (c->sys_admin)
		return "";
	/* CAP_BPF came with 5.8; before, it is CAP_SYS_ADMIN. */
	if (r->kernel_major < 5 || (r->kernel_major == 5 && r->kernel_minor < 8))
		return "CAP_SYS_ADMIN";
	if (!c->bpf && !c->net_admin)
		return "CAP_BPF and CAP_NET_ADMIN";
	if (!c->bpf)
		return "CAP_BPF";
	return c->net_admin ? "" : "CAP_NET_ADMIN";
}

static void try_program(struct host_rights *r)
{
	const char *missing = missing_for_program(r);
	int err = load_program();

	/* It loads without: what the verifier lets only CAP_PERFMON do, it doesn't do. */
	if (!err && !r->caps.perfmon && !r->caps.sys_admin && !r->user_namespace &&
		(r->kernel_major > 5 || (r->kernel_major == 5 && r->kernel_minor >= 8)))
		refuse(&r->program, -EPERM,
			"run as root, or give it AmbientCapabilities=CAP_BPF CAP_PERFMON "
			"CAP_NET_ADMIN CAP_NET_RAW (systemd), --cap-add for a container",
			"culvert's XDP program needs CAP_PERFMON");
	if (!err)
		return;
	if (err == -ENOSYS && r->seccomp != 2)
		refuse(&r->program, err, "use a kernel built with CONFIG_BPF_SYSCALL",
			"this kernel has no bpf(2)");
	else if (err == -ENOSYS || ((err == -EPERM || err == -EACCES) && !missing[0] &&
					   !r->user_namespace && r->seccomp == 2))
		refuse(&r->program, err,
			"allow bpf in the filter: SystemCallFilter=bpf in a systemd unit, "
			"--security-opt seccomp=unconfined for a docker container",
			"a seccomp filter refuses bpf(2): %s", strerror(-err));
	else if ((err == -EPERM || err == -EACCES) && missing[0])
		refuse(&r->program, err,
			"run as root, or give it AmbientCapabilities=CAP_BPF CAP_PERFMON "
			"CAP_NET_ADMIN "
			"CAP_NET_RAW (systemd), --cap-add for a container",
			"loading an XDP program needs %s", missing);
	else if ((err == -EPERM || err == -EACCES) && r->user_namespace)
		refuse(&r->program, err,
			"start it outside of the user namespace (no rootless "
			"container, no unshare -U)",
			"in a user namespace capabilities do not count for bpf(2)");
	else if (err == -EPERM && r->kernel_major == 5 && r->kernel_minor < 11 &&
		 r->memlock != UINT64_MAX)
		refuse(&r->program, err, "ulimit -l unlimited, or LimitMEMLOCK=infinity",
			"bpf(2) is refused: the limit of locked memory (%" PRIu64
			" KiB) is too small",
			r->memlock / 1024);
	else if (err == -EPERM || err == -EACCES)
		refuse(&r->program, err, "look for a denial: journalctl -k -g 'denied|bpf'",
			"bpf(2) is refused although the capabilities are there: a security "
			"module%s%s",
			r->lockdown[0] ? "; lockdown is " : "", r->lockdown);
	else
		refuse(&r->program, err, NULL, "an XDP program can't be loaded: %s",
			strerror(-err));
}

static void try_xsk(struct host_rights *r)
{
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	else if (err == -EAFNOSUPPORT && r->seccomp == 2)
		refuse(&r->xsk, err,
			"add AF_XDP to RestrictAddressFamilies= of the systemd unit, or "
			"use a kernel built with CONFIG_XDP_SOCKETS",
			"AF_XDP sockets are refused by a seccomp filter, or the kernel has none");
	else if (err == -EAFNOSUPPORT)
		refuse(&r->xsk, err, "use a kernel built with CONFIG_XDP_SOCKETS (Debian's are)",
			"this kernel has no AF_XDP sockets");
	else if ((err == -EPERM || err == -EACCES) && !r->caps.net_raw)
		refuse(&r->xsk, err,
			"run as root, or give it AmbientCapabilities=CAP_NET_RAW (systemd), "
			"--cap-add NET_RAW for a container",
			"an AF_XDP socket needs CAP_NET_RAW");
	else if (r->seccomp == 2)
		refuse(&r->xsk, err, "allow socket(AF_XDP) in the seccomp filter",
			"a seccomp filter refuses AF_XDP sockets: %s", strerror(-err));
	else
		refuse(&r->xsk, err, NULL, "an AF_XDP socket can't be opened: %s", strerror(-err));
}

/* xdp_umem_account_pages (net/xdp/xdp_umem.c) counts packet buffers against RLIMIT_MEMLOCK of
 * who has no CAP_IPC_LOCK; CAP_SYS_RESOURCE may raise the limit. */
static void try_locking(struct host_rights *r, uint64_t needed)
{
	if (r->caps.ipc_lock || r->caps.sys_resource || r->memlock >= needed)
		return;
	refuse(&r->locking, -ENOBUFS,
		"ulimit -l unlimited, LimitMEMLOCK=infinity (systemd), --ulimit memlock=-1 "
		"(docker), or CAP_IPC_LOCK",
		"packet buffers of %" PRIu64 " KiB exceed the limit of locked memory, %" PRIu64
		" KiB",
		needed / 1024, r->memlock / 1024);
}

/* A byte through two pipes by splice(2). */
static int splice_byte(void)
{
	int a[2], b[2];
	char byte = 'x';
	int err = 0;

	if (pipe2(a, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(b, O_CLOEXEC) < 0) {
		err = -errno;
		goto close_a;
	}
	if (write(a[1], &byte, 1) != 1 || splice(a[0], NULL, b[1], NULL, 1, 0) != 1 ||
		read(b[0], &byte, 1) != 1)
		err = errno ? -errno : -EIO;
	close(b[0]);
	close(b[1]);
close_a:
	close(a[0]);
	close(a[1]);
	return err;
}

static void try_relay(struct host_rights *r)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err = fd < 0 ? -errno : 0;

	if (fd < 0)
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		refuse(&r->relay, err, "allow AF_INET and AF_INET6 (RestrictAddressFamilies=)",
			"TCP sockets can't be opened: %s", strerror(-err));
		return;
	}
	close(fd);
	err = splice_byte();
	/* The relay copies where splice is refused: slower, not broken. */
	if (err)
		reason_set(&r->relay.reason, 0, "allow splice in the seccomp filter",
			"splice(2) is refused (%s): the relay will copy, which is slower",
			strerror(-err));
}

void host_rights_get(struct host_rights *ret, uint64_t memlock_needed)
{
	struct utsname name;
	struct rlimit limit;
	char line[32];

	memset(ret, 0, sizeof(*ret));
	if (uname(&name) == 0)
		snprintf(ret->kernel, sizeof(ret->kernel), "%s", name.release);
	sscanf(ret->kernel, "%u.%u", &ret->kernel_major, &ret->kernel_minor);
	read_capabilities(&ret->caps);
	ret->user_namespace = in_user_namespace();
	ret->seccomp = (int)read_key("/proc/self/status", "Seccomp", -1);
	ret->no_new_privs = read_key("/proc/self/status", "NoNewPrivs", 0) == 1;
	read_line("/proc/sys/kernel/unprivileged_bpf_disabled", line, sizeof(line));
	ret->unprivileged_bpf_disabled = line[0] ? (int)strtol(line, NULL, 10) : -1;
	read_lockdown(ret->lockdown, sizeof(ret->lockdown));
	ret->memlock = UINT64_MAX;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		ret->memlock = limit.rlim_cur;
	host_huge_pages_get("", &ret->huge);
	try_program(ret);
	try_xsk(ret);
	try_locking(ret, memlock_needed);
	try_relay(ret);
}
