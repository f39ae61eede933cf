/* The client side of the control socket: one request, one answer. */
#pragma once

#include <json-c/json.h>

#define CLIENT_SOCKET "/run/culvert/control.sock"

#define CLIENT_PATH_SIZE 8192 /* bytes, with the end: the longest path */

/* Sends "METHOD PATH" to the daemon behind socket. On an answer returns the exit code it stands for
 * (cli.h) and its text, which the caller frees; without one says why on standard error, returns
 * EXIT_CODE_FAILED (or EXIT_CODE_NOT_PERMITTED) and sets *ret_text to NULL. */
int client_request(const char *socket, const char *method, const char *path, char **ret_text);

/* GET /status: its text, which the caller frees. NULL, without a word: nobody answers, or may be
 * asked. */
char *client_status_if_any(const char *socket);

/* GET /status, parsed; the caller puts the object. NULL after saying why. */
struct json_object *client_status(const char *socket, int *ret_code);

/* Appends key=value to a path, value percent-encoded. 0, or -ENOMEM/-ENOSPC. */
int client_path_add(char *path, unsigned long size, const char *key, const char *value);
