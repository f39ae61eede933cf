/* What the control socket and the metrics page answer: status, metrics, changes. */
#include "control/requests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/units.h"
#include "control/change.h"
#include "control/server.h"
#include "control/state.h"
#include "control/status.h"

/* Longest trial: a day. */
#define CONFIRM_MAX_S 86400

static void reply_error(struct server_reply *reply, int err, const struct reason *r)
{
	server_reply_text(reply, err == -EPERM || err == -EACCES ? 403 : 500, "%s%s%s", r->what,
		r->remedy[0] ? "; " : "", r->remedy);
}

/* The request as a line in the log and as the answer. */
static void reply_change(
	struct server_reply *reply, int err, const struct reason *r, const char *done)
{
	if (err) {
		reply_error(reply, err, r);
		log_reason(LOG_LEVEL_WARN, "refused", r);
		return;
	}
	server_reply_text(reply, 200, "%s", done);
	log_info("%s", done);
}

static void reply_made(struct server_reply *reply, char *text, const char *type)
{
	if (!text) {
		server_reply_text(reply, 500, "out of memory");
		return;
	}
	reply->code = 200;
	reply->type = type;
	reply->body = text;
}

static void get_status(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	reply_made(reply, status_json(ctx), "application/json");
}

static void get_metrics(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	reply_made(reply, status_metrics(ctx), "text/plain; version=0.0.4");
}

static void post_reload(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	struct reason r = {0};
	int err = change_reload(ctx, &r);

	reply_change(reply, err, &r, change_reloaded(ctx));
}

/* Of a port that waits for its peer. */
static void add_why_closed(char *text, size_t size, const struct daemon *d, const char *device)
{
	size_t used = strlen(text);
	int idx = port_by_name(d, device);

	if (idx >= 0 && !d->ports[idx].port)
		snprintf(text + used, size - used, "; %s", d->ports[idx].closed.what);
}

static void post_attach(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	const char *device = server_request_arg(request, "port");
	const char *peer = server_request_arg(request, "peer");
	const char *confirm = server_request_arg(request, "confirm");
	struct reason r = {0};
	char done[1280];
	uint64_t s = 0;
	int err;

	if (!device || !device[0]) {
		server_reply_text(reply, 400, "attach which port?");
		return;
	}
	if (confirm && units_number(confirm, 1, CONFIRM_MAX_S, &s)) {
		server_reply_text(
			reply, 400, "--confirm is a number of seconds from 1 to %d", CONFIRM_MAX_S);
		return;
	}
	err = change_attach(ctx, device, peer, s, &r);
	snprintf(done, sizeof(done), "attached %.255s%s%.255s%s", device,
		peer ? ", patched to " : ", not patched: its frames are dropped", peer ? peer : "",
		s ? "; undone unless `culvert confirm` comes in time" : "");
	add_why_closed(done, sizeof(done), ctx, device);
	if (peer)
		add_why_closed(done, sizeof(done), ctx, peer);
	reply_change(reply, err, &r, done);
}

static void post_detach(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	const char *ports[PORTS_MAX];
	uint32_t n = server_request_args(request, "port", ports, PORTS_MAX);
	struct reason r = {0};
	char done[1024] = "detached";

	if (!n || !ports[0][0]) {
		server_reply_text(reply, 400, "detach which port?");
		return;
	}
	if (n > PORTS_MAX) {
		server_reply_text(reply, 400, "more names than there can be ports (%d)", PORTS_MAX);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		size_t used = strlen(done);

		snprintf(done + used, sizeof(done) - used, "%s %s", i ? "," : "", ports[i]);
	}
	reply_change(reply, change_detach(ctx, ports, n, &r), &r, done);
}

static void post_confirm(
	void *ctx, const struct server_request *request, struct server_reply *reply)
{
	struct reason r = {0};

	reply_change(reply, change_confirm(ctx, &r), &r, "confirmed");
}

static const struct server_route all_routes[] = {
	{"GET", "/status", get_status},
	{"GET", "/metrics", get_metrics},
	{"POST", "/reload", post_reload, .change = true},
	{"POST", "/attach", post_attach, .change = true},
	{"POST", "/detach", post_detach, .change = true},
	{"POST", "/confirm", post_confirm, .change = true},
	{NULL},
};

static const struct server_route page_routes[] = {
	{"GET", "/status", get_status},
	{"GET", "/metrics", get_metrics},
	{NULL},
};

int requests_open(struct daemon *d, struct reason *r)
{
	const char *path = d->config->socket, *http = d->config->http;
	bool usual = strcmp(path, CONFIG_SOCKET) == 0;
	int err = 0;

	if (usual)
		(void)mkdir(CONFIG_SOCKET_DIR, 0755); /* systemd makes it for services */
	if (path[0]) {
		err = server_open_unix(path, all_routes, d, &d->unix_server, r);
		/* Nobody asked for it by name: traffic goes on without. */
		if (err && usual) {
			log_reason(LOG_LEVEL_WARN, "no control socket", r);
			err = 0;
		}
	}
	if (!err && http[0]) {
		err = server_open_tcp(http, page_routes, d, &d->http_server, r);
		if (!err)
			log_info("http: port %u", server_tcp_port(d->http_server));
	}
	return err;
}

void requests_close(struct daemon *d)
{
	server_close(d->unix_server);
	server_close(d->http_server);
	d->unix_server = d->http_server = NULL;
}
