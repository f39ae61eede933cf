/* What is told of a finished connection: counters, and the line in the access log. */
#include <stdio.h>
#include <time.h>

#include "relay/access_log.h"
#include "relay/flow.h"

static const char *how_text(unsigned int how)
{
	if (how == FLOW_END_DONE)
		return "done";
	if (how == FLOW_END_CUT)
		return "cut";
	return relay_error_name((enum relay_error)(how - FLOW_END_ERROR));
}

static const char *engine_text(const struct ending *e)
{
	if (e->used & USED_SENDFILE)
		return "sendfile";
	if (e->used == (USED_SPLICE | USED_COPY))
		return "splice+copy";
	if (e->used == USED_SPLICE)
		return "splice";
	return e->used ? "copy" : "none";
}

static void write_line(const struct ending *e, unsigned int how)
{
	char line[2 * ENDPOINT_TEXT_SIZE + 512], client[ENDPOINT_TEXT_SIZE],
		target[ENDPOINT_TEXT_SIZE], when[32];
	struct timespec now;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	if (e->client)
		address_format(e->client, client, sizeof(client));
	else
		endpoint_format(&e->route->s.listen, client, sizeof(client));
	if (e->target)
		endpoint_format(&e->target->settings->endpoint, target, sizeof(target));
	else
		snprintf(target, sizeof(target), "none");
	n = snprintf(line, sizeof(line),
		"time=%s.%03ldZ route=%s client=%s target=%s bytes_in=%llu bytes_out=%llu "
		"engine=%s duration_ms=%llu attempts=%u end=%s\n",
		when, now.tv_nsec / 1000000, e->route->s.name, client, target,
		(unsigned long long)e->bytes[0], (unsigned long long)e->bytes[1], engine_text(e),
		(unsigned long long)(e->duration_ns / 1000000), e->attempts, how_text(how));
	if (n > 0 && (size_t)n < sizeof(line))
		access_log_line(e->route->log, line, (size_t)n);
}

void ending_tell(const struct ending *e, struct counters *counters, unsigned int how)
{
	if (how == FLOW_END_CUT)
		counter_add(&counters->cut, 1);
	else if (how >= FLOW_END_ERROR && how < FLOW_END_CUT)
		counter_add(&counters->errors[how - FLOW_END_ERROR], 1);
	if (e->route->log)
		write_line(e, how);
}
