/* Starts DPDK's environment with our manners, and leads its log into ours. */
#include "engine/dpdk/eal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* Without huge pages all memory is reserved (not used) at the start. */
#define NO_HUGE_MIB	"1024"
#define HUGE_BASE_BYTES (64ULL << 20) /* EAL's own, and a port or two */
#define HUGE_POOL_BYTES (40ULL << 20) /* mbufs of one worker: 8191 of some 2.4 KiB, and slack */
#define WARNINGS_MAX	5	      /* lines a second */

static bool started, huge_pages;
static atomic_bool listening; /* written by who calls an engine, read by who logs */
static char complaint[200];   /* written under DPDK's log stream lock while listening */
static char warning[200];     /* likewise, what was said before that */

bool eal_has_huge_pages(void)
{
	return huge_pages;
}

void eal_listen(void)
{
	complaint[0] = '\0';
	warning[0] = '\0';
	atomic_store(&listening, true);
}

const char *eal_listen_end(void)
{
	atomic_store(&listening, false);
	return complaint;
}

const char *eal_warning(void)
{
	return warning;
}

/* A driver that complains of every burst must not fill the disk. */
static bool warning_allowed(void)
{
	static time_t second;
	static int n;
	time_t now = time(NULL);

	if (now != second) {
		second = now;
		n = 0;
	}
	return ++n <= WARNINGS_MAX;
}

/* Some say the same many times over. */
static bool is_new(const char *line, int len)
{
	static char last[200];
	static time_t second;
	time_t now = time(NULL);
	bool same = now - second <= 1 && len < (int)sizeof(last) &&
		    strncmp(last, line, (size_t)len) == 0 && !last[len];

	second = now;
	snprintf(last, sizeof(last), "%.*s", len, line);
	return !same;
}

/* What control or its threads do is heard, and what drivers' own threads say of it. Workers, which
 * go on with other ports meanwhile, complain of those. */
static bool is_heard(void)
{
	unsigned int lcore = rte_lcore_id();

	return atomic_load(&listening) && (lcore == LCORE_ID_ANY || lcore == rte_get_main_lcore());
}

static void log_line(const char *line, int len)
{
	bool bad = rte_log_cur_msg_loglevel() <= (int)RTE_LOG_ERR;

	if (len == 0)
		return;
	if (!bad || !started || is_heard()) {
		if (bad && !complaint[0])
			snprintf(complaint, sizeof(complaint), "%.*s", len, line);
		else if (rte_log_cur_msg_loglevel() == (int)RTE_LOG_WARNING && !complaint[0])
			snprintf(warning, sizeof(warning), "%.*s", len, line);
		log_debug("dpdk: %.*s", len, line);
	} else if (is_new(line, len) && warning_allowed()) {
		log_warn("dpdk: %.*s", len, line);
	}
}

/* Of a stdio stream: called with its lock held. */
static ssize_t log_bytes(void *cookie, const char *bytes, size_t size)
{
	size_t at = 0;

	while (at < size) {
		const char *end = memchr(bytes + at, '\n', size - at);
		size_t len = end ? (size_t)(end - bytes) - at : size - at;

		while (len && isspace((unsigned char)bytes[at])) {
			at++;
			len--;
		}
		log_line(bytes + at, (int)len);
		at += len + 1;
	}
	return (ssize_t)size;
}

static FILE *log_stream; /* DPDK's for the life of the process */

static int log_lead(void)
{
	static const cookie_io_functions_t functions = {.write = log_bytes};

	if (!log_stream)
		log_stream = fopencookie(NULL, "w", functions);
	return log_stream ? rte_openlog_stream(log_stream) : -ENOMEM;
}

/* What is free of the machine's huge pages, bytes. */
static uint64_t huge_bytes_free(void)
{
	static const char dir[] = "/sys/kernel/mm/hugepages";
	DIR *d = opendir(dir);
	struct dirent *e;
	uint64_t sum = 0;

	while (d && (e = readdir(d))) {
		unsigned long long kib, n = 0;
		char path[320];
		FILE *f;

		if (sscanf(e->d_name, "hugepages-%llukB", &kib) != 1)
			continue;
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", dir, e->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%llu", &n) == 1)
			sum += n * kib * 1024;
		fclose(f);
	}
	if (d)
		closedir(d);
	return sum;
}

static bool choose_huge_pages(uint64_t wanted)
{
	uint64_t n = huge_bytes_free();

	if (n && n < wanted)
		log_warn("dpdk: %llu MiB of huge pages are free, %llu are wanted: it starts "
			 "without; raise vm.nr_hugepages (sysctl), and restart",
			(unsigned long long)(n >> 20), (unsigned long long)(wanted >> 20));
	return n >= wanted;
}

/* "0@(0,1,...)": one lcore that may run wherever we may, so that nothing is pinned. */
static void lcores_write(const cpu_set_t *cpus, char *text, size_t size)
{
	size_t at = (size_t)snprintf(text, size, "0@(");
	const char *comma = "";

	for (int cpu = 0; cpu < CPU_SETSIZE && at + 8 < size; cpu++) {
		if (!CPU_ISSET(cpu, cpus))
			continue;
		at += (size_t)snprintf(text + at, size - at, "%s%d", comma, cpu);
		comma = ",";
	}
	snprintf(text + at, size - at, ")");
}

static int init(const cpu_set_t *cpus)
{
	static char lcores[8 * CPU_SETSIZE], prefix[32]; /* EAL keeps pointers */
	static char *argv[24];
	int argc = 0;

	lcores_write(cpus, lcores, sizeof(lcores));
	snprintf(prefix, sizeof(prefix), "culvert-%d", (int)getpid());
	argv[argc++] = "culvert";
	argv[argc++] = "--no-shconf";
	argv[argc++] = "--no-telemetry";
	argv[argc++] = "--file-prefix";
	argv[argc++] = prefix;
	argv[argc++] = "--lcores";
	argv[argc++] = lcores;
	if (access("/sys/bus/pci/devices", R_OK) == 0) {
		/* An allow list without a device of ours: PCI ports are plugged in by name, and
		 * no other is touched. 0000:00:00.0 is the host bridge. */
		argv[argc++] = "-a";
		argv[argc++] = "0000:00:00.0";
	} else {
		argv[argc++] = "--no-pci";
	}
	if (huge_pages) {
		/* No file in any hugetlbfs; and a directory no hugetlbfs is mounted on, as EAL
		 * deletes every unlocked *map_* in the one it finds (eal_hugepage_info.c,
		 * clear_hugedir). One file per segment list: vhost-user shares few. */
		argv[argc++] = "--in-memory";
		argv[argc++] = "--single-file-segments";
		argv[argc++] = "--huge-dir";
		argv[argc++] = "/proc/self/no-hugetlbfs";
	} else {
		argv[argc++] = "--no-huge";
		argv[argc++] = "-m";
		argv[argc++] = NO_HUGE_MIB;
	}
	return rte_eal_init(argc, argv);
}

/* What makes it give up it also prints, past its log (eal.c, rte_eal_init_alert). */
static int init_quietly(const cpu_set_t *cpus)
{
	FILE *standard = stderr;
	int n;

	stderr = log_stream;
	n = init(cpus);
	fflush(log_stream);
	stderr = standard;
	return n;
}

/* DPDK does not try twice: the first reason stays true until the process ends. */
static struct reason failure;
static int failure_err; /* 0: it has not failed */

static int failed(struct reason *r)
{
	if (r)
		*r = failure;
	return failure_err;
}

static int fail(int err)
{
	return reason_set(&failure, err == EACCES ? -EACCES : -EIO,
		huge_pages ? "start it with `--log debug`, or free more huge pages"
			   : "start it with `--log debug` to see all that DPDK says",
		"DPDK does not start: %s", complaint[0] ? complaint : strerror(err));
}

int eal_start(uint32_t n_pools, size_t size, struct reason *r)
{
	struct sigaction actions[NSIG];
	cpu_set_t cpus;
	int err;

	if (started)
		return 0;
	if (failure_err)
		return failed(r);
	if (log_lead() < 0)
		return reason_set(r, -ENOMEM, NULL, "out of memory for DPDK's log");
	CPU_ZERO(&cpus);
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return reason_set(
			r, -errno, NULL, "the affinity can't be read: %s", strerror(errno));
	huge_pages = choose_huge_pages(HUGE_BASE_BYTES + n_pools * HUGE_POOL_BYTES + size);
	for (int i = 1; i < NSIG; i++)
		sigaction(i, NULL, &actions[i]);
	eal_listen();
	err = init_quietly(&cpus) < 0 ? rte_errno : 0;
	eal_listen_end();
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &actions[i], NULL);
	if (err) {
		failure_err = fail(err);
		return failed(r);
	}
	started = true;
	rmdir(rte_eal_get_runtime_dir()); /* made for files that --no-shconf does without */
	rmdir("/var/run/dpdk");
	log_debug("dpdk: started %s huge pages", huge_pages ? "with" : "without");
	return 0;
}
