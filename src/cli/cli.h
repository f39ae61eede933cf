/* One file a subcommand; main.c finds them in the table below. */
#pragma once

#include <stdbool.h>

/* 0 done, 1 failed, 2 wrong usage, 3 not permitted here. */
enum exit_code { EXIT_CODE_DONE, EXIT_CODE_FAILED, EXIT_CODE_USAGE, EXIT_CODE_NOT_PERMITTED };

struct command {
	const char *name;
	const char *usage;   /* "relay LISTEN TO [LISTEN TO ...] [--set KEY=VALUE]" */
	const char *summary; /* one line */
	/* argv[0] is the command's name. Returns an enum exit_code. */
	int (*run)(int argc, char **argv);
	bool helps; /* run knows --help; else usage and summary do */
};

/* commands.c: every command, ended by one without a name. */
extern const struct command commands[];

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_attach(int argc, char **argv);
int cmd_confirm(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_version(int argc, char **argv);
int cmd_relay(int argc, char **argv);
