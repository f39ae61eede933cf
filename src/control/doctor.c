/* Looks at the kernel, the rights, the memory and the ports, and says what follows. */
#include "control/doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "control/doctor_internal.h"
#include "host/rights.h"

/* Packet buffers of one worker by default: 8192 slots of 4096 bytes. */
#define UMEM_SIZE (8192ULL * 4096)
/* What eal_start() wants for two ports and one worker, and some. */
#define HUGE_PAGES_COMMAND "sysctl vm.nr_hugepages=96"

void doctor_say(struct doctor *d, enum doctor_status status, const char *subject,
	const char *remedy, const char *format, ...)
{
	struct doctor_check *checks, *c;
	va_list args;

	checks = reallocarray(d->checks, d->n_checks + 1, sizeof(*checks));
	if (!checks) {
		d->n_lost++;
		return;
	}
	d->checks = checks;
	c = &checks[d->n_checks++];
	c->status = status;
	snprintf(c->subject, sizeof(c->subject), "%s", subject);
	snprintf(c->remedy, sizeof(c->remedy), "%s", remedy ? remedy : "");
	va_start(args, format);
	vsnprintf(c->text, sizeof(c->text), format, args);
	va_end(args);
}

static void say_right(
	struct doctor *d, const char *subject, const struct host_right *right, const char *good)
{
	if (right->err)
		doctor_say(d, DOCTOR_FAIL, subject, right->reason.remedy, "%s", right->reason.what);
	else if (right->reason.what[0])
		doctor_say(d, DOCTOR_WARN, subject, right->reason.remedy, "%s", right->reason.what);
	else
		doctor_say(d, DOCTOR_OK, subject, NULL, "%s", good);
}

static bool newer(const struct host_rights *r, unsigned int major, unsigned int minor)
{
	return r->kernel_major > major || (r->kernel_major == major && r->kernel_minor >= minor);
}

static void say_kernel(struct doctor *d, const struct host_rights *r)
{
	/* Shared UMEM over several devices: 5.10. */
	if (!newer(r, 5, 10))
		doctor_say(d, DOCTOR_FAIL, "kernel", "use a kernel of 5.10 or later",
			"%s: ports can't share one packet memory before 5.10", r->kernel);
	else if (!newer(r, 6, 6))
		doctor_say(d, DOCTOR_OK, "kernel", NULL,
			"%s (no frames larger than a slot: these came with 6.6)", r->kernel);
	else
		doctor_say(d, DOCTOR_OK, "kernel", NULL, "%s", r->kernel);
}

static void say_capabilities(struct doctor *d, const struct host_rights *r)
{
	const struct host_capabilities *c = &r->caps;

	if (c->net_admin && c->net_raw)
		doctor_say(d, DOCTOR_OK, "capabilities", NULL, "CAP_NET_ADMIN and CAP_NET_RAW%s%s",
			c->bpf || c->sys_admin ? ", CAP_BPF" : "",
			r->user_namespace ? ", but of a user namespace only" : "");
	else
		doctor_say(d, DOCTOR_WARN, "capabilities",
			"run as root, or AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN "
			"CAP_NET_RAW",
			"%s missing: offloads, link state and promiscuous mode of ports can't be "
			"changed",
			c->net_admin ? "CAP_NET_RAW is" : "CAP_NET_ADMIN is");
}

static void say_confinement(struct doctor *d, const struct host_rights *r)
{
	doctor_say(d, DOCTOR_NOTE, "confinement", NULL,
		"seccomp %s, no_new_privs %s, lockdown %s, unprivileged bpf %s",
		r->seccomp == 2	  ? "filter"
		: r->seccomp == 1 ? "strict"
		: r->seccomp == 0 ? "off"
				  : "not known",
		r->no_new_privs ? "on" : "off", r->lockdown[0] ? r->lockdown : "not known",
		r->unprivileged_bpf_disabled == 0  ? "allowed"
		: r->unprivileged_bpf_disabled > 0 ? "off, as is usual"
						   : "not known");
}

static void say_memory(struct doctor *d, const struct host_rights *r)
{
	char good[128];

	if (r->memlock == UINT64_MAX)
		snprintf(good, sizeof(good), "no limit");
	else
		snprintf(good, sizeof(good),
			"limit %" PRIu64 " KiB, which does not bind here or suffices",
			r->memlock / 1024);
	say_right(d, "locked memory", &r->locking, good);
	if (!r->huge.total)
		doctor_say(d, DOCTOR_NOTE, "huge pages", HUGE_PAGES_COMMAND,
			"none reserved: packet memory takes ordinary pages, DPDK runs with "
			"--no-huge (of 2 MiB, two DPDK ports need 96 with one worker, and 64 more "
			"with each further one)");
	else
		doctor_say(d, DOCTOR_OK, "huge pages", NULL,
			"%" PRIu64 " of %" PRIu64 " free, %" PRIu64 " KiB each", r->huge.free,
			r->huge.total, r->huge.size / 1024);
}

static void say_build(struct doctor *d)
{
	if (!HAVE_AF_XDP)
		doctor_say(d, DOCTOR_FAIL, "build", "build with -Daf_xdp=enabled",
			"this culvert was built without AF_XDP");
	if (!HAVE_DPDK)
		doctor_say(d, DOCTOR_NOTE, "build", "build with -Ddpdk=enabled",
			"this culvert was built without DPDK");
}

static bool xdp_works(const struct host_rights *r)
{
	return HAVE_AF_XDP && !r->program.err && !r->xsk.err && !r->locking.err && newer(r, 5, 10);
}

static void conclude(struct doctor *d, const struct host_rights *r, size_t n_ports, size_t n_exist,
	size_t n_frames)
{
	bool xdp = xdp_works(r);
	bool relay = !r->relay.err;
	const char *why = r->program.err   ? r->program.reason.what
			  : r->xsk.err	   ? r->xsk.reason.what
			  : r->locking.err ? r->locking.reason.what
			  : xdp		   ? "a port can't have it, see its line"
					   : "see above";

	d->works = n_exist == n_ports && (n_ports ? n_frames == n_ports || relay : xdp || relay);
	if (n_exist < n_ports)
		snprintf(d->verdict, sizeof(d->verdict), "a port that was named can't be used");
	else if (n_ports && n_frames == n_ports)
		snprintf(d->verdict, sizeof(d->verdict), "frames can be forwarded between %s",
			n_ports > 1 ? "these ports" : "this port and others like it");
	else if (!n_ports && xdp)
		snprintf(d->verdict, sizeof(d->verdict),
			"AF_XDP works here; `culvert doctor PORT` looks at an interface");
	else if (relay)
		snprintf(d->verdict, sizeof(d->verdict), "TCP can be relayed, frames not: %.190s",
			why);
	else
		snprintf(d->verdict, sizeof(d->verdict), "nothing works here: %.190s",
			r->relay.reason.what);
}

void doctor_examine(struct doctor *ret, char *const *ports, size_t n_ports)
{
	size_t n_exist = 0, n_frames = 0;
	struct host_rights r;

	memset(ret, 0, sizeof(*ret));
	host_rights_get(&r, UMEM_SIZE);
	say_build(ret);
	say_kernel(ret, &r);
	say_capabilities(ret, &r);
	say_right(ret, "bpf(2)", &r.program, "an XDP program can be loaded");
	say_right(ret, "AF_XDP", &r.xsk, "a socket can be opened");
	say_memory(ret, &r);
	say_confinement(ret, &r);
	say_right(ret, "relay", &r.relay, "TCP sockets and splice(2) work");
	for (size_t i = 0; i < n_ports; i++) {
		bool exists = false;

		n_frames += doctor_port(ret, ports[i], xdp_works(&r), &exists);
		n_exist += exists;
	}
	doctor_pci(ret, "");
	conclude(ret, &r, n_ports, n_exist, n_frames);
}

void doctor_free(struct doctor *d)
{
	free(d->checks);
	memset(d, 0, sizeof(*d));
}

const char *doctor_status_name(enum doctor_status status)
{
	static const char *const names[] = {"ok", "note", "warn", "fail"};

	return names[status];
}
