/* SPDX-License-Identifier: Apache-2.0 */
/* Files that a guest is made from. Main thread; see boot_file.h. */
#include "target-x86/boot/boot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/core/util.h"

bool boot_file_open(struct boot_file *f, const char *path, struct error **err)
{
	struct stat st;
	*f = (struct boot_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
	if (f->fd < 0) {
		error_set_errno(err, errno, "cannot open");
		return false;
	}
	if (fstat(f->fd, &st) < 0) {
		error_set_errno(err, errno, "cannot stat");
		goto fail;
	}
	if (!S_ISREG(st.st_mode)) {
		error_set(err, "not a regular file");
		goto fail;
	}
	f->size = (uint64_t)st.st_size;
	return true;
fail:
	boot_file_close(f);
	return false;
}

void boot_file_from_bytes(struct boot_file *f, const void *bytes, size_t size)
{
	*f = (struct boot_file){.fd = -1, .bytes = bytes, .size = size};
}

void boot_file_close(struct boot_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	*f = (struct boot_file){.fd = -1};
}

/* 0 or -errno; -ENODATA: the file has become shorter. */
static int read_at(const struct boot_file *f, uint64_t offset, uint8_t *buf, size_t len)
{
	if (!range_inside(offset, len, f->size))
		return -ENODATA;
	if (f->fd < 0) {
		if (len)
			memcpy(buf, f->bytes + offset, len);
		return 0;
	}
	while (len) {
		ssize_t n = pread(f->fd, buf, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		buf += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

bool boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len)
{
	return read_at(f, offset, buf, len) == 0;
}

/* One system call instead of a page fault for each page that will be written anyway. A host that
 * cannot do it takes the faults. */
static void populate(const struct iovec *iov)
{
	uintptr_t first = ALIGN_UP((uintptr_t)iov->iov_base, 4096);
	uintptr_t end = ALIGN_DOWN((uintptr_t)iov->iov_base + iov->iov_len, 4096);
	if (end > first && end - first >= MiB)
		madvise((void *)first, end - first, MADV_POPULATE_WRITE);
}

bool boot_file_load(const struct boot_file *f, uint64_t offset, uint64_t len,
		    const struct guest_mem *mem, uint64_t gpa, struct error **err)
{
	struct iovec iov[16];
	int n = mem ? gm_map(mem, gpa, len, GM_TO_GUEST, iov, ARRAY_SIZE(iov)) : 0;
	if (n < 0) {
		error_set(err, "there is no memory for %llu bytes at 0x%llx",
			  (unsigned long long)len, (unsigned long long)gpa);
		return false;
	}
	for (int i = 0; i < n; i++) {
		populate(&iov[i]);
		int ret = read_at(f, offset, iov[i].iov_base, iov[i].iov_len);
		if (ret < 0) {
			error_set_errno(err, ret, "cannot read");
			return false;
		}
		offset += iov[i].iov_len;
	}
	return true;
}
