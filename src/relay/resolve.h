/*
 * Host names of targets, resolved by a thread of their own and again every 30 s, so that no loop
 * ever waits for a name server. While a name can't be resolved its last addresses stay. An address
 * that could not be reached is left out, unless all are such, until the next answer has it again:
 * then one attempt tries it, and if that goes well it is back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "relay/endpoint.h"

struct name;
struct resolver;

int resolver_create(struct resolver **ret_resolver);
/* Ends the thread, or lets it end when the name server has answered; names must be gone. NULL is
 * fine. */
void resolver_free(struct resolver *r);
/* Begins to resolve; NULL without memory. */
struct name *name_new(struct resolver *r, const char *host, uint16_t port);
void name_free(struct resolver *r, struct name *n);
/* Waits until the first answer is there, at most wait_ns. 0, or -errno (ENOENT: no such name,
 * ETIMEDOUT: no answer yet). Control's thread only. */
int name_wait(struct name *n, uint64_t wait_ns);
/* Any thread: the next of the addresses, in turn, and a ticket for it, which is not 0. 0, or
 * -EHOSTUNREACH when there is none. */
int name_pick(struct name *n, struct address *ret_address, uint32_t *ret_ticket);
/* Any thread: what came of an attempt. */
void name_reached(struct name *n, uint32_t ticket);
void name_failed(struct name *n, uint32_t ticket);
/* Any thread: whether there are addresses that have not failed. */
bool name_has_more(struct name *n);
