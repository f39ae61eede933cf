/* What the control socket and the metrics page answer. Inside control/ only. */
#pragma once

struct daemon;
struct reason;

/* Opens the control socket and the HTTP port that the configuration names. */
int requests_open(struct daemon *d, struct reason *r);
void requests_close(struct daemon *d);
