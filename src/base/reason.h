/*
 * Why something could not be had, in words for the operator.
 *
 * Leaf code does not log: it returns -errno and fills a struct reason; who gives up
 * logs it, once. `what` says what failed and why; `remedy` is the command or setting
 * that helps, or empty.
 */
#pragma once

struct reason {
	char what[320];
	char remedy[256];
};

/* What helps against an error that any call may meet (no descriptor, no memory); else otherwise,
 * which may be NULL. */
const char *reason_remedy(int err, const char *otherwise);

/* Fills r (which may be NULL) and returns err, so that `return reason_set(...)` reads well.
 * remedy may be NULL. */
int reason_set(struct reason *r, int err, const char *remedy, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
