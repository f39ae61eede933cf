/* HTTP over the control socket and over TCP, on the control thread, by libmicrohttpd. */
#include "control/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Seconds after which a silent client is cut: a scrape takes milliseconds. */
#define CLIENT_TIMEOUT_S 10
#define CLIENTS_MAX	 64
#define CHANGES_MAX	 32 /* of them, so that who reads finds room */
#define RUNS_MAX	 10 /* at once, while there is more to do */

struct server {
	struct MHD_Daemon *daemon;
	int fd; /* epoll, owned by the daemon */
	const struct server_route *routes;
	void *ctx;
	struct change *first, **last; /* those that wait their turn */
	uint32_t n_changes;	      /* those that are not answered yet */
	bool read_only;
	unsigned int tcp_port;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

struct server_request {
	struct MHD_Connection *connection;
};

/* A connection's; it rests from the request to the reply. */
struct change {
	struct server_request request;
	const struct server_route *route;
	struct server_reply reply;
	struct change *next;
};

const char *server_request_arg(const struct server_request *request, const char *key)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, key);
}

struct values {
	const char *key;
	const char **list;
	uint32_t n, max;
};

static enum MHD_Result on_value(
	void *ctx, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct values *v = ctx;

	if (!value || strcmp(key, v->key) != 0)
		return MHD_YES;
	if (v->n < v->max)
		v->list[v->n] = value;
	v->n++;
	return MHD_YES;
}

uint32_t server_request_args(
	const struct server_request *request, const char *key, const char **ret, uint32_t n)
{
	struct values v = {.key = key, .list = ret, .max = n};

	(void)MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, on_value, &v);
	return v.n;
}

void server_reply_text(struct server_reply *reply, unsigned int code, const char *format, ...)
{
	char *line = NULL;
	va_list args;

	va_start(args, format);
	if (vasprintf(&line, format, args) < 0)
		line = NULL;
	va_end(args);
	free(reply->body);
	reply->body = NULL;
	reply->code = code;
	if (line && asprintf(&reply->body, "%s\n", line) < 0)
		reply->body = NULL;
	free(line);
}

static enum MHD_Result send_reply(struct MHD_Connection *connection, struct server_reply *reply)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!reply->body) {
		reply->body = strdup("no memory\n");
		reply->code = MHD_HTTP_INTERNAL_SERVER_ERROR;
	}
	if (!reply->body)
		return MHD_NO;
	response = MHD_create_response_from_buffer(
		strlen(reply->body), reply->body, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(reply->body);
		return MHD_NO;
	}
	MHD_add_response_header(
		response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type ? reply->type : "text/plain");
	result = MHD_queue_response(connection, reply->code, response);
	MHD_destroy_response(response);
	return result;
}

/* NULL: there is none, which the reply says. */
static const struct server_route *find(
	struct server *s, const char *method, const char *path, struct server_reply *reply)
{
	if (s->read_only && strcmp(method, "GET") != 0) {
		server_reply_text(reply, MHD_HTTP_FORBIDDEN,
			"changes are made over the control socket, not over TCP");
		return NULL;
	}
	for (const struct server_route *r = s->routes; r->method; r++) {
		if (strcmp(r->path, path) == 0 && strcmp(r->method, method) == 0)
			return r;
	}
	server_reply_text(reply, MHD_HTTP_NOT_FOUND, "nothing answers to %s %s", method, path);
	return NULL;
}

static char seen; /* the state of a connection whose headers are there */

static enum MHD_Result wait_turn(struct server *s, struct MHD_Connection *connection,
	const struct server_route *route, void **state)
{
	struct server_reply reply = {0};
	struct change *c;

	if (s->n_changes >= CHANGES_MAX) {
		server_reply_text(&reply, MHD_HTTP_SERVICE_UNAVAILABLE,
			"%u changes wait already; `culvert status` shows what for, try again later",
			s->n_changes);
		return send_reply(connection, &reply);
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return MHD_NO;
	c->request.connection = connection;
	c->route = route;
	*s->last = c;
	s->last = &c->next;
	s->n_changes++;
	*state = c;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

/* Both ways: who has only said all still listens. */
static bool has_gone(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct pollfd p = {.fd = info ? info->connect_fd : -1};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

/* The oldest one that waits, or NULL. */
static struct change *take(struct server *s)
{
	struct change *c = s->first;

	if (c)
		s->first = c->next;
	if (!s->first)
		s->last = &s->first;
	return c;
}

bool server_change(struct server *s)
{
	struct change *c = take(s);

	if (!c)
		return false;
	c->reply.code = MHD_HTTP_OK;
	if (!has_gone(c->request.connection))
		c->route->handle(s->ctx, &c->request, &c->reply);
	MHD_resume_connection(c->request.connection);
	return true;
}

/* A connection that rests keeps its place until somebody looks. */
static void drop_gone(struct server *s)
{
	struct change **at = &s->first, *c;

	while ((c = *at)) {
		if (!has_gone(c->request.connection)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		MHD_resume_connection(c->request.connection);
	}
	s->last = at;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
	enum MHD_RequestTerminationCode how)
{
	struct server *s = ctx;
	struct change *c = *state;

	if (!c || *state == &seen)
		return;
	free(c->reply.body);
	free(c);
	*state = NULL;
	s->n_changes--;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *path,
	const char *method, const char *version, const char *body, size_t *body_size, void **state)
{
	struct server_request request = {.connection = connection};
	struct server_reply reply = {.code = MHD_HTTP_OK};
	const struct server_route *route;
	struct change *made;

	/* libmicrohttpd calls first when the headers are there, then for the body, then to be
	 * answered: arguments come in the address, so a body is read and not looked at. */
	if (!*state) {
		*state = &seen;
		return MHD_YES;
	}
	if (*body_size) {
		*body_size = 0;
		return MHD_YES;
	}
	if (*state != &seen) {
		made = *state;
		reply = made->reply;
		made->reply.body = NULL;
		return send_reply(connection, &reply);
	}
	route = find(ctx, method, path, &reply);
	if (route && route->change)
		return wait_turn(ctx, connection, route, state);
	if (route)
		route->handle(((struct server *)ctx)->ctx, &request, &reply);
	return send_reply(connection, &reply);
}

/* Takes the listening socket, also on failure. */
static int start(int listener, struct server *s, struct reason *ret_reason)
{
	const union MHD_DaemonInfo *info;

	s->last = &s->first;
	s->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
		on_request, s, MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned int)CLIENT_TIMEOUT_S, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)CLIENTS_MAX, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
		MHD_OPTION_END);
	if (!s->daemon) {
		close(listener);
		return reason_set(ret_reason, -ENOMEM, NULL, "can't start the HTTP server");
	}
	info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return reason_set(ret_reason, -EOPNOTSUPP, NULL, "the HTTP server has no epoll");
	s->fd = info->epoll_fd;
	return 0;
}

/* Does a process answer on this socket? One whose queue is full (EAGAIN) lives too. */
static bool answers(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes;

	if (fd < 0)
		return false;
	yes = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
	      errno == EAGAIN;
	close(fd);
	return yes;
}

/* Removes the socket that a daemon left which died; never what is no socket. */
static void remove_stale(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		(void)unlink(path);
}

static int refused(const char *path, int err, struct reason *ret_reason)
{
	const char *slash = strrchr(path, '/');

	if (err == -ENOENT && slash)
		return reason_set(ret_reason, err, "make it, or choose another with --socket",
			"control socket %s: the folder %.*s does not exist", path,
			(int)(slash - path), path);
	return reason_set(ret_reason, err,
		err == -EADDRINUSE ? "a file of that name is there: choose another with --socket"
				   : "choose a folder that is yours with --socket",
		"control socket %s: %s", path, strerror(-err));
}

static int bind_unix(const char *path, struct reason *ret_reason)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return reason_set(ret_reason, -ENAMETOOLONG, "choose a shorter path",
			"control socket %s: a path of at most %zu bytes fits", path,
			sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (answers(&address))
		return reason_set(ret_reason, -EADDRINUSE,
			"stop it, or choose another with --socket",
			"control socket %s: another culvert answers there", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return reason_set(
			ret_reason, -errno, NULL, "control socket %s: %s", path, strerror(errno));
	remove_stale(path);
	mask = umask(0177);
	err = bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16) ? -errno : 0;
	umask(mask);
	if (err) {
		close(fd);
		return refused(path, err, ret_reason);
	}
	return fd;
}

int server_open_unix(const char *path, const struct server_route *routes, void *ctx,
	struct server **ret_server, struct reason *ret_reason)
{
	struct server *s;
	int fd, err;

	fd = bind_unix(path, ret_reason);
	if (fd < 0)
		return fd;
	s = calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		(void)unlink(path);
		return reason_set(ret_reason, -ENOMEM, NULL, "no memory for the control socket");
	}
	s->routes = routes;
	s->ctx = ctx;
	snprintf(s->path, sizeof(s->path), "%s", path);
	err = start(fd, s, ret_reason);
	if (err) {
		server_close(s);
		return err;
	}
	*ret_server = s;
	return 0;
}

/* Splits "ADDRESS:PORT" or "[ADDRESS]:PORT". */
static int split(const char *text, char *address, size_t size, const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t n;

	if (!colon || !colon[1])
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n >= size)
		return -EINVAL;
	memcpy(address, text, n);
	address[n] = '\0';
	*ret_port = colon + 1;
	return 0;
}

static int bind_tcp(const char *text, unsigned int *ret_port, struct reason *ret_reason)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
	union {
		struct sockaddr all;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} bound = {0};
	socklen_t size = sizeof(bound);
	struct addrinfo *info = NULL;
	const char *port = NULL;
	char address[64];
	int fd, err;

	if (split(text, address, sizeof(address), &port) ||
		getaddrinfo(address[0] ? address : NULL, port, &hints, &info))
		return reason_set(ret_reason, -EINVAL, "write it like 127.0.0.1:9464 or [::1]:9464",
			"http: \"%s\" is no address and port", text);
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	err = fd < 0 ? -errno : 0;
	if (!err && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) ||
			    bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, 16) ||
			    getsockname(fd, &bound.all, &size)))
		err = -errno;
	freeaddrinfo(info);
	if (err) {
		if (fd >= 0)
			close(fd);
		return reason_set(ret_reason, err, "choose another address or port with --http",
			"http %s: %s", text, strerror(-err));
	}
	*ret_port =
		ntohs(bound.all.sa_family == AF_INET6 ? bound.in6.sin6_port : bound.in.sin_port);
	return fd;
}

int server_open_tcp(const char *address, const struct server_route *routes, void *ctx,
	struct server **ret_server, struct reason *ret_reason)
{
	unsigned int port = 0;
	struct server *s;
	int fd, err;

	fd = bind_tcp(address, &port, ret_reason);
	if (fd < 0)
		return fd;
	s = calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return reason_set(ret_reason, -ENOMEM, NULL, "no memory for the HTTP server");
	}
	s->routes = routes;
	s->ctx = ctx;
	s->read_only = true;
	s->tcp_port = port;
	err = start(fd, s, ret_reason);
	if (err) {
		server_close(s);
		return err;
	}
	*ret_server = s;
	return 0;
}

int server_fd(const struct server *s)
{
	return s->fd;
}

void server_run(struct server *s)
{
	MHD_UNSIGNED_LONG_LONG wait_ms;

	drop_gone(s);
	/* Of a connection that goes on after a rest the descriptor tells nothing. */
	for (int i = 0; i < RUNS_MAX; i++) {
		(void)MHD_run(s->daemon);
		if (MHD_get_timeout(s->daemon, &wait_ms) != MHD_YES || wait_ms > 0)
			return;
	}
}

unsigned int server_tcp_port(const struct server *s)
{
	return s->tcp_port;
}

void server_close(struct server *s)
{
	struct change *c;

	if (!s)
		return;
	while ((c = take(s))) {
		server_reply_text(&c->reply, MHD_HTTP_SERVICE_UNAVAILABLE, "culvert is stopping");
		MHD_resume_connection(c->request.connection);
	}
	if (s->daemon && s->n_changes)
		server_run(s);
	if (s->daemon)
		MHD_stop_daemon(s->daemon); /* closes the listening socket too */
	if (s->path[0])
		(void)unlink(s->path);
	free(s);
}
