/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_cdrom: a CD-ROM drive of the host's (/dev/sr0), with or without a disc in it. Reading is a
 * host device's; here are the tray, its lock, and which disc is in.
 *
 * Thread: the node's loop. The kernel waits for the tray to move: that is how long a guest's eject
 * takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/file.h"

bool block_is_host_cdrom(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	bool is = fd >= 0 && !fstat(fd, &st) && S_ISBLK(st.st_mode) &&
		  ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT) >= 0;

	if (fd >= 0)
		close(fd);
	return is;
}

static bool has_disc(const struct file_node *s)
{
	return ioctl(s->fd, CDROM_DRIVE_STATUS, CDSL_CURRENT) == CDS_DISC_OK;
}

/* The length is that of the disc that is in. */
static void measure(struct block_node *node)
{
	struct file_node *s = node->opaque;
	uint64_t bytes = 0;

	if (!has_disc(s) || ioctl(s->fd, BLKGETSIZE64, &bytes) < 0)
		bytes = 0;
	block_set_length(node, ALIGN_DOWN(bytes, 512));
}

static bool cdrom_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		       struct error **err)
{
	const char *filename = opts_peek(opts, "filename");
	struct file_node *s = node->opaque;

	if (filename && !block_is_host_cdrom(filename)) {
		s->fd = s->lock_fd = -1;
		error_set(err, "'%s' is not a CD-ROM drive of the host's", filename);
		return false;
	}
	if (!node->read_only && !(how->flags & BLOCK_OPEN_AUTO_RO)) {
		s->fd = s->lock_fd = -1;
		error_set(err, "A CD-ROM drive of the host's can only be read");
		return false;
	}
	if (!host_device_open(node, how, opts, err))
		return false;
	node->read_only = true;
	measure(node);
	return true;
}

static int cdrom_tray(struct block_node *node, enum block_tray action)
{
	struct file_node *s = node->opaque;
	int ret = 0;

	switch (action) {
	case BLOCK_TRAY_OPEN:
		ret = ioctl(s->fd, CDROMEJECT, 0);
		break;
	case BLOCK_TRAY_CLOSE:
		ret = ioctl(s->fd, CDROMCLOSETRAY, 0);
		break;
	case BLOCK_TRAY_LOCK:
	case BLOCK_TRAY_UNLOCK:
		ret = ioctl(s->fd, CDROM_LOCKDOOR, action == BLOCK_TRAY_LOCK);
		break;
	case BLOCK_TRAY_LOOK:
		ret = ioctl(s->fd, CDROM_MEDIA_CHANGED, CDSL_CURRENT);
		break;
	}
	if (ret < 0)
		return -errno;
	if (action == BLOCK_TRAY_LOCK || action == BLOCK_TRAY_UNLOCK) {
		s->tray_locked = action == BLOCK_TRAY_LOCK;
		return 0;
	}
	if (action != BLOCK_TRAY_LOOK || ret || !has_disc(s) || !node->length)
		measure(node);
	return node->length > 0;
}

/* Nobody is left who could unlock it. */
static void cdrom_close(struct block_node *node)
{
	struct file_node *s = node->opaque;

	if (s->tray_locked)
		ioctl(s->fd, CDROM_LOCKDOOR, 0);
	file_close(node);
}

const struct block_driver block_host_cdrom = {
	.name = "host_cdrom",
	.node_size = sizeof(struct file_node),
	.req_size = sizeof(struct file_req),
	.protocol = true,
	.open = cdrom_open,
	.close = cdrom_close,
	.submit = file_submit,
	.attach = file_attach,
	.detach = file_detach,
	.tray = cdrom_tray,
};
