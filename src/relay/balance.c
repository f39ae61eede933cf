/* Chooses the target of a connection. */
#include <assert.h>
#include <string.h>

#include "relay/live.h"
#include "relay/resolve.h"

/* splitmix64's finalizer: every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static uint64_t hash_host(const struct sockaddr *client)
{
	const struct sockaddr_in *in = (const void *)client;
	const struct sockaddr_in6 *in6 = (const void *)client;
	uint64_t high = 0, low = 0;

	if (client->sa_family == AF_INET) {
		low = in->sin_addr.s_addr;
	} else if (client->sa_family == AF_INET6) {
		memcpy(&high, in6->sin6_addr.s6_addr, 8);
		memcpy(&low, in6->sin6_addr.s6_addr + 8, 8);
	}
	return mix(high + mix(low + 0x9e3779b97f4a7c15ULL));
}

/* The targets that may be chosen, a bit each: those that are up, else backups that are up, else
 * (a wrong probe must not close the route) any. */
static uint32_t eligible(const struct route *route, uint32_t tried)
{
	uint32_t main_up = 0, backup_up = 0, main_any = 0, backup_any = 0;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		const struct target *t = &route->targets[i];
		uint32_t bit = 1U << i;
		bool up = !atomic_load_explicit(&t->down, memory_order_relaxed);

		if (tried & bit)
			continue;
		if (t->settings->backup) {
			backup_any |= bit;
			backup_up |= up ? bit : 0;
		} else {
			main_any |= bit;
			main_up |= up ? bit : 0;
		}
	}
	return main_up ? main_up : backup_up ? backup_up : main_any ? main_any : backup_any;
}

/* Weighted and interleaved: turns are dealt to each target in even distances. */
static uint32_t by_turn(struct route *route, uint32_t set)
{
	uint32_t turn = atomic_fetch_add_explicit(&route->turn, 1, memory_order_relaxed);
	uint32_t total = 0, best = 0, best_at = UINT32_MAX;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		if (set & 1U << i)
			total += route->targets[i].settings->weight;
	}
	/* Target i is due at the turns k of `total` where k * weight wraps past total; the
	 * one with the earliest of the open dues is taken. Walk the schedule of one round. */
	assert(total > 0); /* set is not empty, and no weight is 0 */
	turn %= total;
	for (uint32_t given[ROUTE_TARGETS_MAX] = {0}, k = 0; k <= turn; k++) {
		best_at = UINT32_MAX;
		for (uint32_t i = 0; i < route->s.n_targets; i++) {
			uint32_t weight, at;

			if (!(set & 1U << i))
				continue;
			weight = route->targets[i].settings->weight;
			assert(weight > 0);
			if (given[i] == weight)
				continue;
			at = (2 * given[i] + 1) * 4096 / weight;
			if (at < best_at) {
				best_at = at;
				best = i;
			}
		}
		given[best]++;
	}
	return best;
}

static uint32_t by_load(const struct route *route, uint32_t set)
{
	uint64_t best_load = UINT64_MAX;
	uint32_t best = 0;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		const struct target *t = &route->targets[i];
		uint64_t load;

		if (!(set & 1U << i))
			continue;
		/* +1: where loads are equal the heavier target is the emptier one */
		load = (atomic_load_explicit(&t->active, memory_order_relaxed) + 1ULL) * 65536 /
		       t->settings->weight;
		if (load < best_load) {
			best_load = load;
			best = i;
		}
	}
	return best;
}

/* Highest random weight: a target that goes moves only its own clients. A target of weight w
 * takes part w times. */
static uint32_t by_source(const struct route *route, uint32_t set, const struct sockaddr *client)
{
	uint64_t host = hash_host(client), highest = 0;
	uint32_t best = 0;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		if (!(set & 1U << i))
			continue;
		for (uint32_t k = 0; k < route->targets[i].settings->weight; k++) {
			uint64_t h = mix(host + (i + 1) * 0x9e3779b97f4a7c15ULL + mix(k + 1));

			if (h >= highest) {
				highest = h;
				best = i;
			}
		}
	}
	return best;
}

struct target *balance_pick(struct route *route, const struct sockaddr *client, uint32_t tried)
{
	uint32_t set = eligible(route, tried), idx;

	if (!set)
		return NULL;
	if (!(set & (set - 1))) /* only one */
		idx = (uint32_t)__builtin_ctz(set);
	else if (route->s.balance == ROUTE_LEAST_CONNECTIONS)
		idx = by_load(route, set);
	else if (route->s.balance == ROUTE_SOURCE_HASH)
		idx = by_source(route, set, client);
	else
		idx = by_turn(route, set);
	return &route->targets[idx];
}

uint32_t balance_names_left(const struct route *route)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		if (route->targets[i].name && name_has_more(route->targets[i].name))
			left |= 1U << i;
	}
	return left;
}
