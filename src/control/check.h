/* `culvert check`: what `run` would do on this machine, and why; changes nothing. */
#pragma once

#include <stdio.h>

#include "control/configuration.h"

/* Prints the plan. 0; or -errno with the reason when `run` would fail. */
int check_print(const struct config *c, FILE *to, struct reason *r);
