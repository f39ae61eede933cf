/* Makes, keeps and counts the pipes of a loop. */
#include "relay/pipe_pool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_SIZE 4096U
/* An upper bound where the system sets none: 4 GiB of full pipes is enough for any machine. */
#define PIPES_MAX 4096U
/* After a refusal the system is asked again this much later. */
#define RETRY_NS 1000000000ULL

struct pipe_budget pipe_plan(const struct pipe_limits *limits, unsigned int loops)
{
	struct pipe_budget b = {0};
	/* A quarter of the descriptors at most, two for each pipe; connections need the rest. */
	uint64_t pipes = limits->descriptors / 8, pages = UINT64_MAX;

	if (pipes > PIPES_MAX)
		pipes = PIPES_MAX;
	b.large_size =
		limits->max_size < PIPE_LARGE_SIZE ? (uint32_t)limits->max_size : PIPE_LARGE_SIZE;
	if (b.large_size < PIPE_SMALL_SIZE)
		b.large_size = PIPE_SMALL_SIZE;
	/* pipe(7): past the soft limit a user without privileges gets pipes of two pages. A
	 * tenth is left to the user's other programs. */
	if (!limits->privileged && limits->user_pages_soft)
		pages = limits->user_pages_soft - limits->user_pages_soft / 10;
	b.large = (uint32_t)pipes;
	if (pages != UINT64_MAX) {
		uint64_t large_pages = b.large_size / PAGE_SIZE,
			 small_pages = PIPE_SMALL_SIZE / PAGE_SIZE, n = pages / 2 / large_pages;

		if (n > pipes)
			n = pipes;
		b.large = (uint32_t)n;
		pages -= n * large_pages;
		n = pages / small_pages;
		b.small = (uint32_t)(n > pipes - b.large ? pipes - b.large : n);
	}
	b.large /= loops;
	b.small /= loops;
	return b;
}

static uint64_t read_number(const char *path, uint64_t otherwise)
{
	unsigned long long number;
	FILE *f = fopen(path, "re");

	if (!f)
		return otherwise;
	if (fscanf(f, "%llu", &number) != 1)
		number = otherwise;
	fclose(f);
	return number;
}

void pipe_limits_read(struct pipe_limits *ret_limits)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {0};
	struct rlimit files;

	ret_limits->user_pages_soft = read_number("/proc/sys/fs/pipe-user-pages-soft", 16384);
	ret_limits->max_size = read_number("/proc/sys/fs/pipe-max-size", 1 << 20);
	ret_limits->descriptors = 1024;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		ret_limits->descriptors = files.rlim_cur;
	ret_limits->privileged = false;
	/* Both capabilities lie in the first word: CAP_SYS_ADMIN is 21, CAP_SYS_RESOURCE 24. */
	if (syscall(SYS_capget, &header, caps) == 0)
		ret_limits->privileged =
			(caps[0].effective & (1U << CAP_SYS_ADMIN | 1U << CAP_SYS_RESOURCE)) != 0;
}

void pipe_pool_init(struct pipe_pool *pool, const struct pipe_budget *budget)
{
	memset(pool, 0, sizeof(*pool));
	pool->budget = *budget;
}

static void destroy(struct pipe_pool *pool, struct pipe *p)
{
	if (p->size > PIPE_SMALL_SIZE)
		pool->n_large--;
	else
		pool->n_small--;
	close(p->read_fd);
	close(p->write_fd);
	free(p);
}

static void destroy_all(struct pipe_pool *pool, struct pipe **list)
{
	while (*list) {
		struct pipe *p = *list;

		*list = p->next;
		destroy(pool, p);
	}
}

void pipe_pool_close(struct pipe_pool *pool)
{
	assert(pool->held == 0);
	destroy_all(pool, &pool->free_large);
	destroy_all(pool, &pool->free_small);
}

static struct pipe *make(struct pipe_pool *pool, uint64_t now_ns)
{
	struct pipe *p = malloc(sizeof(*p));
	int fds[2], size;

	if (!p || pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		pool->error = p ? errno : ENOMEM;
		pool->make_ns = now_ns + RETRY_NS;
		free(p);
		return NULL;
	}
	size = fcntl(fds[1], F_GETPIPE_SZ);
	p->read_fd = fds[0];
	p->write_fd = fds[1];
	p->size = size > 0 ? (uint32_t)size : PAGE_SIZE;
	if (p->size > PIPE_SMALL_SIZE)
		pool->n_large++;
	else
		pool->n_small++;
	return p;
}

/* Asks for the size that is wanted. A refusal (pipe(7): past the soft limit of the user's pages)
 * is no harm. */
static void grow(struct pipe_pool *pool, struct pipe *p, uint64_t now_ns)
{
	uint32_t wanted =
		pool->n_large < pool->budget.large ? pool->budget.large_size : PIPE_SMALL_SIZE;
	int size;

	if (p->size >= wanted || now_ns < pool->grow_ns)
		return;
	size = fcntl(p->write_fd, F_SETPIPE_SZ, (int)wanted);
	if (size < 0) {
		pool->grow_ns = now_ns + RETRY_NS;
		return;
	}
	if ((uint32_t)size > PIPE_SMALL_SIZE) {
		pool->n_small--;
		pool->n_large++;
	}
	p->size = (uint32_t)size;
}

struct pipe *pipe_take(struct pipe_pool *pool, uint64_t now_ns)
{
	struct pipe **list = pool->free_large ? &pool->free_large : &pool->free_small;
	struct pipe *p = *list;

	if (p)
		*list = p->next;
	else if (pool->n_large + pool->n_small < pool->budget.large + pool->budget.small &&
		 now_ns >= pool->make_ns)
		p = make(pool, now_ns);
	if (!p)
		return NULL;
	pool->held++;
	if (p->size <= PIPE_SMALL_SIZE)
		grow(pool, p, now_ns);
	return p;
}

void pipe_give(struct pipe_pool *pool, struct pipe *p)
{
	struct pipe **list = p->size > PIPE_SMALL_SIZE ? &pool->free_large : &pool->free_small;

	assert(pool->held > 0);
	pool->held--;
	p->next = *list;
	*list = p;
}

void pipe_discard(struct pipe_pool *pool, struct pipe *p)
{
	assert(pool->held > 0);
	pool->held--;
	destroy(pool, p);
}
