/* The fast path of a port: the steering program sends frames to the peer port itself. Allowed only
 * where the kernel says that the peer takes them, and where every lost frame can be counted. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert/abi.h"
#include "engine/af_xdp/internal.h"
#include "steer.skel.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

/* Ethernet header and one VLAN tag: what xdp_ok_fwd_dev() allows (net/core/filter.c). */
#define FRAME_OVERHEAD 18

bool xdp_fast_path_may(struct xdp_port *p, bool frags)
{
	struct reason *r = &p->fast_path_refused;

	*r = (struct reason){0};
	if (!p->fast_path_wanted)
		reason_set(r, 0, "fast_path: auto", "not asked for");
	else if (frags)
		reason_set(
			r, 0, "a smaller MTU", "%s: frames lie in several buffers", p->device.name);
	return !r->what[0];
}

void xdp_fast_path_select(const struct xdp_port *p, struct steer *program)
{
	bool fast = p && p->fast_path_loaded;

	bpf_program__set_autoload(program->progs.steer, !fast);
	bpf_program__set_autoload(program->progs.steer_fast, fast);
	bpf_program__set_autoload(program->progs.watch_sent, fast);
	bpf_program__set_autoload(program->progs.watch_redirect, fast);
	bpf_map__set_autocreate(program->maps.peer, fast);
	if (fast)
		program->rodata->complete_checksums = p->complete_checksums;
}

static int netns_cookie(__u64 *ret)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(*ret);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, ret, &size))
		err = -errno;
	close(fd);
	return err;
}

int xdp_fast_path_watch(struct xdp_port *p)
{
	struct culvert_fast_path *fast = &p->program->bss->fast_path;
	struct bpf_map_info info = {0};
	uint32_t size = sizeof(info);
	int err = netns_cookie(&fast->netns_cookie);

	if (err)
		return err;
	if (bpf_obj_get_info_by_fd(bpf_map__fd(p->program->maps.peer), &info, &size))
		return -errno;
	fast->map_id = info.id;
	fast->from = p->device.ifindex;
	fast->queues = p->n_queues;
	/* The skeleton owns the links. */
	p->program->links.watch_sent = bpf_program__attach(p->program->progs.watch_sent);
	if (!p->program->links.watch_sent)
		return -errno;
	p->program->links.watch_redirect = bpf_program__attach(p->program->progs.watch_redirect);
	return p->program->links.watch_redirect ? 0 : -errno;
}

void xdp_fast_path_explain(struct xdp_port *p, int err)
{
	struct reason *r = &p->fast_path_refused;

	if (err == -EPERM || err == -EACCES)
		reason_set(r, err, "give it CAP_PERFMON and CAP_BPF, or run as root",
			"the programs of the fast path are refused; it reads tracepoints, to count "
			"every lost frame: %s",
			strerror(-err));
	else
		reason_set(r, err, "a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_EVENTS",
			"the kernel's XDP tracepoints can't be read, so lost frames could not be "
			"counted: %s",
			strerror(-err));
}

static int check_mode(enum port_mode mode, const char *device, struct reason *r)
{
	if (mode == PORT_MODE_COPY)
		return 0;
	return reason_set(r, -EOPNOTSUPP, NULL,
		mode == PORT_MODE_ZERO_COPY ? "%s has zero-copy, which needs no fast path"
					    : "%s has no native XDP",
		device);
}

/* Does the kernel say that frames can be redirected to it? A veth says so only while its far end
 * polls (drivers/net/veth.c, veth_set_xdp_features()): without, it loses every frame. */
static int check_target(const struct device *d, struct reason *r)
{
	uint64_t features = 0;
	int err = device_xdp_features(d->ifindex, &features);

	if (err == -ENODEV)
		return reason_set(r, err, NULL, "%s is gone", d->name);
	if (err)
		return reason_set(r, -EOPNOTSUPP, "Linux 6.3 or later",
			"the kernel doesn't tell whether %s takes redirected frames: %s", d->name,
			strerror(-err));
	if (features & XDP_FEATURE_TARGET)
		return 0;
	if (strcmp(d->driver, "veth") == 0)
		return reason_set(r, -EOPNOTSUPP,
			"ethtool -K DEVICE gro on (DEVICE: the far end of the veth, in its own "
			"namespace)",
			"%s takes no redirected frames: its far end has GRO off and no XDP program",
			d->name);
	return reason_set(r, -EOPNOTSUPP, NULL, "%s takes no redirected frames: driver %s", d->name,
		d->driver[0] ? d->driver : "unknown");
}

int xdp_fast_path_check(const struct port *base, const struct port *peer, struct reason *ret_reason)
{
	const struct xdp_port *p = (const struct xdp_port *)base;
	const struct xdp_port *to = (const struct xdp_port *)peer;
	int err;

	if (peer->engine != base->engine)
		return reason_set(ret_reason, -EOPNOTSUPP, NULL, "%s is a port of another engine",
			peer->name);
	if (!p->fast_path_loaded) {
		*ret_reason = p->fast_path_refused;
		return -EOPNOTSUPP;
	}
	if ((err = check_mode(base->mode, p->device.name, ret_reason)) ||
		(err = check_mode(peer->mode, to->device.name, ret_reason)))
		return err;
	return check_target(&to->device, ret_reason);
}

int xdp_fast_path_probe(const struct port_settings *s, enum port_mode mode,
	const struct port_settings *peer, enum port_mode peer_mode, struct reason *ret_reason)
{
	struct device d, to;
	int err;

	if ((err = device_read(s->device, &d, ret_reason)) ||
		(err = device_read(peer->device, &to, ret_reason)) ||
		(err = xdp_program_try_fast(&d, ret_reason)) ||
		(err = check_mode(mode, d.name, ret_reason)) ||
		(err = check_mode(peer_mode, to.name, ret_reason)))
		return err;
	return check_target(&to, ret_reason);
}

static void stop(struct xdp_port *p)
{
	uint32_t key = 0;

	if (!p->fast_path_loaded)
		return;
	p->program->bss->fast_path.on = 0;
	if (p->fast_path_peer)
		bpf_map_delete_elem(bpf_map__fd(p->program->maps.peer), &key);
	p->fast_path_peer = 0;
	p->program->bss->fast_path.error = 0;
}

static int start(struct xdp_port *p, const struct xdp_port *to, struct reason *r)
{
	struct culvert_fast_path *fast = &p->program->bss->fast_path;
	uint32_t key = 0, ifindex = to->device.ifindex;
	struct device now;

	if (device_read(to->device.name, &now, r))
		return -ENODEV;
	if (fast->on && p->fast_path_peer == ifindex &&
		fast->length_max == now.mtu + FRAME_OVERHEAD)
		return 0;
	stop(p);
	if (now.ifindex != ifindex)
		return reason_set(r, -ENODEV, NULL, "%s is gone", to->device.name);
	if (bpf_map_update_elem(bpf_map__fd(p->program->maps.peer), &key, &ifindex, BPF_ANY))
		return reason_set(r, -errno, NULL, "%s can't be the target of redirects: %s",
			to->device.name, strerror(errno));
	p->fast_path_peer = ifindex;
	fast->to = ifindex;
	fast->length_max = now.mtu + FRAME_OVERHEAD;
	fast->on = 1;
	return 0;
}

int xdp_fast_path_set(struct port *base, const struct port *peer, struct reason *ret_reason)
{
	struct xdp_port *p = (struct xdp_port *)base;
	int err = 0;

	if (peer)
		err = start(p, (const struct xdp_port *)peer, ret_reason);
	if (!peer || err)
		stop(p);
	return err;
}

void xdp_outcomes_read(const struct xdp_port *p, uint32_t queue, struct culvert_outcomes *ret)
{
	int n_cpus = libbpf_num_possible_cpus();
	struct culvert_outcomes *each;

	*ret = (struct culvert_outcomes){0};
	each = n_cpus > 0 ? calloc((size_t)n_cpus, sizeof(*each)) : NULL;
	if (each &&
		bpf_map_lookup_elem(bpf_map__fd(p->program->maps.outcomes), &queue, each) == 0) {
		for (int cpu = 0; cpu < n_cpus; cpu++) {
			for (int i = 0; i < CULVERT_OUTCOME_COUNT; i++)
				ret->frames[i] += each[cpu].frames[i];
			ret->forwarded_bytes += each[cpu].forwarded_bytes;
			ret->checksums_completed += each[cpu].checksums_completed;
		}
	}
	free(each);
}

void xdp_fast_path_read(const struct port *base, struct fast_path *ret)
{
	const struct xdp_port *p = (const struct xdp_port *)base;
	const volatile struct culvert_fast_path *fast = &p->program->bss->fast_path;

	*ret = (struct fast_path){.on = fast->on != 0,
		.error = fast->error,
		.lost_full = fast->lost_full,
		.lost_refused = fast->lost_refused};
	/* Also of queues that have no socket: the program runs on all. */
	for (uint32_t i = 0; i < p->device.rx_queues; i++) {
		struct culvert_outcomes o;

		xdp_outcomes_read(p, i, &o);
		ret->frames += o.frames[CULVERT_OUTCOME_FORWARDED];
		ret->bytes += o.forwarded_bytes;
		ret->checksums_completed += o.checksums_completed;
	}
}
