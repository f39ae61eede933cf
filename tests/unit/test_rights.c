/* What is refused is named: each refusal is made in a child by a seccomp filter or a limit. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/rights.h"

#define UMEM_SIZE (32ULL << 20) /* bytes: one worker's */

/* A filter under which system call nr, with first argument arg (-1: any), fails with err. */
static int refuse_call(int nr, int arg, int err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)arg, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

	if (arg < 0) /* whatever it is */
		filter[3] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* The rights of a child under that filter; nr below 0: without one. */
static struct host_rights rights_under(int nr, int arg, int err)
{
	struct host_rights *shared, rights;
	int status;
	pid_t pid;

	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (nr >= 0 && refuse_call(nr, arg, err))
			_exit(1);
		host_rights_get(shared, UMEM_SIZE);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	rights = *shared;
	munmap(shared, sizeof(*shared));
	return rights;
}

static void knows_the_machine(void **state)
{
	struct host_rights r = rights_under(-1, 0, 0);

	(void)state;
	assert_true(r.kernel[0]);
	assert_true(r.kernel_major >= 4);
	assert_true(r.seccomp >= 0);
	assert_int_equal(r.relay.err, 0);
	/* Whatever is refused says so. */
	assert_int_equal(r.program.err != 0, r.program.reason.what[0] != '\0');
	assert_int_equal(r.xsk.err != 0, r.xsk.reason.what[0] != '\0');
	assert_int_equal(r.locking.err != 0, r.locking.reason.what[0] != '\0');
}

static void names_the_filter_that_refuses_bpf(void **state)
{
	struct host_rights r = rights_under(SYS_bpf, -1, EPERM);

	(void)state;
	assert_int_equal(r.program.err, -EPERM);
	assert_int_equal(r.seccomp, 2);
	assert_true(r.no_new_privs);
	if (r.caps.sys_admin && !r.user_namespace)
		assert_non_null(strstr(r.program.reason.what, "seccomp"));
	assert_true(r.program.reason.remedy[0]);
	assert_int_equal(r.relay.err, 0);

	r = rights_under(SYS_bpf, -1, ENOSYS);
	assert_int_equal(r.program.err, -ENOSYS);
	assert_non_null(strstr(r.program.reason.what, "seccomp"));
}

static void names_missing_sockets(void **state)
{
	struct host_rights r = rights_under(SYS_socket, AF_XDP, EAFNOSUPPORT);

	(void)state;
	assert_int_equal(r.xsk.err, -EAFNOSUPPORT);
	assert_non_null(strstr(r.xsk.reason.remedy, "RestrictAddressFamilies"));
	assert_int_equal(r.relay.err, 0);
}

static void a_relay_without_splice_copies(void **state)
{
	struct host_rights r = rights_under(SYS_splice, -1, EPERM);

	(void)state;
	assert_int_equal(r.relay.err, 0);
	assert_non_null(strstr(r.relay.reason.what, "copy"));
}

static void no_sockets_no_relay(void **state)
{
	struct host_rights r = rights_under(SYS_socket, -1, EACCES);

	(void)state;
	assert_int_equal(r.relay.err, -EACCES);
	assert_true(r.relay.reason.remedy[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knows_the_machine),
		cmocka_unit_test(names_the_filter_that_refuses_bpf),
		cmocka_unit_test(names_missing_sockets),
		cmocka_unit_test(a_relay_without_splice_copies),
		cmocka_unit_test(no_sockets_no_relay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
