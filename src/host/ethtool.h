/* The ethtool ioctls that host/ needs, by ifindex. Inside host/ only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <linux/ethtool.h>

/* 32 * HOST_FEATURE_BLOCKS: more features than any kernel has (6.18: 70). */
#define HOST_FEATURE_BLOCKS 8

struct host_features {
	uint32_t n_blocks;
	struct ethtool_get_features_block blocks[HOST_FEATURE_BLOCKS];
	uint32_t n_names;
	char names[32 * HOST_FEATURE_BLOCKS][ETH_GSTRING_LEN];
};

/* 0 or -errno: -EOPNOTSUPP where the device has no ethtool calls. */
int host_ethtool_driver(uint32_t ifindex, struct ethtool_drvinfo *ret_info);
int host_ethtool_channels(uint32_t ifindex, struct ethtool_channels *ret_channels);
/* The features by their names, as `ethtool -k` shows them. */
int host_ethtool_features(uint32_t ifindex, struct host_features *ret_features);
/* Index of a feature, or -1. */
int host_feature_find(const struct host_features *f, const char *name);
bool host_feature_active(const struct host_features *f, int idx);
/* What was asked for, which may differ from what is: a driver may not grant it now. */
bool host_feature_requested(const struct host_features *f, int idx);
bool host_feature_changeable(const struct host_features *f, int idx);
/* Asks for one feature on or off, which also decides others that depend on it. */
int host_ethtool_feature_set(uint32_t ifindex, int idx, bool on);
