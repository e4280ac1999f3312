/* SPDX-License-Identifier: Apache-2.0 */
/* Packets into a pcap file; see dump.h. Threads: as there; the lock is held for one record. */
#include "net/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/core/iov.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

enum {
	PCAP_HEADER = 24,
	PCAP_RECORD = 16,
	PCAP_ETHERNET = 1,
	DEFAULT_MAXLEN = 65536,
	PIECES_MAX = 64,
};
#define PCAP_MAGIC 0xa1b2c3d4 /* microseconds */

enum direction { BOTH, TO_GUEST, FROM_GUEST };

struct net_dump {
	struct net_filter filter;
	struct netdev *nd;
	pthread_mutex_t lock;
	int fd; /* -1: the host's file has failed */
	uint32_t maxlen;
	enum direction direction;
	uint8_t *flat; /* a packet of more pieces than one write takes */
};

/* A record in one write: whoever reads along sees whole ones. Under the lock, so that times ascend
 * in the file. */
static void write_record(struct net_dump *d, const struct net_packet *pkt, size_t skip)
{
	struct iovec iov[1 + PIECES_MAX];
	uint8_t head[PCAP_RECORD];
	size_t len = pkt->len - skip, kept = MIN(MIN(len, d->maxlen), NET_PACKET_MAX);
	int pieces = iov_slice(pkt->iov, pkt->iovcnt, skip, kept, iov + 1, PIECES_MAX);
	int64_t now = clock_now(&clock_realtime);
	ssize_t done;

	if (pieces < 0) {
		iov[1].iov_base = d->flat;
		iov[1].iov_len = iov_to_buf(pkt->iov, pkt->iovcnt, skip, d->flat, kept);
		pieces = 1;
	}
	store_le32(head, now / NSEC_PER_SEC);
	store_le32(head + 4, now % NSEC_PER_SEC / 1000);
	store_le32(head + 8, kept);
	store_le32(head + 12, len);
	iov[0] = (struct iovec){head, sizeof(head)};
	do
		done = writev(d->fd, iov, 1 + pieces);
	while (done < 0 && errno == EINTR);
	if (done == (ssize_t)(sizeof(head) + kept))
		return;
	log_error("filter-dump of netdev '%s': %s; no more is written", d->nd->id,
		  strerror(done < 0 ? errno : ENOSPC));
	close(d->fd);
	d->fd = -1;
}

static void on_packet(struct net_filter *f, bool to_guest, const struct net_packet *pkt,
		      unsigned hdr)
{
	struct net_dump *d = f->opaque;

	if (d->direction == (to_guest ? FROM_GUEST : TO_GUEST) || pkt->len < hdr)
		return;
	pthread_mutex_lock(&d->lock);
	if (d->fd >= 0)
		write_record(d, pkt, hdr);
	pthread_mutex_unlock(&d->lock);
}

static bool open_file(struct net_dump *d, const char *file, struct error **err)
{
	uint8_t head[PCAP_HEADER] = {0};
	int r;

	d->fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (d->fd < 0) {
		error_set_errno(err, errno, "cannot write '%s'", file);
		return false;
	}
	store_le32(head, PCAP_MAGIC);
	store_le16(head + 4, 2);
	store_le16(head + 6, 4);
	store_le32(head + 16, d->maxlen);
	store_le32(head + 20, PCAP_ETHERNET);
	r = write_full(d->fd, head, sizeof(head));
	if (r < 0)
		error_set_errno(err, r, "cannot write '%s'", file);
	return r >= 0;
}

struct net_dump *net_dump_new(struct netdev *nd, struct opts *opts, struct error **err)
{
	static const char *const directions[] = {"all", "rx", "tx", NULL};
	const char *file = opts_get(opts, "file");
	uint64_t maxlen = DEFAULT_MAXLEN;
	int direction = 0;
	struct net_dump *d;

	if (!opts_get_u64(opts, "maxlen", &maxlen, err) ||
	    !opts_get_enum(opts, "queue", directions, &direction, err))
		return NULL;
	if (!file || !*file) {
		error_set(err, "Parameter 'file' is missing");
		return NULL;
	}
	if (!maxlen || maxlen > UINT32_MAX) {
		error_set(err, "Parameter 'maxlen' expects 1 to 4294967295 bytes");
		return NULL;
	}
	if (nd->vhost.kind != NET_VHOST_NONE) {
		error_set(err, "nobody here sees the packets of a back end with vhost");
		return NULL;
	}
	d = xcalloc(1, sizeof(*d));
	d->nd = nd;
	d->maxlen = maxlen;
	/* As the back end's queues are called: rx is what the guest sent. */
	d->direction = direction == 1 ? FROM_GUEST : direction == 2 ? TO_GUEST : BOTH;
	pthread_mutex_init(&d->lock, NULL);
	d->flat = xmalloc(NET_PACKET_MAX);
	d->filter = (struct net_filter){.packet = on_packet, .opaque = d};
	net_filter_add(nd, &d->filter);
	if (!open_file(d, file, err)) {
		net_dump_free(d);
		return NULL;
	}
	return d;
}

void net_dump_free(struct net_dump *d)
{
	if (!d)
		return;
	net_filter_del(d->nd, &d->filter);
	if (d->fd >= 0)
		close(d->fd);
	pthread_mutex_destroy(&d->lock);
	free(d->flat);
	free(d);
}
