/* The names of the reasons for which frames are dropped. */
#include "frame/drop.h"

static const char *const names[] = {
#define X(id, name, text) name,
	DROP_REASONS(X)
#undef X
};

static const char *const texts[] = {
#define X(id, name, text) text,
	DROP_REASONS(X)
#undef X
};

const char *drop_reason_name(enum drop_reason reason)
{
	return names[reason];
}

const char *drop_reason_text(enum drop_reason reason)
{
	return texts[reason];
}
