/* Every command, in the order in which --help shows them. */
#include "cli/cli.h"

#include <stdio.h>

#include "config.h"

int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("culvert %s (engines:%s%s)\n", CULVERT_VERSION, HAVE_AF_XDP ? " af_xdp" : "",
		HAVE_DPDK ? " dpdk" : "");
	return EXIT_CODE_DONE;
}

const struct command commands[] = {
	{"relay",
		"relay LISTEN TO [LISTEN TO ...] [--set KEY=VALUE ...] [--workers N] "
		"[--max-connections N] [--drain TIME] [--log LEVEL]",
		"carries connections from LISTEN to TO: tcp:HOST:PORT, unix:/path, unix:@name, "
		"fd:N",
		cmd_relay},
	{"version", "version", "the version and the engines it was built with", cmd_version},
	{0},
};
