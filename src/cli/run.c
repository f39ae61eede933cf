/* culvert run and check: configuration file and command line, then the daemon or its plan. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "control/check.h"
#include "control/configuration.h"
#include "control/daemon.h"
#include "control/running.h"

/* What the command line says; NULL and 0: nothing. */
struct said {
	const char *file, *engine, *mode, *require, *workers, *queues, *socket, *http, *log,
		*fast_path;
	bool busy;
	int n_ports;
	char **ports;
};

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"engine", required_argument, NULL, 'e'},
	{"mode", required_argument, NULL, 'm'},
	{"require", required_argument, NULL, 'r'},
	{"workers", required_argument, NULL, 'w'},
	{"queues", required_argument, NULL, 'q'},
	{"fast-path", required_argument, NULL, 'f'},
	{"busy", no_argument, NULL, 'b'},
	{"socket", required_argument, NULL, 's'},
	{"http", required_argument, NULL, 'h'},
	{"log", required_argument, NULL, 'l'},
	{0},
};

static int read_options(int argc, char **argv, struct said *s, struct reason *r)
{
	int letter;

	opterr = 0;
	while ((letter = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (letter) {
		case 'c': s->file = optarg; break;
		case 'e': s->engine = optarg; break;
		case 'm': s->mode = optarg; break;
		case 'r': s->require = optarg; break;
		case 'w': s->workers = optarg; break;
		case 'q': s->queues = optarg; break;
		case 'f': s->fast_path = optarg; break;
		case 'b': s->busy = true; break;
		case 's': s->socket = optarg; break;
		case 'h': s->http = optarg; break;
		case 'l': s->log = optarg; break;
		case ':':
			return reason_set(r, -EINVAL, "`culvert --help` shows them",
				"%s needs a value", argv[optind - 1]);
		default:
			return reason_set(r, -EINVAL, "`culvert --help` lists them", "no option %s",
				argv[optind - 1]);
		}
	}
	s->ports = argv + optind;
	s->n_ports = argc - optind;
	if (s->n_ports != 0 && s->n_ports != 2)
		return reason_set(r, -EINVAL,
			"name two interfaces to patch together, or list ports in a --config file",
			"%d port%s on the command line", s->n_ports, s->n_ports == 1 ? "" : "s");
	if (s->n_ports && s->file)
		return reason_set(r, -EINVAL, "write the ports into the file",
			"ports on the command line and --config together");
	if (!s->n_ports && !s->file)
		return reason_set(r, -EINVAL, "culvert run eth0 eth1, or culvert run --config FILE",
			"nothing to run: neither two ports nor --config");
	return 0;
}

static int wrong(struct reason *r, const char *option, const char *text, const char *right)
{
	return reason_set(r, -EINVAL, right, "%s \"%s\" is not one it can be", option, text);
}

static int put_number(
	const char *option, const char *text, uint64_t max, uint32_t *ret, struct reason *r)
{
	uint64_t n;
	char right[64];

	if (!text)
		return 0;
	snprintf(right, sizeof(right), "a number from 1 to %llu", (unsigned long long)max);
	if (units_number(text, 1, max, &n))
		return wrong(r, option, text, right);
	*ret = (uint32_t)n;
	return 0;
}

static int put_text(const char *option, const char *text, char *ret, size_t size, struct reason *r)
{
	if (!text)
		return 0;
	if (strlen(text) >= size)
		return reason_set(
			r, -EINVAL, NULL, "%s is longer than %zu letters", option, size - 1);
	strcpy(ret, text);
	return 0;
}

/* The command line stands above the file. Also a daemon_options.override. */
static int put_options(struct config *c, void *data, struct reason *r)
{
	const struct said *s = data;
	uint32_t queues = 0;
	enum log_level level;
	int err = put_number("--workers", s->workers, 256, &c->workers, r);

	if (!err)
		err = put_number("--queues", s->queues, 1024, &queues, r);
	if (!err)
		err = put_text("--socket", s->socket, c->socket, sizeof(c->socket), r);
	if (!err)
		err = put_text("--http", s->http, c->http, sizeof(c->http), r);
	if (err)
		return err;
	if (s->engine && config_engine_parse(s->engine, &c->engine))
		return wrong(r, "--engine", s->engine, "auto, af_xdp, dpdk or relay");
	if (s->fast_path && config_fast_path_parse(s->fast_path, &c->fast_path))
		return wrong(r, "--fast-path", s->fast_path, "off or auto");
	if (s->log) {
		if (log_level_parse(s->log, &level))
			return wrong(r, "--log", s->log, "error, warn, info or debug");
		c->log = level;
	}
	for (uint32_t i = 0; i < c->n_ports; i++) {
		struct config_port *p = &c->ports[i];

		if (s->mode && config_mode_parse(s->mode, &p->mode))
			return wrong(r, "--mode", s->mode, "auto, zero-copy, copy or skb");
		if (s->require && config_require_parse(s->require, &p->require))
			return wrong(
				r, "--require", s->require, "auto, zero-copy, copy, skb or xdp");
		if (queues)
			p->queues = queues;
		if (s->busy)
			p->busy = true;
	}
	return config_check(c, r);
}

static struct config *config_of(const struct said *s, int *ret_err, struct reason *r)
{
	struct config *c = NULL;
	int err = 0;

	if (s->file) {
		err = config_read(s->file, &c, r);
	} else {
		c = config_new();
		if (!c)
			err = reason_set(r, -ENOMEM, NULL, "out of memory");
		for (int i = 0; !err && i < s->n_ports; i++)
			err = config_port_add(c, NULL, s->ports[i], 0, r) ? 0 : -EINVAL;
		if (!err)
			err = config_patch_add(c, c->ports[0].name, c->ports[1].name, 0, r);
		if (!err && c)
			strcpy(c->socket, CONFIG_SOCKET);
	}
	if (!err)
		err = put_options(c, (void *)s, r);
	if (err) {
		config_free(c);
		c = NULL;
	}
	*ret_err = err;
	return c;
}

static int code_of(int err)
{
	return err == -EPERM || err == -EACCES ? EXIT_CODE_NOT_PERMITTED : EXIT_CODE_FAILED;
}

/* The configuration of both commands; NULL after saying why, with the exit code. */
static struct config *config_get(int argc, char **argv, struct said *s, int *ret_code)
{
	struct reason r = {0};
	struct config *c = NULL;
	int err = read_options(argc, argv, s, &r);

	if (!err)
		c = config_of(s, &err, &r);
	if (!c) {
		log_reason(LOG_LEVEL_ERROR, "", &r);
		*ret_code = err == -EINVAL ? EXIT_CODE_USAGE : code_of(err);
	}
	return c;
}

int cmd_run(int argc, char **argv)
{
	struct said s = {0};
	struct daemon_options o;
	struct reason r = {0};
	int code, err;
	struct config *c = config_get(argc, argv, &s, &code);

	if (!c)
		return code;
	log_level_set((enum log_level)c->log);
	o = (struct daemon_options){
		.config_file = s.file, .override = put_options, .override_data = &s};
	err = daemon_run(c, &o, &r);
	if (!err)
		return EXIT_CODE_DONE;
	log_reason(LOG_LEVEL_ERROR, "", &r);
	return code_of(err);
}

int cmd_check(int argc, char **argv)
{
	struct said s = {0};
	struct reason r = {0};
	struct running *running;
	int code, err;
	char *status;
	struct config *c = config_get(argc, argv, &s, &code);

	if (!c)
		return code;
	status = c->socket[0] ? client_status_if_any(c->socket) : NULL;
	running = status ? running_read(status) : NULL;
	err = check_print(c, running, stdout, &r);
	running_free(running);
	free(status);
	config_free(c);
	if (!err)
		return EXIT_CODE_DONE;
	log_reason(LOG_LEVEL_ERROR, "", &r);
	return code_of(err);
}
