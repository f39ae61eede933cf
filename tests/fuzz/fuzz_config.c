/* Configuration text: parsed, planned over made-up facts, never a crash or a leak. */
#include <stdint.h>
#include <string.h>

#include "control/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct plan_facts facts[PORTS_MAX];
	static struct plan plan;
	struct config *c = NULL, *copy;
	struct reason r = {0};

	if (config_parse((const char *)data, size, "fuzz.yaml", &c, &r)) {
		if (c || !r.what[0])
			__builtin_trap(); /* refused without a reason */
		return 0;
	}
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		facts[i].queues = i % 5;
	copy = config_copy(c);
	if (plan_make(c, facts, &plan, &r) == 0 && plan.frames && plan.workers > c->workers)
		__builtin_trap();
	config_free(copy);
	config_free(c);
	return 0;
}
