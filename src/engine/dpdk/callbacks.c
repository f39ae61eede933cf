/* Stands before EAL's rte_intr_callback_register and remembers what listening sockets got. */
#define ALLOW_EXPERIMENTAL_API
#include "engine/dpdk/callbacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <rte_config.h>
#include <rte_interrupts.h>
#include <rte_spinlock.h>
#include <sys/socket.h>
#include <time.h>

#define TRIES	 100 /* while EAL's thread is in the function */
#define PAUSE_NS 1000000

typedef int register_fn(const struct rte_intr_handle *h, rte_intr_callback_fn cb, void *arg);

/* Control and EAL's thread register. */
static rte_spinlock_t lock = RTE_SPINLOCK_INITIALIZER;
static struct callback {
	rte_intr_callback_fn call; /* NULL: free entry */
	void *arg;
	int fd;
} callbacks[RTE_MAX_ETHPORTS];

static bool listens(int fd)
{
	socklen_t size = sizeof(int);
	int listening = 0;

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
	       listening;
}

/* The entry of that descriptor, else a free one; NULL: neither. */
static struct callback *find(int fd)
{
	struct callback *found = NULL;

	for (int i = 0; i < RTE_MAX_ETHPORTS; i++) {
		if (callbacks[i].call && callbacks[i].fd == fd)
			return &callbacks[i];
		if (!callbacks[i].call)
			found = &callbacks[i];
	}
	return found;
}

/* Drivers find this one first, as the program's own. Weak: in a program that DPDK is linked into,
 * its own stays, and nothing is remembered. */
__attribute__((weak)) int rte_intr_callback_register(
	const struct rte_intr_handle *h, rte_intr_callback_fn call, void *arg)
{
	register_fn *eals = (register_fn *)dlsym(RTLD_NEXT, "rte_intr_callback_register");
	int fd = h ? rte_intr_fd_get(h) : -1, err = eals ? eals(h, call, arg) : -ENOSYS;
	struct callback *c;

	if (err || !listens(fd))
		return err;
	rte_spinlock_lock(&lock);
	c = find(fd);
	if (c)
		*c = (struct callback){.call = call, .arg = arg, .fd = fd};
	rte_spinlock_unlock(&lock);
	return 0;
}

static int unregister(const struct callback *c)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	struct rte_intr_handle *h = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	int n = -ENOMEM;

	if (h && rte_intr_fd_set(h, c->fd) == 0) {
		n = rte_intr_callback_unregister(h, c->call, c->arg);
		for (int i = 0; n == -EAGAIN && i < TRIES; i++) {
			nanosleep(&pause, NULL);
			n = rte_intr_callback_unregister(h, c->call, c->arg);
		}
	}
	rte_intr_instance_free(h);
	return n;
}

bool callback_forget(int fd)
{
	struct callback known = {0}, *c;

	rte_spinlock_lock(&lock);
	c = find(fd);
	if (c && c->call) {
		known = *c;
		*c = (struct callback){0};
	}
	rte_spinlock_unlock(&lock);
	return known.call && unregister(&known) > 0;
}
