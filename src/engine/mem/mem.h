/*
 * Devices "mem:NAME": ports whose rings lie in plain memory, and the calls that play their NIC.
 * For unit tests, fuzzers and benchmarks, which so drive the real worker loop.
 *
 * The NIC's calls may come from one other thread than the queue's worker.
 */
#pragma once

#include "engine/engine.h"

extern const struct engine_ops mem_engine;

/* A frame arrives. 0; -ENOBUFS: no buffer in the fill ring or no room in the receive ring
 * (counted: "rx_fill_empty", "rx_ring_full"); -EMSGSIZE: longer than a slot holds (counted:
 * "rx_too_long"). */
int mem_inject(struct queue *q, const void *bytes, uint32_t len);
/* Takes the oldest frame sent, completes it and returns its length; copies at most size bytes of
 * it. -EAGAIN: nothing was sent. */
int mem_collect(struct queue *q, void *bytes, uint32_t size);
/* For benchmarks: up to n frames of len bytes arrive (whatever their slots hold), and up to n that
 * were sent are completed, without touching a byte of them. Returns how many arrived. */
uint32_t mem_play(struct queue *q, uint32_t len, uint32_t n);
