/* The memory of all engines: made, cut into pools, given back. */
#include "control/memory.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "frame/pool.h"

#define HUGE_PAGE (2UL * 1024 * 1024)
/* XDP_PACKET_HEADROOM of the kernel lies before a received frame anyway; ours is for frames that
 * are written by us. */
#define HEADROOM 256

static int map(struct memory *m, size_t size, unsigned int flags)
{
	int fd = memfd_create("culvert-frames", MFD_CLOEXEC | flags), err;
	void *base;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0)
		goto fail;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (base == MAP_FAILED)
		goto fail;
	m->base = base;
	m->size = size;
	m->huge = (flags & MFD_HUGETLB) != 0;
	m->fd = fd;
	return 0;
fail:
	err = -errno;
	close(fd);
	return err;
}

/* Why an engine has none, its ports say when they open. */
static int take(const struct memory_need *need, struct memory *m, size_t size)
{
	const struct engine_ops *from = need->from;
	struct reason why = {0};
	void *base;
	int err = from ? from->memory_take(need->devices, need->n_devices, size, need->n_pools,
				 &base, &m->huge, &why)
		       : -ENOTSUP;

	if (from && err)
		log_debug("memory not from %s: %s", from->name, why.what);
	if (err)
		return err;
	m->base = base;
	m->size = size;
	m->engine = from;
	return 0;
}

int memory_make(const struct memory_need *need, struct memory *ret_memory, struct reason *r)
{
	uint32_t n_pools = need->n_pools, slots = need->slots, slot_size = need->slot_size;
	size_t size = (size_t)n_pools * slots * slot_size;
	size_t huge_size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	struct memory m = {.slot_size = slot_size, .fd = -1};
	int err = take(need, &m, size);

	if (err)
		err = map(&m, huge_size, MFD_HUGETLB | MFD_HUGE_2MB);
	if (err)
		err = map(&m, size, 0);
	if (err)
		return reason_set(r, err, reason_remedy(err, "lower `slots:` or `workers:`"),
			"no memory for %u frames (%zu MiB): %s", n_pools * slots, size >> 20,
			strerror(-err));
	m.pools = calloc(n_pools, sizeof(*m.pools));
	for (; m.pools && m.n_pools < n_pools; m.n_pools++) {
		uint64_t first = (uint64_t)m.n_pools * slots * slot_size;

		err = pool_init(&m.pools[m.n_pools], m.base, first, slots, slot_size, HEADROOM);
		if (err)
			break;
	}
	if (m.n_pools < n_pools) {
		memory_free(&m);
		return reason_set(r, err ? err : -ENOMEM, NULL, "out of memory");
	}
	*ret_memory = m;
	return 0;
}

void memory_free(struct memory *m)
{
	for (uint32_t i = 0; i < m->n_pools; i++)
		pool_fini(&m->pools[i]);
	free(m->pools);
	if (m->engine) {
		m->engine->memory_give(m->base);
	} else if (m->base) {
		munmap(m->base, m->size);
		close(m->fd);
	}
	memset(m, 0, sizeof(*m));
}
