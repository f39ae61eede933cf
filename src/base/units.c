/* Parses the small words of a configuration. */
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Reads digits; leaves *text behind them. */
static int take_digits(const char **text, uint64_t *ret_number)
{
	const char *p = *text;
	uint64_t number = 0;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(number, 10, &number) ||
			__builtin_add_overflow(number, (uint64_t)(*p - '0'), &number))
			return -ERANGE;
	}
	*text = p;
	*ret_number = number;
	return 0;
}

int units_duration(const char *text, uint64_t *ret_ns)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} table[] = {
		{"ns", 1},
		{"us", 1000},
		{"ms", 1000000},
		{"s", 1000000000},
		{"m", 60 * 1000000000ULL},
		{"min", 60 * 1000000000ULL},
		{"h", 3600 * 1000000000ULL},
		{"d", 86400 * 1000000000ULL},
	};
	uint64_t number;

	if (take_digits(&text, &number) < 0)
		return -EINVAL;
	if (!*text && number == 0) {
		*ret_ns = 0;
		return 0;
	}
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint64_t ns;

		if (strcmp(text, table[i].unit) != 0)
			continue;
		if (__builtin_mul_overflow(number, table[i].ns, &ns) || ns > INT64_MAX)
			return -EINVAL;
		*ret_ns = ns;
		return 0;
	}
	return -EINVAL;
}

/* Reads a size; leaves *text behind it. */
static int take_size(const char **text, uint64_t *ret_bytes)
{
	static const char letters[] = "kmgt";
	uint64_t number;
	const char *found;

	if (take_digits(text, &number) < 0)
		return -EINVAL;
	found = **text ? strchr(letters, tolower((unsigned char)**text)) : NULL;
	if (found) {
		unsigned int shift = 10 * (unsigned int)(found - letters + 1);

		if (number > (UINT64_MAX >> shift))
			return -EINVAL;
		number <<= shift;
		(*text)++;
		if (strncmp(*text, "iB", 2) == 0)
			*text += 2;
	}
	if (**text == 'B')
		(*text)++;
	*ret_bytes = number;
	return 0;
}

int units_rate(const char *text, uint64_t *ret_per_s)
{
	uint64_t number;

	if (take_size(&text, &number) < 0)
		return -EINVAL;
	if (*text && strcmp(text, "/s") != 0)
		return -EINVAL;
	*ret_per_s = number;
	return 0;
}

int units_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	uint64_t number;
	int r = take_digits(&text, &number);

	if (r < 0)
		return r;
	if (*text)
		return -EINVAL;
	if (number < min || number > max)
		return -ERANGE;
	*ret_number = number;
	return 0;
}

int units_bool(const char *text, bool *ret_value)
{
	static const char *const yes[] = {"yes", "on", "true"}, *const no[] = {
									"no", "off", "false"};

	for (int i = 0; i < 3; i++) {
		if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
			*ret_value = strcmp(text, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}
