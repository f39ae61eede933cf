/* The keys of a relay route: their words, their defaults, their limits. */
#include "relay/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/reason.h"
#include "base/units.h"

#define SECOND 1000000000ULL

void route_defaults(struct route_settings *s, const char *name)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->health_failures = 3;
	s->retries = 2;
	s->connect_timeout_ns = 5 * SECOND;
	s->half_close_timeout_ns = 300 * SECOND;
	s->nodelay = true;
	s->keepalive = true;
	s->backlog = 4096;
}

/* A setter reads `value` into the field at `field`. 0, or -EINVAL with the reason. */
struct key;
typedef int setter(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason);

struct key {
	const char *name;
	setter *set;
	size_t offset;	   /* of the field in struct route_settings */
	const char *words; /* for set_word: parted by |, their order is the enum's */
	uint64_t max;	   /* for set_number; its field is 32 bits wide */
};

static void *field_of(struct route_settings *s, const struct key *key)
{
	return (char *)s + key->offset;
}

static int set_listen(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	int r = endpoint_parse(value, &s->listen, reason);

	if (r < 0)
		return r;
	s->listen_set = true;
	return 0;
}

/* "tcp:10.0.0.2:80 weight=3 backup" */
static int set_target(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	struct route_target t = {.weight = 1};
	char text[ENDPOINT_TEXT_SIZE], *word, *rest = text;
	uint64_t weight;
	int r;

	if (s->n_targets == ROUTE_TARGETS_MAX)
		return reason_set(reason, -EINVAL, "split the route in two",
			"a route can't have more than %d targets", ROUTE_TARGETS_MAX);
	if (strlen(value) >= sizeof(text))
		return reason_set(reason, -EINVAL, NULL, "the target is too long");
	memcpy(text, value, strlen(value) + 1);
	word = strsep(&rest, " ");
	r = endpoint_parse(word, &t.endpoint, reason);
	if (r < 0)
		return r;
	while ((word = strsep(&rest, " "))) {
		if (!*word)
			continue;
		if (strcmp(word, "backup") == 0) {
			t.backup = true;
		} else if (strncmp(word, "weight=", 7) == 0 &&
			   units_number(word + 7, 1, 256, &weight) == 0) {
			t.weight = (uint32_t)weight;
		} else {
			return reason_set(reason, -EINVAL,
				"after the endpoint write weight=1 to weight=256, or backup",
				"\"%s\" is no property of a target", word);
		}
	}
	s->targets[s->n_targets++] = t;
	return 0;
}

static int set_targets(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	char *text = strdup(value), *rest = text, *word;
	int r = text ? 0 : -ENOMEM;

	while (r == 0 && (word = strsep(&rest, ","))) {
		word += strspn(word, " ");
		r = set_target(s, key, word, reason);
	}
	free(text);
	return r;
}

static int set_networks(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	struct route_networks *n = field_of(s, key);
	char word[64];

	for (const char *p = value; p;) {
		const char *comma = strchr(p, ',');
		size_t size;

		p += strspn(p, " ");
		size = comma ? (size_t)(comma - p) : strlen(p);
		if (n->n == ROUTE_NETWORKS_MAX)
			return reason_set(reason, -EINVAL, "join some networks into wider ones",
				"%s can't have more than %d networks", key->name,
				ROUTE_NETWORKS_MAX);
		snprintf(word, sizeof(word), "%.*s", (int)(size < 63 ? size : 63), p);
		if (cidr_parse(word, &n->list[n->n]) < 0)
			return reason_set(reason, -EINVAL,
				"write ADDRESS or ADDRESS/LENGTH, with no bits set behind the "
				"length",
				"%s: \"%s\" is no network", key->name, word);
		n->n++;
		p = comma ? comma + 1 : NULL;
	}
	return 0;
}

static int set_word(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	int *field = field_of(s, key), idx = 0;
	size_t size = strlen(value);

	for (const char *p = key->words; p; idx++) {
		const char *bar = strchr(p, '|');
		size_t n = bar ? (size_t)(bar - p) : strlen(p);

		if (n == size && memcmp(p, value, n) == 0) {
			*field = idx;
			return 0;
		}
		p = bar ? bar + 1 : NULL;
	}
	return reason_set(
		reason, -EINVAL, NULL, "%s: \"%s\" is not one of %s", key->name, value, key->words);
}

static int set_duration(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (strcmp(value, "off") == 0)
		value = "0";
	if (units_duration(value, field_of(s, key)) < 0)
		return reason_set(reason, -EINVAL, "write a number and ms, s, m, h or d, or off",
			"%s: \"%s\" is no duration", key->name, value);
	return 0;
}

static int set_rate(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (strcmp(value, "off") == 0)
		value = "0";
	if (units_rate(value, field_of(s, key)) < 0)
		return reason_set(reason, -EINVAL, "write 500/s, 64k/s, 10M/s or off",
			"%s: \"%s\" is no rate", key->name, value);
	return 0;
}

static int set_count(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (strcmp(value, "off") == 0)
		value = "0";
	if (units_number(value, 0, UINT32_MAX, field_of(s, key)) < 0)
		return reason_set(reason, -EINVAL, "write a whole number, or off",
			"%s: \"%s\" is no number", key->name, value);
	return 0;
}

static int set_number(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	uint32_t *field = field_of(s, key);
	uint64_t number;
	uint64_t min = key->set == set_number && strcmp(key->words, "1") == 0 ? 1 : 0;

	if (strncmp(value, "0x", 2) == 0 && key->max == UINT32_MAX) {
		char *end;

		errno = 0;
		number = strtoull(value, &end, 16);
		if (errno || *end || end == value + 2 || number > key->max)
			number = UINT64_MAX;
	} else if (units_number(value, min, key->max, &number) < 0) {
		number = UINT64_MAX;
	}
	if (number == UINT64_MAX)
		return reason_set(reason, -EINVAL, NULL,
			"%s: \"%s\" is no whole number from %llu to %llu", key->name, value,
			(unsigned long long)min, (unsigned long long)key->max);
	*field = (uint32_t)number;
	return 0;
}

static int set_bool(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (units_bool(value, field_of(s, key)) < 0)
		return reason_set(reason, -EINVAL, "write yes or no", "%s: \"%s\" is neither",
			key->name, value);
	return 0;
}

/* yes, no, or how long a connection rests before the first probe */
static int set_keepalive(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	uint64_t ns;

	s->keepalive_idle_s = 0;
	if (units_bool(value, &s->keepalive) == 0)
		return 0;
	/* tcp(7): TCP_KEEPIDLE is at most 32767 s */
	if (units_duration(value, &ns) < 0 || ns < SECOND || ns > 32767 * SECOND)
		return reason_set(reason, -EINVAL, "write yes, no, or 1s to 32767s",
			"keepalive: \"%s\" is none of these", value);
	s->keepalive = true;
	s->keepalive_idle_s = (uint32_t)(ns / SECOND);
	return 0;
}

/* ADDRESS, [ADDRESS], or either with :PORT or :PORT-PORT */
static int set_source(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	struct endpoint e;
	char text[128], *colon, *dash;
	uint64_t low = 0, high = 0;
	struct in6_addr v6;

	snprintf(text, sizeof(text), "%s", value);
	colon = inet_pton(AF_INET6, text, &v6) == 1 ? NULL : strrchr(text, ':');
	if (colon && strchr(colon, ']'))
		colon = NULL;
	if (colon) {
		*colon++ = 0;
		dash = strchr(colon, '-');
		if (dash)
			*dash++ = 0;
		if (units_number(colon, 1, 65535, &low) < 0 ||
			units_number(dash ? dash : colon, low, 65535, &high) < 0)
			return reason_set(reason, -EINVAL, "write ADDRESS:1024-65535",
				"source: \"%s\" has no valid port range", value);
	}
	memset(&e, 0, sizeof(e));
	if (text[0] == '[' && text[strlen(text) - 1] == ']') {
		text[strlen(text) - 1] = 0;
		memmove(text, text + 1, strlen(text));
	}
	if (inet_pton(AF_INET, text, &e.address.in.sin_addr) == 1) {
		e.address.in.sin_family = AF_INET;
		e.address.size = sizeof(e.address.in);
	} else if (inet_pton(AF_INET6, text, &e.address.in6.sin6_addr) == 1) {
		e.address.in6.sin6_family = AF_INET6;
		e.address.size = sizeof(e.address.in6);
	} else {
		return reason_set(reason, -EINVAL, "write an address of this machine",
			"source: \"%s\" is no address", value);
	}
	s->source = e.address;
	s->source_set = true;
	s->source_port_min = (uint16_t)low;
	s->source_port_max = (uint16_t)high;
	return 0;
}

static int set_name16(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (!*value || strlen(value) > 15)
		return reason_set(reason, -EINVAL, NULL, "%s: a name has 1 to 15 bytes", key->name);
	memcpy(field_of(s, key), value, strlen(value) + 1);
	return 0;
}

static int set_access_log(
	struct route_settings *s, const struct key *key, const char *value, struct reason *reason)
{
	if (strncmp(value, "file:", 5) == 0)
		value += 5;
	if (strcmp(value, "off") == 0)
		value = "";
	if (*value && *value != '/' && strcmp(value, "stderr") != 0 &&
		strcmp(value, "journal") != 0)
		return reason_set(reason, -EINVAL, "write off, journal, stderr, or file:/path",
			"access_log: \"%s\" is none of these", value);
	if (strlen(value) >= sizeof(s->access_log))
		return reason_set(reason, -EINVAL, NULL, "access_log: the path is too long");
	memcpy(s->access_log, value, strlen(value) + 1);
	return 0;
}

#define FIELD(f) offsetof(struct route_settings, f)

static const struct key keys[] = {
	{"listen", set_listen},
	{"to", set_targets},
	{"engine", set_word, FIELD(engine), "auto|splice|copy"},
	{"balance", set_word, FIELD(balance), "round_robin|least_connections|source_hash"},
	{"health", set_duration, FIELD(health_ns)},
	{"health_failures", set_number, FIELD(health_failures), "1", 1000},
	{"retries", set_number, FIELD(retries), "0", 100},
	{"connect_timeout", set_duration, FIELD(connect_timeout_ns)},
	{"idle_timeout", set_duration, FIELD(idle_timeout_ns)},
	{"half_close_timeout", set_duration, FIELD(half_close_timeout_ns)},
	{"max_connections", set_count, FIELD(max_connections)},
	{"accept_rate", set_rate, FIELD(accept_rate)},
	{"rate", set_rate, FIELD(rate)},
	{"connection_rate", set_rate, FIELD(connection_rate)},
	{"allow", set_networks, FIELD(allow)},
	{"deny", set_networks, FIELD(deny)},
	{"proxy_accept", set_bool, FIELD(proxy_accept)},
	{"proxy_trust", set_networks, FIELD(proxy_trust)},
	{"proxy_send", set_word, FIELD(proxy_send), "off|v1|v2"},
	{"access_log", set_access_log},
	{"transparent", set_bool, FIELD(transparent)},
	{"source", set_source},
	{"nodelay", set_bool, FIELD(nodelay)},
	{"keepalive", set_keepalive},
	{"user_timeout", set_duration, FIELD(user_timeout_ns)},
	{"fast_open", set_bool, FIELD(fast_open)},
	{"mptcp", set_bool, FIELD(mptcp)},
	{"congestion", set_name16, FIELD(congestion)},
	{"mark", set_number, FIELD(mark), "0", UINT32_MAX},
	{"interface", set_name16, FIELD(interface)},
	{"backlog", set_number, FIELD(backlog), "1", 65535},
};

#define N_KEYS (sizeof(keys) / sizeof(keys[0]))

const char *route_key(unsigned int idx)
{
	return idx < N_KEYS ? keys[idx].name : NULL;
}

int route_set(struct route_settings *s, const char *key, const char *value, struct reason *reason)
{
	char known[256] = "";
	size_t used = 0;

	for (size_t i = 0; i < N_KEYS; i++) {
		if (strcmp(key, keys[i].name) == 0)
			return keys[i].set(s, &keys[i], value, reason);
	}
	/* The likeliest: those that begin alike. */
	for (size_t i = 0; i < N_KEYS && used < sizeof(known) - 40; i++) {
		if (key[0] == keys[i].name[0])
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
				used ? ", " : "did you mean: ", keys[i].name);
	}
	return reason_set(reason, -EINVAL, known, "a route has no key \"%s\"", key);
}

bool route_networks_contain(const struct route_networks *networks, const struct sockaddr *address)
{
	for (uint32_t i = 0; i < networks->n; i++) {
		if (cidr_contains(&networks->list[i], address))
			return true;
	}
	return false;
}

static int check_udp(const struct route_settings *s, struct reason *reason)
{
	if (s->proxy_accept || s->proxy_send != ROUTE_PROXY_OFF)
		return reason_set(reason, -EINVAL, "remove proxy_accept and proxy_send",
			"route %s: there is no PROXY header for datagrams", s->name);
	if (s->connection_rate)
		return reason_set(reason, -EINVAL, "write rate, which is of the whole route",
			"route %s: connection_rate is for streams, not for datagrams", s->name);
	for (uint32_t i = 0; i < s->n_targets; i++) {
		if (s->targets[i].endpoint.kind != ENDPOINT_UDP)
			return reason_set(reason, -EINVAL, "write udp: for every target",
				"route %s listens on udp and its target %u does not", s->name,
				i + 1);
	}
	return 0;
}

/* A file that is sent. */
static int check_source(const struct route_settings *s, struct reason *reason)
{
	if (s->listen.append)
		return reason_set(reason, -EINVAL, "write listen: file:/path",
			"route %s: ?append is for targets, not for a file that is sent", s->name);
	if (s->proxy_accept)
		return reason_set(reason, -EINVAL, "remove proxy_accept",
			"route %s: a file has no PROXY header", s->name);
	for (uint32_t i = 0; i < s->n_targets; i++) {
		enum endpoint_kind kind = s->targets[i].endpoint.kind;

		if (kind != ENDPOINT_TCP && kind != ENDPOINT_UNIX)
			return reason_set(reason, -EINVAL,
				"a file is sent to tcp:HOST:PORT or unix:/path",
				"route %s can't send a file to its target %u", s->name, i + 1);
	}
	return 0;
}

/* Where they are told as addresses: are they such that something can be sent to them, and from the
 * address that is asked for? */
static int check_addresses(const struct route_settings *s, struct reason *reason)
{
	bool source_fits = !s->source_set;

	for (uint32_t i = 0; i < s->n_targets; i++) {
		const struct endpoint *e = &s->targets[i].endpoint;
		bool inet = e->kind == ENDPOINT_TCP || e->kind == ENDPOINT_UDP;

		if (inet && e->port == 0)
			return reason_set(reason, -EINVAL, "write the target's port",
				"route %s: target %u has port 0", s->name, i + 1);
		if (inet && strcmp(e->name, "*") == 0)
			return reason_set(reason, -EINVAL, "write the target's address",
				"route %s: target %u is every address", s->name, i + 1);
		source_fits |=
			!inet || !e->numeric || e->address.sa.sa_family == s->source.sa.sa_family;
	}
	if (!source_fits)
		return reason_set(reason, -EINVAL, "write one of the targets' IP version",
			"route %s: source is an address of IPv%c, and no target is", s->name,
			s->source.sa.sa_family == AF_INET ? '4' : '6');
	return 0;
}

int route_check(const struct route_settings *s, struct reason *reason)
{
	int r;

	if (!s->listen_set)
		return reason_set(reason, -EINVAL, "add listen: tcp:ADDRESS:PORT",
			"route %s does not say where it listens", s->name);
	if (s->n_targets == 0)
		return reason_set(reason, -EINVAL, "add to: [tcp:HOST:PORT]",
			"route %s has no target", s->name);
	r = check_addresses(s, reason);
	if (r < 0)
		return r;
	if (s->listen.kind == ENDPOINT_UDP)
		return check_udp(s, reason);
	r = s->listen.kind == ENDPOINT_FILE ? check_source(s, reason) : 0;
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < s->n_targets; i++) {
		const struct endpoint *e = &s->targets[i].endpoint;

		if (e->kind == ENDPOINT_UDP || e->kind == ENDPOINT_FD)
			return reason_set(reason, -EINVAL,
				"a stream goes to tcp:HOST:PORT, unix:/path or file:/path",
				"route %s can't send to its target %u", s->name, i + 1);
	}
	if (s->proxy_accept && s->proxy_trust.n == 0)
		return reason_set(reason, -EINVAL,
			"add proxy_trust with the networks of your load balancers",
			"route %s accepts the proxy protocol and trusts nobody's", s->name);
	return 0;
}
