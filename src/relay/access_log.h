/*
 * The access log: entries of finished connections, written by a thread of its own so that a slow
 * disk never holds up a loop. When the thread can't keep up, entries are dropped and counted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct access_log;
struct reason;

/* "stderr", "journal", or the path of a file to append to; a file that was moved away is opened
 * anew. */
int access_log_open(struct access_log **ret_log, const char *where, struct reason *reason);
/* Writes what is left. NULL is fine. */
void access_log_close(struct access_log *log);
/* Whether entries are the journal's: lines NAME=VALUE, the last of them empty. Otherwise each is
 * one line. */
bool access_log_is_journal(const struct access_log *log);
/* Any thread; the entry ends with a newline. */
void access_log_write(struct access_log *log, const char *entry, size_t size);
