/* YAML text to configuration, by libyaml's document tree: every error names its line. */
#include "control/configuration.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <yaml.h>

#include "base/units.h"

struct reader {
	yaml_document_t *doc;
	struct config *config;
	struct reason *reason;
};

struct key {
	const char *name;
	/* Reads node into the field at target + offset. 0 or -errno with the reason. */
	int (*set)(struct reader *rd, const struct key *key, yaml_node_t *node, void *field);
	size_t offset;
	uint64_t min, max; /* of numbers; max: size of texts with the end */
	const char *right; /* what would be right, for other kinds */
	int (*parse)(const char *text, uint32_t *ret);
};

static uint32_t line_of(const yaml_node_t *node)
{
	return (uint32_t)node->start_mark.line + 1;
}

static const char *kind_of(const yaml_node_t *node)
{
	switch (node->type) {
	case YAML_SEQUENCE_NODE: return "a list";
	case YAML_MAPPING_NODE: return "a mapping";
	case YAML_SCALAR_NODE: return node->data.scalar.length ? "one value" : "nothing";
	default: return "nothing";
	}
}

/* The text of a scalar; NULL with the reason for anything else (or with a NUL inside). */
static const char *scalar(
	struct reader *rd, const yaml_node_t *node, const char *name, const char *right)
{
	const char *text = (const char *)node->data.scalar.value;

	if (node->type != YAML_SCALAR_NODE) {
		config_fail(rd->config, line_of(node), rd->reason, right,
			"%s: one value expected, found %s", name, kind_of(node));
		return NULL;
	}
	if (node->data.scalar.length == 0 || strlen(text) != node->data.scalar.length) {
		config_fail(rd->config, line_of(node), rd->reason, right, "%s: the value is %s",
			name, node->data.scalar.length ? "not plain text" : "missing");
		return NULL;
	}
	return text;
}

static int set_text(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	const char *text = scalar(rd, node, key->name, key->right);

	if (!text)
		return -EINVAL;
	if (strlen(text) >= key->max)
		return config_fail(rd->config, line_of(node), rd->reason, key->right,
			"%s: longer than %llu letters", key->name,
			(unsigned long long)key->max - 1);
	strcpy(field, text);
	return 0;
}

static int set_number(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	char right[96];
	const char *text;
	uint64_t n;

	snprintf(right, sizeof(right), "a number from %llu to %llu%s", (unsigned long long)key->min,
		(unsigned long long)key->max, key->right ? key->right : "");
	text = scalar(rd, node, key->name, right);
	if (!text)
		return -EINVAL;
	if (key->min == 0 && strcmp(text, "auto") == 0)
		n = 0;
	else if (units_number(text, key->min, key->max, &n))
		return config_fail(rd->config, line_of(node), rd->reason, right,
			"%s: \"%.60s\" is not one it can be", key->name, text);
	*(uint32_t *)field = (uint32_t)n;
	return 0;
}

static int set_ring(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	uint32_t n = 0;
	int err = set_number(rd, key, node, &n);

	if (err)
		return err;
	if (n & (n - 1))
		return config_fail(rd->config, line_of(node), rd->reason,
			"a power of two, such as 2048", "%s: %u is no power of two", key->name, n);
	*(uint32_t *)field = n;
	return 0;
}

static int set_bool(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	const char *text = scalar(rd, node, key->name, "true or false");

	if (!text)
		return -EINVAL;
	if (units_bool(text, field))
		return config_fail(rd->config, line_of(node), rd->reason, "true or false",
			"%s: \"%.60s\" is neither yes nor no", key->name, text);
	return 0;
}

static int set_duration(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	const char *text = scalar(rd, node, key->name, "a duration such as 10s or 500ms");

	if (!text)
		return -EINVAL;
	if (units_duration(text, field))
		return config_fail(rd->config, line_of(node), rd->reason,
			"a duration such as 10s or 500ms", "%s: \"%.60s\" is no duration",
			key->name, text);
	return 0;
}

static int set_word(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	const char *text = scalar(rd, node, key->name, key->right);

	if (!text)
		return -EINVAL;
	if (key->parse(text, field))
		return config_fail(rd->config, line_of(node), rd->reason, key->right,
			"%s: \"%.60s\" is not one it can be", key->name, text);
	return 0;
}

static int parse_checksums(const char *text, uint32_t *ret)
{
	bool on;

	if (strcmp(text, "auto") == 0)
		*ret = CONFIG_CHECKSUMS_AUTO;
	else if (units_bool(text, &on) == 0)
		*ret = on ? CONFIG_CHECKSUMS_ON : CONFIG_CHECKSUMS_OFF;
	else
		return -EINVAL;
	return 0;
}

static int parse_when(const char *text, uint32_t *ret)
{
	if (strcmp(text, "fallback") == 0)
		*ret = CONFIG_WHEN_FALLBACK;
	else if (strcmp(text, "always") == 0)
		*ret = CONFIG_WHEN_ALWAYS;
	else
		return -EINVAL;
	return 0;
}

static int parse_log(const char *text, uint32_t *ret)
{
	enum log_level level;
	int err = log_level_parse(text, &level);

	if (!err)
		*ret = level;
	return err;
}

/* -EINVAL with the reason: no key of this name here. */
static int unknown_key(struct reader *rd, const yaml_node_t *node, const char *where,
	const char *name, const char *const *words)
{
	const char *nearest = config_nearest(name, words);
	char remedy[256];
	size_t used;

	if (nearest) {
		snprintf(remedy, sizeof(remedy), "did you mean \"%s\"?", nearest);
	} else {
		used = (size_t)snprintf(remedy, sizeof(remedy), "%s knows", where);
		for (; *words && used < sizeof(remedy); words++)
			used += (size_t)snprintf(
				remedy + used, sizeof(remedy) - used, " %s", *words);
	}
	return config_fail(rd->config, line_of(node), rd->reason, remedy,
		"unknown key \"%.60s\" in %s", name, where);
}

/* The name of the pair's key; NULL with the reason when it is no text or was there before. */
static const char *pair_name(
	struct reader *rd, const yaml_node_t *map, const yaml_node_pair_t *pair, const char *where)
{
	const yaml_node_t *key = yaml_document_get_node(rd->doc, pair->key);
	const char *name = scalar(rd, key, where, "write KEY: VALUE");

	if (!name)
		return NULL;
	for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < pair; p++) {
		const yaml_node_t *other = yaml_document_get_node(rd->doc, p->key);

		if (other->type == YAML_SCALAR_NODE &&
			strcmp((const char *)other->data.scalar.value, name) == 0) {
			config_fail(rd->config, line_of(key), rd->reason, "remove one of them",
				"key \"%.60s\" is there twice in %s (first in line %u)", name,
				where, line_of(other));
			return NULL;
		}
	}
	return name;
}

static int check_mapping(struct reader *rd, const yaml_node_t *node, const char *where)
{
	if (node->type == YAML_MAPPING_NODE)
		return 0;
	return config_fail(rd->config, line_of(node), rd->reason, "write KEY: VALUE",
		"%s: a mapping expected, found %s", where, kind_of(node));
}

static int check_list(struct reader *rd, const yaml_node_t *node, const char *where)
{
	if (node->type == YAML_SEQUENCE_NODE)
		return 0;
	return config_fail(rd->config, line_of(node), rd->reason,
		"write a list: an item a line, each after \"- \"", "%s: a list expected, found %s",
		where, kind_of(node));
}

/* keys end with one without a name. */
static int read_mapping(struct reader *rd, yaml_node_t *node, const char *where,
	const struct key *keys, void *target)
{
	int err = check_mapping(rd, node, where);

	if (err)
		return err;
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top;
		p++) {
		const char *name = pair_name(rd, node, p, where), *words[24] = {NULL};
		const struct key *key = keys;

		if (!name)
			return -EINVAL;
		for (size_t i = 0; key->name && strcmp(key->name, name) != 0; key++, i++)
			words[i] = key->name;
		if (!key->name)
			return unknown_key(
				rd, yaml_document_get_node(rd->doc, p->key), where, name, words);
		err = key->set(rd, key, yaml_document_get_node(rd->doc, p->value),
			(char *)target + key->offset);
		if (err)
			return err;
	}
	return 0;
}

#define MODE_RIGHT    "auto, zero-copy, copy or skb"
#define REQUIRE_RIGHT "auto, zero-copy, copy, skb or xdp"
#define PORT(field)   offsetof(struct config_port, field)
#define RING_RIGHT    ", a power of two"

static const struct key port_keys[] = {
	{"name", set_text, PORT(name), 0, sizeof(((struct config_port *)0)->name),
		"a short name, such as wan"},
	{"device", set_text, PORT(device), 0, sizeof(((struct config_port *)0)->device),
		"an interface such as eth0, or dpdk: and EAL device arguments"},
	{"mode", set_word, PORT(mode), .right = MODE_RIGHT, .parse = config_mode_parse},
	{"require", set_word, PORT(require), .right = REQUIRE_RIGHT, .parse = config_require_parse},
	{"queues", set_number, PORT(queues), 0, 1024, " (0: all)"},
	{"rx_ring", set_ring, PORT(rx_ring), 64, 32768, RING_RIGHT},
	{"tx_ring", set_ring, PORT(tx_ring), 64, 32768, RING_RIGHT},
	{"busy", set_bool, PORT(busy)},
	{"keep_host", set_bool, PORT(keep_host)},
	{"checksums", set_word, PORT(checksums), .right = "auto, on or off",
		.parse = parse_checksums},
	{NULL},
};

static int read_port(struct reader *rd, yaml_node_t *node)
{
	struct config_port *p = config_port_add(rd->config, "", "", line_of(node), rd->reason);
	int err;

	if (!p)
		return -EINVAL;
	if (node->type == YAML_SCALAR_NODE) /* - eth0 */
		err = set_text(rd, &port_keys[1], node, p->device);
	else
		err = read_mapping(rd, node, "a port", port_keys, p);
	if (err)
		return err;
	if (!p->device[0])
		return config_fail(rd->config, p->line, rd->reason, "add device: INTERFACE",
			"port %s has no device", p->name[0] ? p->name : "(without a name)");
	if (!p->name[0] && strlen(p->device) < sizeof(p->name))
		strcpy(p->name, p->device);
	else if (!p->name[0])
		snprintf(p->name, sizeof(p->name), "port%u", rd->config->n_ports);
	return 0;
}

static int set_ports(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	int err = check_list(rd, node, key->name);

	for (yaml_node_item_t *i = err ? NULL : node->data.sequence.items.start;
		!err && i < node->data.sequence.items.top; i++)
		err = read_port(rd, yaml_document_get_node(rd->doc, *i));
	return err;
}

static int read_patch(struct reader *rd, yaml_node_t *node)
{
	const char *right = "write [PORT, PORT]", *names[2];
	yaml_node_item_t *items = node->data.sequence.items.start;

	if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.top - items != 2)
		return config_fail(rd->config, line_of(node), rd->reason, right,
			"patch: a pair of ports expected, found %s",
			node->type == YAML_SEQUENCE_NODE ? "a list of another length"
							 : kind_of(node));
	for (int i = 0; i < 2; i++) {
		names[i] = scalar(rd, yaml_document_get_node(rd->doc, items[i]), "patch", right);
		if (!names[i])
			return -EINVAL;
	}
	return config_patch_add(rd->config, names[0], names[1], line_of(node), rd->reason);
}

static int set_patches(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	int err = check_list(rd, node, key->name);

	for (yaml_node_item_t *i = err ? NULL : node->data.sequence.items.start;
		!err && i < node->data.sequence.items.top; i++)
		err = read_patch(rd, yaml_document_get_node(rd->doc, *i));
	return err;
}

/* Its fields are the configuration's own. */
static const struct key forward_keys[] = {
	{"patch", set_patches},
	{"fast_path", set_word, offsetof(struct config, fast_path), .right = "off or auto",
		.parse = config_fast_path_parse},
	{NULL},
};

static int set_forward(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	return read_mapping(rd, node, "forward", forward_keys, rd->config);
}

static const struct key when_key = {"when", set_word, offsetof(struct config_route, when),
	.right = "fallback or always", .parse = parse_when};
static const struct key route_name_key = {"name", set_text, 0, 0,
	sizeof(((struct route_settings *)0)->name), "a short name, such as web"};

/* One value of one route key: its meaning is the relay's. */
static int set_route_value(
	struct reader *rd, struct config_route *route, const char *name, const yaml_node_t *node)
{
	const char *text = scalar(rd, node, name, "write KEY: VALUE");
	struct reason why = {0};

	if (!text)
		return -EINVAL;
	if (route_set(&route->settings, name, text, &why))
		return config_fail(
			rd->config, line_of(node), rd->reason, why.remedy, "%s", why.what);
	return 0;
}

static bool route_key_known(const char *name, const char **words, size_t n)
{
	size_t used = 0;

	words[used++] = "name";
	words[used++] = "when";
	for (unsigned int i = 0; route_key(i); i++) {
		if (strcmp(route_key(i), name) == 0)
			return true;
		if (used + 1 < n)
			words[used++] = route_key(i);
	}
	words[used] = NULL;
	return false;
}

static int set_route_key(struct reader *rd, struct config_route *route,
	const yaml_node_pair_t *pair, const char *name)
{
	yaml_node_t *node = yaml_document_get_node(rd->doc, pair->value);
	const char *words[64];
	int err = 0;

	if (strcmp(name, when_key.name) == 0)
		return when_key.set(rd, &when_key, node, &route->when);
	if (strcmp(name, route_name_key.name) == 0)
		return route_name_key.set(rd, &route_name_key, node, route->settings.name);
	if (!route_key_known(name, words, sizeof(words) / sizeof(words[0])))
		return unknown_key(rd, yaml_document_get_node(rd->doc, pair->key), "a relay route",
			name, words);
	if (node->type != YAML_SEQUENCE_NODE)
		return set_route_value(rd, route, name, node);
	for (yaml_node_item_t *i = node->data.sequence.items.start;
		!err && i < node->data.sequence.items.top; i++)
		err = set_route_value(rd, route, name, yaml_document_get_node(rd->doc, *i));
	return err;
}

static int read_route(struct reader *rd, yaml_node_t *node)
{
	int err = check_mapping(rd, node, "a relay route");
	struct config_route *route;

	if (err)
		return err;
	route = config_route_add(rd->config, line_of(node), rd->reason);
	if (!route)
		return -EINVAL;
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start;
		!err && p < node->data.mapping.pairs.top; p++) {
		const char *name = pair_name(rd, node, p, "a relay route");

		err = name ? set_route_key(rd, route, p, name) : -EINVAL;
	}
	return err;
}

static int set_routes(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	int err = check_list(rd, node, key->name);

	for (yaml_node_item_t *i = err ? NULL : node->data.sequence.items.start;
		!err && i < node->data.sequence.items.top; i++)
		err = read_route(rd, yaml_document_get_node(rd->doc, *i));
	return err;
}

#define CONFIG(field) offsetof(struct config, field)

static const struct key control_keys[] = {
	{"socket", set_text, CONFIG(socket), 0, sizeof(((struct config *)0)->socket),
		"a path of at most 107 letters"},
	{"http", set_text, CONFIG(http), 0, sizeof(((struct config *)0)->http), "ADDRESS:PORT"},
	{NULL},
};

static int set_control(struct reader *rd, const struct key *key, yaml_node_t *node, void *field)
{
	return read_mapping(rd, node, "control", control_keys, field);
}

static const struct key top_keys[] = {
	{"workers", set_number, CONFIG(workers), 1, 256},
	{"slots", set_number, CONFIG(slots), 256, 1 << 24},
	{"engine", set_word, CONFIG(engine), .right = "auto, af_xdp, dpdk or relay",
		.parse = config_engine_parse},
	{"ports", set_ports},
	{"forward", set_forward},
	{"relay", set_routes},
	{"control", set_control},
	{"log", set_word, CONFIG(log), .right = "error, warn, info or debug", .parse = parse_log},
	{"drain", set_duration, CONFIG(drain_ns)},
	{"max_connections", set_number, CONFIG(max_connections), 1, UINT32_MAX},
	{NULL},
};

static int read_document(struct reader *rd)
{
	yaml_node_t *root = yaml_document_get_root_node(rd->doc);

	if (!root)
		return config_fail(rd->config, 1, rd->reason,
			"list ports under `ports:`, or "
			"routes under `relay:`",
			"the file is empty");
	return read_mapping(rd, root, "the configuration", top_keys, rd->config);
}

int config_parse(const char *text, size_t size, const char *file, struct config **ret_config,
	struct reason *r)
{
	struct config *c = config_new();
	yaml_document_t doc, more;
	yaml_parser_t parser;
	int err;

	if (!c)
		return reason_set(r, -ENOMEM, NULL, "out of memory");
	snprintf(c->file, sizeof(c->file), "%s", file);
	strcpy(c->socket, CONFIG_SOCKET);
	if (!yaml_parser_initialize(&parser)) {
		config_free(c);
		return reason_set(r, -ENOMEM, NULL, "out of memory");
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
	if (!yaml_parser_load(&parser, &doc)) {
		uint32_t line = (uint32_t)parser.problem_mark.line + 1;

		err = config_fail(c, line, r, "check the indentation, and quote texts with : or #",
			"not YAML: %s", parser.problem ? parser.problem : "unreadable");
	} else {
		struct reader rd = {&doc, c, r};

		err = read_document(&rd);
		yaml_document_delete(&doc);
		if (!err && yaml_parser_load(&parser, &more)) {
			yaml_node_t *root = yaml_document_get_root_node(&more);

			if (root)
				err = config_fail(c, line_of(root), r, "remove what follows ---",
					"a second document");
			yaml_document_delete(&more);
		}
	}
	yaml_parser_delete(&parser);
	if (!err && c->n_ports == 0 && c->n_routes == 0)
		err = config_fail(c, 1, r, "list ports under `ports:`, or routes under `relay:`",
			"nothing to do: neither ports nor relay routes");
	if (!err)
		err = config_check(c, r);
	if (err) {
		config_free(c);
		return err;
	}
	*ret_config = c;
	return 0;
}

int config_read(const char *file, struct config **ret_config, struct reason *r)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC), err = 0;
	size_t used = 0;
	char *text;

	if (fd < 0)
		return reason_set(r, -errno,
			errno == EACCES ? "run as root, or make the file readable"
					: "name an existing file with --config",
			"%s: %s", file, strerror(errno));
	text = malloc(CONFIG_SIZE_MAX);
	while (text && used < CONFIG_SIZE_MAX) {
		ssize_t n = read(fd, text + used, CONFIG_SIZE_MAX - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = reason_set(
				r, -errno, "name a text file", "%s: %s", file, strerror(errno));
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	close(fd);
	if (!text)
		err = reason_set(r, -ENOMEM, NULL, "out of memory");
	else if (!err && used == CONFIG_SIZE_MAX)
		err = reason_set(
			r, -EINVAL, "split it: a file may have 1 MiB", "%s: too long", file);
	if (!err)
		err = config_parse(text, used, file, ret_config, r);
	free(text);
	return err;
}
