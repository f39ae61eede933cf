/* The AF_XDP engine, for engines.c. */
#pragma once

#include "engine/engine.h"

extern const struct engine_ops af_xdp_engine;
