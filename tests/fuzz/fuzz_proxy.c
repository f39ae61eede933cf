/* Any bytes as the start of a connection: a header is read within its bytes, and one that is
 * built from what was read says the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "relay/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_info info, again;
	uint8_t bytes[PROXY_BUILD_MAX];
	int n = proxy_parse(data, size, &info);

	if (n <= 0)
		return 0;
	if ((size_t)n > size || n > PROXY_SIZE_MAX)
		abort();
	for (unsigned int version = 1; version <= 2; version++) {
		size_t built = proxy_build(version, &info, bytes);

		if (built > sizeof(bytes) || proxy_parse(bytes, built, &again) != (int)built)
			abort();
		if (again.known && again.source.in.sin_port != info.source.in.sin_port)
			abort();
	}
	return 0;
}
