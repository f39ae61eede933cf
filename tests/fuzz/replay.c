/* The main of a fuzz target without a fuzzer: every file of its corpus, once. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Inputs live in an allocation of exactly their size, so that a sanitizer sees an overrun. */
static int replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	uint8_t *data = NULL;
	int code = -1;
	long size = -1;
	if (fseek(file, 0, SEEK_END) == 0)
		size = ftell(file);
	if (size < 0 || fseek(file, 0, SEEK_SET) != 0)
		goto out;
	data = malloc(size ? (size_t)size : 1);
	if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
		goto out;
	code = LLVMFuzzerTestOneInput(data, (size_t)size) ? -1 : 0;
out:
	if (code)
		fprintf(stderr, "%s: could not be replayed\n", path);
	free(data);
	fclose(file);
	return code;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
		return 2;
	}
	DIR *corpus = opendir(argv[1]);
	if (!corpus) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	unsigned int n = 0, bad = 0;
	for (struct dirent *entry = readdir(corpus); entry; entry = readdir(corpus)) {
		char path[4096];
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		/* Named before it runs: a crash then says which input it was. */
		printf("%s\n", path);
		fflush(stdout);
		bad += replay_file(path) != 0;
		n++;
	}
	closedir(corpus);
	printf("%u inputs, %u failed\n", n, bad);
	if (n == 0)
		fprintf(stderr, "%s: the corpus is empty: nothing was tested\n", argv[1]);
	return n == 0 || bad != 0;
}
