/* The DPDK engine: ports behind poll-mode drivers, whose frames are mbufs. */
#pragma once

#include "engine/engine.h"

extern const struct engine_ops dpdk_engine;
