/*
 * What the operator can say about a relay route: one struct, filled key by key.
 * The keys and their words are in route.c's table; route_set is the only way in, for the
 * configuration file and for --set alike.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cidr.h"
#include "relay/endpoint.h"

struct reason;

#define ROUTE_TARGETS_MAX  32
#define ROUTE_NETWORKS_MAX 64

enum route_engine { ROUTE_ENGINE_AUTO, ROUTE_ENGINE_SPLICE, ROUTE_ENGINE_COPY };
enum route_balance { ROUTE_ROUND_ROBIN, ROUTE_LEAST_CONNECTIONS, ROUTE_SOURCE_HASH };
enum route_proxy { ROUTE_PROXY_OFF, ROUTE_PROXY_V1, ROUTE_PROXY_V2 };

struct route_target {
	struct endpoint endpoint;
	uint32_t weight; /* 1 to 256 */
	bool backup;	 /* used when no other target is up */
};

struct route_networks {
	uint32_t n;
	struct cidr list[ROUTE_NETWORKS_MAX];
};

struct route_settings {
	char name[64];
	bool listen_set;
	struct endpoint listen;
	uint32_t n_targets;
	struct route_target targets[ROUTE_TARGETS_MAX];

	enum route_engine engine;
	enum route_balance balance;
	uint64_t health_ns; /* 0: probe only targets that failed */
	uint32_t health_failures;
	uint32_t retries;

	uint64_t connect_timeout_ns;
	uint64_t idle_timeout_ns;	/* 0: none */
	uint64_t half_close_timeout_ns; /* 0: none */

	uint64_t max_connections;    /* 0: none */
	uint64_t accept_rate;	     /* connections/s; 0: none */
	uint64_t rate;		     /* bytes/s, both directions of all connections; 0: none */
	uint64_t connection_rate;    /* bytes/s, each direction of each connection; 0: none */
	struct route_networks allow; /* empty: everyone */
	struct route_networks deny;

	bool proxy_accept;
	struct route_networks proxy_trust;
	enum route_proxy proxy_send;
	bool transparent;
	bool source_set;
	struct address source;
	uint16_t source_port_min, source_port_max; /* 0: any */

	bool nodelay;
	bool keepalive;
	uint32_t keepalive_idle_s; /* 0: the system's */
	uint64_t user_timeout_ns;  /* 0: the system's */
	bool fast_open;
	bool mptcp;
	char congestion[16]; /* empty: the system's */
	uint32_t mark;
	char interface[16]; /* empty: any */
	uint32_t backlog;

	char access_log[256]; /* empty: off; "stderr", "journal", or a path */
};

void route_defaults(struct route_settings *s, const char *name);
/* Sets one key; list-valued keys (to, allow, deny, proxy_trust) add an item at each call and
 * take several items parted by commas. 0, or -EINVAL with the reason. */
int route_set(struct route_settings *s, const char *key, const char *value, struct reason *reason);
/* Whether the whole fits together: 0, or -EINVAL with the reason. */
int route_check(const struct route_settings *s, struct reason *reason);
bool route_networks_contain(const struct route_networks *networks, const struct sockaddr *address);
/* The keys, one after another, ended by NULL: for help and completion. */
const char *route_key(unsigned int idx);
