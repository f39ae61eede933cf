/*
 * The log: one line a message, on standard error, each written by one write(2) so that
 * lines of several threads never mix. Under systemd (JOURNAL_STREAM is set) lines bear
 * the <N> priority prefix of sd-daemon(3), elsewhere the word of their level.
 */
#pragma once

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct reason;

/* The highest level that is written; LOG_LEVEL_INFO at start. */
void log_level_set(enum log_level level);
/* "error", "warn", "info", "debug": 0, or -EINVAL. */
int log_level_parse(const char *text, enum log_level *ret_level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "CONTEXT: what; remedy" in one line. */
void log_reason(enum log_level level, const char *context, const struct reason *r);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
