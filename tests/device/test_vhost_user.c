/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net whose queues another process serves: a thread of this program that speaks vhost-user
 * over a socket, well or badly.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/vhost_server.h"
#include "tests/lib/vnet.h"
#include "vmm/chardev/chardev.h"
#include "vmm/core/util.h"

enum { LEN = 200, REQUESTS = 64, PAIRS = 2 };

#define PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define REPLY_ACK	  (1 << 3)
#define INFLIGHT	  (1 << 12)

/* ---- the server ---- */

struct server {
	pthread_t thread;
	int fd;
	uint64_t able, protocol_able, pairs;
	int silent_on, lie_on, leave_on; /* requests */

	pthread_mutex_t lock; /* of what follows */
	unsigned seen[REQUESTS];
	uint64_t features, protocol;
	bool enabled[VHOST_SERVER_RINGS], started[VHOST_SERVER_RINGS];
	struct vhost_server s;
	bool inflight_set;
};

struct message {
	uint32_t request, flags, size;
	uint8_t payload[264];
};

static void set_memory(struct server *sv, const uint8_t *p, const int *fds, unsigned fd_count)
{
	struct vhost_server *s = &sv->s;

	for (unsigned i = 0; i < s->region_count; i++)
		munmap(s->regions[i].at, s->regions[i].size);
	s->region_count = load_le32(p);
	if (s->region_count != fd_count)
		abort();
	for (unsigned i = 0; i < s->region_count; i++) {
		const uint8_t *r = p + 8 + 32 * i;
		uint64_t size = load_le64(r + 8);

		s->regions[i] = (struct vhost_server_region){
			.gpa = load_le64(r),
			.size = size,
			.theirs = load_le64(r + 16),
			.at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i],
				   load_le64(r + 24)),
		};
		if (s->regions[i].at == MAP_FAILED)
			abort();
	}
}

static void set_addresses(struct server *sv, const uint8_t *p)
{
	struct vhost_server_ring *r = &sv->s.rings[load_le32(p)];

	r->desc = vhost_server_theirs(&sv->s, load_le64(p + 8), 16 * r->size);
	r->used = vhost_server_theirs(&sv->s, load_le64(p + 16), 6 + 8 * r->size);
	r->avail = vhost_server_theirs(&sv->s, load_le64(p + 24), 6 + 2 * r->size);
	if (!r->desc || !r->used || !r->avail)
		abort();
}

/* Whether there is an answer, in m. */
static bool obey(struct server *sv, struct message *m, int *fds, unsigned *fd_count)
{
	struct vhost_server_ring *rings = sv->s.rings;
	uint32_t index = load_le32(m->payload), num = load_le32(m->payload + 4);
	bool protocol = sv->features & PROTOCOL_FEATURES;

	switch (m->request) {
	case 1:
		store_le64(m->payload, sv->able);
		m->size = 8;
		return true;
	case 2:
		sv->features = load_le64(m->payload);
		return false;
	case 5:
		set_memory(sv, m->payload, fds, *fd_count);
		return false;
	case 8:
		rings[index].size = num;
		return false;
	case 9:
		set_addresses(sv, m->payload);
		return false;
	case 10:
		rings[index].next = num;
		return false;
	case 11:
		store_le32(m->payload + 4, rings[index].next);
		sv->started[index] = false;
		m->size = 8;
		return true;
	case 12:
		if (rings[index].kick >= 0)
			close(rings[index].kick);
		rings[index].kick = fds[0];
		*fd_count = 0;
		sv->started[index] = true;
		sv->enabled[index] |= !protocol;
		return false;
	case 13:
		if (rings[index].call >= 0)
			close(rings[index].call);
		rings[index].call = fds[0];
		*fd_count = 0;
		return false;
	case 15:
		store_le64(m->payload, sv->protocol_able);
		m->size = 8;
		return true;
	case 16:
		sv->protocol = load_le64(m->payload);
		return false;
	case 17:
		store_le64(m->payload, sv->pairs);
		m->size = 8;
		return true;
	case 18:
		sv->enabled[index] = num;
		return false;
	case 31:
		store_le64(m->payload, 4096);
		store_le64(m->payload + 8, 0);
		fds[0] = memfd_create("inflight", 0);
		*fd_count = 1;
		m->size = 24;
		return true;
	case 32:
		sv->inflight_set = *fd_count == 1 && load_le64(m->payload) == 4096;
		return false;
	}
	return false;
}

static void answer(struct server *sv, struct message *m, const int *fds, unsigned fd_count)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {m, 12 + m->size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	m->flags = 5;
	if (sv->lie_on == (int)m->request)
		m->request++;
	if (m->request == 31 && fd_count) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(int));
	}
	sendmsg(sv->fd, &msg, MSG_NOSIGNAL);
}

static bool read_message(struct server *sv, struct message *m, int *fds, unsigned *fd_count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct iovec iov = {m, 12};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c;

	if (recvmsg(sv->fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12)
		return false;
	c = CMSG_FIRSTHDR(&msg);
	*fd_count = c ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (*fd_count)
		memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
	return m->size <= sizeof(m->payload) &&
	       (!m->size || recv(sv->fd, m->payload, m->size, MSG_WAITALL) == (ssize_t)m->size);
}

static void *serve(void *opaque)
{
	struct server *sv = opaque;
	struct message m;
	unsigned fd_count;
	int fds[8];

	while (memset(&m, 0, sizeof(m)), read_message(sv, &m, fds, &fd_count)) {
		bool reply, ack = m.flags & 8;

		pthread_mutex_lock(&sv->lock);
		sv->seen[m.request % REQUESTS]++;
		reply = obey(sv, &m, fds, &fd_count);
		for (unsigned i = 0; i < VHOST_SERVER_RINGS; i++)
			sv->s.rings[i].on = sv->started[i] && sv->enabled[i];
		pthread_mutex_unlock(&sv->lock);
		if (!reply && ack) {
			m.size = 8;
			store_le64(m.payload, 0);
			reply = true;
		}
		if (sv->leave_on == (int)m.request)
			shutdown(sv->fd, SHUT_RDWR);
		else if (reply && sv->silent_on != (int)m.request)
			answer(sv, &m, fds, fd_count);
		while (fd_count)
			close(fds[--fd_count]);
	}
	shutdown(sv->fd, SHUT_RDWR);
	return NULL;
}

static void start_server(struct server *sv, const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	strcpy(un.sun_path, path);
	sv->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(sv->fd, (struct sockaddr *)&un, sizeof(un)), 0);
	pthread_mutex_init(&sv->lock, NULL);
	for (unsigned i = 0; i < VHOST_SERVER_RINGS; i++)
		sv->s.rings[i].kick = sv->s.rings[i].call = -1;
	assert_int_equal(pthread_create(&sv->thread, NULL, serve, sv), 0);
}

static void stop_server(struct server *sv)
{
	shutdown(sv->fd, SHUT_RDWR);
	pthread_join(sv->thread, NULL);
	close(sv->fd);
	for (unsigned i = 0; i < sv->s.region_count; i++)
		munmap(sv->s.regions[i].at, sv->s.regions[i].size);
	for (unsigned i = 0; i < VHOST_SERVER_RINGS; i++) {
		if (sv->s.rings[i].kick >= 0)
			close(sv->s.rings[i].kick);
		if (sv->s.rings[i].call >= 0)
			close(sv->s.rings[i].call);
	}
	pthread_mutex_destroy(&sv->lock);
	*sv = (struct server){0};
}

/* ---- the guest's side ---- */

struct fixture {
	struct vnet v;
	struct chardevs set;
	struct net_context context;
	struct netdev *nd;
	struct server sv;
	char dir[40], path[64];
	int ram_fd;
};

static struct chardev *take(void *opaque, const char *id, struct error **err)
{
	return chardevs_take(opaque, id, err);
}

/* As while the guest runs. */
static bool wait(void *opaque, struct chardev *c, struct error **err)
{
	if (!c->open)
		error_set(err, "nobody is connected to chardev '%s'", c->id);
	return c->open;
}

static void release(void *opaque, struct chardev *c)
{
	chardevs_release(opaque, c);
}

static void share_memory(struct fixture *x)
{
	struct guest_mem *mem = &x->v.g.vm.mem;
	struct mem_region ram = {.size = VGUEST_RAM, .hva = x->v.g.ram};

	x->ram_fd = ram.fd = memfd_create("ram", MFD_CLOEXEC);
	assert_int_equal(ftruncate(ram.fd, VGUEST_RAM), 0);
	assert_true(mmap(ram.hva, VGUEST_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 ram.fd, 0) == ram.hva);
	guest_mem_remove(mem, 0);
	assert_true(guest_mem_add(mem, &ram, NULL));
}

static int setup(void **state)
{
	struct fixture *x = calloc(1, sizeof(*x));
	struct opts opts = {0};

	vnet_init(&x->v, 1, 0, 0);
	strcpy(x->dir, "/tmp/test_vhost_user.XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	snprintf(x->path, sizeof(x->path), "%s/s", x->dir);
	chardevs_init(&x->set, x->v.g.vm.loop);
	opts_add(&opts, "id", "c");
	opts_add(&opts, "backend", "socket");
	opts_add(&opts, "path", x->path);
	opts_add(&opts, "server", "on");
	opts_add(&opts, "wait", "off");
	assert_true(chardevs_add(&x->set, &opts, NULL));
	opts_free(&opts);
	x->context = (struct net_context){x->v.g.vm.loop, take, release, wait, &x->set};
	x->sv.able = PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF |
		     VIRTIO_NET_F_CSUM | VIRTIO_NET_F_MQ | VIRTIO_F_INDIRECT_DESC;
	x->sv.protocol_able = 1 | REPLY_ACK | INFLIGHT;
	x->sv.pairs = PAIRS;
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	if (x->v.dev)
		device_free(x->v.dev);
	net_free(x->nd);
	if (x->sv.thread)
		stop_server(&x->sv);
	chardevs_destroy(&x->set);
	vnet_destroy(&x->v);
	if (x->ram_fd)
		close(x->ram_fd);
	rmdir(x->dir);
	free(x);
	return 0;
}

static struct netdev *make(struct fixture *x, const char *text, struct error **err)
{
	struct opts opts = {0};
	struct netdev *nd;

	assert_true(opts_parse(&opts, text, "type", NULL));
	opts_add(&opts, "id", "n0");
	nd = net_new(&x->context, &opts, err);
	opts_free(&opts);
	return nd;
}

/* A server, a back end that reaches it, and memory for both. */
static void connect_both(struct fixture *x, unsigned queues)
{
	char text[64];

	start_server(&x->sv, x->path);
	vguest_settle(&x->v.g);
	snprintf(text, sizeof(text), "vhost-user,chardev=c,queues=%u", queues);
	x->nd = make(x, text, NULL);
	assert_non_null(x->nd);
	vguest_object(&x->v.g, "n0", x->nd);
	share_memory(x);
}

static void settle_until(struct fixture *x, bool link)
{
	for (unsigned i = 0; i < 200 && net_link(x->nd) != link; i++)
		evloop_run_once(x->v.g.vm.loop, 10 * NSEC_PER_MSEC);
	assert_int_equal(net_link(x->nd), link);
	vguest_settle(&x->v.g);
}

static void check_served(struct fixture *x, unsigned pair)
{
	uint8_t frame[LEN], got[2048], packet[12 + LEN] = {0};
	struct vhost_server *s = &x->sv.s;
	unsigned before;

	for (unsigned i = 0; i < 200; i++) { /* the last words may be on their way */
		pthread_mutex_lock(&x->sv.lock);
		bool on = s->rings[2 * pair].on && s->rings[2 * pair + 1].on;
		pthread_mutex_unlock(&x->sv.lock);
		if (on)
			break;
		usleep(10000);
	}
	vnet_frame(frame, LEN, vnet_broadcast, 1);
	vnet_put(&x->v, pair, NULL, frame, LEN, 2);
	while (vhost_server_kicked(s, 2 * pair + 1))
		;
	vring_kick(x->v.tx[pair]);
	vguest_settle(&x->v.g);
	assert_true(vhost_server_kicked(s, 2 * pair + 1));
	before = x->v.g.msi[2 * pair + 2];
	assert_int_equal(vhost_server_take(s, 2 * pair + 1, got, sizeof(got)), 12 + LEN);
	assert_memory_equal(got + 12, frame, LEN);
	vguest_settle(&x->v.g);
	assert_int_equal(x->v.g.msi[2 * pair + 2], before + 1);
	assert_true(vring_used(x->v.tx[pair], &(uint16_t){0}, &(uint32_t){0}));

	vnet_post(&x->v, pair, 1, 2048);
	memcpy(packet + 12, frame, LEN);
	packet[10] = 1;
	assert_true(vhost_server_give(s, 2 * pair, packet, sizeof(packet)));
	assert_int_equal(vnet_take(&x->v, pair, got, sizeof(got), NULL), sizeof(packet));
	assert_memory_equal(got + 12, frame, LEN);
}

static void serves(void **state)
{
	struct fixture *x = *state;

	connect_both(x, 1);
	vnet_add(&x->v, NULL);
	vdriver_open(&x->v.d, &x->v.g, x->v.dev, false);
	assert_true(vdriver_offered(&x->v.d) & VIRTIO_NET_F_CSUM);
	assert_false(vdriver_offered(&x->v.d) & (VIRTIO_NET_F_HOST_TSO4 | VIRTIO_F_EVENT_IDX |
						 VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
	vnet_drive(&x->v, false, UINT64_MAX, true);
	assert_true(x->sv.inflight_set);
	assert_int_equal(x->sv.features, PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 |
						 VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_CSUM |
						 VIRTIO_F_INDIRECT_DESC);
	for (unsigned i = 0; i < 5; i++)
		check_served(x, 0);
	/* The monitor's link, a pause, a reset: each gives the rings back and lends them again. */
	net_set_link(x->nd, false);
	vguest_settle(&x->v.g);
	assert_false(x->sv.started[0]);
	net_set_link(x->nd, true);
	vguest_settle(&x->v.g);
	check_served(x, 0);
	vm_stop(&x->v.g.vm, RUN_STATE_PAUSED);
	assert_false(x->sv.started[1]);
	vm_start(&x->v.g.vm);
	vguest_settle(&x->v.g);
	check_served(x, 0);
	vdriver_reset(&x->v.d);
	assert_false(x->sv.started[1]);
	vdriver_enable_msix(&x->v.d, pci_device_of(x->v.dev)->msix.count);
	vnet_drive_again(&x->v, UINT64_MAX);
	check_served(x, 0);
}

/* A server of the first days of the protocol. */
static void simple_server(void **state)
{
	struct fixture *x = *state;

	x->sv.able &= ~PROTOCOL_FEATURES;
	connect_both(x, 1);
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	check_served(x, 0);
	assert_int_equal(x->sv.seen[18], 0);
}

static void several_pairs(void **state)
{
	struct fixture *x = *state;
	uint8_t pairs[2] = {2, 0};

	connect_both(x, PAIRS);
	vnet_add(&x->v, "mq=on");
	vnet_drive(&x->v, false, UINT64_MAX, true);
	/* All are started, and those that the guest uses enabled. */
	assert_true(x->sv.started[3]);
	assert_false(x->sv.enabled[2] || x->sv.enabled[3]);
	check_served(x, 0);
	assert_int_equal(vnet_command(&x->v, VIRTIO_NET_CTRL_MQ, 0, pairs, 2), 0);
	check_served(x, 1);
	pairs[0] = 1;
	assert_int_equal(vnet_command(&x->v, VIRTIO_NET_CTRL_MQ, 0, pairs, 2), 0);
	assert_false(x->sv.enabled[2] || x->sv.enabled[3]);
	check_served(x, 0);
}

static void comes_back(void **state)
{
	struct fixture *x = *state;
	uint64_t able = x->sv.able;
	uint8_t frame[LEN];

	connect_both(x, 1);
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	for (unsigned i = 0; i < 3; i++) {
		check_served(x, 0);
		vnet_post(&x->v, 0, 3, 2048);
		stop_server(&x->sv);
		settle_until(x, false);
		assert_int_equal(vdriver_config_read(&x->v.d, 6, 2) & VIRTIO_NET_S_LINK_UP, 0);
		/* Lost meanwhile, and the guest goes on. */
		vnet_frame(frame, LEN, vnet_broadcast, 1);
		vnet_send(&x->v, 0, NULL, frame, LEN);
		x->sv = (struct server){
			.able = able, .protocol_able = 1 | REPLY_ACK | INFLIGHT, .pairs = 1};
		start_server(&x->sv, x->path);
		settle_until(x, true);
		/* The buffers that its predecessor knew of; nothing is asked for anew. */
		assert_true(x->sv.inflight_set);
		assert_int_equal(x->sv.seen[31], 0);
		for (unsigned k = 0; k < 3; k++) {
			uint8_t packet[12 + LEN] = {0};

			assert_true(vhost_server_give(&x->sv.s, 0, packet, sizeof(packet)));
			assert_true(vring_used(x->v.rx[0], &(uint16_t){0}, &(uint32_t){0}));
		}
	}
	/* One that cannot do what the guest was promised is not used. */
	stop_server(&x->sv);
	settle_until(x, false);
	x->sv = (struct server){.able = able & ~VIRTIO_NET_F_CSUM, .protocol_able = 1, .pairs = 1};
	start_server(&x->sv, x->path);
	settle_until(x, true);
	assert_false(x->sv.started[0]);
	stop_server(&x->sv);
	settle_until(x, false);
	x->sv = (struct server){.able = able, .protocol_able = 1, .pairs = 1};
	start_server(&x->sv, x->path);
	settle_until(x, true);
	check_served(x, 0);
}

/* At each of its requests the server leaves, or lies: the guest loses its network until the next
 * one comes. */
static void bad_servers(void **state)
{
	static const int leave[] = {2, 5, 8, 9, 10, 12, 13, 18, 31, 32, 11}, lie[] = {1, 5, 15, 31};
	struct fixture *x = *state;
	uint64_t able = x->sv.able;

	connect_both(x, 1);
	vnet_add(&x->v, NULL);
	vnet_drive(&x->v, false, UINT64_MAX, true);
	check_served(x, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(leave) + ARRAY_SIZE(lie); i++) {
		bool leaves = i < ARRAY_SIZE(leave);

		stop_server(&x->sv);
		settle_until(x, false);
		x->sv = (struct server){.able = able,
					.protocol_able = 1 | REPLY_ACK | INFLIGHT,
					.pairs = 1,
					.leave_on = leaves ? leave[i] : -1,
					.lie_on = leaves ? -1 : lie[i - ARRAY_SIZE(leave)]};
		start_server(&x->sv, x->path);
		for (unsigned k = 0; k < 20; k++)
			evloop_run_once(x->v.g.vm.loop, NSEC_PER_MSEC);
		net_set_link(x->nd, false);
		vguest_settle(&x->v.g);
		net_set_link(x->nd, true);
	}
	stop_server(&x->sv);
	settle_until(x, false);
	x->sv = (struct server){.able = able, .protocol_able = 1 | REPLY_ACK, .pairs = 1};
	start_server(&x->sv, x->path);
	settle_until(x, true);
	check_served(x, 0);
}

static void check_error(struct error *err, const char *why)
{
	assert_non_null(err);
	if (!strstr(error_message(err), why))
		fail_msg("%s", error_message(err));
	error_free(err);
}

static void refused(void **state)
{
	struct fixture *x = *state;
	struct error *err = NULL;

	assert_null(make(x, "vhost-user,chardev=c", &err));
	check_error(err, "nobody is connected to chardev 'c'");
	err = NULL;
	assert_null(make(x, "vhost-user,chardev=d", &err));
	check_error(err, "'d'");
	err = NULL;
	assert_null(make(x, "vhost-user", &err));
	check_error(err, "'chardev' is missing");
	err = NULL;
	start_server(&x->sv, x->path);
	vguest_settle(&x->v.g);
	x->nd = make(x, "vhost-user,chardev=c,queues=4", NULL);
	vguest_object(&x->v.g, "n0", x->nd);
	assert_null(vguest_add(&x->v.g, &virtio_net_pci_desc, "netdev=n0", &err));
	check_error(err, "needs guest memory that can be shared");
	err = NULL;
	share_memory(x);
	assert_null(vguest_add(&x->v.g, &virtio_net_pci_desc, "netdev=n0,mq=on", &err));
	check_error(err, "fewer than 4 queue pairs");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(serves),	  TEST(simple_server), TEST(several_pairs),
		TEST(comes_back), TEST(bad_servers),   TEST(refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
