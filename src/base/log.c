/* The log: one line a message, on standard error. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/reason.h"

static const struct {
	const char *name;
	const char *prefix; /* sd-daemon(3) */
} levels[] = {
	[LOG_LEVEL_ERROR] = {"error", "<3>"},
	[LOG_LEVEL_WARN] = {"warn", "<4>"},
	[LOG_LEVEL_INFO] = {"info", "<6>"},
	[LOG_LEVEL_DEBUG] = {"debug", "<7>"},
};

static _Atomic int level_max = LOG_LEVEL_INFO; /* written by main and control, read by all */

void log_level_set(enum log_level level)
{
	atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (unsigned int i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (strcmp(text, levels[i].name) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_write(enum log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;
	int n, m;

	if ((int)level > atomic_load_explicit(&level_max, memory_order_relaxed))
		return;
	if (getenv("JOURNAL_STREAM"))
		n = snprintf(line, sizeof(line), "%s", levels[level].prefix);
	else
		n = snprintf(line, sizeof(line), "culvert: %s: ", levels[level].name);
	va_start(args, format);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, args);
	va_end(args);
	n += m < (int)sizeof(line) - n - 1 ? m : (int)sizeof(line) - n - 2;
	for (int i = 0; i < n; i++) /* names and paths may have any byte: a message is one line */
		line[i] = line[i] == '\n' ? '?' : line[i];
	line[n++] = '\n';
	/* A log that can't be written must not stop the forwarder: nothing to do. */
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

void log_reason(enum log_level level, const char *context, const struct reason *r)
{
	log_write(level, "%s%s%s%s%s", context, *context ? ": " : "", r->what,
		r->remedy[0] ? "; " : "", r->remedy);
}
