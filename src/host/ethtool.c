/* Speaks SIOCETHTOOL for one device. */
#include "host/ethtool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The ioctl goes by name; a rename between the two calls gives -ENODEV, never another device,
 * unless the old name is given to a new one in that very moment. */
static int ethtool(uint32_t ifindex, void *command)
{
	struct ifreq ifr = {.ifr_ifindex = (int)ifindex};
	int fd, err = 0;

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, SIOCGIFNAME, &ifr) < 0) {
		err = -errno;
	} else {
		ifr.ifr_data = command;
		if (ioctl(fd, SIOCETHTOOL, &ifr) < 0)
			err = -errno;
	}
	close(fd);
	return err;
}

int host_ethtool_driver(uint32_t ifindex, struct ethtool_drvinfo *ret_info)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	int err;

	err = ethtool(ifindex, &info);
	if (!err)
		*ret_info = info;
	return err;
}

int host_ethtool_channels(uint32_t ifindex, struct ethtool_channels *ret_channels)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	int err;

	err = ethtool(ifindex, &channels);
	if (!err)
		*ret_channels = channels;
	return err;
}

static int feature_count(uint32_t ifindex, uint32_t *ret_n)
{
	union {
		struct ethtool_sset_info head;
		uint32_t words[sizeof(struct ethtool_sset_info) / sizeof(uint32_t) + 1];
	} info = {.words = {0}};
	int err;

	info.head.cmd = ETHTOOL_GSSET_INFO;
	info.head.sset_mask = 1ULL << ETH_SS_FEATURES;
	err = ethtool(ifindex, &info);
	if (err)
		return err;
	if (!info.head.sset_mask)
		return -EOPNOTSUPP;
	*ret_n = info.head.data[0];
	return 0;
}

static int feature_names(uint32_t ifindex, struct host_features *f)
{
	struct ethtool_gstrings *strings;
	int err;

	strings = calloc(1, sizeof(*strings) + (size_t)f->n_names * ETH_GSTRING_LEN);
	if (!strings)
		return -ENOMEM;
	strings->cmd = ETHTOOL_GSTRINGS;
	strings->string_set = ETH_SS_FEATURES;
	strings->len = f->n_names;
	err = ethtool(ifindex, strings);
	for (uint32_t i = 0; !err && i < f->n_names; i++) {
		memcpy(f->names[i], strings->data + (size_t)i * ETH_GSTRING_LEN, ETH_GSTRING_LEN);
		f->names[i][ETH_GSTRING_LEN - 1] = '\0';
	}
	free(strings);
	return err;
}

int host_ethtool_features(uint32_t ifindex, struct host_features *ret_features)
{
	union {
		struct ethtool_gfeatures head;
		uint8_t room[sizeof(struct ethtool_gfeatures) +
			     HOST_FEATURE_BLOCKS * sizeof(struct ethtool_get_features_block)];
	} get = {.room = {0}};
	int err;

	get.head.cmd = ETHTOOL_GFEATURES;
	memset(ret_features, 0, sizeof(*ret_features));
	err = feature_count(ifindex, &ret_features->n_names);
	if (err)
		return err;
	if (ret_features->n_names > 32 * HOST_FEATURE_BLOCKS)
		return -E2BIG;
	err = feature_names(ifindex, ret_features);
	if (err)
		return err;
	ret_features->n_blocks = (ret_features->n_names + 31) / 32;
	get.head.size = ret_features->n_blocks;
	err = ethtool(ifindex, &get);
	if (!err)
		memcpy(ret_features->blocks, get.head.features,
			ret_features->n_blocks * sizeof(get.head.features[0]));
	return err;
}

int host_feature_find(const struct host_features *f, const char *name)
{
	for (uint32_t i = 0; i < f->n_names; i++)
		if (strcmp(f->names[i], name) == 0)
			return (int)i;
	return -1;
}

static bool bit(uint32_t word, int idx)
{
	return word >> (idx % 32) & 1;
}

bool host_feature_active(const struct host_features *f, int idx)
{
	return bit(f->blocks[idx / 32].active, idx);
}

bool host_feature_requested(const struct host_features *f, int idx)
{
	return bit(f->blocks[idx / 32].requested, idx);
}

bool host_feature_changeable(const struct host_features *f, int idx)
{
	const struct ethtool_get_features_block *b = &f->blocks[idx / 32];

	return bit(b->available, idx) && !bit(b->never_changed, idx);
}

int host_ethtool_feature_set(uint32_t ifindex, int idx, bool on)
{
	union {
		struct ethtool_sfeatures head;
		uint8_t room[sizeof(struct ethtool_sfeatures) +
			     HOST_FEATURE_BLOCKS * sizeof(struct ethtool_set_features_block)];
	} set = {.room = {0}};
	uint32_t n;
	int err;

	set.head.cmd = ETHTOOL_SFEATURES;
	/* The kernel wants exactly as many blocks as it has. */
	err = feature_count(ifindex, &n);
	if (err)
		return err;
	if (n > 32 * HOST_FEATURE_BLOCKS || (uint32_t)idx >= n)
		return -E2BIG;
	set.head.size = (n + 31) / 32;
	set.head.features[idx / 32].valid = 1U << (idx % 32);
	set.head.features[idx / 32].requested = on ? 1U << (idx % 32) : 0;
	return ethtool(ifindex, &set);
}
