/*
 * What the operator asks for: the configuration file and the command line end in this struct.
 *
 * Parsing is pure: text in, struct or one reason out ("FILE:LINE: wrong", remedy); nothing of the
 * machine is looked at. Relay routes are carried as their keys and values: relay/route.h knows
 * what they mean.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/reason.h"
#include "engine/engine.h"
#include "relay/route.h"

#define CONFIG_ROUTES_MAX 1024
#define CONFIG_SOCKET_DIR "/run/culvert"
#define CONFIG_SOCKET	  CONFIG_SOCKET_DIR "/control.sock"
/* Largest file that is read, bytes. */
#define CONFIG_SIZE_MAX (1024 * 1024)

enum config_engine {
	CONFIG_ENGINE_AUTO,
	CONFIG_ENGINE_AF_XDP,
	CONFIG_ENGINE_DPDK,
	CONFIG_ENGINE_RELAY
};
enum config_checksums { CONFIG_CHECKSUMS_AUTO, CONFIG_CHECKSUMS_ON, CONFIG_CHECKSUMS_OFF };
enum config_when { CONFIG_WHEN_FALLBACK, CONFIG_WHEN_ALWAYS };

enum config_fast_path { CONFIG_FAST_PATH_OFF, CONFIG_FAST_PATH_AUTO };

struct config_port {
	char name[64];
	char device[256];
	uint32_t mode;	  /* enum port_mode */
	uint32_t require; /* enum port_mode; SKB: any XDP */
	uint32_t queues;  /* 0: all */
	uint32_t rx_ring; /* descriptors; 0: the default */
	uint32_t tx_ring;
	bool busy;
	bool keep_host;
	uint32_t checksums; /* enum config_checksums */
	uint32_t line;	    /* in the file; 0: from the command line */
};

struct config_patch {
	char a[64], b[64]; /* port names */
	uint32_t line;
};

struct config_route {
	uint32_t when; /* enum config_when */
	uint32_t line;
	bool named;
	struct route_settings settings;
};

struct config {
	char file[256]; /* as in messages; empty: no file */
	uint32_t workers;
	uint32_t slots;	 /* per worker; 0: as many as the rings need */
	uint32_t engine; /* enum config_engine */
	uint32_t n_ports;
	struct config_port ports[PORTS_MAX];
	uint32_t fast_path; /* enum config_fast_path */
	uint32_t n_patches;
	struct config_patch patches[PORTS_MAX];
	uint32_t n_routes;
	struct config_route **routes; /* each from config_route_add */
	char socket[108];	      /* sun_path; empty: no control socket */
	char http[128];		      /* "ADDRESS:PORT"; empty: none */
	uint32_t log;		      /* enum log_level */
	uint64_t drain_ns;
	uint32_t max_connections; /* of all routes; 0: what the descriptors allow */
	bool once; /* the routes only send files: the daemon ends when they are sent */
};

extern const char *const config_engine_words[]; /* by enum config_engine, NULL-terminated */

/* The defaults. NULL: no memory. */
struct config *config_new(void);
void config_free(struct config *c);
/* A deep copy. NULL: no memory. */
struct config *config_copy(const struct config *from);

/* Adds the defaults of a port; a NULL name takes the device's. The port, or NULL with the reason.
 */
struct config_port *config_port_add(
	struct config *c, const char *name, const char *device, uint32_t line, struct reason *r);
/* Removes a port and the patch it is in. -ENOENT: no port of that name or device. */
int config_port_remove(struct config *c, const char *name_or_device);
int config_patch_add(
	struct config *c, const char *a, const char *b, uint32_t line, struct reason *r);
/* An empty route: the defaults, named route1, route2 and so on. */
struct config_route *config_route_add(struct config *c, uint32_t line, struct reason *r);
/* Index of the port of that name (or, with no such name, of that device), or -1. */
int config_port_find(const struct config *c, const char *name_or_device);

/* Whether the whole fits together: 0, or -EINVAL with the reason. */
int config_check(const struct config *c, struct reason *r);

/* Text to struct, checked. 0, -EINVAL with the reason, -ENOMEM. */
int config_parse(const char *text, size_t size, const char *file, struct config **ret_config,
	struct reason *r);
int config_read(const char *file, struct config **ret_config, struct reason *r);

/* "auto", "zero-copy", "copy", "skb", with any for "xdp" too: 0 or -EINVAL. */
int config_mode_parse(const char *text, uint32_t *ret_mode);
int config_require_parse(const char *text, uint32_t *ret_mode);
/* "off" or "auto": 0 or -EINVAL. */
int config_fast_path_parse(const char *text, uint32_t *ret_fast_path);
/* Sets an engine, by its word: 0 or -EINVAL. */
int config_engine_parse(const char *text, uint32_t *ret_engine);

/* Fills r with "FILE:LINE: ..." (no file or no line: without) and returns -EINVAL. */
int config_fail(const struct config *c, uint32_t line, struct reason *r, const char *remedy,
	const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The word of the list nearest to text, for "did you mean"; NULL when none is near. */
const char *config_nearest(const char *text, const char *const *words);
