/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image locks: read locks of open file descriptions (fcntl(2), F_OFD_SETLK) on single bytes, as
 * QEMU takes them (its block/file-posix.c tells the positions). Main thread, at open.
 */
#include <errno.h>
#include <fcntl.h>

#include "block/file.h"

enum { LOCK_PERM_BASE = 100, LOCK_SHARED_BASE = 200 };

static const struct {
	uint32_t bit;
	int pos;
	const char *name;
} perms[] = {
	{FILE_PERM_CONSISTENT_READ, 0, "consistent read"},
	{FILE_PERM_WRITE, 1, "write"},
	{FILE_PERM_RESIZE, 3, "resize"},
};

static int lock_byte(int fd, off_t pos, short type)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = pos, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Whether somebody else holds the byte. */
static int byte_taken(int fd, off_t pos)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = pos, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	return fl.l_type != F_UNLCK;
}

static bool in_use(const char *filename, const char *shared, const char *name, struct error **err)
{
	error_set(err, "Failed to get %s\"%s\" lock: is another process using the image [%s]?",
		  shared, name, filename);
	return false;
}

bool file_lock(int fd, const char *filename, uint32_t perm, uint32_t unshared, struct error **err)
{
	/* Taken first and looked at afterwards, so that of two that race at least one sees the
	 * other. */
	for (size_t i = 0; i < ARRAY_SIZE(perms); i++) {
		int ret = 0;

		if (perm & perms[i].bit)
			ret = lock_byte(fd, LOCK_PERM_BASE + perms[i].pos, F_RDLCK);
		if (!ret && (unshared & perms[i].bit))
			ret = lock_byte(fd, LOCK_SHARED_BASE + perms[i].pos, F_RDLCK);
		/* A file system without locks, as QEMU's locking=auto sees it. */
		if (ret == -EINVAL || ret == -ENOLCK || ret == -ENOSYS || ret == -EOPNOTSUPP)
			return true;
		if (ret)
			return in_use(filename, "", perms[i].name, err);
	}
	for (size_t i = 0; i < ARRAY_SIZE(perms); i++) {
		if ((perm & perms[i].bit) && byte_taken(fd, LOCK_SHARED_BASE + perms[i].pos))
			return in_use(filename, "", perms[i].name, err);
		if ((unshared & perms[i].bit) && byte_taken(fd, LOCK_PERM_BASE + perms[i].pos))
			return in_use(filename, "shared ", perms[i].name, err);
	}
	return true;
}
