/* The daemon's status as tables for a person. */
#pragma once

#include <json-c/json.h>
#include <stdio.h>

/* Writes ports, drops, frames and relay routes. `before` is a status of `seconds` earlier, from
 * which rates are worked out; NULL: no rates. */
void table_print(FILE *to, struct json_object *now, struct json_object *before, double seconds);
