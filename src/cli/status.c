/* status and top: what the running daemon does, once or again and again. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/table.h"

/* Between the two samples that rates are worked out from. */
#define STATUS_SAMPLE_US 300000
#define TOP_SAMPLE_US	 1000000

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int options_read(
	int argc, char **argv, const char *usage, const char **ret_socket, int *ret_json)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'}, {0}};
	int c;

	*ret_socket = CLIENT_SOCKET;
	*ret_json = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's') {
			*ret_socket = optarg;
		} else if (c == 'j') {
			*ret_json = 1;
		} else {
			fprintf(stderr, "culvert: error: usage: culvert %s\n", usage);
			return EXIT_CODE_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "culvert: error: usage: culvert %s\n", usage);
		return EXIT_CODE_USAGE;
	}
	return EXIT_CODE_DONE;
}

/* Two samples, then the tables. */
static int show(const char *socket, unsigned int sample_us, const char *first)
{
	struct json_object *before, *now;
	double start = now_s();
	int code;

	before = client_status(socket, &code);
	if (!before)
		return code;
	usleep(sample_us);
	now = client_status(socket, &code);
	if (now) {
		fputs(first, stdout);
		table_print(stdout, now, before, now_s() - start);
		fflush(stdout);
	}
	json_object_put(now);
	json_object_put(before);
	return code;
}

int cmd_status(int argc, char **argv)
{
	const char *socket;
	int json, code;
	char *text;

	code = options_read(argc, argv, "status [--json] [--socket PATH]", &socket, &json);
	if (code)
		return code;
	if (!json)
		return show(socket, STATUS_SAMPLE_US, "");
	code = client_request(socket, "GET", "/status", &text);
	if (text)
		fputs(text, code == EXIT_CODE_DONE ? stdout : stderr);
	free(text);
	return code;
}

int cmd_top(int argc, char **argv)
{
	const char *socket;
	int json, code;

	code = options_read(argc, argv, "top [--socket PATH]", &socket, &json);
	while (code == EXIT_CODE_DONE) /* until the daemon or the reader goes */
		code = show(socket, TOP_SAMPLE_US, isatty(STDOUT_FILENO) ? "\033[H\033[J" : "\n");
	return code;
}
