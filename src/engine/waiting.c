/* What waits at a queue when its port stops: dropped, and counted. */
#include "engine/engine.h"

void queue_drop_waiting(struct queue *q, uint32_t n)
{
	struct batch b;
	uint32_t had = 0;

	do {
		q->ops->rx(q, &b);
		q->ops->put(q, &b);
		counter_add(&q->stats.drops[DROP_SHUTDOWN], b.n);
		had += b.n;
	} while (b.n > 0 && had < n);
}
