/* What the files of control/ share of the running daemon. Inside control/ only. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "control/configuration.h"
#include "control/daemon.h"
#include "control/plan.h"
#include "engine/engine.h"
#include "host/monitor.h"
#include "host/settings.h"
#include "relay/relay.h"
#include "worker/worker.h"

enum port_link { PORT_LINK_DOWN, PORT_LINK_UP, PORT_LINK_GONE };

#define PORT_BACKOFF_S 2 /* until the first try to open a lost port again */

/* One port. It does not move while it is used: plan.settings points into asked. */
struct daemon_port {
	bool used;
	struct config_port asked;
	struct plan_port plan;
	struct port *port;	       /* NULL: closed */
	struct host_settings *changes; /* what open changed on the host */
	uint32_t ifindex;	       /* 0: no network interface */
	enum port_link link;
	int peer;		     /* index, or -1 */
	struct reason closed;	     /* why it is closed */
	uint32_t backoff_s;	     /* until the next try after this one */
	uint64_t retry_ns;	     /* next try to open; 0: none */
	struct reason fast_path;     /* why the kernel doesn't forward by itself; empty: it does */
	uint64_t fast_path_retry_ns; /* after a redirect failed; 0: none has */
	uint32_t mtu;		     /* of the interface, bytes; 0: none */
	bool awaited;		     /* had a carrier before it was opened, or comes with one */
	bool apart;	/* open, but no worker polls it: its pools are others, or its peer is */
	const char *at; /* "opening", "closing": its driver is at it; NULL: it is not */
};

struct daemon {
	const struct daemon_options *options;
	struct config *config;
	uint32_t n_workers; /* forwarding threads */
	uint32_t slots;	    /* per worker */
	struct memory memory;
	struct memory lent;	     /* the same, with pools beside the workers': see beside.c */
	struct worker **workers;     /* [n_workers] */
	struct snapshot **snapshots; /* [n_workers], what each worker has; NULL: nothing */
	struct daemon_port ports[PORTS_MAX];
	struct host_monitor *monitor; /* NULL: links are not watched */
	struct relay *relay;	      /* NULL: no route runs */
	bool fallback;		      /* routes run because no port can have XDP */
	struct reason fallback_why;
	struct server *unix_server, *http_server;
	int signal_fd, epoll_fd;
	uint64_t started_ns;
	uint64_t ready_by_ns;	     /* carriers are waited for until then */
	uint64_t fast_path_check_ns; /* next look */
	bool ready;
	bool stopping;
	bool reload;	   /* is due: SIGHUP came */
	bool links_missed; /* events came that only links_refresh makes good */
	/* NULL, or whose driver did not come back when culvert was to end: its thread is left
	 * behind (drivers.c), with all that it may touch. */
	const struct engine_ops *hung;
	uint32_t unsent; /* files that were not delivered, with config->once; each is logged */
	/* A trial: undone when nobody confirms it. */
	struct config *before_trial; /* NULL: none */
	uint64_t trial_ns;	     /* when it is undone */
};

static inline uint64_t daemon_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

#define SECOND_NS 1000000000ULL

/* ports.c: the life of one port. */

/* The facts of one configured port; -ENODEV and so on with the reason. */
int port_facts(const struct config_port *asked, struct plan_facts *ret_facts, struct reason *r);
/* Will frames for this host be forwarded, as it has addresses on devices that stand on this one? */
bool port_cuts_off_host(const struct plan_port *plan, uint32_t ifindex, struct reason *r);
/* Is this the network device that a port's device is or stands on? */
bool port_is_on(const char *device, const char *netdev);
/* Host settings, engine, host addresses; logs what it got. Memory is the daemon's while no worker
 * polls, or what is lent. */
int port_open(struct daemon *d, uint32_t idx, const struct memory *m, struct reason *r);
/* No worker may be polling it. Logs its totals, puts back the host's settings. */
void port_close(struct daemon *d, uint32_t idx);
/* Tells the engine which addresses are the host's. */
void port_addresses(struct daemon *d, uint32_t idx);
/* Index of the open or closed port of that interface, name or device; -1: none. */
int port_by_ifindex(const struct daemon *d, uint32_t ifindex);
int port_by_name(const struct daemon *d, const char *name_or_device);

/* drivers.c: those that may hang. */

/* As the engine's open and close, of p->port. Where culvert is to end and the driver does not come
 * back, d->hung is set, and open returns -ECANCELED. */
void driver_close(struct daemon *d, struct daemon_port *p);
int driver_open(struct daemon *d, struct daemon_port *p, const struct port_settings *s,
	const struct memory *m, struct reason *r);

/* daemon.c: signals and who only reads are answered until fd is readable. False: it is not, and
 * culvert is to end. */
bool daemon_await(struct daemon *d, int fd);

/* beside.c: ports come and go while the workers go on with the others. */

/* The pools to lend: after the memory was made, and before it is freed. */
int beside_make(struct daemon *d, struct reason *r);
void beside_free(struct daemon *d);
/* Opened, the port is apart: its frames wait until beside_join; not so while no worker runs yet.
 * -ECANCELED: culvert is to end. */
int beside_open(struct daemon *d, uint32_t idx, struct reason *r);
/* Takes a closed one. At the end the workers stay where they are. */
void beside_close(struct daemon *d, uint32_t idx);
/* The workers get the ports and their peers as they are. */
void beside_join(struct daemon *d);

/* snapshots.c: what the workers see. */

/* Every worker lets go of every queue, before ports are opened or closed. */
void workers_pause(struct daemon *d);
/* Every worker gets the ports as they are. -ENOMEM: they have nothing and wait. */
int workers_resume(struct daemon *d);
int workers_make(struct daemon *d, struct reason *r);
int workers_start(struct daemon *d, struct reason *r);
void workers_free(struct daemon *d);

/* fast_path.c: forwarding in the kernel. */

/* Lets the kernel forward between open ports that are patched, after any change of them. */
void fast_path_update(struct daemon *d);
/* Before port idx is closed: nothing is sent there by the kernel any more. */
void fast_path_stop(struct daemon *d, uint32_t idx);
/* Looks whether it still works, where it is due. */
void fast_path_check(struct daemon *d, uint64_t now_ns);
/* Milliseconds to the next look, or -1. */
int fast_path_wait_ms(const struct daemon *d, uint64_t now_ns);

/* links.c: what the kernel reports of links and addresses. */
void links_read(struct daemon *d);
/* While a driver is waited for: addresses alone, the rest at the next links_poll. */
void links_read_beside(struct daemon *d);
/* A port whose peer is not there: it has its place, and is opened when it is. */
void links_await_peer(struct daemon *d, uint32_t idx, const struct reason *why);
/* Opens again what is due. */
void links_retry(struct daemon *d, uint64_t now_ns);
/* Milliseconds to the next retry, or -1. */
int links_wait_ms(const struct daemon *d, uint64_t now_ns);
/* Carrier of every open port, read now. */
void links_refresh(struct daemon *d);
/* Of those alone whose driver must be asked; of all after links_read_beside. */
void links_poll(struct daemon *d);

/* routes.c: the relay's routes. */

/* Does this route run now? */
bool routes_wanted(const struct daemon *d, const struct config_route *route);
/* Starts every route that should run. On failure none runs. */
int routes_start(struct daemon *d, struct reason *r);
/* From the routes of old to those of d->config: only what differs is touched. */
int routes_change(struct daemon *d, const struct config *old, struct reason *r);
/* Waits for connections to end, at most the drain time or until a second signal. */
void routes_drain(struct daemon *d);
void routes_free(struct daemon *d);
