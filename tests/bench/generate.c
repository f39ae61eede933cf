/* Offers frames to a device faster than any sender could: the kernel runs a redirecting XDP program
 * over live frames (BPF_PROG_RUN, Documentation/bpf/bpf_prog_run.rst). */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define FRAME_MAX 3500u
/* Frames a system call: each call costs tens of milliseconds to set up and tear down. */
#define REPEAT 2000000

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* return bpf_redirect(ifindex, 0) */
static int program_load(uint32_t ifindex)
{
	struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 1, .imm = (int)ifindex},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 0},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(
		BPF_PROG_TYPE_XDP, "generate", "GPL", code, sizeof(code) / sizeof(code[0]), NULL);
}

/* UDP over IPv4 to the discard port, from an address of nobody. */
static void frame_fill(uint8_t *f, uint32_t size)
{
	static const uint8_t head[] = {0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45,
		0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2, 0, 9, 0, 9};
	uint32_t sum = 0;

	memset(f, 0, size);
	memcpy(f, head, sizeof(head));
	f[16] = (uint8_t)((size - 14) >> 8);
	f[17] = (uint8_t)(size - 14);
	f[38] = (uint8_t)((size - 34) >> 8);
	f[39] = (uint8_t)(size - 34);
	for (int i = 14; i < 34; i += 2)
		sum += (uint32_t)f[i] << 8 | f[i + 1];
	sum = ~((sum & 0xffff) + (sum >> 16));
	f[24] = (uint8_t)(sum >> 8);
	f[25] = (uint8_t)sum;
}

static int generate(int prog, uint8_t *frame, uint32_t size, double seconds)
{
	double begin = now_s(), end = begin + seconds;
	uint64_t sent = 0;

	while (now_s() < end) {
		LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = size,
			.repeat = REPEAT, .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
		int err = bpf_prog_test_run_opts(prog, &opts);
		if (err == -EINTR) /* it was stopped for a while */
			continue;
		if (err) {
			fprintf(stderr, "BPF_PROG_RUN with live frames: %s\n", strerror(-err));
			return 1;
		}
		sent += REPEAT;
	}
	printf("{\"sent\": %" PRIu64 ", \"seconds\": %.3f}\n", sent, now_s() - begin);
	return 0;
}

int main(int argc, char **argv)
{
	static uint8_t frame[FRAME_MAX];
	uint32_t size, ifindex;
	cpu_set_t cpus;
	int prog;

	if (argc != 5) {
		fprintf(stderr, "usage: generate DEVICE FRAME-BYTES SECONDS CPU\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ifindex = if_nametoindex(argv[1]);
	size = (uint32_t)atoi(argv[2]);
	CPU_ZERO(&cpus);
	CPU_SET((size_t)atoi(argv[4]), &cpus);
	if (ifindex == 0 || size < 60 || size > FRAME_MAX ||
		sched_setaffinity(0, sizeof(cpus), &cpus) < 0) {
		fprintf(stderr, "generate: no such device, size or CPU\n");
		return 2;
	}
	prog = program_load(ifindex);
	if (prog < 0) {
		fprintf(stderr, "generate: can't load the program: %s\n", strerror(-prog));
		return 1;
	}
	frame_fill(frame, size);
	return generate(prog, frame, size, atof(argv[3]));
}
