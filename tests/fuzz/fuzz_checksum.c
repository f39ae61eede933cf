/* Any bytes as a frame: nothing outside it is touched, and doing it twice does nothing more. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frame/checksum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t changed = 0;
	uint8_t *frame;
	bool done;

	if (size > 4096)
		return 0;
	frame = malloc(size ? size : 1);
	if (!frame)
		return 0;
	memcpy(frame, data, size);
	done = checksum_complete(frame, (uint32_t)size);
	for (size_t i = 0; i < size; i++)
		changed += frame[i] != data[i];
	if (changed > 2 || (changed > 0 && !done))
		abort();
	if (done && checksum_complete(frame, (uint32_t)size))
		abort();
	free(frame);
	return 0;
}
