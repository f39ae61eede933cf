/* `culvert check`: what `run` would do on this machine, and why; changes nothing. */
#pragma once

#include <stdio.h>

#include "control/configuration.h"
#include "control/running.h"

/* Prints the plan. running: the culvert that answers at the control socket of c; NULL: none. 0; or
 * -errno with the reason when `run` (of what is running: `reload`) would fail. */
int check_print(const struct config *c, const struct running *running, FILE *to, struct reason *r);
