/* "dpdk:ARGS" read, checked against the machine, and plugged into EAL. */
#include "engine/dpdk/device.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/dpdk/arguments.h"
#include "engine/dpdk/eal.h"
#include "engine/dpdk/peer.h"

#define PREFIX "dpdk:"

/* "03:00.0" or "0000:03:00.0"; writes it with its domain. */
static bool pci_address(const char *text, char *ret, size_t size)
{
	unsigned int domain = 0, bus, device, function;
	int end = 0;

	if (sscanf(text, "%x:%x:%x.%u%n", &domain, &bus, &device, &function, &end) != 4 ||
		text[end]) {
		domain = 0;
		end = 0;
		if (sscanf(text, "%x:%x.%u%n", &bus, &device, &function, &end) != 3 || text[end])
			return false;
	}
	snprintf(ret, size, "%04x:%02x:%02x.%u", domain, bus, device, function);
	return true;
}

/* The number behind "KEY=" in ",key=value" arguments; 0: not there, -EINVAL: no number. */
static int number_of(const char *value, uint32_t *ret)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (end == value || *end || n == 0 || n > 1u << 20)
		return -EINVAL;
	*ret = (uint32_t)n;
	return 0;
}

/* Does word begin with one of the names drivers have for their number of queues? Its value, or
 * NULL. */
static const char *queues_in(const char *word)
{
	static const char *const names[] = {"qpairs=", "queues=", "queue_count=", NULL};

	for (int i = 0; names[i]; i++) {
		if (strncmp(word, names[i], strlen(names[i])) == 0)
			return word + strlen(names[i]);
	}
	return NULL;
}

static bool starts(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int argument_parse(struct dpdk_device *d, const char *word, struct reason *r)
{
	size_t at = strlen(d->devargs);
	int err;

	if (!*word)
		return 0; /* a comma too many */
	if (strncmp(word, "mtu=", 4) == 0) {
		if (number_of(word + 4, &d->mtu) == 0)
			return 0;
		return reason_set(r, -EINVAL, "write mtu=9000", "%s: %s is no MTU", d->name, word);
	}
	err = argument_check(d->name, word, r);
	if (err)
		return err;
	if (strncmp(word, "framesz=", 8) == 0 && number_of(word + 8, &d->frame_size) < 0)
		return reason_set(
			r, -EINVAL, "write framesz=2048", "%s: %s is no size", d->name, word);
	if (queues_in(word) && number_of(queues_in(word), &d->queues) < 0)
		return reason_set(r, -EINVAL, NULL, "%s: %s is no number of queues", d->name, word);
	if (strncmp(word, "iface=", 6) == 0)
		snprintf(d->iface, sizeof(d->iface), "%s", word + 6);
	if (starts(d->name, "net_memif") && queues_in(word))
		return 0; /* ours: its driver makes as many as it is configured with */
	snprintf(d->devargs + at, sizeof(d->devargs) - at, ",%s", word);
	return 0;
}

static bool is_on_netdev(const struct dpdk_device *d)
{
	return starts(d->name, "net_af_packet") || starts(d->name, "net_af_xdp") ||
	       (starts(d->name, "net_pcap") && d->iface[0]);
}

/* Unless their arguments say more. */
static bool has_one_queue(const struct dpdk_device *d)
{
	return !d->pci && !starts(d->name, "net_null") && !starts(d->name, "net_tap");
}

static int arguments_parse(struct dpdk_device *d, const char *text, struct reason *r)
{
	char words[256], *rest = words, *word;
	int err = 0;

	if (strlen(text) >= sizeof(words))
		return reason_set(r, -EINVAL, NULL, "a device name of %zu characters is too long",
			strlen(text));
	snprintf(words, sizeof(words), "%s", text);
	word = strsep(&rest, ",");
	d->pci = pci_address(word, d->name, sizeof(d->name));
	if (word[strcspn(word, "= ")])
		return reason_set(r, -EINVAL,
			"write dpdk:net_null0,size=64: a comma after the name",
			"\"%s\" is no name of a device", word);
	if (!d->pci && strlen(word) >= sizeof(d->name))
		return reason_set(r, -EINVAL, NULL, "the device name %s is too long", word);
	if (!d->pci)
		snprintf(d->name, sizeof(d->name), "%.63s", word);
	snprintf(d->devargs, sizeof(d->devargs), "%s", d->name);
	while (!err && (word = strsep(&rest, ",")))
		err = argument_parse(d, word, r);
	if (!d->queues && has_one_queue(d))
		d->queues = 1;
	if (!is_on_netdev(d))
		d->iface[0] = '\0'; /* net_tap's is one it makes */
	return err;
}

/* Kernel drivers through which DPDK reaches a PCI device; mlx and mana stay with the kernel's. */
static bool is_reachable(const char *driver)
{
	static const char *const names[] = {
		"vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core", "mana", NULL};

	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], driver) == 0)
			return true;
	}
	return false;
}

/* Class 02 of PCI, Ethernet and InfiniBand among it; true where the kernel does not tell. */
static bool is_network(const struct dpdk_device *d)
{
	unsigned int class = 0x020000;
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/class", d->name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%x", &class) != 1)
		class = 0x020000;
	if (f)
		fclose(f);
	return class >> 16 == 2;
}

static int pci_check(const struct dpdk_device *d, struct reason *r)
{
	char path[160], target[256], remedy[160];
	const char *driver = "";
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", d->name);
	if (access(path, F_OK) < 0)
		return reason_set(r, -ENODEV, "`lspci -D` lists what there is",
			"there is no PCI device %s", d->name);
	/* Whoever binds it by mistake may lose a disk. */
	if (!is_network(d))
		return reason_set(r, -EINVAL, "`culvert doctor` lists the network devices",
			"PCI device %s is no network device", d->name);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", d->name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n > 0) {
		target[n] = '\0';
		driver = strrchr(target, '/') ? strrchr(target, '/') + 1 : target;
	}
	if (!is_reachable(driver)) {
		snprintf(remedy, sizeof(remedy),
			"`culvert doctor` says what would be lost; then: dpdk-devbind.py "
			"--bind=vfio-pci %s",
			d->name);
		return reason_set(r, -EBUSY, remedy, "PCI device %s belongs to %s%s, not to DPDK",
			d->name, *driver ? "the kernel's driver " : "no driver", driver);
	}
	if (strcmp(driver, "vfio-pci") == 0 && access("/dev/vfio/vfio", R_OK | W_OK) < 0)
		return reason_set(r, errno == EACCES ? -EACCES : -ENODEV,
			"modprobe vfio-pci, and rights to /dev/vfio",
			"PCI device %s is bound to vfio-pci, but /dev/vfio/vfio: %s", d->name,
			strerror(errno));
	return 0;
}

static int vdev_check(struct dpdk_device *d, struct reason *r)
{
	if (!starts(d->name, "net_"))
		return reason_set(r, -EINVAL,
			"write dpdk:0000:03:00.0 (`lspci -D`), or a virtual device such as "
			"dpdk:net_af_packet0,iface=eth0",
			"\"%s\" is neither a PCI address nor a virtual device of DPDK", d->name);
	if (starts(d->name, "net_vhost") && !strstr(d->devargs, ",iface="))
		return reason_set(r, -EINVAL, "write dpdk:net_vhost0,iface=/run/vhost.sock",
			"%s needs iface=, the socket where it listens", d->name);
	if (!is_on_netdev(d))
		return 0;
	if (!d->iface[0])
		return reason_set(r, -EINVAL, "write dpdk:net_af_packet0,iface=eth0",
			"%s needs iface=, the network device it is for", d->name);
	if (if_nametoindex(d->iface) == 0)
		return reason_set(r, -ENODEV, "`ip link` lists the devices of this namespace",
			"there is no network device %s here", d->iface);
	if (starts(d->name, "net_af_packet") && !d->frame_size)
		d->frame_size = 2048; /* its default (rte_eth_af_packet.c, DFLT_FRAME_SIZE) */
	return 0;
}

int device_parse(const char *device, struct dpdk_device *ret_device, struct reason *r)
{
	struct dpdk_device d = {0};
	int err = arguments_parse(&d, device + strlen(PREFIX), r);

	if (!err)
		err = d.pci ? pci_check(&d, r) : vdev_check(&d, r);
	if (!err)
		err = peer_parse(&d, r);
	if (!err)
		err = peer_check(&d, r);
	if (!err)
		*ret_device = d;
	return err;
}

int device_describe(const char *device, char ret_netdev[16], uint32_t *ret_queues, struct reason *r)
{
	struct dpdk_device d = {0};
	int err = arguments_parse(&d, device + strlen(PREFIX), r);

	if (err)
		return err;
	snprintf(ret_netdev, 16, "%s", d.iface);
	*ret_queues = d.queues;
	return 0;
}

int device_numa_node(const char *device)
{
	struct dpdk_device d = {0};
	char path[160], text[16] = "";
	int fd;

	if (arguments_parse(&d, device + strlen(PREFIX), NULL) < 0 || !d.pci)
		return -1;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", d.name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (read(fd, text, sizeof(text) - 1) <= 0)
		snprintf(text, sizeof(text), "-1");
	close(fd);
	return (int)strtol(text, NULL, 10);
}

/* Names of PCI devices are the same in EAL and in ours; -ENODEV: not plugged in. */
static int find(const char *name, uint16_t *ret_port_id)
{
	struct rte_eth_dev_info info;

	for (uint16_t id = 0; id < RTE_MAX_ETHPORTS; id++) {
		if (!rte_eth_dev_is_valid_port(id) || rte_eth_dev_info_get(id, &info) != 0)
			continue;
		if (info.device && strcmp(rte_dev_name(info.device), name) == 0) {
			*ret_port_id = id;
			return 0;
		}
	}
	return -ENODEV;
}

/* EAL's own last words say nothing; what the driver said before is better. */
static const char *cause_of(const char *said)
{
	if (!*said || strstr(said, "Driver cannot attach the device"))
		return "its driver refuses these arguments";
	return strncmp(said, "EAL: ", 5) == 0 ? said + 5 : said;
}

const char *device_remedy(const struct dpdk_device *d, const char *said)
{
	if (d->pci)
		return "`culvert doctor` says how it can be bound (IOMMU, vfio, huge pages)";
	if (strstr(said, "failed to parse device"))
		return "DPDK has no such driver; write one of " ARGUMENTS_DRIVERS;
	if (strstr(said, "ddress already in use"))
		return "stop the program that has that socket, or remove what a dead one left";
	if (strstr(said, "No such file") || strstr(said, "socket directory") ||
		strstr(said, "for writing"))
		return "does that file, or the directory for it, exist?";
	if (strstr(said, "TUNSETIFF"))
		return "is another device called so already (`ip link`)? Take another iface=";
	if (strstr(said, "/dev/net/tun"))
		return "`modprobe tun`";
	if (starts(d->name, "net_af_packet") && strstr(said, "_RING"))
		return "blocksz= is a multiple of the page, framesz= of 16 and a part of blocksz=";
	if (starts(d->name, "net_af_packet") && strstr(said, "FANOUT"))
		return "a smaller qpairs=";
	if (starts(d->name, "net_af_xdp"))
		return "take culvert's own AF_XDP: write the network device alone, device: eth0";
	if (d->peer[0] && (strstr(said, "onnect") || strstr(said, "sock")))
		return "is the other end running, and is its socket's path right?";
	return "are the driver's name and arguments right? `--log debug` shows what it says";
}

/* errno is only in their words. */
static bool is_not_permitted(int err, const char *said)
{
	return err == -EACCES || strstr(said, "not permitted") || strstr(said, "ermission denied");
}

int device_error(int err, const char *said)
{
	if (is_not_permitted(err, said))
		return -EPERM;
	return err == -EPERM ? -EIO : err;
}

int device_plug(const struct dpdk_device *d, uint16_t *ret_port_id, struct reason *r)
{
	const char *said;
	int err;

	if (find(d->name, ret_port_id) == 0)
		return reason_set(r, -EBUSY,
			"give each port a name of its own: net_null0, net_null1",
			"DPDK device %s is in use by another port", d->name);
	err = peer_take_socket(d, r);
	if (err)
		return err;
	eal_listen();
	err = rte_dev_probe(d->devargs);
	said = eal_listen_end();
	if (starts(d->name, "net_tap") && *eal_warning())
		said = eal_warning(); /* why there is no tap */
	if (err == 0)
		err = find(d->name, ret_port_id);
	if (err == 0)
		peer_plugged(d);
	if (err == 0)
		return 0;
	if (is_not_permitted(err, said))
		return reason_set(r, -EPERM,
			"run it as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
			"DPDK may not have %s: %s", d->name, cause_of(said));
	return reason_set(r, err == -ENOMEM ? err : -ENODEV, device_remedy(d, said),
		"DPDK can't have %s: %s", d->name, cause_of(said));
}

void device_unplug(uint16_t port_id)
{
	struct rte_eth_dev_info info;
	bool known = rte_eth_dev_info_get(port_id, &info) == 0;

	eal_listen(); /* drivers complain of the peer that is gone, too */
	rte_eth_dev_stop(port_id);
	rte_eth_dev_close(port_id);
	if (known && info.device)
		rte_dev_remove(info.device);
	eal_listen_end();
}
