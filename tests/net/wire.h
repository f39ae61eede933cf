/* One end of a wire: a raw packet socket on a device of some network namespace. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct wire {
	int fd;
	int ifindex;
	const char *name; /* in messages */
};

/* spec: "DEVICE" here, or "/proc/PID/ns/net:DEVICE"; dies with a message when it can't. */
void wire_open(struct wire *w, const char *spec);
/* Waits for room in the socket; false: the kernel says no (errno). */
bool wire_send(struct wire *w, const uint8_t *frame, uint32_t size);
/* A frame from the wire with its VLAN tag where it was; 0: none within timeout_ms; at most size_max
 * bytes. Frames that this device itself sends are left out. */
uint32_t wire_receive(struct wire *w, uint8_t *buf, uint32_t size_max, int timeout_ms);
/* Frames lost here because nobody received them in time. */
uint32_t wire_lost(struct wire *w);
