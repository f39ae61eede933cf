/* What is told of a finished connection: counters, and the entry in the access log. */
#include <assert.h>
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
	if (how == FLOW_END_REFUSED)
		return "refused";
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

/* A path may have any byte but zero. */
static void in_one_line(char *text)
{
	for (; *text; text++)
		*text = *text == '\n' ? '?' : *text;
}

static void write_entry(const struct ending *e, unsigned int how)
{
	static const char format[] = "route=%s client=%s target=%s bytes_in=%llu bytes_out=%llu "
				     "engine=%s duration_ms=%llu attempts=%u end=%s\n";
	/* In the journal the time is the entry's own. */
	static const char fields[] =
		"CULVERT_ROUTE=%s\nCULVERT_CLIENT=%s\nCULVERT_TARGET=%s\nCULVERT_BYTES_IN=%llu\n"
		"CULVERT_BYTES_OUT=%llu\nCULVERT_ENGINE=%s\nCULVERT_DURATION_MS=%llu\n"
		"CULVERT_ATTEMPTS=%u\nCULVERT_END=%s\n\n";
	char client[ENDPOINT_TEXT_SIZE], target[ENDPOINT_TEXT_SIZE], route[64];
	char entry[4 * ENDPOINT_TEXT_SIZE + 1024];
	bool journal = access_log_is_journal(e->route->log);
	struct timespec now;
	struct tm tm;
	size_t n;

	if (e->client)
		address_format(e->client, client, sizeof(client));
	else
		endpoint_format(&e->route->s.listen, client, sizeof(client));
	if (e->target)
		endpoint_format(&e->target->settings->endpoint, target, sizeof(target));
	else
		snprintf(target, sizeof(target), "none");
	snprintf(route, sizeof(route), "%s", e->route->s.name);
	in_one_line(client);
	in_one_line(target);
	in_one_line(route);
	if (journal) {
		n = (size_t)snprintf(
			entry, sizeof(entry), "SYSLOG_IDENTIFIER=culvert\nPRIORITY=6\nMESSAGE=");
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &tm);
		n = strftime(entry, sizeof(entry), "time=%Y-%m-%dT%H:%M:%S", &tm);
		n += (size_t)snprintf(
			entry + n, sizeof(entry) - n, ".%03ldZ ", now.tv_nsec / 1000000);
	}
	for (int i = 0; i <= journal; i++)
		n += (size_t)snprintf(entry + n, sizeof(entry) - n, i ? fields : format, route,
			client, target, (unsigned long long)e->bytes[0],
			(unsigned long long)e->bytes[1], engine_text(e),
			(unsigned long long)(e->duration_ns / 1000000), e->attempts, how_text(how));
	assert(n < sizeof(entry));
	access_log_write(e->route->log, entry, n);
}

void ending_tell(const struct ending *e, struct counters *counters, unsigned int how)
{
	if (how == FLOW_END_CUT)
		counter_add(&counters->cut, 1);
	else if (how == FLOW_END_REFUSED)
		counter_add(&counters->refused, 1);
	else if (how >= FLOW_END_ERROR && how < FLOW_END_CUT)
		counter_add(&counters->errors[how - FLOW_END_ERROR], 1);
	if (e->route->log)
		write_entry(e, how);
}
