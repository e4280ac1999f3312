/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another process as a server of virtqueues: the vhost-user protocol (QEMU's docs/interop,
 * "Vhost-user Protocol"), seen from the front end; see vhost.h. Messages over a connected unix
 * socket, requests and their answers in turn, descriptors beside them.
 *
 * The server is trusted with the guest's memory, and with nothing of ours: what it answers is
 * checked, and one that does not answer in time is gone. Inflight buffers of the server's are kept
 * for the one that comes after it. The device's loop.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hw/vhost/vhost.h"
#include "hw/virtio/virtio.h"
#include "vmm/core/util.h"

#define F_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define ANSWER_NS	    (5 * NSEC_PER_SEC)

enum { MAX_REGIONS = 8 };

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD = 32,
};

enum { VERSION = 1, VERSION_MASK = 3, REPLY = 4, NEED_REPLY = 8 };

enum protocol_feature {
	PROTOCOL_MQ = 1 << 0,
	PROTOCOL_REPLY_ACK = 1 << 3,
	PROTOCOL_INFLIGHT_SHMFD = 1 << 12,
};

struct region {
	uint64_t gpa, size, user_addr, mmap_offset;
};

struct inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t num_queues, queue_size;
	uint32_t padding;
};

/* In the host's byte order, as both ends run on it. */
struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t count, padding;
			struct region regions[MAX_REGIONS];
		} memory;
		struct inflight inflight;
	} __attribute__((packed));
} __attribute__((packed));
enum { HEADER = 12 };
_Static_assert(offsetof(struct message, u64) == HEADER, "a message's header");
_Static_assert(sizeof(struct message) == HEADER + 8 + MAX_REGIONS * 32, "the largest message");

struct vhost_user {
	uint64_t protocol_features;
	unsigned max_pairs;
	bool dead; /* does not answer, or not what it was asked */
	int inflight_fd;
	struct inflight inflight;
};

/* ---- messages ---- */

static int wait_for(struct vhost *v, short events, int64_t until)
{
	struct pollfd p = {.fd = v->fd, .events = events};
	int64_t left = until - clock_now(&clock_monotonic);
	int n = left > 0 ? poll(&p, 1, left / NSEC_PER_MSEC + 1) : 0;

	if (n < 0 && errno != EINTR)
		return -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

static int send_message(struct vhost *v, const struct message *m, const int *fds, unsigned count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MAX_REGIONS * sizeof(int))];
	} control;
	struct iovec iov = {(void *)m, HEADER + m->size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int64_t until = clock_now(&clock_monotonic) + ANSWER_NS;

	if (count) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	}
	while (iov.iov_len) {
		ssize_t n = sendmsg(v->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		int r = 0;

		if (n >= 0) {
			iov.iov_base = (char *)iov.iov_base + n;
			iov.iov_len -= n;
			/* Descriptors went with the first byte. */
			msg.msg_control = NULL;
			msg.msg_controllen = 0;
			continue;
		}
		if (errno == EAGAIN)
			r = wait_for(v, POLLOUT, until);
		else if (errno != EINTR)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Exactly len bytes, and at most one descriptor. */
static int receive_bytes(struct vhost *v, void *buf, size_t len, int *fd)
{
	int64_t until = clock_now(&clock_monotonic) + ANSWER_NS;
	struct iovec iov = {buf, len};

	while (iov.iov_len) {
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(int))];
		} control;
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = &control,
				     .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(v->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
		int r = 0;

		if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    c->cmsg_len == CMSG_LEN(sizeof(int))) {
			if (*fd >= 0)
				close(*fd);
			memcpy(fd, CMSG_DATA(c), sizeof(*fd));
		}
		if (n > 0) {
			iov.iov_base = (char *)iov.iov_base + n;
			iov.iov_len -= n;
			continue;
		}
		if (n == 0)
			r = -EPIPE;
		else if (errno == EAGAIN)
			r = wait_for(v, POLLIN, until);
		else if (errno != EINTR)
			r = -errno;
		if (r < 0)
			return r;
	}
	return 0;
}

/* The answer to request, of exactly that size. */
static int receive_answer(struct vhost *v, struct message *m, enum request request, uint32_t size,
			  int *fd)
{
	int none = -1, r;

	fd = fd ? fd : &none;
	*fd = -1;
	r = receive_bytes(v, m, HEADER, fd);
	if (r == 0 && (m->request != request || (m->flags & VERSION_MASK) != VERSION ||
		       !(m->flags & REPLY) || m->size != size))
		r = -EPROTO;
	if (r == 0)
		r = receive_bytes(v, &m->u64, size, fd);
	if (none >= 0)
		close(none);
	if (r < 0 && fd != &none && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return r;
}

/* A server that is out of step is left; its connection ends for whoever watches it, too. */
static int give_up(struct vhost *v, int error)
{
	if (error < 0 && !v->user->dead) {
		v->user->dead = true;
		shutdown(v->fd, SHUT_RDWR);
	}
	return error;
}

/* Sends, and waits for the server's word that it is done where servers give it. */
static int tell(struct vhost *v, struct message *m, const int *fds, unsigned count, bool confirm)
{
	bool ack = confirm && v->user->protocol_features & PROTOCOL_REPLY_ACK;
	enum request request = m->request;
	int r;

	if (v->user->dead)
		return -EPIPE;
	m->flags = VERSION | (ack ? NEED_REPLY : 0);
	r = send_message(v, m, fds, count);
	if (r < 0 || !ack)
		return give_up(v, r);
	r = give_up(v, receive_answer(v, m, request, sizeof(m->u64), NULL));
	if (r < 0)
		return r;
	return m->u64 ? -EIO : 0;
}

static int ask(struct vhost *v, struct message *m, uint32_t answer, int *fd)
{
	enum request request = m->request;
	int r;

	if (v->user->dead)
		return -EPIPE;
	m->flags = VERSION;
	r = send_message(v, m, NULL, 0);
	if (r == 0)
		r = receive_answer(v, m, request, answer, fd);
	return give_up(v, r);
}

static int tell_u64(struct vhost *v, enum request request, uint64_t value, bool confirm)
{
	struct message m = {.request = request, .size = sizeof(m.u64), .u64 = value};

	return tell(v, &m, NULL, 0, confirm);
}

static int ask_u64(struct vhost *v, enum request request, uint64_t *value)
{
	struct message m = {.request = request};
	int r = ask(v, &m, sizeof(m.u64), NULL);

	if (r == 0)
		*value = m.u64;
	return r;
}

/* ---- the protocol's part of struct vhost ---- */

static int user_get_features(struct vhost *v, uint64_t *features)
{
	return ask_u64(v, GET_FEATURES, features);
}

static int user_set_owner(struct vhost *v)
{
	struct message m = {.request = SET_OWNER};

	return tell(v, &m, NULL, 0, false);
}

static int user_set_features(struct vhost *v, uint64_t features)
{
	return tell_u64(v, SET_FEATURES, features | (v->able & F_PROTOCOL_FEATURES), true);
}

static int user_set_memory(struct vhost *v, const struct gm_snapshot *mem)
{
	struct message m = {.request = SET_MEM_TABLE};
	int fds[MAX_REGIONS];

	if (mem->count > MAX_REGIONS)
		return -E2BIG;
	for (size_t i = 0; i < mem->count; i++) {
		const struct mem_region *r = &mem->regions[i];

		if (r->fd < 0)
			return -EBADF;
		m.memory.regions[i] = (struct region){r->gpa, r->size, (uintptr_t)r->hva,
						      r->fd_offset};
		fds[i] = r->fd;
	}
	m.memory.count = mem->count;
	m.size = 8 + mem->count * sizeof(struct region);
	return tell(v, &m, fds, mem->count, true);
}

static int set_state(struct vhost *v, enum request request, unsigned ring, unsigned num)
{
	struct message m = {.request = request, .size = sizeof(m.state), .state = {ring, num}};

	return tell(v, &m, NULL, 0, true);
}

static int user_set_ring_size(struct vhost *v, unsigned ring, unsigned entries)
{
	return set_state(v, SET_VRING_NUM, ring, entries);
}

static int user_set_ring_base(struct vhost *v, unsigned ring, unsigned base)
{
	return set_state(v, SET_VRING_BASE, ring, base);
}

static int user_set_ring_addresses(struct vhost *v, const struct vhost_addresses *at)
{
	struct message m = {.request = SET_VRING_ADDR, .size = sizeof(m.addr)};

	m.addr.index = at->ring;
	m.addr.desc = (uintptr_t)at->desc;
	m.addr.used = (uintptr_t)at->used;
	m.addr.avail = (uintptr_t)at->avail;
	return tell(v, &m, NULL, 0, true);
}

static int set_fd(struct vhost *v, enum request request, unsigned ring, int fd)
{
	struct message m = {.request = request, .size = sizeof(m.u64), .u64 = ring};

	return tell(v, &m, &fd, 1, true);
}

static int user_set_ring_kick(struct vhost *v, unsigned ring, int fd)
{
	return set_fd(v, SET_VRING_KICK, ring, fd);
}

static int user_set_ring_call(struct vhost *v, unsigned ring, int fd)
{
	return set_fd(v, SET_VRING_CALL, ring, fd);
}

/* Without protocol features a ring is enabled as soon as it is started. */
static int user_enable_ring(struct vhost *v, unsigned ring, bool on)
{
	if (!(v->able & F_PROTOCOL_FEATURES))
		return 0;
	return set_state(v, SET_VRING_ENABLE, ring, on);
}

static int user_get_ring_base(struct vhost *v, unsigned ring, unsigned *base)
{
	struct message m = {.request = GET_VRING_BASE, .size = sizeof(m.state), .state = {ring, 0}};
	int r = ask(v, &m, sizeof(m.state), NULL);

	*base = m.state.num;
	return r < 0 || m.state.index == ring ? r : give_up(v, -EPROTO);
}

/* ---- buffers that a server has taken and not returned ---- */

static void forget_inflight(struct vhost_user *u)
{
	if (u->inflight_fd >= 0)
		close(u->inflight_fd);
	u->inflight_fd = -1;
}

static int user_prepare(struct vhost *v)
{
	struct vhost_user *u = v->user;
	struct message m = {.request = GET_INFLIGHT_FD, .size = sizeof(m.inflight)};
	int r = 0;

	if (!(u->protocol_features & PROTOCOL_INFLIGHT_SHMFD))
		return 0;
	if (u->inflight_fd < 0) {
		m.inflight = (struct inflight){.num_queues = v->count,
					       .queue_size = v->vdev->queues[v->first].size_max};
		for (unsigned i = 0; i < v->count; i++)
			m.inflight.queue_size = MAX(m.inflight.queue_size,
						    v->vdev->queues[v->first + i].size_max);
		r = ask(v, &m, sizeof(m.inflight), &u->inflight_fd);
		u->inflight = m.inflight;
	}
	if (r < 0 || u->inflight_fd < 0)
		return r;
	m = (struct message){.request = SET_INFLIGHT_FD, .size = sizeof(m.inflight)};
	m.inflight = u->inflight;
	return tell(v, &m, &u->inflight_fd, 1, true);
}

/* A new driver begins with empty rings. */
static void user_forget(struct vhost *v)
{
	forget_inflight(v->user);
}

const struct vhost_protocol vhost_user = {
	.name = "vhost-user",
	.get_features = user_get_features,
	.set_owner = user_set_owner,
	.set_features = user_set_features,
	.set_memory = user_set_memory,
	.prepare = user_prepare,
	.forget = user_forget,
	.set_ring_size = user_set_ring_size,
	.set_ring_base = user_set_ring_base,
	.set_ring_addresses = user_set_ring_addresses,
	.set_ring_kick = user_set_ring_kick,
	.set_ring_call = user_set_ring_call,
	.enable_ring = user_enable_ring,
	.get_ring_base = user_get_ring_base,
};

/* ---- the connection ---- */

bool vhost_user_init(struct vhost *v, struct virtio_device *vdev, unsigned first, unsigned count,
		     struct error **err)
{
	if (!vhost_init(v, &vhost_user, vdev, first, count, err))
		return false;
	v->user = xcalloc(1, sizeof(*v->user));
	v->user->inflight_fd = -1;
	return true;
}

void vhost_user_destroy(struct vhost *v)
{
	if (v->user) {
		vhost_user_disconnect(v);
		forget_inflight(v->user);
		free(v->user);
	}
	v->user = NULL;
	vhost_destroy(v);
}

static int negotiate(struct vhost *v)
{
	const uint64_t wanted = PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_INFLIGHT_SHMFD;
	struct vhost_user *u = v->user;
	uint64_t offered, pairs = 1;
	int r = user_get_features(v, &v->able);

	if (r < 0 || !(v->able & F_PROTOCOL_FEATURES))
		return r;
	r = ask_u64(v, GET_PROTOCOL_FEATURES, &offered);
	if (r == 0)
		r = tell_u64(v, SET_PROTOCOL_FEATURES, offered & wanted, false);
	if (r < 0)
		return r;
	u->protocol_features = offered & wanted;
	if (offered & PROTOCOL_MQ)
		r = ask_u64(v, GET_QUEUE_NUM, &pairs);
	u->max_pairs = MIN(pairs, NET_MAX_QUEUES);
	return r;
}

int vhost_user_connect(struct vhost *v, int fd)
{
	struct vhost_user *u = v->user;
	int r;

	vhost_user_disconnect(v);
	v->fd = fd;
	u->dead = false;
	u->protocol_features = 0;
	u->max_pairs = 1;
	r = negotiate(v);
	if (r == 0)
		r = user_set_owner(v);
	if (r == 0 && v->count > 2 * u->max_pairs)
		r = -ENOSPC;
	if (r < 0)
		vhost_user_disconnect(v);
	return r;
}

void vhost_user_disconnect(struct vhost *v)
{
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	v->user->dead = true;
}
