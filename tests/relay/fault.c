/*
 * Runs a command with system calls that fail where the test wants them to.
 *
 *   fault [--stats FILE] CALL[@ARG=VALUE]:ERRNO[:FROM[:COUNT]]... -- COMMAND ARGS
 *
 * From the FROM-th such call on (1 is the first), COUNT of them fail (0: all that follow).
 * ERRNO is a number, a name out of the table below, or "none" to only watch the call.
 * The command keeps this process' id; a supervisor beside it answers the calls
 * (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2)) and ends with it. FILE then holds a line for
 * each rule: the call, how often it was made, how often failed, and its largest fifth
 * argument (a splice's size).
 */
#include "endpoint.h"

#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#define RULES 16

struct rule {
	char call[32];
	int nr, err, arg;
	uint64_t value; /* of argument arg, unless arg is -1 */
	uint64_t from, count, calls, failed, largest;
};

static const struct {
	const char *name;
	int err;
} errors[] = {{"none", 0}, {"EINVAL", EINVAL}, {"ENOSYS", ENOSYS}, {"EPERM", EPERM},
	{"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"ENOMEM", ENOMEM}, {"EAGAIN", EAGAIN},
	{"EINTR", EINTR}, {"ECONNREFUSED", ECONNREFUSED}, {"ECONNABORTED", ECONNABORTED},
	{"EADDRNOTAVAIL", EADDRNOTAVAIL}, {"ENOBUFS", ENOBUFS}, {"EACCES", EACCES},
	{"ENETUNREACH", ENETUNREACH}, {"EIO", EIO}, {"ENOSPC", ENOSPC}};

static struct rule rules[RULES];
static int n_rules;

static void __attribute__((noreturn)) usage(const char *what)
{
	fprintf(stderr,
		"fault: %s\n"
		"usage: fault [--stats FILE] CALL[@ARG=VALUE]:ERRNO[:FROM[:COUNT]]... -- COMMAND\n",
		what);
	exit(2);
}

static int parse_error(const char *text)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (!strcmp(errors[i].name, text))
			return errors[i].err;
	if (atoi(text) > 0)
		return atoi(text);
	usage(text);
}

static void parse_rule(const char *text)
{
	struct rule *r = &rules[n_rules];
	char copy[128], *save, *call, *err, *from, *count, *at;

	if (n_rules == RULES || strlen(text) >= sizeof(copy))
		usage("too many rules, or one too long");
	strcpy(copy, text);
	call = strtok_r(copy, ":", &save);
	err = strtok_r(NULL, ":", &save);
	from = strtok_r(NULL, ":", &save);
	count = strtok_r(NULL, ":", &save);
	if (!call || !err || strlen(call) >= sizeof(r->call))
		usage(text);
	*r = (struct rule){.arg = -1,
		.err = parse_error(err),
		.from = from ? (uint64_t)atoll(from) : 1,
		.count = count ? (uint64_t)atoll(count) : 0};
	at = strchr(call, '@');
	if (at) {
		*at = 0;
		r->arg = atoi(at + 1);
		at = strchr(at + 1, '=');
		if (!at)
			usage(text);
		r->value = strtoull(at + 1, NULL, 0);
	}
	strcpy(r->call, call);
	r->nr = seccomp_syscall_resolve_name(call);
	if (r->nr < 0)
		usage(text);
	n_rules++;
}

/* Installs the filter and returns the descriptor its calls are reported on. */
static int filter_load(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int err, fd;

	if (!ctx)
		die("seccomp_init");
	for (int i = 0; i < n_rules; i++) {
		struct rule *r = &rules[i];
		struct scmp_arg_cmp cmp = {.arg = (unsigned int)(r->arg < 0 ? 0 : r->arg),
			.op = SCMP_CMP_EQ,
			.datum_a = r->value};

		err = seccomp_rule_add_array(ctx, SCMP_ACT_NOTIFY, r->nr, r->arg < 0 ? 0 : 1, &cmp);
		if (err && err != -EEXIST) {
			errno = -err;
			die("seccomp_rule_add");
		}
	}
	err = seccomp_load(ctx);
	if (err) {
		errno = -err;
		die("seccomp_load");
	}
	fd = seccomp_notify_fd(ctx);
	if (fd < 0)
		die("seccomp_notify_fd");
	return fd;
}

static void send_fd(int over, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(over, &m, 0) != 1)
		die("sendmsg");
}

static int receive_fd(int over)
{
	char byte, control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	int fd;

	if (recvmsg(over, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
		_exit(1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	return fd;
}

static bool rule_hit(struct rule *r, const struct seccomp_data *d)
{
	if (d->nr != r->nr || (r->arg >= 0 && d->args[r->arg] != r->value))
		return false;
	r->calls++;
	if (d->args[4] > r->largest)
		r->largest = d->args[4];
	if (!r->err || r->calls < r->from || (r->count && r->calls >= r->from + r->count))
		return false;
	r->failed++;
	return true;
}

static void supervise(int fd, const char *stats)
{
	struct seccomp_notif *ask;
	struct seccomp_notif_resp *answer;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (seccomp_notify_alloc(&ask, &answer))
		_exit(1);
	/* POLLHUP: nobody is left under the filter. */
	while (poll(&p, 1, -1) >= 0 && !(p.revents & POLLHUP)) {
		memset(ask, 0, sizeof(*ask));
		if (seccomp_notify_receive(fd, ask))
			continue;
		*answer = (struct seccomp_notif_resp){
			.id = ask->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		for (int i = 0; i < n_rules; i++) {
			if (rule_hit(&rules[i], &ask->data)) {
				answer->flags = 0;
				answer->error = -rules[i].err;
			}
		}
		seccomp_notify_respond(fd, answer);
	}
	if (stats) {
		FILE *f = fopen(stats, "w");

		for (int i = 0; f && i < n_rules; i++)
			fprintf(f, "%s %llu %llu %llu\n", rules[i].call,
				(unsigned long long)rules[i].calls,
				(unsigned long long)rules[i].failed,
				(unsigned long long)rules[i].largest);
		if (f)
			fclose(f);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	const char *stats = NULL;
	int pair[2], status, i = 1;
	pid_t child;

	if (i + 1 < argc && !strcmp(argv[i], "--stats")) {
		stats = argv[i + 1];
		i += 2;
	}
	for (; i < argc && strcmp(argv[i], "--"); i++)
		parse_rule(argv[i]);
	if (i + 1 >= argc || !n_rules)
		usage("no rule or no command");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	child = fork();
	if (child < 0)
		die("fork");
	if (!child) {
		/* A grandchild supervises: the command must not find a child it never made. */
		if (fork())
			_exit(0);
		signal(SIGTERM, SIG_IGN);
		signal(SIGINT, SIG_IGN);
		close(pair[0]);
		close(1);
		close(2);
		supervise(receive_fd(pair[1]), stats);
	}
	waitpid(child, &status, 0);
	i = i + 1;
	pair[1] = filter_load();
	send_fd(pair[0], pair[1]);
	close(pair[1]);
	close(pair[0]);
	execvp(argv[i], argv + i);
	die(argv[i]);
}
