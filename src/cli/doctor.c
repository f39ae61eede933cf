/* `culvert doctor`: prints what works on this machine, what doesn't, why, and what fixes it. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>
#include <unistd.h>

#include "cli/cli.h"
#include "control/doctor.h"

static void print_table(const struct doctor *d)
{
	static const char *const colours[] = {"\033[32m", "", "\033[33m", "\033[31m"};
	bool colour = isatty(STDOUT_FILENO);
	int width = 0;

	for (size_t i = 0; i < d->n_checks; i++)
		if ((int)strlen(d->checks[i].subject) > width)
			width = (int)strlen(d->checks[i].subject);
	for (size_t i = 0; i < d->n_checks; i++) {
		const struct doctor_check *c = &d->checks[i];

		printf("%s%-4s%s  %-*s  %s\n", colour ? colours[c->status] : "",
			doctor_status_name(c->status), colour ? "\033[0m" : "", width, c->subject,
			c->text);
		if (c->remedy[0])
			printf("%-4s  %-*s  -> %s\n", "", width, "", c->remedy);
	}
	printf("\n%s: %s\n", d->works ? "works" : "does not work", d->verdict);
}

static void print_json(const struct doctor *d)
{
	struct json_object *top = json_object_new_object();
	struct json_object *checks = json_object_new_array();

	json_object_object_add(top, "works", json_object_new_boolean(d->works));
	json_object_object_add(top, "verdict", json_object_new_string(d->verdict));
	for (size_t i = 0; i < d->n_checks; i++) {
		const struct doctor_check *c = &d->checks[i];
		struct json_object *check = json_object_new_object();

		json_object_object_add(
			check, "status", json_object_new_string(doctor_status_name(c->status)));
		json_object_object_add(check, "subject", json_object_new_string(c->subject));
		json_object_object_add(check, "text", json_object_new_string(c->text));
		json_object_object_add(check, "remedy", json_object_new_string(c->remedy));
		json_object_array_add(checks, check);
	}
	json_object_object_add(top, "checks", checks);
	puts(json_object_to_json_string_ext(top, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
							 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(top);
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	struct doctor d;
	bool json = false, works;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option != 'j') {
			fprintf(stderr,
				"culvert: error: doctor knows no option \"%s\"; usage: culvert "
				"doctor [PORT...] [--json]\n",
				argv[optind - 1]);
			return EXIT_CODE_USAGE;
		}
		json = true;
	}
	doctor_examine(&d, argv + optind, (size_t)(argc - optind));
	works = d.works && d.n_lost == 0;
	if (json)
		print_json(&d);
	else
		print_table(&d);
	if (d.n_lost)
		fprintf(stderr, "culvert: error: no memory for %zu checks\n", d.n_lost);
	doctor_free(&d);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "culvert: error: can't write the answer\n");
		return EXIT_CODE_FAILED;
	}
	return works ? EXIT_CODE_DONE : EXIT_CODE_FAILED;
}
