/* The steering program for its tests: loaded or skipped, its counters read. */
#include "steer_bed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct steer *program;
int socket_fd = -1;

int steer_bed_make(int (*load)(void))
{
	int err;

	if (geteuid() != 0) {
		fprintf(stderr, "skipped: needs root, for bpf(2)\n");
		return 77;
	}
	err = load();
	if (err == -EPERM || err == -EACCES) {
		/* EACCES is the verifier's no as well. */
		if (bpf_map_create(BPF_MAP_TYPE_ARRAY, NULL, 4, 4, 1, NULL) >= 0)
			return 1;
		fprintf(stderr, "skipped: bpf(2) is refused here: %s\n", strerror(-err));
		return 77;
	}
	if (err)
		return 1;
	socket_fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (socket_fd < 0) {
		fprintf(stderr, "skipped: no AF_XDP socket here: %s\n", strerror(errno));
		return 77;
	}
	return 0;
}

void steer_bed_end(void)
{
	if (socket_fd >= 0)
		close(socket_fd);
	steer__destroy(program);
}

struct culvert_outcomes outcomes(void)
{
	struct culvert_outcomes sum = {0}, each[1024];
	uint32_t queue = 0;

	assert_in_range(libbpf_num_possible_cpus(), 1, 1024);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(program->maps.outcomes), &queue, each), 0);
	for (int cpu = 0; cpu < libbpf_num_possible_cpus(); cpu++) {
		for (int i = 0; i < CULVERT_OUTCOME_COUNT; i++)
			sum.frames[i] += each[cpu].frames[i];
		sum.forwarded_bytes += each[cpu].forwarded_bytes;
		sum.checksums_completed += each[cpu].checksums_completed;
	}
	return sum;
}
