/*
 * The pipes through which a loop splices. A direction holds one only while bytes are in it; only
 * empty pipes come back. How many there may be follows from what the system allows.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pipe {
	struct pipe *next;
	int read_fd, write_fd;
	uint32_t size; /* bytes that the kernel granted; more can be in it, see pipe(7) and GRO */
};

/* What the system allows, as pipe_plan needs it. */
struct pipe_limits {
	uint64_t user_pages_soft; /* fs.pipe-user-pages-soft; 0: no limit */
	uint64_t max_size;	  /* fs.pipe-max-size, bytes */
	uint64_t descriptors;	  /* RLIMIT_NOFILE */
	bool privileged;	  /* CAP_SYS_RESOURCE or CAP_SYS_ADMIN: no limit of pages */
};

struct pipe_budget {
	uint32_t large; /* pipes of large_size */
	uint32_t small; /* further pipes of PIPE_SMALL_SIZE */
	uint32_t large_size;
};

#define PIPE_SMALL_SIZE 65536U
#define PIPE_LARGE_SIZE (1U << 20)

struct pipe_pool {
	struct pipe_budget budget;
	struct pipe *free_large, *free_small;
	uint32_t n_large, n_small; /* made, free or held */
	uint32_t held;
	int error; /* why the last attempt to make one failed, until the loop has told it; 0 */
	uint64_t make_ns; /* not tried again before */
	uint64_t grow_ns; /* likewise, to make one larger */
};

/* Pure: what each of `loops` loops may make. */
struct pipe_budget pipe_plan(const struct pipe_limits *limits, unsigned int loops);
void pipe_limits_read(struct pipe_limits *ret_limits);

void pipe_pool_init(struct pipe_pool *pool, const struct pipe_budget *budget);
void pipe_pool_close(struct pipe_pool *pool);
/* NULL when the budget is used up, or the system refuses and pool->error says why: then bytes are
 * copied. A pipe that is smaller than wanted is used, and made larger when that is granted. */
struct pipe *pipe_take(struct pipe_pool *pool, uint64_t now_ns);
/* The pipe must be empty. */
void pipe_give(struct pipe_pool *pool, struct pipe *pipe);
/* For a pipe that still holds bytes nobody wants any more. */
void pipe_discard(struct pipe_pool *pool, struct pipe *pipe);
