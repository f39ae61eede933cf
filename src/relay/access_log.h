/*
 * The access log: lines of finished connections, written by a thread of its own so that a slow
 * disk never holds up a loop. When the thread can't keep up, lines are dropped and counted.
 */
#pragma once

#include <stddef.h>

struct access_log;
struct reason;

/* "stderr", or the path of a file to append to; a file that was moved away is opened anew. */
int access_log_open(struct access_log **ret_log, const char *where, struct reason *reason);
/* Writes what is left. NULL is fine. */
void access_log_close(struct access_log *log);
/* Any thread; the line ends with a newline. */
void access_log_line(struct access_log *log, const char *line, size_t size);
