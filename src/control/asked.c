/* What the operator asks for, as JSON. */
#include "control/asked.h"

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

static void add_number(struct json_object *o, const char *key, uint32_t n)
{
	json_object_object_add(o, key, json_object_new_int64(n));
}

static void add_truth(struct json_object *o, const char *key, bool truth)
{
	json_object_object_add(o, key, json_object_new_boolean(truth));
}

struct json_object *asked_port(const struct config_port *p)
{
	static const char *const checksums[] = {
		[CONFIG_CHECKSUMS_AUTO] = "auto",
		[CONFIG_CHECKSUMS_ON] = "on",
		[CONFIG_CHECKSUMS_OFF] = "off",
	};
	struct json_object *o = json_object_new_object();

	add_text(o, "name", p->name);
	add_text(o, "device", p->device);
	add_text(o, "mode", port_mode_name((enum port_mode)p->mode));
	add_text(o, "require", port_mode_name((enum port_mode)p->require));
	add_number(o, "queues", p->queues);
	add_number(o, "rx_ring", p->rx_ring);
	add_number(o, "tx_ring", p->tx_ring);
	add_truth(o, "busy", p->busy);
	add_truth(o, "keep_host", p->keep_host);
	add_text(o, "checksums", checksums[p->checksums]);
	return o;
}

struct json_object *asked_daemon(const struct config *c)
{
	struct json_object *o = json_object_new_object();

	add_number(o, "workers", c->workers);
	add_number(o, "slots", c->slots);
	add_text(o, "engine", config_engine_words[c->engine]);
	add_text(o, "fast_path", c->fast_path == CONFIG_FAST_PATH_AUTO ? "auto" : "off");
	add_number(o, "max_connections", c->max_connections);
	add_text(o, "http", c->http);
	return o;
}

const char *asked_difference(struct json_object *now, struct json_object *then)
{
	json_object_object_foreach(now, key, value)
	{
		struct json_object *other;

		if (json_object_object_get_ex(then, key, &other) &&
			!json_object_equal(value, other))
			return key;
	}
	return NULL;
}
