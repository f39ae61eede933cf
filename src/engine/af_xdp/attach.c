/* The steering program of a port: loaded, attached by a bpf_link (which the kernel undoes when we
 * die), its maps filled. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvert/abi.h"
#include "engine/af_xdp/explain.h"
#include "engine/af_xdp/internal.h"
#include "steer.skel.h"

#ifndef BPF_F_XDP_HAS_FRAGS
#define BPF_F_XDP_HAS_FRAGS (1U << 5)
#endif

/* Leaf code doesn't log: errors are told by errno. */
static int say_nothing(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return 0;
}

static struct bpf_program *chosen(const struct xdp_port *p, struct steer *program)
{
	return p && p->fast_path_loaded ? program->progs.steer_fast : program->progs.steer;
}

/* p: NULL for a program that is only tried. */
static int load(const struct xdp_port *p, uint32_t n_queues, bool frags, struct steer **ret_program)
{
	struct bpf_program *main_program;
	struct steer *program;
	int err;

	libbpf_set_print(say_nothing);
	program = steer__open();
	if (!program)
		return -errno;
	if ((err = bpf_map__set_max_entries(program->maps.sockets, n_queues)) ||
		(err = bpf_map__set_max_entries(program->maps.outcomes, n_queues)))
		goto destroy;
	main_program = chosen(p, program);
	xdp_fast_path_select(p, program);
	if (frags)
		bpf_program__set_flags(
			main_program, bpf_program__flags(main_program) | BPF_F_XDP_HAS_FRAGS);
	err = steer__load(program);
	if (err)
		goto destroy;
	*ret_program = program;
	return 0;
destroy:
	steer__destroy(program);
	return err;
}

int xdp_program_try(struct reason *r)
{
	struct steer *program;
	int err = load(NULL, 1, false, &program);

	if (err)
		return explain_load(err, r);
	steer__destroy(program);
	return 0;
}

int xdp_program_try_fast(const struct device *d, struct reason *r)
{
	struct xdp_port p = {
		.device = *d, .n_queues = 1, .fast_path_wanted = true, .fast_path_loaded = true};
	int err = load(&p, 1, false, &p.program);

	if (!err)
		err = xdp_fast_path_watch(&p);
	if (err) {
		xdp_fast_path_explain(&p, err);
		*r = p.fast_path_refused;
	}
	steer__destroy(p.program); /* takes NULL */
	return err;
}

/* -E2BIG: the first ones are kept. */
static int add_addresses(
	const struct xdp_port *p, const struct culvert_host_address *addresses, size_t n)
{
	int map = bpf_map__fd(p->program->maps.host_addresses);
	uint8_t yes = 1;

	for (size_t i = 0; i < n; i++) {
		if (bpf_map_update_elem(map, &addresses[i], &yes, BPF_ANY))
			return -errno;
	}
	return 0;
}

int xdp_program_load(
	struct xdp_port *p, const struct port_settings *s, bool frags, struct reason *r)
{
	int err = -1;

	p->fast_path_loaded = xdp_fast_path_may(p, frags);
	if (p->fast_path_loaded) {
		err = load(p, p->device.rx_queues, frags, &p->program);
		if (!err)
			err = xdp_fast_path_watch(p);
		if (err) {
			xdp_fast_path_explain(p, err);
			xdp_program_unload(p);
			p->fast_path_loaded = false;
		}
	}
	if (!p->fast_path_loaded)
		err = load(p, p->device.rx_queues, frags, &p->program);
	if (err)
		return explain_load(err, r);
	memcpy(p->program->bss->settings.mac, p->device.mac, sizeof(p->device.mac));
	p->program->bss->settings.keep_host = s->keep_host;
	/* Too many: whoever tells the later ones says so. */
	err = add_addresses(p, s->host_addresses, s->n_host_addresses);
	if (!err || err == -E2BIG)
		return 0;
	xdp_program_unload(p);
	return reason_set(r, err, NULL, "%s: the host's addresses could not be set: %s",
		p->device.name, strerror(-err));
}

void xdp_program_unload(struct xdp_port *p)
{
	xdp_program_detach(p);
	steer__destroy(p->program); /* takes NULL */
	p->program = NULL;
}

bool xdp_program_holder(const struct device *d, struct xdp_holder *ret)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	struct bpf_prog_info info = {0};
	uint32_t size = sizeof(info);
	int fd;

	*ret = (struct xdp_holder){.name = "unnamed"};
	if (bpf_xdp_query((int)d->ifindex, 0, &query))
		return false;
	ret->id = query.prog_id;
	if (query.attach_mode == XDP_ATTACHED_MULTI)
		ret->id = query.drv_prog_id ? query.drv_prog_id : query.skb_prog_id;
	if (ret->id == 0)
		return false;
	fd = bpf_prog_get_fd_by_id(ret->id);
	if (fd >= 0) {
		if (bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.name[0])
			snprintf(ret->name, sizeof(ret->name), "%s", info.name);
		close(fd);
	}
	return true;
}

int xdp_program_attach(struct xdp_port *p, uint32_t flags, struct reason *r)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	int fd = bpf_program__fd(chosen(p, p->program));
	struct xdp_holder holder;

	/* The other mode's program would let ours be attached and then get the frames first. */
	if (xdp_program_holder(&p->device, &holder))
		return explain_attach(-EBUSY, &p->device, flags, &holder, r);
	p->link_fd = bpf_link_create(fd, (int)p->device.ifindex, BPF_XDP, &options);
	if (p->link_fd >= 0)
		return 0;
	return explain_attach(-errno, &p->device, flags, NULL, r);
}

void xdp_program_detach(struct xdp_port *p)
{
	if (p->link_fd >= 0)
		close(p->link_fd);
	p->link_fd = -1;
}

int xdp_program_steer(struct xdp_port *p, const struct xdp_queue *q, struct reason *r)
{
	int map = bpf_map__fd(p->program->maps.sockets);

	if (bpf_map_update_elem(map, &q->base.idx, &q->fd, BPF_ANY) == 0)
		return 0;
	return reason_set(r, -errno, NULL, "queue %u of %s has a socket but gets no frames: %s",
		q->base.idx, p->device.name, strerror(errno));
}

static bool listed(const struct culvert_host_address *address,
	const struct culvert_host_address *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (memcmp(address, &list[i], sizeof(*address)) == 0)
			return true;
	}
	return false;
}

/* Two passes, as deleting while walking starts the walk anew. */
static void forget_others(int map, const struct culvert_host_address *list, size_t n)
{
	struct culvert_host_address *old = calloc(CULVERT_HOST_ADDRESSES_MAX, sizeof(*old));
	struct culvert_host_address *from = NULL;
	size_t n_old = 0;

	if (!old)
		return;
	while (n_old < CULVERT_HOST_ADDRESSES_MAX &&
		bpf_map_get_next_key(map, from, &old[n_old]) == 0) {
		from = &old[n_old];
		n_old++;
	}
	for (size_t i = 0; i < n_old; i++) {
		if (!listed(&old[i], list, n))
			bpf_map_delete_elem(map, &old[i]);
	}
	free(old);
}

int xdp_host_addresses(struct port *base, const struct culvert_host_address *addresses, size_t n,
	struct reason *ret_reason)
{
	struct xdp_port *p = (struct xdp_port *)base;
	int map = bpf_map__fd(p->program->maps.host_addresses);
	struct device now;
	int err;

	if (device_read(p->device.name, &now, NULL) == 0 && now.ifindex == p->device.ifindex)
		memcpy(p->program->bss->settings.mac, now.mac, sizeof(now.mac));
	err = add_addresses(p, addresses, n);
	if (!err)
		forget_others(map, addresses, n);
	if (err)
		return reason_set(ret_reason, err, "`keep_host: false`, or fewer addresses",
			"%s has more addresses than can be kept for this host (%d): %s",
			p->device.name, CULVERT_HOST_ADDRESSES_MAX, strerror(-err));
	return 0;
}
