/* Runs a command for which some system calls fail, as in a container or on an older kernel. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char usage[] = "usage: refuse bpf|af_xdp EPERM|ENOSYS|EAFNOSUPPORT COMMAND...\n";

static int errno_parse(const char *name)
{
	if (strcmp(name, "EPERM") == 0)
		return EPERM;
	if (strcmp(name, "ENOSYS") == 0)
		return ENOSYS;
	return strcmp(name, "EAFNOSUPPORT") == 0 ? EAFNOSUPPORT : 0;
}

int main(int argc, char **argv)
{
	int err = argc > 3 ? errno_parse(argv[2]) : 0;

	if (err == 0 || (strcmp(argv[1], "bpf") != 0 && strcmp(argv[1], "af_xdp") != 0)) {
		fputs(usage, stderr);
		return 2;
	}
	bool bpf = strcmp(argv[1], "bpf") == 0;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, bpf ? SYS_bpf : SYS_socket, 0, 3),
		/* The first argument: of socket(2) the family, of bpf(2) any command. */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | (bpf ? BPF_JGE : BPF_JEQ) | BPF_K, bpf ? 0 : AF_XDP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0) {
		perror("seccomp");
		return 1;
	}
	execvp(argv[3], argv + 3);
	perror(argv[3]);
	return 1;
}
