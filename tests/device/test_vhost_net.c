/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net whose queues the host's kernel serves. The kernel is here: ioctls on the descriptors
 * that stand for /dev/vhost-net end in this program.
 */
#include <errno.h>
/* Its rings are not ours. */
#define vring linux_vring
#include <linux/vhost.h>
#undef vring
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#undef VIRTIO_F_NOTIFY_ON_EMPTY
#undef VIRTIO_F_ANY_LAYOUT
#undef VIRTIO_F_VERSION_1
#undef VIRTIO_F_ACCESS_PLATFORM
#include "tests/lib/vhost_server.h"
#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

enum { TAP = 1000, LEN = 200 };

static const uint64_t kernel_able = VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
				    VIRTIO_NET_F_MRG_RXBUF |
				    (UINT64_C(1) << VHOST_NET_F_VIRTIO_NET_HDR);

/* One open vhost device. */
struct device_file {
	int fd;
	bool owned;
	uint64_t features;
	unsigned memory_sets, poll;
	int backend[2];
	struct vhost_server s;
};

struct fixture {
	struct vnet v;
	struct device_file files[4];
	unsigned count;
	unsigned long refused; /* a request that fails */
};

/* ioctl(2) has no argument of ours. */
static struct fixture *current;

static struct device_file *find(int fd)
{
	for (unsigned i = 0; current && i < current->count; i++)
		if (current->files[i].fd == fd)
			return &current->files[i];
	return NULL;
}

static void set_memory(struct device_file *f, const struct vhost_memory *m)
{
	assert_true(m->nregions <= VHOST_SERVER_REGIONS);
	f->s.region_count = m->nregions;
	f->memory_sets++;
	for (unsigned i = 0; i < m->nregions; i++)
		f->s.regions[i] = (struct vhost_server_region){
			.gpa = m->regions[i].guest_phys_addr,
			.size = m->regions[i].memory_size,
			.at = (uint8_t *)(uintptr_t)m->regions[i].userspace_addr,
			.theirs = m->regions[i].userspace_addr,
		};
}

static int vhost_ioctl(struct device_file *f, unsigned long request, void *arg)
{
	const struct vhost_vring_state *state = arg;
	const struct vhost_vring_addr *addr = arg;
	const struct vhost_vring_file *file = arg;
	struct vhost_server_ring *r = f->s.rings;

	if (request == current->refused) {
		errno = EOPNOTSUPP;
		return -1;
	}
	switch (request) {
	case VHOST_SET_OWNER:
		errno = EBUSY;
		return f->owned ? -1 : (f->owned = true, 0);
	case VHOST_GET_FEATURES:
		*(uint64_t *)arg = kernel_able;
		return 0;
	case VHOST_SET_FEATURES:
		f->features = *(uint64_t *)arg;
		assert_false(f->features & ~kernel_able);
		return 0;
	case VHOST_SET_MEM_TABLE:
		set_memory(f, arg);
		return 0;
	case VHOST_SET_VRING_NUM:
		r[state->index].size = state->num;
		return 0;
	case VHOST_SET_VRING_BASE:
		r[state->index].next = state->num;
		return 0;
	case VHOST_GET_VRING_BASE:
		((struct vhost_vring_state *)arg)->num = r[state->index].next;
		r[state->index].on = false;
		return 0;
	case VHOST_SET_VRING_ADDR:
		r[addr->index].desc = (uint8_t *)(uintptr_t)addr->desc_user_addr;
		r[addr->index].avail = (uint8_t *)(uintptr_t)addr->avail_user_addr;
		r[addr->index].used = (uint8_t *)(uintptr_t)addr->used_user_addr;
		return 0;
	case VHOST_SET_VRING_KICK:
		r[file->index].kick = file->fd;
		return 0;
	case VHOST_SET_VRING_CALL:
		r[file->index].call = file->fd;
		return 0;
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT:
		f->poll = state->num;
		return 0;
	case VHOST_NET_SET_BACKEND:
		f->backend[file->index] = file->fd;
		r[file->index].on = file->fd >= 0;
		return 0;
	}
	fail_msg("an unknown request %#lx", request);
	return -1;
}

int ioctl(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	struct device_file *f = find(fd);
	void *arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return f ? vhost_ioctl(f, request, arg) : (int)syscall(SYS_ioctl, fd, request, arg);
}

static int setup_pairs(void **state, unsigned pairs)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct net_vhost *vhost = &x->v.net.nd.vhost;

	vnet_init(&x->v, pairs, 12, VNET_ALL_OFFLOADS);
	current = x;
	vhost->kind = NET_VHOST_KERNEL;
	vhost->poll_us = 7;
	for (unsigned i = 0; i < pairs; i++) {
		x->files[i] = (struct device_file){.fd = eventfd(0, 0), .backend = {-1, -1}};
		vhost->vhost_fd[i] = x->files[i].fd;
		vhost->tap_fd[i] = TAP + i;
	}
	x->count = pairs;
	*state = x;
	return 0;
}

static int setup(void **state)
{
	return setup_pairs(state, 1);
}

static int setup_two(void **state)
{
	return setup_pairs(state, 2);
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	vnet_destroy(&x->v);
	for (unsigned i = 0; i < x->count; i++) {
		assert_int_equal(x->files[i].backend[0], -1);
		assert_int_equal(x->files[i].backend[1], -1);
		close(x->files[i].fd);
	}
	current = NULL;
	free(x);
	return 0;
}

/* Packets go both ways through the server, which interrupts. */
static void check_served(struct fixture *x, unsigned pair)
{
	uint8_t frame[LEN], got[2048], packet[12 + LEN] = {0};
	struct vhost_server *s = &x->files[pair].s;
	unsigned before, sent = x->v.net.sent_count;

	vnet_frame(frame, LEN, vnet_broadcast, 1);
	vnet_put(&x->v, pair, NULL, frame, LEN, 2);
	while (vhost_server_kicked(s, 1))
		;
	vring_kick(x->v.tx[pair]);
	vguest_settle(&x->v.g);
	assert_true(vhost_server_kicked(s, 1));
	before = x->v.g.msi[2 * pair + 2];
	assert_int_equal(vhost_server_take(s, 1, got, sizeof(got)), 12 + LEN);
	assert_memory_equal(got + 12, frame, LEN);
	vguest_settle(&x->v.g);
	assert_int_equal(x->v.g.msi[2 * pair + 2], before + 1);
	assert_true(vring_used(x->v.tx[pair], &(uint16_t){0}, &(uint32_t){0}));
	assert_int_equal(x->v.net.sent_count, sent);

	vnet_post(&x->v, pair, 1, 2048);
	memcpy(packet + 12, frame, LEN);
	packet[10] = 1;
	before = x->v.g.msi[2 * pair + 1];
	assert_true(vhost_server_give(s, 0, packet, sizeof(packet)));
	vguest_settle(&x->v.g);
	assert_int_equal(x->v.g.msi[2 * pair + 1], before + 1);
	assert_int_equal(vnet_take(&x->v, pair, got, sizeof(got), NULL), sizeof(packet));
	assert_memory_equal(got + 12, frame, LEN);
}

/* And through us, when the server has handed them back. */
static void check_served_here(struct fixture *x)
{
	uint8_t frame[LEN], got[2048];
	unsigned before = x->v.net.sent_count;

	vnet_frame(frame, LEN, vnet_broadcast, 3);
	vnet_send(&x->v, 0, NULL, frame, LEN);
	assert_int_equal(x->v.net.sent_count, before + 1);
	vnet_post(&x->v, 0, 1, 2048);
	vnet_frame(frame, LEN, NULL, 4);
	assert_true(vnet_arrive(&x->v, 0, frame, LEN));
	assert_int_equal(vnet_take(&x->v, 0, got, sizeof(got), NULL), 12 + LEN);
}

static void serves(void **state)
{
	struct fixture *x = *state;

	vnet_add(&x->v, NULL);
	vdriver_open(&x->v.d, &x->v.g, x->v.dev, false);
	/* What the server cannot, drivers do not see. */
	assert_false(vdriver_offered(&x->v.d) & VIRTIO_F_EVENT_IDX);
	assert_true(vdriver_offered(&x->v.d) & VIRTIO_NET_F_MRG_RXBUF);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	assert_int_equal(x->files[0].features,
			 kernel_able & ~(UINT64_C(1) << VHOST_NET_F_VIRTIO_NET_HDR));
	assert_int_equal(x->files[0].backend[0], TAP);
	assert_int_equal(x->files[0].poll, 7);
	for (unsigned i = 0; i < 5; i++)
		check_served(x, 0);
	/* A reset takes them back, the next driver lends them again. */
	vdriver_reset(&x->v.d);
	assert_int_equal(x->files[0].backend[0], -1);
	vdriver_enable_msix(&x->v.d, pci_device_of(x->v.dev)->msix.count);
	vnet_drive_again(&x->v, UINT64_MAX);
	check_served(x, 0);
}

static void serves_without_msix(void **state)
{
	struct fixture *x = *state;
	uint8_t frame[LEN], got[2048];

	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, false);
	vnet_frame(frame, LEN, vnet_broadcast, 1);
	vnet_put(&x->v, 0, NULL, frame, LEN, 1);
	vring_kick(x->v.tx[0]);
	assert_false(x->v.g.intx);
	assert_int_equal(vhost_server_take(&x->files[0].s, 1, got, sizeof(got)), 12 + LEN);
	vguest_settle(&x->v.g);
	assert_true(x->v.g.intx);
	assert_int_equal(vdriver_isr(&x->v.d), 1);
}

/* An accelerator that takes eventfds for messages. */
static int routes[VGUEST_VECTORS];

static int route_add(struct msi_sink *sink, struct msi_route *route, int fd, struct msi_msg msg,
		     uint32_t requester)
{
	route->fd = fd;
	routes[msg.data % VGUEST_VECTORS] = fd;
	return 0;
}

static int route_update(struct msi_sink *sink, struct msi_route *route, struct msi_msg msg)
{
	routes[msg.data % VGUEST_VECTORS] = route->fd;
	return 0;
}

static void route_remove(struct msi_sink *sink, struct msi_route *route)
{
}

static const struct msi_sink_ops routing = {
	.route_add = route_add,
	.route_update = route_update,
	.route_remove = route_remove,
};

static void interrupts_go_straight(void **state)
{
	struct fixture *x = *state;
	struct vdriver *d = &x->v.d;
	struct vhost_server_ring *r = x->files[0].s.rings;

	x->v.g.sink.ops = &routing;
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	assert_true(routes[1] > 0 && routes[2] > 0);
	assert_int_equal(r[0].call, routes[1]);
	assert_int_equal(r[1].call, routes[2]);
	/* The driver gives the transmit queue the other one's vector, and then none. */
	vguest_out(&x->v.g, false, d->common + 22, 1, 2);
	vguest_out(&x->v.g, false, d->common + 26, 1, 2);
	vguest_settle(&x->v.g);
	assert_int_equal(r[1].call, routes[1]);
	vguest_out(&x->v.g, false, d->common + 26, VIRTIO_NO_VECTOR, 2);
	vguest_settle(&x->v.g);
	assert_int_not_equal(r[1].call, routes[1]);
	assert_int_equal(r[0].call, routes[1]);
}

static void several_pairs(void **state)
{
	struct fixture *x = *state;
	uint8_t pairs[2] = {2, 0};

	vnet_add(&x->v, "mq=on");
	vnet_drive(&x->v, false, UINT64_MAX, true);
	assert_int_equal(x->v.pairs, 2);
	assert_int_equal(x->files[1].backend[1], TAP + 1);
	/* The control queue is ours. */
	assert_int_equal(vnet_command(&x->v, VIRTIO_NET_CTRL_MQ, 0, pairs, 2), 0);
	assert_int_equal(x->v.net.pairs, 2);
	check_served(x, 0);
	check_served(x, 1);
}

static void link_and_pause(void **state)
{
	struct fixture *x = *state;

	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	check_served(x, 0);
	net_set_link(&x->v.net.nd, false);
	vguest_settle(&x->v.g);
	assert_int_equal(x->files[0].backend[0], -1);
	net_set_link(&x->v.net.nd, true);
	vguest_settle(&x->v.g);
	assert_int_equal(x->files[0].backend[0], TAP);
	check_served(x, 0);
	/* With buffers in the ring. */
	vnet_post(&x->v, 0, 5, 2048);
	vm_stop(&x->v.g.vm, RUN_STATE_PAUSED);
	vguest_settle(&x->v.g);
	assert_int_equal(x->files[0].backend[0], -1);
	vm_start(&x->v.g.vm);
	vguest_settle(&x->v.g);
	assert_int_equal(x->files[0].backend[0], TAP);
	check_served(x, 0);
}

static void falls_back(void **state)
{
	struct fixture *x = *state;

	x->refused = VHOST_SET_VRING_ADDR;
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	check_served_here(x);
	x->refused = 0;
	vdriver_reset(&x->v.d);
	vdriver_enable_msix(&x->v.d, pci_device_of(x->v.dev)->msix.count);
	vnet_drive_again(&x->v, UINT64_MAX);
	check_served(x, 0);
	/* While it runs: what was served stays served. */
	x->refused = VHOST_SET_MEM_TABLE;
	guest_mem_add(&x->v.g.vm.mem,
		      &(struct mem_region){
			      .gpa = UINT64_C(1) << 32, .size = 4096, .hva = x->v.g.ram, .fd = -1},
		      NULL);
	assert_int_equal(x->files[0].backend[0], -1);
	check_served_here(x);
	device_free(x->v.dev);
	x->v.dev = NULL;
	/* Of a kernel that has none of it. */
	x->refused = VHOST_GET_FEATURES;
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	check_served_here(x);
}

static void forced(void **state)
{
	struct fixture *x = *state;
	struct error *err = NULL;

	x->refused = VHOST_SET_OWNER;
	x->v.net.nd.vhost.forced = true;
	assert_null(vguest_add(&x->v.g, &virtio_net_pci_desc, "netdev=n0", &err));
	assert_non_null(strstr(error_message(err), "vhost-net cannot be used"));
	error_free(err);
}

static void memory_follows(void **state)
{
	struct fixture *x = *state;
	struct mem_region more = {
		.gpa = UINT64_C(1) << 32, .size = 4096, .hva = x->v.g.ram, .fd = -1};

	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	assert_int_equal(x->files[0].memory_sets, 1);
	assert_int_equal(x->files[0].s.region_count, 1);
	assert_true(guest_mem_add(&x->v.g.vm.mem, &more, NULL));
	assert_int_equal(x->files[0].s.region_count, 2);
	check_served(x, 0);
	guest_mem_remove(&x->v.g.vm.mem, more.gpa);
	assert_int_equal(x->files[0].s.region_count, 1);
	check_served(x, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(serves),
		TEST(serves_without_msix),
		TEST(interrupts_go_straight),
		cmocka_unit_test_setup_teardown(several_pairs, setup_two, teardown),
		TEST(link_and_pause),
		TEST(falls_back),
		TEST(forced),
		TEST(memory_follows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
