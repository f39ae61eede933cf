/* Why something could not be had, in words for the operator. */
#include "base/reason.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *reason_remedy(int err, const char *otherwise)
{
	switch (err) {
	case -EMFILE:
		return "allow more descriptors: LimitNOFILE= in the unit, `ulimit -n` in a shell";
	case -ENFILE: return "allow the machine more open files: sysctl fs.file-max";
	default: return otherwise;
	}
}

int reason_set(struct reason *r, int err, const char *remedy, const char *format, ...)
{
	va_list args;

	if (!r)
		return err;
	va_start(args, format);
	vsnprintf(r->what, sizeof(r->what), format, args);
	va_end(args);
	snprintf(r->remedy, sizeof(r->remedy), "%s", remedy ? remedy : "");
	return err;
}
