/* Opens, closes and probes a port: down the ladder native zero-copy, native copy, skb copy, each
 * step with its reason. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "culvert/abi.h"
#include "engine/af_xdp/explain.h"
#include "engine/af_xdp/internal.h"
#include "engine/af_xdp/setup.h"
#include "steer.skel.h"

#define RING_DEFAULT 2048
/* XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h): the kernel keeps it free before each frame. */
#define SLOT_HEADROOM 256
/* A frame is an MTU, the Ethernet header and one VLAN tag: what is_skb_forwardable() allows
 * (include/linux/netdevice.h). */
#define FRAME_OVERHEAD 18
/* Fewer would starve the device between two turns. */
#define FILL_MIN 64
/* The generic hook is let go without waiting for a run of the program, which takes microseconds. */
#define STOP_WAIT_NS 1000000

static bool claims(const char *device)
{
	return strchr(device, ':') == NULL;
}

static uint32_t mtu_of_slot(uint32_t slot_size)
{
	return slot_size - SLOT_HEADROOM - FRAME_OVERHEAD;
}

static int check_mtu(const struct device *d, uint32_t slot_size, struct reason *r)
{
	const struct quirk *quirk = quirk_of(d->driver);
	uint32_t max = mtu_of_slot(slot_size);
	char remedy[sizeof(r->remedy)];

	if (d->mtu <= max)
		return 0;
	if (quirk->mtu_native && quirk->mtu_native < max)
		max = quirk->mtu_native;
	snprintf(remedy, sizeof(remedy), "ip link set dev %s mtu %u%s", d->name, max,
		strcmp(d->driver, "veth") == 0 ? " (and its peer)" : "");
	return reason_set(r, -EINVAL, remedy,
		"the MTU of %s (%u) is too large: a frame must fit into one buffer of %u bytes",
		d->name, d->mtu, slot_size);
}

int xdp_check(
	const struct port_settings *s, const struct device *d, uint32_t slot_size, struct reason *r)
{
	char remedy[sizeof(r->remedy)];

	if (s->mode == PORT_MODE_DPDK || s->require == PORT_MODE_DPDK)
		return reason_set(
			r, -EINVAL, "device: dpdk:...", "%s is a network device: no dpdk", d->name);
	if (!d->ethernet)
		return reason_set(r, -EINVAL, "name an Ethernet device (of tun: one in mode tap)",
			"%s is no Ethernet device: its packets have no header to forward them by",
			d->name);
	if (s->mode != PORT_MODE_AUTO && s->mode < s->require)
		return reason_set(r, -EINVAL, NULL, "%s: mode %s is below what is required (%s)",
			s->name, port_mode_name(s->mode), port_mode_name(s->require));
	if (s->queues > d->rx_queues) {
		snprintf(remedy, sizeof(remedy), "ethtool -L %s combined %u", d->name, s->queues);
		return reason_set(r, -EINVAL, remedy, "%s has %u receive queues, %u were asked for",
			d->name, d->rx_queues, s->queues);
	}
	if (!d->up) {
		snprintf(remedy, sizeof(remedy), "ip link set dev %s up", d->name);
		return reason_set(r, -ENETDOWN, remedy, "%s is down", d->name);
	}
	return check_mtu(d, slot_size, r);
}

static int open_queues(
	struct xdp_port *p, const struct port_settings *s, uint16_t bind_flags, struct reason *r)
{
	struct socket_settings socket = {
		.memory = p->memory,
		.device = &p->device,
		.rx_ring = s->rx_ring ? s->rx_ring : RING_DEFAULT,
		.tx_ring = s->tx_ring ? s->tx_ring : RING_DEFAULT,
		.bind_flags = bind_flags,
		.busy = s->busy,
		.umem_fd = -1,
	};

	for (uint32_t i = 0; i < p->n_queues; i++) {
		int err;

		socket.queue = i;
		if ((err = xdp_socket_open(&p->queues[i], &socket, r)))
			return err;
		socket.umem_fd = p->queues[0].fd;
		if ((err = xdp_program_steer(p, &p->queues[i], r)))
			return err;
	}
	return 0;
}

static void close_queues(struct xdp_port *p)
{
	for (uint32_t i = p->n_queues; i-- > 0;)
		xdp_socket_close(&p->queues[i], &p->device);
}

/* Attaches natively; with frags where the MTU asks for it and the driver can. */
static int attach_native(struct xdp_port *p, const struct port_settings *s, struct reason *r)
{
	const struct quirk *quirk = quirk_of(p->device.driver);
	int err = xdp_program_attach(p, XDP_FLAGS_DRV_MODE, r);
	struct reason ignored;

	if (!err || explain_is_fatal(err) || quirk->long_from_peer || p->device.mtu <= 1500)
		return err;
	xdp_program_unload(p);
	if (xdp_program_load(p, s, true, &ignored) == 0 &&
		xdp_program_attach(p, XDP_FLAGS_DRV_MODE, &ignored) == 0)
		return 0;
	xdp_program_unload(p);
	/* -ENOMEM, as without a program there is no lower step. */
	return xdp_program_load(p, s, false, r) ? -ENOMEM : err;
}

static bool wanted(const struct port_settings *s, enum port_mode m)
{
	return (s->mode == PORT_MODE_AUTO || s->mode == m) && m >= s->require;
}

static int native(struct xdp_port *p, const struct port_settings *s)
{
	struct reason *r = &p->base.step_down;
	int err = attach_native(p, s, r);

	if (err)
		return err;
	err = -EOPNOTSUPP;
	if (wanted(s, PORT_MODE_ZERO_COPY)) {
		err = open_queues(p, s, XDP_ZEROCOPY, r);
		if (!err)
			return 0;
		close_queues(p);
	}
	if (wanted(s, PORT_MODE_COPY) && !explain_is_fatal(err)) {
		struct reason better = *r;

		err = open_queues(p, s, XDP_COPY, r);
		if (!err) {
			*r = better;
			return 0;
		}
		close_queues(p);
	}
	xdp_program_detach(p);
	return err;
}

static int generic(struct xdp_port *p, const struct port_settings *s)
{
	struct reason r;
	int err = xdp_program_attach(p, XDP_FLAGS_SKB_MODE, &r);

	if (!err) {
		err = open_queues(p, s, XDP_COPY, &r);
		if (!err)
			return 0; /* step_down says why not better */
		close_queues(p);
		xdp_program_detach(p);
	}
	p->base.step_down = r;
	return err;
}

/* Down the ladder; step_down has the reason for the last step, or of the failure. */
static int climb_down(struct xdp_port *p, const struct port_settings *s)
{
	int err = -EOPNOTSUPP;

	if (s->mode != PORT_MODE_SKB) {
		err = native(p, s);
		if (!err)
			goto got_native;
		if (explain_is_fatal(err))
			return err;
	}
	if (wanted(s, PORT_MODE_SKB)) {
		err = generic(p, s);
		if (!err)
			p->base.mode = PORT_MODE_SKB;
	}
	if (!err && s->mode == PORT_MODE_SKB)
		goto as_asked;
	if (err && !p->base.step_down.remedy[0] &&
		(s->mode != PORT_MODE_AUTO || s->require > PORT_MODE_SKB))
		snprintf(p->base.step_down.remedy, sizeof(p->base.step_down.remedy),
			"mode: auto without require: takes the best that %s can do", s->device);
	return err;
got_native:
	p->base.mode =
		xdp_socket_is_zero_copy(&p->queues[0]) ? PORT_MODE_ZERO_COPY : PORT_MODE_COPY;
	if (p->base.mode == PORT_MODE_ZERO_COPY)
		p->base.step_down = (struct reason){0};
	else if (s->mode == PORT_MODE_COPY)
		goto as_asked;
	return 0;
as_asked:
	explain_as_asked(p->base.mode, &p->base.step_down);
	return 0;
}

static int make_queues(struct xdp_port *p, const struct port_settings *s, const struct memory *m)
{
	uint32_t ring = s->rx_ring ? s->rx_ring : RING_DEFAULT;
	uint32_t a_worker = (p->n_queues + m->n_pools - 1) / m->n_pools;

	p->queues = calloc(p->n_queues, sizeof(p->queues[0]));
	p->queue_list = calloc(p->n_queues, sizeof(struct queue *));
	if (!p->queues || !p->queue_list)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_queues; i++) {
		struct xdp_queue *q = &p->queues[i];
		uint32_t share;

		q->fd = -1;
		q->base = (struct queue){
			.ops = &af_xdp_queue_ops,
			.port = &p->base,
			.pool = &m->pools[i % m->n_pools],
			.memory = m->base,
			.idx = i,
			.worker = i % m->n_pools,
			.frame_len_max = p->device.mtu + FRAME_OVERHEAD,
			.complete_checksums = s->complete_checksums,
		};
		/* Two ports' receive rings take at most half of the slots, the other half is for
		 * frames on their way out. */
		share = q->base.pool->slots / (4 * a_worker);
		q->fill_target = share < ring ? share : ring;
		if (q->fill_target < FILL_MIN)
			q->fill_target = FILL_MIN < ring ? FILL_MIN : ring;
		q->lent = calloc(q->base.pool->slots, 1);
		if (!q->lent)
			return -ENOMEM;
		p->queue_list[i] = &q->base;
	}
	p->base.queues = p->queue_list;
	p->base.n_queues = p->n_queues;
	return 0;
}

static void stop_port(struct port *base)
{
	const struct timespec late = {.tv_nsec = STOP_WAIT_NS};
	struct xdp_port *p = (struct xdp_port *)base;

	xdp_program_detach(p);
	nanosleep(&late, NULL);
	for (uint32_t i = 0; i < p->n_queues; i++)
		queue_drop_waiting(&p->queues[i].base, p->queues[i].rx.size);
}

static void port_free(struct xdp_port *p)
{
	xdp_program_detach(p); /* frames stop before sockets close */
	if (p->queues) {
		close_queues(p);
		for (uint32_t i = 0; i < p->n_queues; i++)
			free(p->queues[i].lent);
	}
	xdp_program_unload(p);
	free(p->queues);
	free(p->queue_list);
	free(p);
}

static void close_port(struct port *base)
{
	if (base)
		port_free((struct xdp_port *)base);
}

static void note(struct reason *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct reason *r, const char *format, ...)
{
	size_t at = strlen(r->what);
	va_list list;

	if (at)
		at += (size_t)snprintf(r->what + at, sizeof(r->what) - at, "; ");
	if (at >= sizeof(r->what))
		return;
	va_start(list, format);
	vsnprintf(r->what + at, sizeof(r->what) - at, format, list);
	va_end(list);
}

/* In skb mode the kernel hands on what the peer's TSO and GSO left uncut: measured on veth, TCP
 * falls to a few hundred kbit/s. */
static void note_long_frames(struct xdp_port *p)
{
	struct reason *r = &p->base.step_down;

	if (p->base.mode != PORT_MODE_SKB || !quirk_of(p->device.driver)->long_from_peer)
		return;
	note(r, "TCP from the other end of %s is slow while it sends frames uncut", p->device.name);
	if (r->remedy[0] && strcmp(r->remedy, "mode: auto") != 0)
		return; /* what leads to native XDP helps more */
	snprintf(r->remedy, sizeof(r->remedy),
		"mode: auto; or at the other end of %s: ethtool -K DEVICE tso off gso off",
		p->device.name);
}

/* Frames of queues without a socket go to the kernel: the operator asked for it, and should see
 * it. */
static void note_unbound_queues(struct xdp_port *p)
{
	struct reason *r = &p->base.step_down;

	if (p->n_queues == p->device.rx_queues)
		return;
	note(r, "queues %u to %u of %s are not bound: their frames stay with the kernel",
		p->n_queues, p->device.rx_queues - 1, p->device.name);
	if (r->remedy[0])
		return; /* what leads to a better mode helps more */
	snprintf(r->remedy, sizeof(r->remedy), "`queues: 0`, or ethtool -L %s combined %u",
		p->device.name, p->n_queues);
}

static int open_port(const struct port_settings *s, const struct memory *m, struct port **ret_port,
	struct reason *ret_reason)
{
	struct xdp_port *p = calloc(1, sizeof(*p));
	struct reason *r = p ? &p->base.step_down : NULL;
	int err = -ENOMEM;

	if (!p)
		return reason_set(ret_reason, err, NULL, "%s: out of memory", s->device);
	p->link_fd = -1;
	p->memory = m;
	if ((err = device_read(s->device, &p->device, r)) ||
		(err = xdp_check(s, &p->device, m->slot_size, r)))
		goto fail;
	p->base.engine = &af_xdp_engine;
	p->complete_checksums = s->complete_checksums;
	p->fast_path_wanted = s->fast_path;
	snprintf(p->base.name, sizeof(p->base.name), "%s", s->name);
	snprintf(p->base.device, sizeof(p->base.device), "%s", p->device.name);
	p->base.mtu_max = mtu_of_slot(m->slot_size);
	p->n_queues = s->queues ? s->queues : p->device.rx_queues;
	if ((err = make_queues(p, s, m))) {
		reason_set(r, err, NULL, "%s: out of memory", s->device);
		goto fail;
	}
	if ((err = xdp_program_load(p, s, false, r)) || (err = climb_down(p, s)))
		goto fail;
	note_long_frames(p);
	note_unbound_queues(p);
	*ret_port = &p->base;
	return 0;
fail:
	if (ret_reason)
		*ret_reason = *r;
	port_free(p);
	return err;
}

static const char *const outcome_names[] = {
#define X(id, name, text) name,
	CULVERT_OUTCOMES(X)
#undef X
};

static uint32_t counters(
	const struct port *base, uint32_t queue, struct engine_counter *ret, uint32_t n)
{
	const struct xdp_port *p = (const struct xdp_port *)base;
	struct xdp_statistics k = {0};
	struct culvert_outcomes outcomes;
	socklen_t size = sizeof(k);
	uint32_t i = 0;

	if (queue >= p->n_queues)
		return 0;
	getsockopt(p->queues[queue].fd, SOL_XDP, XDP_STATISTICS, &k, &size);
	xdp_outcomes_read(p, queue, &outcomes);
	const struct engine_counter all[] = {
		{"rx_dropped", k.rx_dropped},
		{"rx_ring_full", k.rx_ring_full},
		{"rx_fill_ring_empty", k.rx_fill_ring_empty_descs},
		{"rx_invalid", k.rx_invalid_descs},
		{"tx_invalid", k.tx_invalid_descs},
		{"tx_ring_empty", k.tx_ring_empty_descs},
	};

	for (; i < n && i < sizeof(all) / sizeof(all[0]); i++)
		ret[i] = all[i];
	for (uint32_t o = 0; i < n && o < CULVERT_OUTCOME_COUNT; o++, i++)
		ret[i] = (struct engine_counter){outcome_names[o], outcomes.frames[o]};
	if (i < n)
		ret[i++] = (struct engine_counter){"bpf_forwarded_bytes", outcomes.forwarded_bytes};
	if (i < n)
		ret[i++] = (struct engine_counter){
			"bpf_checksums_completed", outcomes.checksums_completed};
	return i;
}

static uint32_t ifindex(const struct port *base)
{
	return ((const struct xdp_port *)base)->device.ifindex;
}

static void mtu_changed(struct port *base, uint32_t mtu)
{
	struct xdp_port *p = (struct xdp_port *)base;

	p->device.mtu = mtu < base->mtu_max ? mtu : base->mtu_max;
	for (uint32_t i = 0; i < p->n_queues; i++)
		p->queues[i].base.frame_len_max = p->device.mtu + FRAME_OVERHEAD;
}

const struct engine_ops af_xdp_engine = {
	.name = "af_xdp",
	.more_queues = "give it more: ethtool -L DEVICE combined N",
	.claims = claims,
	.probe = xdp_probe,
	.open = open_port,
	.stop = stop_port,
	.close = close_port,
	.counters = counters,
	.ifindex = ifindex,
	.mtu_changed = mtu_changed,
	.host_addresses = xdp_host_addresses,
	.fast_path_probe = xdp_fast_path_probe,
	.fast_path_check = xdp_fast_path_check,
	.fast_path_set = xdp_fast_path_set,
	.fast_path_read = xdp_fast_path_read,
};
