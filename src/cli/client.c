/* The client side of the control socket, by libcurl. */
#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Seconds: a reload opens devices, and a port waits for its carrier. */
#define REQUEST_TIMEOUT_S 60L

struct text {
	char *data;
	size_t size;
};

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
	struct text *t = ctx;
	size_t more = size * n;
	char *grown = realloc(t->data, t->size + more + 1);

	if (!grown)
		return 0; /* libcurl ends the transfer */
	memcpy(grown + t->size, data, more);
	t->data = grown;
	t->size += more;
	t->data[t->size] = '\0';
	return more;
}

static int no_answer(const char *socket, CURLcode err)
{
	if (access(socket, F_OK) != 0 && errno == ENOENT) {
		fprintf(stderr,
			"culvert: error: no daemon at %s: there is no such socket; start one with "
			"`culvert run`, or name its socket with --socket\n",
			socket);
		return EXIT_CODE_FAILED;
	}
	if (access(socket, W_OK) != 0) {
		fprintf(stderr,
			"culvert: error: %s: %s; only root, or who runs the daemon, may ask it\n",
			socket, strerror(errno));
		return EXIT_CODE_NOT_PERMITTED;
	}
	if (err == CURLE_COULDNT_CONNECT) {
		fprintf(stderr,
			"culvert: error: nobody listens at %s: its culvert has died, or it is no "
			"culvert's socket; start one with `culvert run`, or name its socket with "
			"--socket\n",
			socket);
		return EXIT_CODE_FAILED;
	}
	fprintf(stderr,
		"culvert: error: the daemon at %s does not answer: %s; `culvert status` shows what "
		"a change waits for, its log what went wrong\n",
		socket, curl_easy_strerror(err));
	return EXIT_CODE_FAILED;
}

static int exit_code_of(long http)
{
	switch (http) {
	case 200: return EXIT_CODE_DONE;
	case 400: return EXIT_CODE_USAGE;
	case 403: return EXIT_CODE_NOT_PERMITTED;
	default: return EXIT_CODE_FAILED;
	}
}

/* 0 with an answer, whose text (it may be NULL) the caller frees. */
static CURLcode ask(const char *socket, const char *method, const char *path, long timeout_s,
	char **ret_text, long *ret_http)
{
	struct text text = {0};
	char url[CLIENT_PATH_SIZE + 16];
	CURLcode err;
	CURL *curl;

	snprintf(url, sizeof(url), "http://culvert%s", path);
	curl = curl_easy_init();
	if (!curl)
		return CURLE_OUT_OF_MEMORY;
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, timeout_s);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
	err = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_http);
	curl_easy_cleanup(curl);
	if (err) {
		free(text.data);
		return err;
	}
	*ret_text = text.data;
	return CURLE_OK;
}

int client_request(const char *socket, const char *method, const char *path, char **ret_text)
{
	long http = 0;
	CURLcode err;

	*ret_text = NULL;
	err = ask(socket, method, path, REQUEST_TIMEOUT_S, ret_text, &http);
	if (err)
		return no_answer(socket, err);
	if (!*ret_text)
		*ret_text = strdup("");
	return *ret_text ? exit_code_of(http) : EXIT_CODE_FAILED;
}

char *client_status_if_any(const char *socket)
{
	char *text = NULL;
	long http = 0;

	if (ask(socket, "GET", "/status", REQUEST_TIMEOUT_S, &text, &http))
		return NULL;
	if (http == 200)
		return text;
	free(text);
	return NULL;
}

struct json_object *client_status(const char *socket, int *ret_code)
{
	struct json_object *status;
	char *text;

	*ret_code = client_request(socket, "GET", "/status", &text);
	if (!text)
		return NULL;
	status = *ret_code == EXIT_CODE_DONE ? json_tokener_parse(text) : NULL;
	if (!status) {
		fprintf(stderr, "culvert: error: the daemon at %s answered: %s\n", socket, text);
		*ret_code = EXIT_CODE_FAILED;
	}
	free(text);
	return status;
}

int client_path_add(char *path, unsigned long size, const char *key, const char *value)
{
	size_t used = strlen(path);
	char *encoded;
	int n;

	encoded = curl_easy_escape(NULL, value, 0);
	if (!encoded)
		return -ENOMEM;
	n = snprintf(
		path + used, size - used, "%c%s=%s", strchr(path, '?') ? '&' : '?', key, encoded);
	curl_free(encoded);
	return n < 0 || (size_t)n >= size - used ? -ENOSPC : 0;
}
