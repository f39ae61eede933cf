/* The first process of a guest: makes a root of the host's, runs a script, tells how it ended. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* What the host reads: the second serial port, as the first has the kernel's messages. */
#define PORT "/dev/ttyS1"

static void end(void)
{
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	printf("@failed %s: %s\n", what, strerror(errno));
	end();
}

static void place(const char *source, const char *path, const char *type, const char *data)
{
	mkdir(path, 0755);
	must(mount(source, path, type, strcmp(type, "9p") == 0 ? MS_RDONLY : 0, data), path);
}

static void port_open(void)
{
	struct termios t;
	int fd = open(PORT, O_RDWR | O_NOCTTY);

	if (fd < 0)
		reboot(RB_POWER_OFF);
	tcgetattr(fd, &t);
	cfmakeraw(&t);
	tcsetattr(fd, TCSANOW, &t);
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* /modules/NN-name.ko, in the order of their names. */
static void modules_load(void)
{
	struct dirent **entries;
	int n = scandir("/modules", &entries, NULL, alphasort);

	must(n, "/modules");
	for (int i = 0; i < n; i++) {
		char path[300];
		int fd;

		if (entries[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/modules/%s", entries[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		must(fd, path);
		if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
			must(-1, path);
		close(fd);
	}
}

/* The host's root below, the kernel's modules above it, and memory for what is written. */
static void root_make(void)
{
	static const char share[] =
		"trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any";

	place("host", "/host", "9p", share);
	place("kernel", "/kernel", "9p", share);
	place("tmpfs", "/upper", "tmpfs", "mode=755");
	must(mkdir("/upper/data", 0755), "/upper/data");
	must(mkdir("/upper/work", 0755), "/upper/work");
	place("overlay", "/root", "overlay",
		"lowerdir=/kernel:/host,upperdir=/upper/data,workdir=/upper/work");
	must(chdir("/root"), "/root");
	place("proc", "/root/proc", "proc", "");
	place("sysfs", "/root/sys", "sysfs", "");
	place("devtmpfs", "/root/dev", "devtmpfs", "");
	mkdir("/root/dev/shm", 0755);
	place("tmpfs", "/root/dev/shm", "tmpfs", "");
	place("devpts", "/root/dev/pts", "devpts", "");
	place("tmpfs", "/root/run", "tmpfs", "mode=755");
	must(chroot("/root"), "chroot");
	must(chdir("/"), "/");
}

int main(void)
{
	static char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"TERM=dumb", "LANG=C.UTF-8", NULL};
	static char script[16384];
	FILE *f;
	int status = -1;
	pid_t pid, ended;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	port_open();
	f = fopen("/script", "re");
	must(f ? 0 : -1, "/script");
	script[fread(script, 1, sizeof(script) - 1, f)] = '\0';
	fclose(f);
	modules_load();
	root_make();
	printf("@booted\n");
	pid = fork();
	must(pid, "fork");
	if (pid == 0) {
		setsid();
		execle("/bin/sh", "sh", "-c", script, NULL, environment);
		_exit(127);
	}
	do
		ended = wait(&status);
	while (ended != pid && !(ended < 0 && errno == ECHILD));
	printf("\n@exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	end();
}
