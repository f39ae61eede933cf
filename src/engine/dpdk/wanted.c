/* Hears of PCI devices that are taken away, for which vfio asks by an interrupt (DPDK 22.11,
 * pci_vfio.c, pci_vfio_req_handler). */
#define ALLOW_EXPERIMENTAL_API /* rte_dev_event_callback_*, which have been there since 18.05 */
#include "engine/dpdk/wanted.h"

#include <errno.h>
#include <rte_dev.h>
#include <sched.h>

static void on_event(const char *name, enum rte_dev_event_type type, void *flag)
{
	if (type == RTE_DEV_EVENT_REMOVE)
		atomic_store_explicit((atomic_bool *)flag, true, memory_order_relaxed);
}

int wanted_watch(const char *name, atomic_bool *flag)
{
	return rte_dev_event_callback_register(name, on_event, flag);
}

void wanted_forget(const char *name, atomic_bool *flag)
{
	/* Refused while it is being called, which takes no time. */
	while (rte_dev_event_callback_unregister(name, on_event, flag) == -EAGAIN)
		sched_yield();
}
