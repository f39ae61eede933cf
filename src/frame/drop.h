/*
 * Why frames were dropped: one list makes the enum, the counters and the names in metrics.
 * Kernel counters (XDP_STATISTICS) and drivers' counters come beside these, per queue, under
 * names of their own.
 */
#pragma once

#include <stdint.h>

#define DROP_REASONS(X)                                                                       \
	X(NO_PEER, "no_peer", "the function knows no port for the frame")                     \
	X(PORT_DOWN, "port_down", "the port it should leave by is closed or without carrier") \
	X(TX_FULL, "tx_full", "the transmit ring stayed full for a bounded number of tries")  \
	X(TOO_LONG, "too_long", "longer than the port it should leave by can send")           \
	X(NO_SLOT, "no_slot", "no free buffer in the other engine's memory for the copy")     \
	X(SHUTDOWN, "shutdown", "received, but not yet taken by a worker when its port closed")

enum drop_reason {
#define X(id, name, text) DROP_##id,
	DROP_REASONS(X)
#undef X
		DROP_REASON_COUNT
};

/* "tx_full": the name in metrics and status. */
const char *drop_reason_name(enum drop_reason reason);
/* One sentence for the operator. */
const char *drop_reason_text(enum drop_reason reason);
