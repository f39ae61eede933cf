/* Finds the command and exits with what it returns; the only file that exits. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static void help_command(FILE *to, const struct command *c)
{
	fprintf(to, "  culvert %s\n      %s\n", c->usage, c->summary);
}

static void help(FILE *to)
{
	fprintf(to, "culvert moves frames between interfaces past the kernel's network stack, and "
		    "relays TCP where it can't.\n\n");
	for (const struct command *c = commands; c->name; c++)
		help_command(to, c);
	fprintf(to, "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 not permitted here.\n");
}

int main(int argc, char **argv)
{
	static char version[] = "version";

	if (argc < 2) {
		help(stderr);
		exit(EXIT_CODE_USAGE);
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
		strcmp(argv[1], "help") == 0) {
		help(stdout);
		exit(EXIT_CODE_DONE);
	}
	if (strcmp(argv[1], "--version") == 0)
		argv[1] = version;
	for (const struct command *c = commands; c->name; c++) {
		if (strcmp(argv[1], c->name) != 0)
			continue;
		if (argc == 3 && strcmp(argv[2], "--help") == 0 && !c->helps) {
			help_command(stdout, c);
			exit(EXIT_CODE_DONE);
		}
		opterr = 0; /* the commands say what is wrong, in one line */
		exit(c->run(argc - 1, argv + 1));
	}
	fprintf(stderr, "culvert: error: no command \"%s\"; `culvert --help` lists them\n",
		argv[1]);
	exit(EXIT_CODE_USAGE);
}
