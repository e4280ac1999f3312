/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-net, the host's kernel as a server: ioctls of linux/vhost.h on /dev/vhost-net, one open
 * device for each pair of queues; see vhost.h. The device's loop.
 */
#include <errno.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>

#include "hw/vhost/vhost.h"
#include "vmm/core/util.h"

static int call(struct vhost *v, unsigned long request, const void *arg)
{
	return ioctl(v->fd, request, arg) < 0 ? -errno : 0;
}

static int kernel_get_features(struct vhost *v, uint64_t *features)
{
	__u64 f = 0;
	int r = call(v, VHOST_GET_FEATURES, &f);

	if (r == 0)
		*features = f;
	return r;
}

static int kernel_set_owner(struct vhost *v)
{
	return call(v, VHOST_SET_OWNER, NULL);
}

static int kernel_set_features(struct vhost *v, uint64_t features)
{
	__u64 f = features;

	return call(v, VHOST_SET_FEATURES, &f);
}

static int kernel_set_memory(struct vhost *v, const struct gm_snapshot *mem)
{
	union {
		struct vhost_memory table;
		char space[sizeof(struct vhost_memory) +
			   VHOST_MAX_REGIONS * sizeof(struct vhost_memory_region)];
	} u;

	if (mem->count > VHOST_MAX_REGIONS)
		return -E2BIG;
	u.table.nregions = mem->count;
	u.table.padding = 0;
	for (size_t i = 0; i < mem->count; i++)
		u.table.regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = mem->regions[i].gpa,
			.memory_size = mem->regions[i].size,
			.userspace_addr = (uintptr_t)mem->regions[i].hva,
		};
	return call(v, VHOST_SET_MEM_TABLE, &u.table);
}

static int kernel_set_ring_size(struct vhost *v, unsigned ring, unsigned entries)
{
	return call(v, VHOST_SET_VRING_NUM, &(struct vhost_vring_state){ring, entries});
}

static int kernel_set_ring_base(struct vhost *v, unsigned ring, unsigned base)
{
	return call(v, VHOST_SET_VRING_BASE, &(struct vhost_vring_state){ring, base});
}

static int kernel_set_ring_addresses(struct vhost *v, const struct vhost_addresses *at)
{
	const struct vhost_vring_addr addr = {
		.index = at->ring,
		.desc_user_addr = (uintptr_t)at->desc,
		.avail_user_addr = (uintptr_t)at->avail,
		.used_user_addr = (uintptr_t)at->used,
	};

	return call(v, VHOST_SET_VRING_ADDR, &addr);
}

static int kernel_set_ring_kick(struct vhost *v, unsigned ring, int fd)
{
	return call(v, VHOST_SET_VRING_KICK, &(struct vhost_vring_file){ring, fd});
}

static int kernel_set_ring_call(struct vhost *v, unsigned ring, int fd)
{
	return call(v, VHOST_SET_VRING_CALL, &(struct vhost_vring_file){ring, fd});
}

/* A ring is served once it has a socket. */
static int kernel_enable_ring(struct vhost *v, unsigned ring, bool on)
{
	struct vhost_vring_state poll = {ring, v->poll_us};
	int r = 0;

	if (on && v->poll_us)
		r = call(v, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &poll);
	if (r < 0)
		return r;
	return call(v, VHOST_NET_SET_BACKEND,
		    &(struct vhost_vring_file){ring, on ? v->tap_fd : -1});
}

static int kernel_get_ring_base(struct vhost *v, unsigned ring, unsigned *base)
{
	struct vhost_vring_state state = {.index = ring};
	int r = call(v, VHOST_GET_VRING_BASE, &state);

	*base = state.num;
	return r;
}

const struct vhost_protocol vhost_kernel = {
	.name = "vhost-net",
	.get_features = kernel_get_features,
	.set_owner = kernel_set_owner,
	.set_features = kernel_set_features,
	.set_memory = kernel_set_memory,
	.set_ring_size = kernel_set_ring_size,
	.set_ring_base = kernel_set_ring_base,
	.set_ring_addresses = kernel_set_ring_addresses,
	.set_ring_kick = kernel_set_ring_kick,
	.set_ring_call = kernel_set_ring_call,
	.enable_ring = kernel_enable_ring,
	.get_ring_base = kernel_get_ring_base,
};
