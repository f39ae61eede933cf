/* What the files of the AF_XDP engine share. */
#pragma once

#include "engine/af_xdp/device.h"
#include "engine/af_xdp/ring.h"
#include "engine/engine.h"
#include "frame/pool.h"

struct culvert_outcomes; /* culvert/abi.h */
struct steer;		 /* the skeleton */

struct xdp_queue {
	struct queue base;
	/* hot: the owning worker's */
	struct ring rx, tx, fill, done;
	int fd;
	bool busy;	      /* prefer-busy-poll: every rx drives the device's NAPI */
	uint32_t fill_target; /* slots the kernel should have for receiving */
	uint32_t n_fill;      /* slots it has: in the fill ring, its own hands or the rx ring */
	uint32_t n_tx;	      /* in the tx ring, the device or the completion ring */
	/* Per slot of the pool, which holder this queue lent it to (HOLDER_FILL or HOLDER_TX), or
	 * HOLDER_FREE: the kernel gives nothing back when a socket closes, so we must know. */
	uint8_t *lent;
};

struct xdp_port {
	struct port base;
	struct device device;
	const struct memory *memory;
	struct steer *program;
	int link_fd; /* -1: not attached */
	bool complete_checksums, fast_path_wanted;
	bool fast_path_loaded;
	struct reason fast_path_refused; /* why it is not loaded */
	uint32_t fast_path_peer;	 /* interface index in map `peer`; 0: none */
	uint32_t n_queues;
	struct xdp_queue *queues; /* [n_queues] */
	struct queue **queue_list;
};

/* queue.c: the hot path. */
extern const struct queue_ops af_xdp_queue_ops;
/* Hands slots to the kernel for receiving, up to fill_target. */
void xdp_queue_refill(struct xdp_queue *q);
/* Starts transmission of what is in the ring (bounded), takes finished transmissions back. */
void xdp_queue_reap(struct xdp_queue *q);

/* socket.c: one socket and its rings. */
struct socket_settings {
	const struct memory *memory;
	const struct device *device;
	uint32_t queue;	  /* of the device */
	uint32_t rx_ring; /* descriptors */
	uint32_t tx_ring;
	uint16_t bind_flags; /* XDP_COPY or XDP_ZEROCOPY */
	bool busy;
	int umem_fd; /* the socket of this port that registered the memory; -1: this one does */
};
/* base.pool, fill_target and lent are set; fills, then binds. On failure every slot is back in the
 * pool and the queue is as before. */
int xdp_socket_open(struct xdp_queue *q, const struct socket_settings *s, struct reason *r);
/* Takes one that is not open (fd -1). Every slot goes back to the pool. */
void xdp_socket_close(struct xdp_queue *q, const struct device *d);
/* Waits, within bounds, until no socket holds the device's queue: the kernel lets go of it some
 * time after the close. 0, -EBUSY, or what else stands in the way. */
int xdp_socket_await_release(const struct device *d, uint32_t queue);
/* What the kernel really does, by XDP_OPTIONS. */
bool xdp_socket_is_zero_copy(const struct xdp_queue *q);

/* setup.c: what can be told before anything is touched. */
int xdp_check(const struct port_settings *s, const struct device *d, uint32_t slot_size,
	struct reason *r);

/* probe.c: for engine_ops. */
int xdp_probe(const struct port_settings *s, enum port_mode *ret_mode, struct reason *ret_reason);

/* attach.c: the program, with the host addresses of s, and its link. flags: XDP_FLAGS_DRV_MODE or
 * XDP_FLAGS_SKB_MODE. */
int xdp_program_load(
	struct xdp_port *p, const struct port_settings *s, bool frags, struct reason *r);
void xdp_program_unload(struct xdp_port *p);
int xdp_program_attach(struct xdp_port *p, uint32_t flags, struct reason *r);
void xdp_program_detach(struct xdp_port *p);
int xdp_program_steer(struct xdp_port *p, const struct xdp_queue *q, struct reason *r);
/* Who has the device. */
struct xdp_holder {
	uint32_t id; /* of the program */
	char name[16];
};
bool xdp_program_holder(const struct device *d, struct xdp_holder *ret);
/* For engine_ops: replaces the addresses of the device that stay with the kernel (keep_host). New
 * ones are added before old ones go, so an address in both lists is never missing. At most
 * CULVERT_HOST_ADDRESSES_MAX (-E2BIG: the first ones are kept). */
int xdp_host_addresses(struct port *p, const struct culvert_host_address *addresses, size_t n,
	struct reason *ret_reason);
/* Loads and forgets: may this process? */
int xdp_program_try(struct reason *r);
/* Likewise with the fast path and what counts its losses. */
int xdp_program_try_fast(const struct device *d, struct reason *r);

/* fast_path.c: forwarding in the kernel. */
/* Sets p->fast_path_refused when not. frags: frames may lie in several buffers. */
bool xdp_fast_path_may(struct xdp_port *p, bool frags);
/* Before loading: which of the programs and maps. p may be NULL. */
void xdp_fast_path_select(const struct xdp_port *p, struct steer *program);
/* After loading: from then on no lost frame is missed. */
int xdp_fast_path_watch(struct xdp_port *p);
/* Why loading or watching failed. */
void xdp_fast_path_explain(struct xdp_port *p, int err);
int xdp_fast_path_probe(const struct port_settings *s, enum port_mode mode,
	const struct port_settings *peer, enum port_mode peer_mode, struct reason *ret_reason);
int xdp_fast_path_check(
	const struct port *base, const struct port *peer, struct reason *ret_reason);
int xdp_fast_path_set(struct port *base, const struct port *peer, struct reason *ret_reason);
void xdp_fast_path_read(const struct port *base, struct fast_path *ret);
/* Outcomes of one queue, summed over CPUs. */
void xdp_outcomes_read(const struct xdp_port *p, uint32_t queue, struct culvert_outcomes *ret);
