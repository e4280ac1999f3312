/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files and host block devices: access, locks, O_DIRECT's alignment, the engine.
 * Main thread, on the private loop of block_open().
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/file.h"
#include "vmm/core/log.h"

static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};
static const char *const locking_names[] = {"auto", "on", "off", NULL};

/* Whether a read of align bytes at align, to memory aligned to mem, is taken. */
static bool direct_takes(int fd, char *buf, uint32_t align, uint32_t mem)
{
	return pread(fd, buf + mem, align, align) >= 0 || errno != EINVAL;
}

static void probe_direct(struct file_node *s, uint64_t size)
{
	void *buf;
	int sector;

	s->align = s->mem_align = 4096;
	if (s->is_block && !ioctl(s->fd, BLKSSZGET, &sector) && is_pow2(sector) && sector >= 512 &&
	    sector <= 65536)
		s->align = sector;
	if (!size || posix_memalign(&buf, 65536, 65536 + 8192))
		return;
	if (!s->is_block) {
		for (uint32_t a = 512; a <= 4096; a *= 2) {
			if (direct_takes(s->fd, buf, a, 0)) {
				s->align = a;
				break;
			}
		}
	}
	for (uint32_t m = 512; m <= 4096; m *= 2) {
		if (direct_takes(s->fd, buf, s->align, m)) {
			s->mem_align = m;
			break;
		}
	}
	free(buf);
}

static bool choose_engine(struct file_node *s, int aio, struct error **err)
{
	struct error *why = NULL;

	s->pool = pool_new();
	if (aio == BLOCK_AIO_NATIVE) {
		if (!s->direct) {
			error_set(err, "aio=native was specified, but it requires cache.direct=on, "
				       "which was not specified.");
			return false;
		}
		s->engine = engine_aio_new(s->pool, err);
		return s->engine != NULL;
	}
	if (aio != BLOCK_AIO_THREADS) {
		s->engine = engine_uring_new(s->fd, &why);
		if (!s->engine && aio == BLOCK_AIO_IO_URING)
			log_warn("%s; aio=threads is used instead", error_message(why));
		error_free(why);
	}
	if (!s->engine)
		s->engine = engine_threads_new(s->pool);
	return true;
}

static bool is_loop(const struct block_chain *up, const struct stat *st)
{
	for (; up; up = up->up)
		if (up->dev == st->st_dev && up->ino == st->st_ino)
			return true;
	return false;
}

static int open_fd(struct block_node *node, const struct block_open *how)
{
	int flags = O_CLOEXEC | (how->flags & BLOCK_OPEN_DIRECT ? O_DIRECT : 0), fd = -1;

	node->read_only = !(how->flags & BLOCK_OPEN_RDWR);
	/* O_NONBLOCK only for the opening: a FIFO by mistake must not hang us. */
	if (!node->read_only) {
		fd = open(node->filename, O_RDWR | O_NONBLOCK | flags);
		if (fd >= 0 || !(how->flags & BLOCK_OPEN_AUTO_RO) ||
		    (errno != EACCES && errno != EROFS && errno != EPERM))
			return fd;
		node->read_only = true;
	}
	return open(node->filename, O_RDONLY | O_NONBLOCK | flags);
}

static bool measure(struct block_node *node, const struct stat *st, struct error **err)
{
	struct file_node *s = node->opaque;
	uint64_t size = st->st_size;
	unsigned physical;

	s->is_block = S_ISBLK(st->st_mode);
	if (s->is_block && ioctl(s->fd, BLKGETSIZE64, &size) < 0) {
		error_set_errno(err, errno, "Could not get the size of '%s'", node->filename);
		return false;
	}
	node->length = ALIGN_UP(size, 512);
	node->zero_past_end = !s->is_block;
	node->limits.discard = node->limits.write_zeroes = true;
	if (s->is_block && !ioctl(s->fd, BLKPBSZGET, &physical) && is_pow2(physical) &&
	    physical >= 512)
		node->limits.physical_block = physical;
	s->align = s->mem_align = 1;
	if (s->direct) {
		probe_direct(s, size);
		node->limits.discard_alignment = s->align;
	}
	return true;
}

static bool lock_image(struct block_node *node, const struct block_open *how, bool lock,
		       struct error **err)
{
	struct file_node *s = node->opaque;
	uint32_t perm = FILE_PERM_CONSISTENT_READ, unshared = FILE_PERM_WRITE;
	struct stat mine, st;

	if (!lock)
		return true;
	if (how->flags & (BLOCK_OPEN_RESIZE | BLOCK_OPEN_BACKING))
		unshared |= FILE_PERM_RESIZE;
	if (!node->read_only) {
		perm |= FILE_PERM_WRITE;
		if (how->flags & BLOCK_OPEN_RESIZE)
			perm |= FILE_PERM_RESIZE;
	}
	if (how->flags & BLOCK_OPEN_FORCE_SHARE)
		unshared = 0;
	s->lock_fd = open(node->filename, O_RDONLY | O_CLOEXEC);
	if (s->lock_fd < 0 || fstat(s->lock_fd, &mine) < 0 || fstat(s->fd, &st) < 0) {
		error_set_errno(err, errno, "Could not open '%s'", node->filename);
		return false;
	}
	if (mine.st_dev != st.st_dev || mine.st_ino != st.st_ino) {
		error_set(err, "'%s' was replaced while it was being opened", node->filename);
		return false;
	}
	return file_lock(s->lock_fd, node->filename, perm, unshared, err);
}

static bool open_any(struct block_node *node, const struct block_open *how, struct opts *opts,
		     bool want_block, struct error **err)
{
	struct file_node *s = node->opaque;
	const char *filename = opts_get(opts, "filename");
	int aio = -1, locking = 0, direct;
	struct stat st;

	s->fd = s->lock_fd = -1;
	if (!filename || !*filename) {
		error_set(err, "The '%s' block driver requires a file name", node->drv->name);
		return false;
	}
	node->filename = xstrdup(filename);
	if (!opts_get_enum(opts, "aio", aio_names, &aio, err) ||
	    !opts_get_enum(opts, "locking", locking_names, &locking, err))
		return false;
	if (!opts_check_used(opts, NULL, 0, err))
		return false;
	aio = aio < 0 ? how->aio : aio + BLOCK_AIO_THREADS;
	s->direct = how->flags & BLOCK_OPEN_DIRECT;
	if (aio == BLOCK_AIO_NATIVE && !s->direct) {
		error_set(err, "aio=native was specified, but it requires cache.direct=on, which "
			       "was not specified.");
		return false;
	}
	s->fd = open_fd(node, how);
	if (s->fd < 0) {
		direct = errno == EINVAL && s->direct;
		error_set_errno(err, errno, "Could not open '%s'%s", filename,
				direct ? " (its file system may not support O_DIRECT)" : "");
		return false;
	}
	if (fstat(s->fd, &st) < 0) {
		error_set_errno(err, errno, "Could not open '%s'", filename);
		return false;
	}
	if (want_block ? !S_ISBLK(st.st_mode) : !S_ISREG(st.st_mode)) {
		error_set(err, "'%s' driver requires '%s' to be a %s", node->drv->name, filename,
			  want_block ? "block device" : "regular file");
		return false;
	}
	if (is_loop(how->up, &st)) {
		error_set(err, "Backing files of '%s' form a loop", filename);
		return false;
	}
	if (!lock_image(node, how, locking != 2, err) || !measure(node, &st, err) ||
	    !choose_engine(s, aio, err))
		return false;
	pool_attach(s->pool, node->loop);
	s->engine->ops->attach(s->engine, node->loop);
	return true;
}

bool file_open(struct block_node *node, const struct block_open *how, struct opts *opts,
	       struct error **err)
{
	return open_any(node, how, opts, false, err);
}

bool host_device_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	return open_any(node, how, opts, true, err);
}

/* Also after an open that failed midway. */
void file_close(struct block_node *node)
{
	struct file_node *s = node->opaque;

	if (s->engine) {
		if (node->loop) {
			s->engine->ops->detach(s->engine);
			pool_detach(s->pool);
		}
		s->engine->ops->free(s->engine);
		s->engine = NULL;
	}
	pool_free(s->pool);
	s->pool = NULL;
	if (s->fd >= 0)
		close(s->fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	s->fd = s->lock_fd = -1;
}

int file_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct file_node *s = node->opaque;

	if (s->is_block) {
		error_set(err, "Cannot resize device files");
		return -ENOTSUP;
	}
	if (ftruncate(s->fd, bytes) < 0) {
		int ret = -errno;

		error_set_errno(err, ret, "Failed to resize the file");
		return ret;
	}
	s->data_end = 0;
	block_set_length(node, ALIGN_UP(bytes, 512));
	return 0;
}

int file_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	struct file_node *s = node->opaque;
	int ret = -ENOTSUP;

	if (mode == PREALLOC_FALLOC && !s->is_block)
		ret = from < node->length ? -posix_fallocate(s->fd, from, node->length - from) : 0;
	else if (mode == PREALLOC_FULL)
		ret = block_write_nothing(node, from);
	s->data_end = 0;
	return ret;
}

int file_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_extent *out)
{
	struct file_node *s = node->opaque;
	off_t data = -1, hole = -1;

	out->bytes = bytes;
	out->allocated = out->data = out->has_offset = true;
	out->offset = offset;
	if (s->is_block)
		return 0;
	/* Looking for holes may take the host a walk through the whole file. */
	if (offset >= s->data_start && offset < s->data_end) {
		out->bytes = MIN(bytes, s->data_end - offset);
		return 0;
	}
	data = lseek(s->fd, offset, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		return 0; /* cannot tell */
	/* Extents end on a sector's border, like everything that is asked here. */
	if (data < 0 || ALIGN_DOWN((uint64_t)data, 512) > offset) {
		if (data >= 0)
			out->bytes = MIN(bytes, ALIGN_DOWN((uint64_t)data, 512) - offset);
		out->data = false;
		out->zero = true;
		return 0;
	}
	hole = lseek(s->fd, data, SEEK_HOLE);
	if (hole > data) {
		s->data_start = offset;
		s->data_end = ALIGN_UP((uint64_t)hole, 512);
		out->bytes = MIN(bytes, s->data_end - offset);
	}
	return 0;
}

int64_t file_allocated(struct block_node *node)
{
	struct file_node *s = node->opaque;
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	return (int64_t)st.st_blocks * 512;
}

/* The identity of the lowest file of a stack, for the search for loops. */
bool block_file_identity(const struct block_node *node, dev_t *dev, ino_t *ino)
{
	struct stat st;

	while (node && !node->drv->protocol)
		node = node->file;
	if (!node || (node->drv != &block_file && node->drv != &block_host_device) ||
	    fstat(((struct file_node *)node->opaque)->fd, &st) < 0)
		return false;
	*dev = st.st_dev;
	*ino = st.st_ino;
	return true;
}
