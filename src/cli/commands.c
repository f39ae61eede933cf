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
	{"run",
		"run [--config FILE] [--engine E] [--mode M] [--require M] [--workers N] "
		"[--queues N] [--fast-path off|auto] [--busy] [--socket PATH] [--http ADDR:PORT] "
		"[--log LEVEL] [PORT "
		"PORT]",
		"the daemon, in the foreground; two ports on the command line are patched together",
		cmd_run},
	{"check", "check [--config FILE | PORT PORT] [options of run]",
		"what run would do here, and why; changes nothing", cmd_check},
	{"relay",
		"relay LISTEN TO [LISTEN TO ...] [--set KEY=VALUE ...] [--workers N] "
		"[--max-connections N] [--drain TIME] [--socket PATH] "
		"[--http ADDR:PORT] [--log LEVEL]",
		"carries connections from LISTEN to TO: tcp:HOST:PORT, unix:/path, unix:@name, "
		"fd:N",
		cmd_relay, .helps = true},
	{"attach", "attach PORT [PORT] [--confirm SECONDS] [--socket PATH]",
		"adds a port, or two patched together, to the running daemon", cmd_attach},
	{"detach", "detach PORT [PORT ...] [--socket PATH]",
		"takes ports out of the running daemon", cmd_detach},
	{"confirm", "confirm [--socket PATH]", "keeps what `attach --confirm` added", cmd_confirm},
	{"reload", "reload [--socket PATH]",
		"reads the configuration again; what did not change goes on", cmd_reload},
	{"status", "status [--json] [--socket PATH]",
		"ports, engines, modes, rates, drops, frames and relay routes", cmd_status},
	{"top", "top [--socket PATH]", "the same, again and again", cmd_top},
	{"doctor", "doctor [PORT...] [--json]",
		"what works on this machine, what doesn't, why, and what fixes it", cmd_doctor},
	{"version", "version", "the version and the engines it was built with", cmd_version},
	{0},
};
