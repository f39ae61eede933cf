/*
 * HTTP over the control socket (unix, mode 0600: whoever opens it may do everything) and over TCP
 * (reading only). No thread: the owner polls server_fd() and calls server_run(), so that every
 * handler runs on the control thread. Changes wait their turn, which is server_change(): whoever
 * reads is answered by server_run() while one is made.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

struct server;
struct server_request;

struct server_reply {
	unsigned int code; /* HTTP: 200 done, 400 wrong usage, 403 not permitted, 500 failed */
	const char *type;  /* "text/plain" when NULL */
	char *body;	   /* from malloc; the server frees it */
};

struct server_route {
	const char *method; /* "GET", "POST" */
	const char *path;   /* "/status" */
	void (*handle)(void *ctx, const struct server_request *request, struct server_reply *reply);
	bool change; /* it waits its turn */
};

/* The value of ?key=..., or NULL; valid during the handler. */
const char *server_request_arg(const struct server_request *request, const char *key);
/* All values of ?key=...&key=..., in order: fills at most n, returns how many there are. */
uint32_t server_request_args(
	const struct server_request *request, const char *key, const char **ret, uint32_t n);

/* Fills a reply with a line of text, newline added. */
void server_reply_text(struct server_reply *reply, unsigned int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Listens on a unix socket. routes end with one without a method. A socket file that nobody
 * answers on is replaced; -EADDRINUSE when somebody does. The folder must be there. */
int server_open_unix(const char *path, const struct server_route *routes, void *ctx,
	struct server **ret_server, struct reason *ret_reason);
/* Listens on "ADDRESS:PORT" or "[ADDRESS]:PORT"; anything but GET is refused. */
int server_open_tcp(const char *address, const struct server_route *routes, void *ctx,
	struct server **ret_server, struct reason *ret_reason);
/* Becomes readable when there is something to do. */
int server_fd(const struct server *s);
/* Handles what has come; call it when server_fd() is readable and about once a second. */
void server_run(struct server *s);
/* Makes the change that has waited longest, unless its client has gone meanwhile. Its handler may
 * call server_run(). False: none waits. */
bool server_change(struct server *s);
/* The TCP port that was bound (the kernel chooses for port 0); 0 for a unix socket. */
unsigned int server_tcp_port(const struct server *s);
/* Takes NULL; removes its socket file. */
void server_close(struct server *s);
