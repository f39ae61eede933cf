/*
 * The narrow interface of what moves frames: a life cycle per port, and the hot calls per queue.
 *
 * A port is a device; a queue is one of its hardware receive/transmit queue pairs and is owned
 * by exactly one worker. Life: probe -> open -> (queues are polled) -> close. Control makes these
 * calls one after the other, and only while no worker polls the port's queues.
 * Layer: engines see base/ and frame/ only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"
#include "frame/counter.h"
#include "frame/drop.h"
#include "frame/frame.h"

struct culvert_host_address; /* culvert/abi.h */
struct pool;
struct port;
struct queue;

/* What a port got, or may at least have (`require`). In order: higher is better. */
enum port_mode {
	PORT_MODE_AUTO,
	PORT_MODE_SKB,
	PORT_MODE_COPY,
	PORT_MODE_ZERO_COPY,
	PORT_MODE_DPDK
};
const char *port_mode_name(enum port_mode m); /* "auto", "skb", "copy", "zero-copy", "dpdk" */

/* What the operator asks of a port; strings belong to the caller for the call. */
struct port_settings {
	const char *name;	 /* in messages, status and metrics */
	const char *device;	 /* "eth0", "dpdk:net_null0", "mem:a" */
	enum port_mode mode;	 /* AUTO: down the ladder; else exactly this one */
	enum port_mode require;	 /* AUTO: anything; else a step below it is an error */
	uint32_t queues;	 /* 0: all that the device has */
	uint32_t rx_ring;	 /* descriptors, power of two; 0: 2048 */
	uint32_t tx_ring;	 /* likewise */
	bool busy;		 /* poll without sleeping, prefer-busy-poll */
	bool keep_host;		 /* frames for this host stay with the kernel (default true) */
	bool complete_checksums; /* set by control for veth, tap, virtio */
	bool partial_checksums;	 /* it may be given frames with partial ones to send: the device is
				  * asked to complete them, where it can */
	bool fast_path;		 /* the kernel may forward to the peer by itself */
	bool released;		 /* of probe: who has the device now gives it up before open */
	/* The device's own, for keep_host: there before the first frame is looked at. Of the
	 * caller, for the call. Later ones: engine_ops.host_addresses. */
	const struct culvert_host_address *host_addresses;
	size_t n_host_addresses;
};

/* The memory shared by every engine: made by control before the first port opens. */
struct memory {
	uint8_t *base;
	size_t size;	    /* bytes */
	uint32_t slot_size; /* bytes */
	bool huge;
	int fd;				 /* the memfd; -1: an engine allocated it */
	const struct engine_ops *engine; /* that one; NULL: none */
	uint32_t n_pools;		 /* one per worker */
	struct pool *pools;		 /* [n_pools] */
};

/* Counters of one queue: written by its worker alone, read by control (frame/counter.h). The engine
 * counts what it received and sent (rx_*, tx_*: tx_frames are those put on the ring, not the
 * dropped); the worker counts the rest. */
struct queue_stats {
	struct counter rx_frames, rx_bytes, tx_frames, tx_bytes;
	struct counter tx_kicks; /* system calls made to start transmission */
	struct counter checksums_completed;
	struct counter checksums_offloaded;	 /* left to the device that sends the frame */
	struct counter copied;			 /* frames that came from another engine's memory */
	struct counter drops[DROP_REASON_COUNT]; /* counted at the queue the frame arrived on */
};

/* Called by the worker that owns the queue; never block, never allocate. */
struct queue_ops {
	/* Fills b (at most BATCH_SIZE, sets b->n); the caller then holds every frame in it.
	 * Refills the device's receive ring before it looks. */
	void (*rx)(struct queue *q, struct batch *b);
	/* Takes every frame in b, which are of this queue's own memory, sent or not: what does not
	 * fit after bounded tries is freed; returns how many were dropped (the last ones of b). */
	uint32_t (*tx)(struct queue *q, const struct batch *b);
	/* Kicks what tx left in the ring and hands finished transmissions back to the pool. */
	void (*reap)(struct queue *q);
	/* Up to n empty buffers of this queue's memory, for frames from elsewhere; returns how
	 * many. data points after the headroom; the caller sets len. */
	uint32_t (*take)(struct queue *q, struct frame *frames, uint32_t n);
	/* Frees every frame in b (drops, and buffers taken but not used). */
	void (*put)(struct queue *q, const struct batch *b);
	/* A descriptor that becomes readable when frames arrive; -1: poll only. */
	int (*wait_fd)(const struct queue *q);
	/* NULL: the engine has no shorter way than rx and tx. As rx, but what may leave by `out` as
	 * it came (of the same ops and memory) does so at once and does not appear in b: it is
	 * counted at both, DROP_TX_FULL too. Returns how many frames were received. */
	uint32_t (*pass)(struct queue *in, struct queue *out, struct batch *b);
};

/* Engines embed it first. */
struct queue {
	const struct queue_ops *ops;
	struct port *port;
	struct pool *pool;	/* the owning worker's; NULL for engines with memory of their own */
	const void *memory;	/* equal pointers: frames pass without a copy */
	uint32_t idx;		/* hardware queue number */
	uint32_t worker;	/* index of the owner */
	uint32_t frame_len_max; /* longest frame it can send, bytes */
	bool complete_checksums; /* frames received here may have partial checksums */
	bool offload_checksums;	 /* frames sent here may have them (FRAME_CHECKSUM_PARTIAL) */
	struct queue_stats stats;
};

struct engine_ops;

/* Engines embed it first; control reads it. */
struct port {
	const struct engine_ops *engine;
	char name[64];
	char device[256];
	enum port_mode mode;	 /* what it got, read back from the kernel or driver */
	struct reason step_down; /* why it is not a better mode; what[0] == 0 when it is the best */
	uint32_t index;		 /* in verdicts: set by control */
	uint32_t n_queues;
	struct queue **queues; /* [n_queues], each owned by worker queues[i]->worker */
	uint32_t mtu_max; /* largest MTU with which no frame is cut, bytes; 0: no limit known */
	bool link_comes;  /* opening took the link down: it comes up by itself, mostly */
};

/* A counter of the kernel's or the driver's, by name: "rx_ring_full". */
struct engine_counter {
	const char *name;
	uint64_t value;
	bool is_level; /* it goes down, too */
};

/* Counters of a queue that are read at once: some NICs' drivers have hundreds. */
#define ENGINE_COUNTERS_MAX 512

/* Of what the kernel forwarded from a port to its peer without user space. */
struct fast_path {
	bool on;
	int error;		/* -errno of a redirect that failed, and turned it off; 0: none */
	uint64_t frames, bytes; /* handed over, the lost included */
	uint64_t checksums_completed;
	uint64_t lost_full;    /* frames: the peer had no room, or they were too long for it */
	uint64_t lost_refused; /* frames: the peer takes none, `error` says why */
};

struct engine_ops {
	const char *name; /* "af_xdp", "dpdk", "mem" */
	/* Is this device's syntax this engine's? The first engine that says yes has it. */
	bool (*claims)(const char *device);
	/* What open would get and why, changing nothing on the host: fills mode and step_down
	 * reason. Returns 0 or -errno with the reason. */
	int (*probe)(
		const struct port_settings *s, enum port_mode *ret_mode, struct reason *ret_reason);
	/* Opens the device; queue i goes to worker i % memory->n_pools. Frames arrive from then on.
	 * Open and close know pools only by the memory that is given and by queue.pool, which
	 * control may change between calls: so it can lend them pools of their own (pool.worker),
	 * and the workers go on with other ports meanwhile.
	 * On failure everything is as before. -EPERM/-EACCES: not permitted here; -EOPNOTSUPP: no
	 * XDP here; -ENOTCONN (of probe, too): its peer is not there yet, try again. */
	int (*open)(const struct port_settings *s, const struct memory *m, struct port **ret_port,
		struct reason *ret_reason);
	/* For an engine whose devices reach nothing but what it allocates: memory that serves all
	 * engines, touched, for n_pools workers, at the boundary of a page, near the first of its
	 * n_devices that has a NUMA node; and back. 0, or -errno with the reason: then other memory
	 * must do. NULL: any will do. */
	int (*memory_take)(const char *const *devices, uint32_t n_devices, size_t size,
		uint32_t n_pools, void **ret_base, bool *ret_huge, struct reason *ret_reason);
	void (*memory_give)(void *base);
	/* Before close: frames stop arriving, and those that no worker took are dropped and counted
	 * (queue_drop_waiting). NULL: what the device still has at close is its own to count. */
	void (*stop)(struct port *p);
	/* Frames stop arriving; every slot goes back to its pool (bounded wait for completions).
	 * Takes NULL. */
	void (*close)(struct port *p);
	/* Its drivers may keep open and close for long, or for ever: each is called in a thread of
	 * its own, and control reads counters of other ports meanwhile. Not of an engine with
	 * host_addresses. */
	bool may_hang;
	/* Kernel or driver counters of one queue: fills at most n, returns how many. */
	uint32_t (*counters)(
		const struct port *p, uint32_t queue, struct engine_counter *ret, uint32_t n);
	/* The device's network interface index, 0 where there is none. */
	uint32_t (*ifindex)(const struct port *p);
	/* The link as the driver has it: 1 up, 0 down; -ENOTCONN: its peer is gone, -ETIMEDOUT:
	 * does not answer, and it must be closed and opened again; -ENODEV: it must be closed, as
	 * the device is taken away. NULL: that of the network interface. */
	int (*link)(struct port *p);
	/* What the device's name alone tells: the network device beneath ("": none) and its queues
	 * (0: not known). -EINVAL with the reason: it is wrong whatever the machine has. NULL: the
	 * device is a network device. */
	int (*describe)(const char *device, char ret_netdev[16], uint32_t *ret_queues,
		struct reason *ret_reason);
	/* What gives a device more queues, a remedy; NULL: nothing. */
	const char *more_queues;
	/* The device's MTU is another now, bytes; no worker polls. NULL: it is what it was at open.
	 */
	void (*mtu_changed)(struct port *p, uint32_t mtu);
	/* Replaces the addresses of the device that stay with the kernel (keep_host), n of them,
	 * and reads its MAC address again; frames may be passing. NULL: the engine keeps none. */
	int (*host_addresses)(struct port *p, const struct culvert_host_address *addresses,
		size_t n, struct reason *ret_reason);
	/* What fast_path_check would say of two ports of this engine that got these modes, changing
	 * nothing on the host. NULL, and the next three: the engine has no fast path. */
	int (*fast_path_probe)(const struct port_settings *s, enum port_mode mode,
		const struct port_settings *peer, enum port_mode peer_mode,
		struct reason *ret_reason);
	/* May the kernel forward from p to its peer by itself? 0, or -errno with the reason. */
	int (*fast_path_check)(
		const struct port *p, const struct port *peer, struct reason *ret_reason);
	/* Lets it (peer NULL: no more), after a check; frames may be passing. May be asked again at
	 * any time, and then also forgets an error. On failure user space has the frames. */
	int (*fast_path_set)(struct port *p, const struct port *peer, struct reason *ret_reason);
	void (*fast_path_read)(const struct port *p, struct fast_path *ret);
};

/* engines.c: what was compiled in, NULL-terminated, in order of preference. */
extern const struct engine_ops *const engines[];
/* NULL: no compiled engine claims it; the reason says what is missing. */
const struct engine_ops *engine_find(const char *device, struct reason *ret_reason);
/* For stop: takes what waits at q, at most n frames, and counts it as received and dropped
 * (DROP_SHUTDOWN). No worker polls. */
void queue_drop_waiting(struct queue *q, uint32_t n);
