/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -netdev vhost-user: another process serves the guest's queues. Here is no more than the
 * connection to it, through a chardev of the user's: hw/vhost/ speaks the protocol. While nobody is
 * connected the link is down, and what the guest sends is lost. Main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/types.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

struct vhost_user_netdev {
	struct netdev nd;
	const struct net_context *context;
	struct chardev *chardev;
	struct chardev_peer peer;
	char *chardev_id;
	pthread_mutex_t lock; /* of fd; a leaf */
	int fd;		      /* a duplicate of the connection, -1: none */
};

static struct vhost_user_netdev *of(struct netdev *nd)
{
	return container_of(nd, struct vhost_user_netdev, nd);
}

static void set_fd(struct vhost_user_netdev *u, int fd)
{
	int old;

	pthread_mutex_lock(&u->lock);
	old = u->fd;
	u->fd = fd;
	pthread_mutex_unlock(&u->lock);
	if (old >= 0)
		close(old);
}

static int user_vhost_socket(struct netdev *nd)
{
	struct vhost_user_netdev *u = of(nd);
	int fd;

	pthread_mutex_lock(&u->lock);
	fd = u->fd < 0 ? -1 : fcntl(u->fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&u->lock);
	return fd;
}

/* ---- the chardev ---- */

static size_t can_receive(void *opaque)
{
	return 0;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
}

static void on_chardev_event(void *opaque, enum chardev_event event)
{
	struct vhost_user_netdev *u = opaque;
	bool open = event == CHARDEV_OPENED;
	int fd;

	if (!open && event != CHARDEV_CLOSED)
		return;
	fd = open ? u->chardev->ops->socket(u->chardev) : -1;
	set_fd(u, fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0));
	net_link_changed(&u->nd, open);
}

/* ---- a back end that moves no packets ---- */

static unsigned user_send(struct net_queue *q, const struct net_packet *pkts, unsigned n)
{
	return n;
}

static void user_receive_ready(struct net_queue *q)
{
}

static bool user_attach(struct net_queue *q, struct error **err)
{
	return true;
}

static void user_detach(struct net_queue *q)
{
}

static bool user_set_offloads(struct netdev *nd, unsigned offloads)
{
	return true; /* the server's own: it sees what was negotiated */
}

static char *user_info(struct netdev *nd)
{
	return xasprintf("chardev=%s%s", of(nd)->chardev_id, nd->link_up ? "" : ",disconnected");
}

static void user_destroy(struct netdev *nd)
{
	struct vhost_user_netdev *u = of(nd);

	if (u->chardev) {
		chardev_attach(u->chardev, NULL);
		u->context->release_chardev(u->context->opaque, u->chardev);
	}
	set_fd(u, -1);
	pthread_mutex_destroy(&u->lock);
	free(u->chardev_id);
	netdev_destroy(nd);
	free(u);
}

static const struct netdev_ops user_ops = {
	.type = "vhost-user",
	.send = user_send,
	.receive_ready = user_receive_ready,
	.attach = user_attach,
	.detach = user_detach,
	.set_offloads = user_set_offloads,
	.info = user_info,
	.vhost_socket = user_vhost_socket,
	.destroy = user_destroy,
};

/* ---- options ---- */

/* Cards ask the server what it can before the guest runs, so it is waited for. */
static bool use_chardev(struct vhost_user_netdev *u, struct error **err)
{
	const struct net_context *c = u->context;
	struct chardev *chardev;

	if (!c->take_chardev) {
		error_set(err, "chardev '%s' not found", u->chardev_id);
		return false;
	}
	chardev = c->take_chardev(c->opaque, u->chardev_id, err);
	if (!chardev)
		return false;
	u->chardev = chardev;
	if (!chardev->ops->socket) {
		error_set(err, "chardev '%s' is not a socket", u->chardev_id);
		return false;
	}
	chardev_attach(chardev, &u->peer);
	return c->wait_chardev(c->opaque, chardev, err);
}

static struct netdev *create(const struct net_context *context, const char *id, struct opts *opts,
			     struct error **err)
{
	const char *chardev = opts_get(opts, "chardev");
	struct vhost_user_netdev *u;
	uint64_t queues = 1;
	bool forced = true;

	if (!chardev) {
		error_set(err, "Parameter 'chardev' is missing");
		return NULL;
	}
	if (!opts_get_u64(opts, "queues", &queues, err) ||
	    !opts_get_bool(opts, "vhostforce", &forced, err))
		return NULL;
	if (queues < 1 || queues > NET_MAX_QUEUES) {
		error_set(err, "Parameter 'queues' expects a number from 1 to %d", NET_MAX_QUEUES);
		return NULL;
	}
	u = xcalloc(1, sizeof(*u));
	netdev_init(&u->nd, &user_ops, id, queues);
	pthread_mutex_init(&u->lock, NULL);
	u->fd = -1;
	u->context = context;
	u->chardev_id = xstrdup(chardev);
	u->peer = (struct chardev_peer){.can_receive = can_receive,
					.receive = receive,
					.event = on_chardev_event,
					.opaque = u};
	u->nd.link_up = false;
	u->nd.vhost.kind = NET_VHOST_USER;
	u->nd.vhost.forced = forced;
	u->nd.vnet_hdr_max = 12;
	u->nd.offloads_able = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 |
			      NET_OFFLOAD_ECN | NET_OFFLOAD_UFO | NET_OFFLOAD_USO4 |
			      NET_OFFLOAD_USO6;
	if (use_chardev(u, err))
		return &u->nd;
	net_free(&u->nd);
	return NULL;
}

const struct net_type net_type_vhost_user = {
	.name = "vhost-user",
	.help = "another process serves the queues of a virtio card",
	.options =
		(const struct net_option[]){
			{"chardev", "id", "a socket whose other end is the server"},
			{"queues", "n", "queue pairs of the card (default: 1)"},
			{"vhostforce", "on|off", "for guests without MSI-X as well (always so)"},
			{0},
		},
	.create = create,
};
