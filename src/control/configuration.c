/* The configuration as a struct: its life, what is added to it, and whether it fits together. */
#include "control/configuration.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const config_engine_words[] = {"auto", "af_xdp", "dpdk", "relay", NULL};

int config_fail(const struct config *c, uint32_t line, struct reason *r, const char *remedy,
	const char *format, ...)
{
	char what[sizeof(r->what)];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	if (c->file[0] && line)
		return reason_set(r, -EINVAL, remedy, "%s:%u: %s", c->file, line, what);
	return reason_set(r, -EINVAL, remedy, "%s", what);
}

/* Levenshtein's distance, at most 32 letters of each. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned char row[33];
	size_t na = strnlen(a, 32), nb = strnlen(b, 32);

	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned char)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned char diagonal = row[0];

		row[0] = (unsigned char)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned int best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1U < best)
				best = row[j] + 1U;
			if (row[j - 1] + 1U < best)
				best = row[j - 1] + 1U;
			row[j] = (unsigned char)best;
		}
	}
	return row[nb];
}

const char *config_nearest(const char *text, const char *const *words)
{
	const char *nearest = NULL;
	unsigned int least = 3; /* more than two wrong letters is another word */

	for (; *words; words++) {
		unsigned int d = distance(text, *words);

		if (d < least && d < strlen(*words)) {
			least = d;
			nearest = *words;
		}
	}
	return nearest;
}

struct config *config_new(void)
{
	struct config *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->workers = 1;
	c->log = LOG_LEVEL_INFO;
	c->drain_ns = 10ULL * 1000 * 1000 * 1000;
	return c;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; i < c->n_routes; i++)
		free(c->routes[i]);
	free(c->routes);
	free(c);
}

struct config *config_copy(const struct config *from)
{
	struct config *c = malloc(sizeof(*c));

	if (!c)
		return NULL;
	*c = *from;
	c->n_routes = 0;
	c->routes = calloc(from->n_routes ? from->n_routes : 1, sizeof(*c->routes));
	if (!c->routes)
		goto fail;
	for (; c->n_routes < from->n_routes; c->n_routes++) {
		struct config_route *route = malloc(sizeof(*route));

		if (!route)
			goto fail;
		*route = *from->routes[c->n_routes];
		c->routes[c->n_routes] = route;
	}
	return c;
fail:
	config_free(c);
	return NULL;
}

struct config_port *config_port_add(
	struct config *c, const char *name, const char *device, uint32_t line, struct reason *r)
{
	struct config_port *p = &c->ports[c->n_ports];
	char number[16];

	if (c->n_ports == PORTS_MAX) {
		config_fail(c, line, r, "run a second culvert for the others", "more than %d ports",
			PORTS_MAX);
		return NULL;
	}
	memset(p, 0, sizeof(*p));
	p->keep_host = true;
	p->line = line;
	snprintf(number, sizeof(number), "port%u", c->n_ports + 1);
	if (!name) /* arguments of a DPDK device can be long */
		name = strlen(device) < sizeof(p->name) ? device : number;
	if (strlen(name) >= sizeof(p->name) || strlen(device) >= sizeof(p->device)) {
		config_fail(c, line, r,
			"give the port a short name and a device of at most 255 "
			"letters",
			"port name or device too long: \"%.80s\"", device);
		return NULL;
	}
	strcpy(p->name, name);
	strcpy(p->device, device);
	c->n_ports++;
	return p;
}

int config_port_find(const struct config *c, const char *name_or_device)
{
	for (uint32_t i = 0; i < c->n_ports; i++) {
		if (strcmp(c->ports[i].name, name_or_device) == 0)
			return (int)i;
	}
	for (uint32_t i = 0; i < c->n_ports; i++) {
		if (strcmp(c->ports[i].device, name_or_device) == 0)
			return (int)i;
	}
	return -1;
}

int config_port_remove(struct config *c, const char *name_or_device)
{
	int idx = config_port_find(c, name_or_device);
	char name[64];

	if (idx < 0)
		return -ENOENT;
	strcpy(name, c->ports[idx].name);
	memmove(&c->ports[idx], &c->ports[idx + 1],
		(c->n_ports - (uint32_t)idx - 1) * sizeof(c->ports[0]));
	c->n_ports--;
	for (uint32_t i = 0; i < c->n_patches; i++) {
		if (strcmp(c->patches[i].a, name) == 0 || strcmp(c->patches[i].b, name) == 0)
			c->patches[i--] = c->patches[--c->n_patches];
	}
	return 0;
}

int config_patch_add(
	struct config *c, const char *a, const char *b, uint32_t line, struct reason *r)
{
	struct config_patch *p = &c->patches[c->n_patches];

	if (strlen(a) >= sizeof(p->a) || strlen(b) >= sizeof(p->b))
		return config_fail(
			c, line, r, "use the names under `ports:`", "patch: port name too long");
	if (c->n_patches == PORTS_MAX)
		return config_fail(c, line, r, "each port can be in one patch",
			"more than %d patches", PORTS_MAX);
	strcpy(p->a, a);
	strcpy(p->b, b);
	p->line = line;
	c->n_patches++;
	return 0;
}

struct config_route *config_route_add(struct config *c, uint32_t line, struct reason *r)
{
	struct config_route **routes, *route;
	char name[32];

	if (c->n_routes == CONFIG_ROUTES_MAX) {
		config_fail(c, line, r, "run a second culvert for the others",
			"more than %d relay routes", CONFIG_ROUTES_MAX);
		return NULL;
	}
	routes = reallocarray(c->routes, c->n_routes + 1, sizeof(struct config_route *));
	if (routes)
		c->routes = routes;
	route = calloc(1, sizeof(*route));
	if (!routes || !route) {
		free(route);
		reason_set(r, -ENOMEM, NULL, "out of memory");
		return NULL;
	}
	snprintf(name, sizeof(name), "route%u", c->n_routes + 1);
	route_defaults(&route->settings, name);
	route->line = line;
	c->routes[c->n_routes++] = route;
	return route;
}

static int check_ports(const struct config *c, struct reason *r)
{
	for (uint32_t i = 0; i < c->n_ports; i++) {
		const struct config_port *p = &c->ports[i];

		for (uint32_t j = 0; j < i; j++) {
			if (strcmp(p->device, c->ports[j].device) == 0)
				return config_fail(c, p->line, r, "name each device once",
					"device %s is used twice, by port %s and port %s",
					p->device, c->ports[j].name, p->name);
			if (strcmp(p->name, c->ports[j].name) == 0)
				return config_fail(c, p->line, r, "give each port its own name",
					"two ports are called %s", p->name);
		}
		if (p->mode != PORT_MODE_AUTO && p->require != PORT_MODE_AUTO &&
			p->mode < p->require)
			return config_fail(c, p->line, r, "let `require` be the lower of the two",
				"port %s: mode %s is below what it requires, %s", p->name,
				port_mode_name(p->mode), port_mode_name(p->require));
	}
	return 0;
}

static int check_patch_end(
	const struct config *c, const struct config_patch *p, const char *name, struct reason *r)
{
	const char *names[PORTS_MAX + 1] = {NULL};
	const char *nearest;

	for (uint32_t i = 0; i < c->n_ports; i++) {
		names[i] = c->ports[i].name;
		if (strcmp(c->ports[i].name, name) == 0)
			return 0;
	}
	nearest = config_nearest(name, names);
	if (nearest) {
		char remedy[128];

		snprintf(remedy, sizeof(remedy), "did you mean \"%s\"?", nearest);
		return config_fail(c, p->line, r, remedy, "patch: no port is called %s", name);
	}
	return config_fail(c, p->line, r, "name a port of the list under `ports:`",
		"patch: no port is called %s", name);
}

static int check_patches(const struct config *c, struct reason *r)
{
	for (uint32_t i = 0; i < c->n_patches; i++) {
		const struct config_patch *p = &c->patches[i];
		const char *ends[2] = {p->a, p->b};

		for (int e = 0; e < 2; e++) {
			int err = check_patch_end(c, p, ends[e], r);

			if (err)
				return err;
			for (uint32_t j = 0; j < i; j++) {
				const struct config_patch *q = &c->patches[j];

				if (strcmp(ends[e], q->a) == 0 || strcmp(ends[e], q->b) == 0)
					return config_fail(c, p->line, r,
						"a port has one peer: remove one of the two",
						"patch: port %s is patched twice", ends[e]);
			}
		}
		if (strcmp(p->a, p->b) == 0)
			return config_fail(c, p->line, r, "patch two different ports",
				"patch: port %s is patched to itself", p->a);
	}
	return 0;
}

/* A regular file may be sent by several routes; and the kernel chooses where port 0 is. */
static bool same_place(const struct endpoint *a, const struct endpoint *b)
{
	bool inet = a->kind == ENDPOINT_TCP || a->kind == ENDPOINT_UDP;

	return a->kind != ENDPOINT_FILE && !(inet && !a->port) && endpoint_same(a, b);
}

static int check_route_pair(
	const struct config *c, uint32_t i, const struct config_route *other, struct reason *r)
{
	const struct config_route *route = c->routes[i];
	char text[ENDPOINT_TEXT_SIZE];

	if (strcmp(route->settings.name, other->settings.name) == 0)
		return config_fail(c, route->line, r, "give each route its own name",
			"two relay routes are called %s", route->settings.name);
	if (!same_place(&route->settings.listen, &other->settings.listen))
		return 0;
	endpoint_format(&route->settings.listen, text, sizeof(text));
	return config_fail(c, route->line, r, "give one route the targets of both, or another port",
		"the routes %s and %s both listen on %.128s", other->settings.name,
		route->settings.name, text);
}

static int check_routes(const struct config *c, struct reason *r)
{
	for (uint32_t i = 0; i < c->n_routes; i++) {
		const struct config_route *route = c->routes[i];
		struct reason why = {0};

		if (route_check(&route->settings, &why))
			return config_fail(c, route->line, r, why.remedy, "%s", why.what);
		for (uint32_t j = 0; j < i; j++) {
			int err = check_route_pair(c, i, c->routes[j], r);

			if (err)
				return err;
		}
	}
	return 0;
}

int config_check(const struct config *c, struct reason *r)
{
	int err = check_ports(c, r);

	if (!err)
		err = check_patches(c, r);
	if (!err)
		err = check_routes(c, r);
	if (err)
		return err;
	if (c->engine == CONFIG_ENGINE_RELAY && c->n_routes == 0)
		return reason_set(r, -EINVAL, "add a route under `relay:`, or take another engine",
			"engine relay, but there is no relay route");
	return 0;
}

int config_engine_parse(const char *text, uint32_t *ret_engine)
{
	for (uint32_t i = 0; config_engine_words[i]; i++) {
		if (strcmp(text, config_engine_words[i]) == 0) {
			*ret_engine = i;
			return 0;
		}
	}
	return -EINVAL;
}

int config_fast_path_parse(const char *text, uint32_t *ret_fast_path)
{
	if (strcmp(text, "auto") == 0)
		*ret_fast_path = CONFIG_FAST_PATH_AUTO;
	else if (strcmp(text, "off") == 0)
		*ret_fast_path = CONFIG_FAST_PATH_OFF;
	else
		return -EINVAL;
	return 0;
}

int config_mode_parse(const char *text, uint32_t *ret_mode)
{
	for (uint32_t m = PORT_MODE_AUTO; m <= PORT_MODE_ZERO_COPY; m++) {
		if (strcmp(text, port_mode_name(m)) == 0) {
			*ret_mode = m;
			return 0;
		}
	}
	return -EINVAL;
}

int config_require_parse(const char *text, uint32_t *ret_mode)
{
	if (strcmp(text, "xdp") == 0) {
		*ret_mode = PORT_MODE_SKB; /* the lowest: any XDP */
		return 0;
	}
	return config_mode_parse(text, ret_mode);
}
