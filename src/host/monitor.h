/* Changes of links and addresses, as the kernel reports them, for an event loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

enum host_event_kind {
	HOST_EVENT_LINK,      /* a link is new or has changed: up, mtu, name and mac hold */
	HOST_EVENT_LINK_GONE, /* removed, or moved to another namespace */
	HOST_EVENT_ADDRESSES, /* addresses of ifindex have changed: read them again */
	HOST_EVENT_OVERRUN    /* reports were lost: read everything again */
};

struct host_event {
	enum host_event_kind kind;
	uint32_t ifindex; /* 0 for an overrun */
	char name[16];	  /* empty for addresses and overruns */
	bool admin_up;	  /* IFF_UP */
	bool up;	  /* IFF_UP and it has a carrier: frames can pass */
	uint32_t mtu;	  /* bytes */
	uint8_t mac[6];
};

struct host_monitor;

/* Watches the namespace the caller is in; needs no right. */
int host_monitor_open(struct host_monitor **ret_monitor, struct reason *ret_reason);
/* Becomes readable when there is something to read. */
int host_monitor_fd(const struct host_monitor *m);
/* Calls each for every change reported up to now; never blocks. Returns how many, or -errno. */
int host_monitor_read(
	struct host_monitor *m, void (*each)(const struct host_event *e, void *data), void *data);
/* Takes NULL. */
void host_monitor_close(struct host_monitor *m);
