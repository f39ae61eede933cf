/* Files as ends: sent to who connects or to a target, or appended to by who sends. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct flow;

/* end[i] is an open file that is sent: sets how the directions move. */
void file_source(struct flow *f, unsigned int i);
/* Opens the file of f->target as end[1] and sets how the directions move: 0 or -errno. */
int file_open(struct flow *f);
/* end[1] is a file and will be closed. */
void file_release(struct flow *f);
/* Like send(2) and splice(2) from a pipe, to the file that end[1] appends to. */
ssize_t file_write(struct flow *f, const void *bytes, uint32_t size);
ssize_t file_splice(struct flow *f, int pipe_fd, uint32_t size);
