/* Drops every frame that comes in by a device, first thing, for as long as it runs: the far end of
 * a speed test. The device counts them. */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_DROP},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	int ifindex, prog, link;

	if (argc != 2) {
		fprintf(stderr, "usage: drop DEVICE\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ifindex = (int)if_nametoindex(argv[1]);
	prog = bpf_prog_load(
		BPF_PROG_TYPE_XDP, "drop", "GPL", code, sizeof(code) / sizeof(code[0]), NULL);
	if (ifindex == 0 || prog < 0) {
		fprintf(stderr, "drop: no device %s, or no XDP program: %s\n", argv[1],
			strerror(-prog));
		return 1;
	}
	link = bpf_link_create(prog, ifindex, BPF_XDP, &opts); /* gone with this process */
	if (link < 0) {
		fprintf(stderr, "drop: can't attach to %s: %s\n", argv[1], strerror(-link));
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	pause();
	return 0;
}
