/* Who holds an address that can't be bound. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct address;

/* Writes "NAME (pid N)" when it can be seen from here. */
bool holder_find(const struct address *a, bool datagram, char *text, size_t size);
