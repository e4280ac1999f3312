/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel's tun and tap drivers are asked for (Documentation/networking/tuntap.rst, ioctls
 * of linux/if_tun.h); see tap.h. Main thread, and the queues' loops for tap_device_set_queue().
 */
#include "net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/core/util.h"

_Static_assert(NET_OFFLOAD_CSUM == TUN_F_CSUM && NET_OFFLOAD_TSO4 == TUN_F_TSO4 &&
		       NET_OFFLOAD_TSO6 == TUN_F_TSO6 && NET_OFFLOAD_ECN == TUN_F_TSO_ECN &&
		       NET_OFFLOAD_UFO == TUN_F_UFO,
	       "offloads are the kernel's bits");

/* A device that was made with queues wants to be told that it may have several, even for one. */
static int set_interface(int fd, char ifname[IFNAMSIZ], unsigned flags, bool multi_queue)
{
	struct ifreq ifr = {.ifr_flags = flags | (multi_queue ? IFF_MULTI_QUEUE : 0)};

	memcpy(ifr.ifr_name, ifname, IFNAMSIZ);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		if (errno != EINVAL || multi_queue)
			return -1;
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
		if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
			errno = EINVAL;
			return -1;
		}
	}
	memcpy(ifname, ifr.ifr_name, IFNAMSIZ);
	ifname[IFNAMSIZ - 1] = 0;
	return 0;
}

int tap_device_open(char ifname[IFNAMSIZ], bool *hdr, bool must, bool multi_queue,
		    struct error **err)
{
	int fd = open(TAP_TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	unsigned flags = IFF_TAP | IFF_NO_PI, features = 0;

	if (fd < 0) {
		error_set_errno(err, errno, "could not open " TAP_TUN_DEVICE);
		return -1;
	}
	if (ioctl(fd, TUNGETFEATURES, &features) < 0)
		features = 0;
	if (*hdr && must && !(features & IFF_VNET_HDR)) {
		error_set(err, "vnet_hdr=on requested, but the kernel lacks IFF_VNET_HDR");
		goto fail;
	}
	if (multi_queue && !(features & IFF_MULTI_QUEUE)) {
		error_set(err, "multiqueue required, but the kernel lacks IFF_MULTI_QUEUE");
		goto fail;
	}
	*hdr = *hdr && features & IFF_VNET_HDR;
	if (set_interface(fd, ifname, flags | (*hdr ? IFF_VNET_HDR : 0), multi_queue) < 0) {
		error_set_errno(err, errno, "could not configure " TAP_TUN_DEVICE " (%s)", ifname);
		goto fail;
	}
	return fd;
fail:
	close(fd);
	return -1;
}

bool tap_device_check(int fd, bool *hdr, struct error **err)
{
	struct ifreq ifr = {0};
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || ioctl(fd, TUNGETIFF, &ifr) < 0) {
		error_set_errno(err, errno, "file descriptor %d is not a tap device's", fd);
		return false;
	}
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI)) {
		error_set(err, "file descriptor %d carries no Ethernet frames (IFF_TAP, IFF_NO_PI)",
			  fd);
		return false;
	}
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	*hdr = ifr.ifr_flags & IFF_VNET_HDR;
	return true;
}

bool tap_device_set_sndbuf(int fd, int bytes, struct error **err)
{
	int value = bytes ? bytes : INT_MAX;

	if (ioctl(fd, TUNSETSNDBUF, &value) == 0 || !bytes)
		return true;
	error_set_errno(err, errno, "cannot set sndbuf=%d", bytes);
	return false;
}

bool tap_device_is_endless(int fd)
{
	int bytes = 0;

	return ioctl(fd, TUNGETSNDBUF, &bytes) == 0 && bytes == INT_MAX;
}

/* From the most to the least; what is left when the last fails is none. */
static unsigned probe_offloads(int fd)
{
	static const unsigned tcp = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 |
				    NET_OFFLOAD_ECN;
	static const unsigned uso = NET_OFFLOAD_USO4 | NET_OFFLOAD_USO6;
	const unsigned sets[] = {
		tcp | NET_OFFLOAD_UFO | uso,
		tcp | uso,
		tcp | NET_OFFLOAD_UFO,
		tcp,
		NET_OFFLOAD_CSUM,
	};
	unsigned able = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(sets) && !able; i++)
		if (ioctl(fd, TUNSETOFFLOAD, sets[i]) == 0)
			able = sets[i];
	ioctl(fd, TUNSETOFFLOAD, 0);
	return able;
}

void tap_device_probe(struct tap *t)
{
	struct ifreq ifr = {0};
	int fd = t->q[0].fd, size = 0, yes = 1;

	t->persistent = ioctl(fd, TUNGETIFF, &ifr) == 0 && ifr.ifr_flags & IFF_PERSIST;
	if (!t->host_hdr)
		return;
	if (ioctl(fd, TUNGETVNETHDRSZ, &size) < 0 || size < 10 || size > 64)
		size = 10;
	t->found_hdr = t->hdr = size;
	/* Headers of the modern interface are little-endian whatever the host is; a kernel without
	 * the request is one where it is so anyway. */
	for (unsigned i = 0; i < t->nd.queues; i++)
		ioctl(t->q[i].fd, TUNSETVNETLE, &yes);
	size = 12;
	t->nd.vnet_hdr_max = ioctl(fd, TUNSETVNETHDRSZ, &size) == 0 ? 12 : 10;
	tap_device_set_hdr(t, 10);
	t->nd.offloads_able = probe_offloads(fd);
}

bool tap_device_set_offloads(struct tap *t, unsigned offloads)
{
	if (offloads & ~t->nd.offloads_able)
		return false;
	if (!t->nd.offloads_able)
		return true;
	return ioctl(t->q[0].fd, TUNSETOFFLOAD, offloads) == 0;
}

/* One size for the device in the tun driver, one for each queue in macvtap's. */
void tap_device_set_hdr(struct tap *t, unsigned bytes)
{
	int size = bytes;

	t->hdr = bytes;
	for (unsigned i = 0; i < t->nd.queues; i++)
		ioctl(t->q[i].fd, TUNSETVNETHDRSZ, &size);
}

bool tap_device_set_queue(struct tap_queue *q, bool on)
{
	struct ifreq ifr = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
	int size = q->tap->hdr;

	if (ioctl(q->fd, TUNSETQUEUE, &ifr) < 0)
		return false;
	if (on && q->tap->host_hdr)
		ioctl(q->fd, TUNSETVNETHDRSZ, &size);
	return true;
}

void tap_device_restore(struct tap *t)
{
	if (!t->persistent || !t->host_hdr)
		return;
	if (t->nd.offloads_able)
		ioctl(t->q[0].fd, TUNSETOFFLOAD, 0);
	tap_device_set_hdr(t, t->found_hdr);
}
