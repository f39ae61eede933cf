/* culvert relay: TCP routes given on the command line. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/reason.h"
#include "base/units.h"
#include "cli/cli.h"
#include "control/relay_main.h"

static int take_option(struct relay_main *p, const char *name, const char *value, struct reason *r)
{
	enum log_level level;
	uint64_t number;

	if (!value)
		return reason_set(r, -EINVAL, "`culvert --help`", "%s needs a value", name);
	if (strcmp(name, "--set") == 0) {
		if (!strchr(value, '=') || p->n_sets == RELAY_MAIN_ARGS)
			return reason_set(r, -EINVAL, "write --set KEY=VALUE",
				"--set %s can't be used", value);
		p->sets[p->n_sets++] = value;
	} else if (strcmp(name, "--workers") == 0) {
		if (units_number(value, 1, 256, &number) < 0)
			return reason_set(r, -EINVAL, NULL, "--workers is a number from 1 to 256");
		p->workers = (unsigned int)number;
	} else if (strcmp(name, "--max-connections") == 0) {
		if (units_number(value, 1, UINT32_MAX, &p->max_connections) < 0)
			return reason_set(r, -EINVAL, NULL, "--max-connections is a number");
	} else if (strcmp(name, "--drain") == 0) {
		if (units_duration(value, &p->drain_ns) < 0)
			return reason_set(r, -EINVAL, "write 500ms or 10s",
				"--drain %s is no duration", value);
	} else if (strcmp(name, "--socket") == 0) {
		p->socket = value;
	} else if (strcmp(name, "--http") == 0) {
		p->http = value;
	} else if (strcmp(name, "--log") == 0) {
		if (log_level_parse(value, &level) < 0)
			return reason_set(r, -EINVAL, NULL, "--log is error, warn, info or debug");
		log_level_set(level);
	} else {
		return reason_set(r, -EINVAL, "`culvert --help`", "no option %s", name);
	}
	return 0;
}

static int take_args(struct relay_main *p, int argc, char **argv, struct reason *r)
{
	int err;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--", 2) == 0) {
			err = take_option(p, argv[i], argv[i + 1], r);
			if (err < 0)
				return err;
			i++;
		} else if (p->n_ends == RELAY_MAIN_ARGS) {
			return reason_set(r, -EINVAL, "use a configuration file",
				"too many routes for a command line");
		} else {
			p->ends[p->n_ends++] = argv[i];
		}
	}
	if (p->n_ends == 0 || p->n_ends % 2)
		return reason_set(r, -EINVAL, "culvert relay tcp:0.0.0.0:8080 tcp:10.0.0.2:80",
			"a route has two ends: LISTEN and TO");
	return 0;
}

static int help(void)
{
	const char *key;

	printf("culvert relay LISTEN TO [LISTEN TO ...] [options]\n\n"
	       "LISTEN is tcp:HOST:PORT, udp:HOST:PORT, unix:/path, unix:@name, fd:N or fd:NAME;\n"
	       "or file:/path, which is sent to TO, and then culvert ends.\n"
	       "TO is tcp:HOST:PORT, udp:HOST:PORT, unix:/path, unix:@name, file:/path or\n"
	       "file:/path?append, and may be followed by weight=N and backup.\n\n"
	       "  --set KEY=VALUE      for every route; the keys are below\n"
	       "  --workers N          threads, 1\n"
	       "  --max-connections N  of all routes, what the descriptors allow\n"
	       "  --drain TIME         how long connections may end after SIGTERM, 10s\n"
	       "  --socket PATH        a control socket, for status and metrics\n"
	       "  --http ADDR:PORT     metrics for Prometheus\n"
	       "  --log LEVEL          error, warn, info or debug\n\nkeys:");
	for (unsigned int i = 0; (key = relay_main_key(i)); i++)
		printf(" %s", key);
	printf("\n");
	return EXIT_CODE_DONE;
}

int cmd_relay(int argc, char **argv)
{
	struct relay_main m = {.workers = 1, .drain_ns = 10000000000ULL};
	struct reason r = {0};
	int err;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return help();
	}
	if (take_args(&m, argc, argv, &r) < 0) {
		log_reason(LOG_LEVEL_ERROR, "", &r);
		return EXIT_CODE_USAGE;
	}
	err = relay_main(&m);
	if (err == -EINVAL)
		return EXIT_CODE_USAGE;
	if (err == -EPERM || err == -EACCES)
		return EXIT_CODE_NOT_PERMITTED;
	return err < 0 ? EXIT_CODE_FAILED : EXIT_CODE_DONE;
}
