/*
 * DPDK devices by name: what "dpdk:ARGS" means, what is in the way, plugged in and out.
 * Inside engine/dpdk/ only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

struct dpdk_device {
	char devargs[256]; /* what EAL gets: without our own mtu= */
	char name[64];	   /* "0000:03:00.0", "net_null0" */
	bool pci;
	char iface[16];	     /* of a driver on top of a network device: its name; else "" */
	uint32_t mtu;	     /* asked for by mtu=N; 0: as the driver has it */
	uint32_t queues;     /* said by its arguments, or the driver's default; 0: not known */
	uint32_t frame_size; /* net_af_packet's framesz, bytes; else 0 */
	/* Sockets of memif and vhost-user (peer.h); "": none. */
	char peer[108];	   /* where its peer listens */
	char listen[108];  /* where it listens itself */
	bool abstract;	   /* that is a name without a file */
	uint32_t memif_id; /* there, where several memif devices may share a socket */
};

/* Reads "dpdk:ARGS" and looks whether that device can be there, changing nothing. 0, -EINVAL,
 * -ENODEV, -EBUSY, -ENOTCONN (its peer is not there yet) with the reason. */
int device_parse(const char *device, struct dpdk_device *ret_device, struct reason *r);
/* engine_ops.describe */
int device_describe(
	const char *device, char ret_netdev[16], uint32_t *ret_queues, struct reason *r);
/* Of a PCI device, as the kernel has it; -1: none, or none known. */
int device_numa_node(const char *device);
/* Plugs it into EAL, which runs; 0 and DPDK's port id, or -errno with the reason. */
int device_plug(const struct dpdk_device *d, uint16_t *ret_port_id, struct reason *r);
/* What helps when the driver says that (static). */
const char *device_remedy(const struct dpdk_device *d, const char *said);
/* The error of a driver that said that: many return -1 for anything. */
int device_error(int err, const char *said);
/* Stops the port, closes it, gives the device back. */
void device_unplug(uint16_t port_id);
