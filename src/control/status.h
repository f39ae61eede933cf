/* The running daemon for its readers: JSON for `status`, Prometheus text for a scrape. */
#pragma once

#include <stdint.h>

#include "frame/pool.h"

struct daemon;
struct daemon_port;

/* Both: text from malloc, or NULL without memory. By the control thread. */
char *status_json(const struct daemon *d);
char *status_metrics(const struct daemon *d);

/* The slots of one worker by holder, added up, with those that are lent. Workers move slots while
 * this reads, so it reads again until the sum fits or is wrong for good. */
struct status_frames {
	uint32_t slots;
	uint32_t held[HOLDER_COUNT];
	int64_t lost; /* slots that are missing (0), or, negative, that were made */
};
void status_frames_read(const struct daemon *d, unsigned int worker, struct status_frames *ret);

/* "af_xdp", "relay", "mixed": what moves traffic now. */
const char *status_engine(const struct daemon *d);
/* What a port got; or "closed", "opening", "closing". */
const char *status_mode(const struct daemon_port *p);
/* "up", "down", "gone", by enum port_link. */
extern const char *const status_link_names[];
