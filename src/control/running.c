/* Reads what the running culvert tells of itself. */
#include "control/running.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(o, key, &value) ? value : NULL;
}

static const char *get_text(struct json_object *o, const char *key)
{
	const char *text = json_object_get_string(get(o, key));

	return text ? text : "";
}

static enum port_mode mode_of(const char *name)
{
	for (int m = PORT_MODE_AUTO; m <= PORT_MODE_DPDK; m++) {
		if (strcmp(port_mode_name((enum port_mode)m), name) == 0)
			return (enum port_mode)m;
	}
	return PORT_MODE_AUTO;
}

static void read_port(struct json_object *o, struct running_port *p)
{
	struct json_object *queues = get(o, "queues");

	p->name = get_text(o, "name");
	p->device = get_text(o, "device");
	p->engine = get_text(o, "engine");
	p->mode = mode_of(get_text(o, "mode"));
	if (json_object_is_type(queues, json_type_array))
		p->queues = (uint32_t)json_object_array_length(queues);
	p->ifindex = (uint32_t)json_object_get_int64(get(o, "ifindex"));
	snprintf(p->why.what, sizeof(p->why.what), "%s", get_text(o, "reason"));
	snprintf(p->why.remedy, sizeof(p->why.remedy), "%s", get_text(o, "remedy"));
	p->asked = get(o, "asked");
}

struct running *running_read(const char *status)
{
	struct running *r = calloc(1, sizeof(*r));
	struct json_object *ports;

	if (!r)
		return NULL;
	r->status = json_tokener_parse(status);
	r->pid = (long)json_object_get_int64(get(r->status, "pid"));
	ports = get(r->status, "ports");
	if (r->pid <= 0 || !json_object_is_type(ports, json_type_array)) {
		running_free(r);
		return NULL;
	}
	r->asked = get(r->status, "asked");
	r->reloads = !get(r->status, "file") || get_text(r->status, "file")[0];
	for (size_t i = 0; i < json_object_array_length(ports) && r->n_ports < PORTS_MAX; i++)
		read_port(json_object_array_get_idx(ports, i), &r->ports[r->n_ports++]);
	return r;
}

void running_free(struct running *r)
{
	if (!r)
		return;
	json_object_put(r->status);
	free(r);
}

const struct running_port *running_find(
	const struct running *r, const char *device, uint32_t ifindex)
{
	for (uint32_t i = 0; r && i < r->n_ports; i++) {
		const struct running_port *p = &r->ports[i];

		if (p->engine[0] &&
			(strcmp(p->device, device) == 0 || (ifindex && p->ifindex == ifindex)))
			return p;
	}
	return NULL;
}
