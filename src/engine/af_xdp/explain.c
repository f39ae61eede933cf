/* Errors of the kernel in words for the operator: what was refused, why, and what helps. */
#include "engine/af_xdp/explain.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/af_xdp/internal.h"

#define UNIT_HINT \
	"run as root, or with AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF CAP_PERFMON"

static bool have_capability(unsigned int capability)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &head, data))
		return false;
	return data[capability / 32].effective & (1u << (capability % 32));
}

int explain_is_fatal(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
	case -ENOBUFS:
	case -EBUSY:
	case -EEXIST:
	case -ENODEV:
	case -ENETDOWN:
	case -EMFILE:
	case -ENOMEM: return 1;
	default: return 0;
	}
}

int explain_socket(int err, struct reason *r)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		if (have_capability(CAP_NET_RAW))
			return reason_set(r, -EPERM,
				"a container: allow AF_XDP in its seccomp profile, or --privileged",
				"AF_XDP sockets are refused here (%s) although CAP_NET_RAW is "
				"there: a seccomp filter or security module forbids them",
				strerror(-err));
		return reason_set(r, -EPERM, UNIT_HINT,
			"AF_XDP sockets are refused here: CAP_NET_RAW is missing");
	case -EAFNOSUPPORT:
		return reason_set(r, -EOPNOTSUPP, "a kernel built with CONFIG_XDP_SOCKETS=y",
			"this kernel has no AF_XDP sockets");
	default:
		return reason_set(
			r, err, reason_remedy(err, NULL), "no AF_XDP socket: %s", strerror(-err));
	}
}

int explain_memory(int err, size_t size, struct reason *r)
{
	struct rlimit limit = {0};

	switch (err) {
	case -ENOBUFS:
		getrlimit(RLIMIT_MEMLOCK, &limit);
		return reason_set(r, -EPERM,
			"LimitMEMLOCK=infinity in the unit, `ulimit -l unlimited` in a shell, or "
			"CAP_IPC_LOCK",
			"%zu MiB of memory can't be locked: the limit (RLIMIT_MEMLOCK) is %llu KiB",
			size >> 20, (unsigned long long)limit.rlim_cur >> 10);
	case -ENOMEM:
		return reason_set(r, err, "lower `slots:`",
			"no memory to register %zu MiB for AF_XDP", size >> 20);
	default:
		return reason_set(r, err, NULL, "the kernel refuses %zu MiB as AF_XDP memory: %s",
			size >> 20, strerror(-err));
	}
}

int explain_rings(int err, const struct socket_settings *s, struct reason *r)
{
	if (err == -EOPNOTSUPP || err == -ENOPROTOOPT)
		return reason_set(r, -EOPNOTSUPP, "Linux 5.10 or later",
			"the AF_XDP of this kernel is too old");
	return reason_set(r, err, "smaller `rx_ring:` and `tx_ring:` (powers of two)",
		"no rings of %u and %u descriptors for queue %u of %s: %s", s->rx_ring, s->tx_ring,
		s->queue, s->device->name, strerror(-err));
}

int explain_no_zero_copy(const struct device *d, struct reason *r)
{
	uint32_t since = quirk_of(d->driver)->zero_copy_since;
	char remedy[sizeof(r->remedy)];

	if (quirk_zero_copy_is_later(d)) {
		snprintf(remedy, sizeof(remedy), "Linux %u.%u or later", since >> 16,
			since >> 8 & 0xff);
		return reason_set(r, -EOPNOTSUPP, remedy,
			"the driver of %s (%s) has no zero-copy in this kernel (%u.%u)", d->name,
			d->driver, d->kernel >> 16, d->kernel >> 8 & 0xff);
	}
	return reason_set(r, -EOPNOTSUPP, NULL, "the driver of %s (%s) has no zero-copy", d->name,
		d->driver[0] ? d->driver : "unnamed");
}

void explain_as_asked(enum port_mode mode, struct reason *r)
{
	reason_set(r, 0, "mode: auto", "mode %s was asked for", port_mode_name(mode));
}

int explain_bind(int err, const struct socket_settings *s, struct reason *r)
{
	const char *mode = s->bind_flags & XDP_ZEROCOPY ? "zero-copy" : "copy";
	const struct device *d = s->device;
	const struct quirk *quirk = quirk_of(d->driver);
	char remedy[sizeof(r->remedy)];

	switch (err) {
	case -EBUSY:
		snprintf(remedy, sizeof(remedy),
			"end the other program (`ss --xdp -p` names it), or wait until it is gone");
		return reason_set(r, err, remedy, "queue %u of %s is held by another AF_XDP socket",
			s->queue, d->name);
	case -ENETDOWN:
		snprintf(remedy, sizeof(remedy), "ip link set dev %s up", d->name);
		return reason_set(r, err, remedy, "%s is down", d->name);
	case -EPERM:
	case -EACCES:
		return reason_set(r, -EPERM, UNIT_HINT, "binding to queue %u of %s is refused: %s",
			s->queue, d->name, strerror(-err));
	case -EOPNOTSUPP:
		if (s->bind_flags & XDP_ZEROCOPY &&
			(!quirk->zero_copy || quirk_zero_copy_is_later(d)))
			return explain_no_zero_copy(d, r);
		/* fallthrough */
	default:
		remedy[0] = '\0';
		if (quirk->remedy)
			snprintf(remedy, sizeof(remedy), quirk->remedy, d->name, d->name);
		return reason_set(r, err, remedy,
			"queue %u of %s (%s) can't be bound in %s mode: %s%s%s", s->queue, d->name,
			d->driver, mode, strerror(-err), quirk->note ? ": " : "",
			quirk->note ? quirk->note : "");
	}
}

int explain_load(int err, struct reason *r)
{
	bool bpf = have_capability(CAP_BPF) || have_capability(CAP_SYS_ADMIN);
	bool net = have_capability(CAP_NET_ADMIN) || have_capability(CAP_SYS_ADMIN);

	switch (err) {
	case -EPERM:
	case -EACCES:
		/* Without it the verifier refuses what the program does with pointers. */
		if (bpf && net && !have_capability(CAP_PERFMON) && !have_capability(CAP_SYS_ADMIN))
			return reason_set(r, -EPERM, UNIT_HINT,
				"the kernel refuses the XDP program (%s): CAP_PERFMON is missing",
				strerror(-err));
		if (bpf && net)
			return reason_set(r, -EPERM,
				"a container: allow bpf(2) in its seccomp profile, or "
				"--privileged; a locked-down kernel: boot without lockdown",
				"bpf(2) is refused here (%s) although the capabilities are there: "
				"a seccomp filter or security module forbids it",
				strerror(-err));
		return reason_set(r, -EPERM, UNIT_HINT, "bpf(2) is refused here (%s): %s missing",
			strerror(-err),
			!bpf && !net ? "CAP_BPF and CAP_NET_ADMIN are"
			: !bpf	     ? "CAP_BPF (or CAP_SYS_ADMIN) is"
				     : "CAP_NET_ADMIN is");
	case -ENOSYS:
		return reason_set(r, -EOPNOTSUPP, "a kernel built with CONFIG_BPF_SYSCALL=y",
			"this kernel has no bpf(2)");
	default:
		return reason_set(r, err,
			reason_remedy(err, "Linux 5.10 or later, with CONFIG_BPF_SYSCALL and "
					   "CONFIG_XDP_SOCKETS"),
			"the kernel refuses the steering program: %s", strerror(-err));
	}
}

static int explain_mtu(int err, const struct device *d, uint32_t mtu, struct reason *r)
{
	char remedy[sizeof(r->remedy)];

	snprintf(remedy, sizeof(remedy), "ip link set dev %s mtu %u%s", d->name, mtu,
		strcmp(d->driver, "veth") == 0 ? " (and its peer)" : "");
	return reason_set(r, err, remedy,
		"the MTU of %s (%u)%s is too large for native XDP on %s: at most %u", d->name,
		d->mtu, strcmp(d->driver, "veth") == 0 ? " or its peer" : "", d->driver, mtu);
}

int explain_attach(int err, const struct device *d, uint32_t flags, const struct xdp_holder *holder,
	struct reason *r)
{
	bool native = (flags & XDP_FLAGS_DRV_MODE) != 0;
	const struct quirk *quirk = quirk_of(d->driver);
	char remedy[sizeof(r->remedy)] = "";

	if (holder) {
		snprintf(remedy, sizeof(remedy),
			"end the program that attached it%s, or: xdp-loader unload %.15s --all, "
			"or: ip link set dev %.15s xdp off",
			strcmp(holder->name, "steer") == 0 ? " (a culvert? culvert status)" : "",
			d->name, d->name);
		return reason_set(r, -EBUSY, remedy, "another XDP program (%s, id %u) holds %s",
			holder->name, holder->id, d->name);
	}
	if (native && (err == -ERANGE || (quirk->mtu_native && d->mtu > quirk->mtu_native)))
		return explain_mtu(err, d, quirk->mtu_native ? quirk->mtu_native : 1500, r);
	if (err == -EPERM || err == -EACCES)
		return reason_set(r, -EPERM, UNIT_HINT,
			"attaching an XDP program to %s is refused%s", d->name,
			have_capability(CAP_NET_ADMIN) ? "" : ": CAP_NET_ADMIN is missing");
	if (quirk->remedy)
		snprintf(remedy, sizeof(remedy), quirk->remedy, d->name, d->name);
	if (native && err == -EOPNOTSUPP)
		return reason_set(r, err, remedy, "the driver of %s (%s) has no native XDP%s%s",
			d->name, d->driver[0] ? d->driver : "unnamed", quirk->note ? ": " : "",
			quirk->note ? quirk->note : "");
	return reason_set(r, err, reason_remedy(err, remedy),
		"%s XDP can't be attached to %s (%s): %s%s%s", native ? "native" : "generic",
		d->name, d->driver, strerror(-err), quirk->note ? ": " : "",
		quirk->note ? quirk->note : "");
}
