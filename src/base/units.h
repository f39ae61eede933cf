/* The small words of a configuration: durations, sizes, rates, numbers, yes and no. All pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* "250us", "500ms", "10s", "2m", "1h", "1d"; the unit must be there except for 0. 0 or -EINVAL. */
int units_duration(const char *text, uint64_t *ret_ns);
/* "512", "64k", "1M", "2G", "1T", with an optional "/s"; k is 1024, B or iB may follow. 0 or
 * -EINVAL.
 */
int units_rate(const char *text, uint64_t *ret_per_s);
/* A decimal number from min to max. 0, -EINVAL, or -ERANGE. */
int units_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);
/* yes/no, on/off, true/false. 0 or -EINVAL. */
int units_bool(const char *text, bool *ret_value);
