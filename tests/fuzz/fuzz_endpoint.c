/* Any text as an endpoint: what is taken is written out as text that means the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/reason.h"
#include "relay/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct endpoint e, again;
	char *text = malloc(size + 1), written[ENDPOINT_TEXT_SIZE];
	struct reason reason = {0};

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (endpoint_parse(text, &e, &reason) == 0) {
		endpoint_format(&e, written, sizeof(written));
		if (endpoint_parse(written, &again, NULL) < 0 || e.kind != again.kind ||
			e.port != again.port || e.append != again.append ||
			e.numeric != again.numeric || strcmp(e.name, again.name) != 0)
			abort();
	} else if (!reason.what[0]) {
		abort();
	}
	free(text);
	return 0;
}
