/*
 * Small messages of one turn of a loop, sent together by one system call (io_uring).
 *
 * Each send is one that does not wait: the kernel carries it out while it takes the batch, so
 * every result is known when send_batch_flush returns. What io_uring does not do is sent by
 * send(2) within the same flush. A batch belongs to one thread, the one that opened it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Sends in one batch: enough that the system call hardly counts, few enough that the first of
 * them does not wait long for the others. */
#define SEND_BATCH_SENDS 32
/* A message larger than this is not small: its bytes cost more than its system call. */
#define SEND_BATCH_BYTES 4096U

struct send_batch;

/* What became of a send: n bytes of it are sent, or n is -errno (-EAGAIN: there is no room).
 * The bytes are valid during the call. It may not add to the batch. */
typedef void send_batch_done(
	void *owner, unsigned int tag, const uint8_t *bytes, uint32_t size, ssize_t n);

/* NULL when io_uring can't be had, which the first who is refused logs. */
struct send_batch *send_batch_open(send_batch_done *done);
void send_batch_close(struct send_batch *b);
/* Whether it is worth adding to: false for NULL, and once the kernel refuses io_uring. */
bool send_batch_works(const struct send_batch *b);
/* Copies the bytes, SEND_BATCH_BYTES at most. Sends of one descriptor keep their order only from
 * one flush to the next: whoever has added one flushes before the second. */
void send_batch_add(struct send_batch *b, int fd, void *owner, unsigned int tag,
	const uint8_t *bytes, uint32_t size);
/* Sends all, then calls done for each in the order in which they were added. */
void send_batch_flush(struct send_batch *b);
