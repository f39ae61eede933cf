/* Changes a device for forwarding, and puts it back. */
#include "host/settings.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/ethtool.h"
#include "host/link.h"
#include "host/undo.h"

/*
 * What merges or strips frames on their way to us, by the names of ethtool -k
 * (net/ethtool/common.c, netdev_features_strings).
 *
 * - GRO comes after native XDP and before generic XDP, which then gets merged frames larger than
 *   the MTU; LRO and GRO in hardware merge before both (and virtio_net refuses native XDP while
 *   they are on).
 * - A VLAN tag that hardware took out of the frame is in the skb or the descriptor, where an
 *   AF_XDP socket doesn't see it: the frame would be forwarded without its tag. The filters
 *   drop frames of VLANs that this host doesn't have.
 *
 * What is not here because it isn't ours to set: the far end of a veth, often in another
 * namespace. While a native XDP program is attached at our end the kernel turns its TSO off
 * (veth_fix_features in drivers/net/veth.c); in generic mode it doesn't, and segments of up to
 * 64 KB arrive, which no slot holds (measured on 6.18: 1514 and 65226 bytes). Its partial
 * checksums are completed by culvert. The tags of its VLAN devices come beside the frame and are
 * lost in both modes until `ethtool -K FAR-END txvlan off`; rxvlan at our end changes nothing
 * there (measured). doctor says so.
 */
static const char *const merging[] = {"rx-gro", "rx-gro-hw", "rx-lro"};
static const char *const stripping[] = {"rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"};
static const char *const filters[] = {"rx-vlan-filter", "rx-vlan-stag-filter"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct host_settings {
	struct host_undo undo;
	int promiscuous_fd; /* -1: not asked for */
	char changes[256];
	char refused[256];
};

static void add_word(char *text, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void add_word(char *text, size_t size, const char *format, ...)
{
	size_t len = strlen(text);
	va_list args;

	if (len && len + 3 < size) {
		memcpy(text + len, ", ", 3);
		len += 2;
	}
	va_start(args, format);
	vsnprintf(text + len, size - len, format, args);
	va_end(args);
}

/* Which of names are on and can be turned off; on and fixed ones go into refused, unless that is
 * NULL. */
static void plan_features(const struct host_features *f, const char *const *names, size_t n,
	struct host_undo *u, char *refused, size_t refused_size)
{
	for (size_t i = 0; i < n; i++) {
		int idx = host_feature_find(f, names[i]);

		if (idx < 0)
			continue;
		if (host_feature_changeable(f, idx) && host_feature_requested(f, idx) &&
			u->n_features < HOST_UNDO_FEATURES_MAX)
			snprintf(u->features[u->n_features++], sizeof(u->features[0]), "%s",
				names[i]);
		else if (refused && host_feature_active(f, idx))
			add_word(refused, refused_size, "%s", names[i]);
	}
}

static int plan(const struct host_link *link, const struct host_settings_wanted *wanted,
	struct host_undo *u, char *refused, size_t refused_size, struct reason *r)
{
	struct host_features *f;
	int err;

	u->n_features = 0;
	u->brought_up = wanted->up && !link->up;
	f = calloc(1, sizeof(*f));
	if (!f)
		return reason_set(r, -ENOMEM, NULL, "no memory for the features of %s", link->name);
	err = host_ethtool_features(link->ifindex, f);
	/* A device without ethtool calls has no offloads to turn off. */
	if (err == -EOPNOTSUPP)
		err = 0;
	else if (err)
		reason_set(r, err, NULL, "can't read the offloads of %s: %s", link->name,
			strerror(-err));
	if (!err && wanted->gro_off)
		plan_features(f, merging, COUNT(merging), u, refused, refused_size);
	if (!err && wanted->vlan_off) {
		plan_features(f, stripping, COUNT(stripping), u, refused, refused_size);
		/* virtio_net's can't be turned off; a promiscuous device passes it by (virtio 1.2,
		 * 5.1.6.5.1). */
		plan_features(f, filters, COUNT(filters), u, wanted->promiscuous ? NULL : refused,
			refused_size);
	}
	free(f);
	return err;
}

/* Turns feature on or off if it isn't as asked. Returns 1 when it was changed. */
static int feature_turn(const struct host_features *f, uint32_t ifindex, const char *name, bool on)
{
	int idx = host_feature_find(f, name);
	int err;

	if (idx < 0 || !host_feature_changeable(f, idx) || host_feature_requested(f, idx) == on)
		return 0;
	err = host_ethtool_feature_set(ifindex, idx, on);
	return err ? err : 1;
}

/* Is link the interface of u? Its address may have been changed while we held it; then at least
 * its name must be the same. After a crash only the address counts: a new device may well have
 * the old one's name. */
static bool same_device(const struct host_undo *u, const struct host_link *link, bool held)
{
	if (link->ifindex != u->ifindex)
		return false;
	if (memcmp(link->mac, u->mac, sizeof(u->mac)) == 0)
		return true;
	return held && strcmp(link->name, u->name) == 0;
}

/* Turns on again what was turned off; goes on behind one that is refused, which *ret_failed names.
 * Returns the first error. */
static int turn_on(const struct host_undo *u, uint32_t ifindex, char *changes, size_t changes_size,
	const char **ret_failed)
{
	struct host_features *f;
	int err, first = 0;

	*ret_failed = u->features[0];
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	err = host_ethtool_features(ifindex, f);
	for (uint32_t i = 0; !err && i < u->n_features; i++) {
		int turned = feature_turn(f, ifindex, u->features[i], true);

		if (turned > 0)
			add_word(changes, changes_size, "%s on", u->features[i]);
		if (turned < 0 && !first) {
			first = turned;
			*ret_failed = u->features[i];
		}
	}
	free(f);
	return err ? err : first;
}

/* Undoes what u says, as far as it still is as we left it. changes gets what was done. */
static int put_back(const struct host_undo *u, const struct host_link *link, char *changes,
	size_t changes_size, struct reason *r)
{
	const char *failed = NULL;
	int err = 0, down = 0;

	if (u->n_features)
		err = turn_on(u, link->ifindex, changes, changes_size, &failed);
	if (u->brought_up && link->up && err != -ENODEV) {
		down = host_link_set_up(link->ifindex, false, r);
		if (!down)
			add_word(changes, changes_size, "down");
	}
	if (err == -ENODEV || down == -ENODEV)
		return 0; /* removed meanwhile: its settings went with it */
	if (err) {
		char remedy[256];

		snprintf(remedy, sizeof(remedy), "ethtool -K %s %s on", link->name, failed);
		return reason_set(r, err, remedy, "can't put back %s of %s: %s", failed, link->name,
			strerror(-err));
	}
	return down;
}

/* What an earlier process left for this device is put back before anything new is noted. */
static int settle_earlier(struct host_undo *u, const struct host_link *link, struct reason *r)
{
	struct host_undo earlier;
	char changes[256] = "";

	if (host_undo_read(u, &earlier))
		return 0;
	if (strcmp(earlier.boot, u->boot) != 0 || earlier.cookie != u->cookie ||
		!same_device(&earlier, link, false))
		return 0;
	return put_back(&earlier, link, changes, sizeof(changes), r);
}

static int go_promiscuous(const struct host_link *link, int *ret_fd, struct reason *r)
{
	struct packet_mreq mreq = {.mr_ifindex = (int)link->ifindex, .mr_type = PACKET_MR_PROMISC};
	int fd, err;

	/* Protocol 0: the socket receives nothing. */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return reason_set(r, -errno, "run as root, or with CAP_NET_RAW",
			"can't make %s promiscuous: %s", link->name, strerror(errno));
	if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &mreq, sizeof(mreq)) < 0) {
		err = -errno;
		close(fd);
		return reason_set(
			r, err, NULL, "can't make %s promiscuous: %s", link->name, strerror(-err));
	}
	*ret_fd = fd;
	return 0;
}

/* Notes what is still on although it was to be off. */
static void note_refused(struct host_settings *s, const struct host_features *f)
{
	for (uint32_t i = 0; i < s->undo.n_features; i++) {
		int idx = host_feature_find(f, s->undo.features[i]);

		if (idx >= 0 && host_feature_active(f, idx))
			add_word(s->refused, sizeof(s->refused), "%s", s->undo.features[i]);
		else
			add_word(s->changes, sizeof(s->changes), "%s off", s->undo.features[i]);
	}
}

static int turn_off(struct host_settings *s, const struct host_link *link, struct reason *r)
{
	struct host_features *f;
	int err;

	if (!s->undo.n_features)
		return 0;
	f = calloc(1, sizeof(*f));
	if (!f)
		return reason_set(r, -ENOMEM, NULL, "no memory for the features of %s", link->name);
	err = host_ethtool_features(link->ifindex, f);
	for (uint32_t i = 0; !err && i < s->undo.n_features; i++) {
		err = feature_turn(f, link->ifindex, s->undo.features[i], false);
		/* A driver that refuses one (EINVAL, EBUSY) is no reason to stop: it is told. */
		if (err != -EPERM && err != -ENODEV)
			err = 0;
	}
	if (!err)
		err = host_ethtool_features(link->ifindex, f);
	if (!err)
		note_refused(s, f);
	free(f);
	if (err)
		reason_set(r, err,
			err == -EPERM ? "run as root, or with CAP_NET_ADMIN; or turn them off "
					"before with ethtool -K"
				      : NULL,
			"can't turn off %s of %s: %s", s->undo.features[0], link->name,
			strerror(-err));
	return err;
}

static int apply(struct host_settings *s, const struct host_link *link,
	const struct host_settings_wanted *wanted, struct reason *r)
{
	int err;

	err = turn_off(s, link, r);
	if (!err && s->undo.brought_up) {
		err = host_link_set_up(link->ifindex, true, r);
		add_word(s->changes, sizeof(s->changes), "up");
	}
	if (!err && wanted->promiscuous) {
		err = go_promiscuous(link, &s->promiscuous_fd, r);
		add_word(s->changes, sizeof(s->changes), "promiscuous");
	}
	return err;
}

/* Locks the device's undo file. Where nothing has to be changed and the directory can't be
 * written, there is none. */
static int lock_device(struct host_undo *u, const char *dir, const struct host_link *link,
	const struct host_settings_wanted *wanted, struct reason *r)
{
	struct reason why;
	char refused[256] = "";
	int err, planned;

	err = host_undo_open(u, dir, true, &why);
	if (!err) {
		err = settle_earlier(u, link, r);
		if (err) /* the file stays for a later start */
			host_undo_close(u, false);
		return err;
	}
	if (err != -EBUSY) {
		planned = plan(link, wanted, u, refused, sizeof(refused), r);
		if (planned)
			return planned;
		if (!u->n_features && !u->brought_up)
			return 0;
	}
	return reason_set(r, err, why.remedy, "%s: %s", link->name, why.what);
}

int host_settings_take(const char *device, const struct host_settings_wanted *wanted,
	struct host_settings **ret_settings, struct reason *ret_reason)
{
	const char *dir = wanted->state_dir ? wanted->state_dir : HOST_STATE_DIR;
	struct host_settings *s;
	struct host_link link;
	int err;

	s = calloc(1, sizeof(*s));
	if (!s)
		return reason_set(ret_reason, -ENOMEM, NULL, "no memory for %.100s", device);
	s->promiscuous_fd = -1;
	err = host_undo_here(&s->undo, ret_reason);
	if (!err)
		err = host_link_get(device, &link, ret_reason);
	if (err)
		goto fail;
	s->undo.ifindex = link.ifindex;
	memcpy(s->undo.mac, link.mac, sizeof(link.mac));
	snprintf(s->undo.name, sizeof(s->undo.name), "%s", link.name);
	err = lock_device(&s->undo, dir, &link, wanted, ret_reason);
	if (!err) /* again: what an earlier process left may have been put back */
		err = host_link_get_index(s->undo.ifindex, &link, ret_reason);
	if (!err)
		err = plan(&link, wanted, &s->undo, s->refused, sizeof(s->refused), ret_reason);
	if (!err && s->undo.fd >= 0)
		err = host_undo_write(&s->undo, ret_reason);
	if (err)
		goto unlock;
	err = apply(s, &link, wanted, ret_reason);
	if (err) {
		host_settings_restore(s, NULL);
		return err;
	}
	*ret_settings = s;
	return 0;
unlock:
	host_undo_close(&s->undo, true);
fail:
	free(s);
	return err;
}

const char *host_settings_changes(const struct host_settings *s)
{
	return s->changes;
}

const char *host_settings_refused(const struct host_settings *s)
{
	return s->refused;
}

int host_settings_restore(struct host_settings *s, struct reason *ret_reason)
{
	char changes[256] = "";
	struct host_link link;
	int err;

	if (!s)
		return 0;
	if (s->promiscuous_fd >= 0)
		close(s->promiscuous_fd);
	err = host_link_get_index(s->undo.ifindex, &link, ret_reason);
	if (!err && same_device(&s->undo, &link, true))
		err = put_back(&s->undo, &link, changes, sizeof(changes), ret_reason);
	if (err == -ENODEV)
		err = 0; /* removed meanwhile, or moved to another namespace */
	host_undo_close(&s->undo, err == 0);
	free(s);
	return err;
}

/* Returns 1 when something was put back. */
static int recover_one(const struct host_undo *here, const char *state_dir, uint32_t ifindex,
	void (*each)(const char *line, void *data), void *data, struct reason *r)
{
	struct host_undo u = *here, earlier;
	char changes[256] = "", line[320];
	struct host_link link;
	int err;

	u.ifindex = ifindex;
	err = host_undo_open(&u, state_dir, false, r);
	if (err == -EBUSY || err == -ENOENT)
		return 0; /* a living culvert's, or its own undo came first */
	if (err)
		return err;
	err = host_undo_read(&u, &earlier);
	if (!err && strcmp(earlier.boot, here->boot) == 0 && earlier.cookie == here->cookie &&
		host_link_get_index(ifindex, &link, NULL) == 0 &&
		same_device(&earlier, &link, false))
		err = put_back(&earlier, &link, changes, sizeof(changes), r);
	if (err == -ENODATA)
		err = 0;
	host_undo_close(&u, err == 0);
	if (err || !changes[0])
		return err;
	snprintf(line, sizeof(line), "%s: put back %s", link.name, changes);
	if (each)
		each(line, data);
	return 1;
}

int host_settings_recover(const char *state_dir, void (*each)(const char *line, void *data),
	void *data, struct reason *ret_reason)
{
	const struct dirent *entry;
	struct host_undo here;
	int err, n = 0, failed = 0;
	DIR *dir;

	if (!state_dir)
		state_dir = HOST_STATE_DIR;
	err = host_undo_here(&here, ret_reason);
	if (err)
		return err;
	dir = opendir(state_dir);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return reason_set(ret_reason, -errno, NULL, "can't read %.200s: %s", state_dir,
			strerror(errno));
	while ((entry = readdir(dir))) {
		uint64_t netns;
		uint32_t ifindex;
		int end = 0;

		if (sscanf(entry->d_name, "undo-%" SCNu64 "-%" SCNu32 "%n", &netns, &ifindex,
			    &end) != 2 ||
			entry->d_name[end] != '\0' || netns != here.netns)
			continue;
		err = recover_one(&here, state_dir, ifindex, each, data, ret_reason);
		if (err < 0)
			failed = err;
		else
			n += err;
	}
	closedir(dir);
	return failed ? failed : n;
}

long host_settings_holder(uint32_t ifindex, const char *state_dir)
{
	struct host_undo u;

	if (host_undo_here(&u, NULL))
		return 0;
	u.ifindex = ifindex;
	return host_undo_owner(&u, state_dir ? state_dir : HOST_STATE_DIR);
}

int host_settings_preview(const char *device, const struct host_settings_wanted *wanted,
	char *ret_text, size_t size, struct reason *ret_reason)
{
	char refused[256] = "";
	struct host_undo u = {.fd = -1};
	struct host_link link;
	int err;

	ret_text[0] = '\0';
	err = host_link_get(device, &link, ret_reason);
	if (!err)
		err = plan(&link, wanted, &u, refused, sizeof(refused), ret_reason);
	if (err)
		return err;
	for (uint32_t i = 0; i < u.n_features; i++)
		add_word(ret_text, size, "%s off", u.features[i]);
	if (u.brought_up)
		add_word(ret_text, size, "up");
	if (refused[0])
		add_word(ret_text, size, "stays on although it should not: %s", refused);
	return 0;
}
