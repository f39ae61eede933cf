/* attach, detach, confirm, reload: changes to the running daemon, made over its control socket. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"

static int usage(const char *line)
{
	fprintf(stderr, "culvert: error: usage: culvert %s\n", line);
	return EXIT_CODE_USAGE;
}

/* Sends the change and shows the answer: on standard output when it was done. */
static int change(const char *socket, const char *path)
{
	char *text;
	int code = client_request(socket, "POST", path, &text);

	if (text && code == EXIT_CODE_DONE)
		fputs(text, stdout);
	else if (text)
		fprintf(stderr, "culvert: error: %s", text);
	free(text);
	return code;
}

static int too_long(void)
{
	fprintf(stderr, "culvert: error: the names are too long\n");
	return EXIT_CODE_USAGE;
}

int cmd_attach(int argc, char **argv)
{
	static const char line[] = "attach PORT [PORT] [--confirm SECONDS] [--socket PATH]";
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"confirm", required_argument, NULL, 'c'},
		{0},
	};
	const char *socket = CLIENT_SOCKET;
	char path[CLIENT_PATH_SIZE] = "/attach";
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			socket = optarg;
		else if (c != 'c' || optarg[0] == '-') /* an option where the seconds should be */
			return usage(line);
		else if (client_path_add(path, sizeof(path), "confirm", optarg))
			return too_long();
	}
	if (argc - optind < 1 || argc - optind > 2)
		return usage(line);
	if (client_path_add(path, sizeof(path), "port", argv[optind]) ||
		(argc - optind == 2 &&
			client_path_add(path, sizeof(path), "peer", argv[optind + 1])))
		return too_long();
	return change(socket, path);
}

/* --socket, and between min and max arguments; returns -1 when all is well. */
static int plain_arguments(
	int argc, char **argv, const char *line, int min, int max, const char **ret_socket)
{
	static const struct option options[] = {{"socket", required_argument, NULL, 's'}, {0}};
	int c;

	*ret_socket = CLIENT_SOCKET;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 's')
			return usage(line);
		*ret_socket = optarg;
	}
	return argc - optind < min || argc - optind > max ? usage(line) : -1;
}

int cmd_detach(int argc, char **argv)
{
	const char *socket;
	char path[CLIENT_PATH_SIZE] = "/detach";
	int code = plain_arguments(
		argc, argv, "detach PORT [PORT ...] [--socket PATH]", 1, argc, &socket);

	if (code >= 0)
		return code;
	/* One request for all, so that it is all of them or none. */
	for (int i = optind; i < argc; i++) {
		if (client_path_add(path, sizeof(path), "port", argv[i]))
			return too_long();
	}
	return change(socket, path);
}

int cmd_confirm(int argc, char **argv)
{
	const char *socket;
	int code = plain_arguments(argc, argv, "confirm [--socket PATH]", 0, 0, &socket);

	return code >= 0 ? code : change(socket, "/confirm");
}

int cmd_reload(int argc, char **argv)
{
	const char *socket;
	int code = plain_arguments(argc, argv, "reload [--socket PATH]", 0, 0, &socket);

	return code >= 0 ? code : change(socket, "/reload");
}
