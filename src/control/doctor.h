/*
 * What works on this machine, what doesn't and why: gathered by trying, changing nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/reason.h"

enum doctor_status {
	DOCTOR_OK,
	DOCTOR_NOTE, /* worth knowing, nothing to do */
	DOCTOR_WARN, /* works, but worse than it could */
	DOCTOR_FAIL  /* this does not work here */
};

struct doctor_check {
	enum doctor_status status;
	char subject[48]; /* "bpf(2)", "eth0", "0000:03:00.0" */
	char text[512];
	char remedy[256]; /* the command or setting that helps, or empty */
};

struct doctor {
	struct doctor_check *checks;
	size_t n_checks;
	size_t n_lost;	   /* checks for which there was no memory */
	bool works;	   /* the main job can be done, at least by the relay */
	char verdict[256]; /* in one sentence */
};

/* ports: devices to look at more closely, may be none. Ends with doctor_free. */
void doctor_examine(struct doctor *ret, char *const *ports, size_t n_ports);
void doctor_free(struct doctor *d);

/* "ok", "note", "warn", "fail" */
const char *doctor_status_name(enum doctor_status status);
