/* What the operator asks for, as JSON: `status` tells it of the running culvert; `check` and reload
 * compare it with the file that is to come. */
#pragma once

#include <json-c/json.h>

#include "control/configuration.h"

/* Of one port: where two are equal, a reload keeps the port. The caller puts the object. */
struct json_object *asked_port(const struct config_port *p);
/* Of the culvert itself: what changes only at a restart. */
struct json_object *asked_daemon(const struct config *c);
/* The first key of `now` that `then` has otherwise; NULL: none. Of `then` what is not told (by an
 * older culvert) is equal. */
const char *asked_difference(struct json_object *now, struct json_object *then);
