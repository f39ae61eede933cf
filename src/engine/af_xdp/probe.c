/* What open would get and why, by asking and trying, with nothing changed on the host. */
#include <errno.h>
#include <linux/if_link.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/af_xdp/explain.h"
#include "engine/af_xdp/internal.h"

/* The slot that control makes unless told otherwise, bytes. */
#define SLOT_SIZE 4096

/* May this process make the sockets and load the program? */
static int try_rights(struct reason *r)
{
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return explain_socket(-errno, r);
	close(fd);
	return xdp_program_try(r);
}

/* The best mode the driver has, and why not a better one. Kernels that can't be asked (before 6.3)
 * leave it to the table of quirks. */
static enum port_mode best_mode(const struct device *d, struct reason *r)
{
	const struct quirk *quirk = quirk_of(d->driver);
	uint64_t features;
	bool native = quirk->mtu_native || quirk->zero_copy;
	bool zero_copy = quirk->zero_copy && !quirk_zero_copy_is_later(d);
	bool frags = false;

	if (device_xdp_features(d->ifindex, &features) == 0) {
		native = (features & XDP_FEATURES_FORWARD) == XDP_FEATURES_FORWARD;
		zero_copy = native && (features & XDP_FEATURE_ZERO_COPY);
		frags = (features & XDP_FEATURE_RX_FRAGS) && !quirk->long_from_peer;
	}
	if (!native) {
		explain_attach(-EOPNOTSUPP, d, XDP_FLAGS_DRV_MODE, NULL, r);
		return PORT_MODE_SKB;
	}
	if (quirk->mtu_native && d->mtu > quirk->mtu_native && !frags) {
		explain_attach(-ERANGE, d, XDP_FLAGS_DRV_MODE, NULL, r);
		return PORT_MODE_SKB;
	}
	if (zero_copy)
		return PORT_MODE_ZERO_COPY;
	explain_no_zero_copy(d, r);
	return PORT_MODE_COPY;
}

int xdp_probe(const struct port_settings *s, enum port_mode *ret_mode, struct reason *ret_reason)
{
	struct reason r = {0};
	struct xdp_holder holder;
	enum port_mode best;
	struct device d;
	int err;

	if ((err = device_read(s->device, &d, &r)) || (err = xdp_check(s, &d, SLOT_SIZE, &r)) ||
		(err = try_rights(&r)))
		goto out;
	if (!s->released && xdp_program_holder(&d, &holder)) {
		err = explain_attach(-EBUSY, &d, 0, &holder, &r);
		goto out;
	}
	best = best_mode(&d, &r);
	if (best < s->require || (s->mode != PORT_MODE_AUTO && best < s->mode)) {
		err = -EOPNOTSUPP;
		goto out;
	}
	if (s->mode != PORT_MODE_AUTO && s->mode != best) {
		best = s->mode;
		explain_as_asked(best, &r);
	}
	*ret_mode = best;
out:
	if (ret_reason)
		*ret_reason = r;
	return err;
}
