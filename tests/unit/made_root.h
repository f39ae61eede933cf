/* A made-up /sys and /proc under a folder of the test's own, for code that takes its root. */
#pragma once

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <unistd.h>

#define DEVICES "sys/bus/pci/devices"

static char root[64];

static void root_make(void)
{
	snprintf(root, sizeof(root), "/tmp/culvert-root-XXXXXX");
	assert_non_null(mkdtemp(root));
}

/* cmocka's teardown */
static int root_remove(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

/* A file with that text, and the folders that it lies in. */
static void put(const char *path, const char *text)
{
	char at[256];
	FILE *f;

	snprintf(at, sizeof(at), "%s/%s", root, path);
	for (char *slash = at + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		assert_true(mkdir(at, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	f = fopen(at, "we");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* A symbolic link; its folder exists. */
static void point(const char *path, const char *target)
{
	char at[256];

	snprintf(at, sizeof(at), "%s/%s", root, path);
	assert_int_equal(symlink(target, at), 0);
}
