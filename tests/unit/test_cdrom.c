/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_cdrom on a file that this program's own ioctl() and fstat() make a drive of.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/driver.h"

static struct drive_fake {
	char path[40];
	bool is_cdrom, open, locked, changed;
	uint64_t size; /* of the disc; 0: none */
} * fake(void)
{
	static struct drive_fake f;

	return &f;
}

static bool is_ours(int fd)
{
	char link[64], to[64] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, to, sizeof(to) - 1) > 0 && *fake()->path && !strcmp(to, fake()->path);
}

static int drive_ioctl(unsigned long request, unsigned long arg)
{
	struct drive_fake *f = fake();
	bool was = f->changed;

	switch (request) {
	case CDROM_DRIVE_STATUS:
		return f->open ? CDS_TRAY_OPEN : f->size ? CDS_DISC_OK : CDS_NO_DISC;
	case CDROM_MEDIA_CHANGED:
		f->changed = false;
		return was;
	case CDROMEJECT:
		if (f->locked)
			return -EBUSY;
		f->open = true;
		return 0;
	case CDROMCLOSETRAY:
		f->open = false;
		return 0;
	case CDROM_LOCKDOOR:
		f->locked = arg;
		return 0;
	}
	return -ENOTTY;
}

int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;
	int ret;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (!is_ours(fd))
		return syscall(SYS_ioctl, fd, request, arg);
	if (request == BLKGETSIZE64) {
		*(uint64_t *)arg = fake()->size ? fake()->size : 0x3ffffc00;
		return 0;
	}
	ret = fake()->is_cdrom ? drive_ioctl(request, arg) : -ENOTTY;
	errno = ret < 0 ? -ret : errno;
	return ret < 0 ? -1 : ret;
}

int fstat(int fd, struct stat *st)
{
	int ret = syscall(SYS_fstat, fd, st);

	if (is_ours(fd))
		st->st_mode = (st->st_mode & ~S_IFMT) | S_IFBLK;
	return ret;
}

static int setup(void **state)
{
	struct drive_fake *f = fake();
	int fd;

	*f = (struct drive_fake){.is_cdrom = true, .size = 8192};
	strcpy(f->path, "/tmp/test_cdrom.XXXXXX");
	fd = mkstemp(f->path);
	assert_int_equal(pwrite(fd, "disc", 4, 4096), 4);
	assert_int_equal(ftruncate(fd, 65536), 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	unlink(fake()->path);
	*fake()->path = 0;
	return 0;
}

static struct block_node *try_open(struct evloop *loop, const char *driver, uint32_t flags,
				   struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	opts_add(&opts, "driver", driver);
	opts_add(&opts, strcmp(driver, "raw") ? "filename" : "file.filename", fake()->path);
	if (!strcmp(driver, "raw"))
		opts_add(&opts, "file.driver", "host_cdrom");
	node = block_open_tool(loop, &opts, flags | BLOCK_OPEN_BLOCKDEV, NULL, err);
	opts_free(&opts);
	return node;
}

static void test_drive(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct block_node *node = try_open(loop, "raw", BLOCK_OPEN_RDWR | BLOCK_OPEN_AUTO_RO, NULL);
	char buf[512];

	assert_non_null(node);
	assert_true(block_is_host_cdrom(fake()->path));
	assert_true(block_read_only(node));
	assert_int_equal(block_length(node), 8192);
	assert_int_equal(block_pread(node, 4096, buf, 512), 0);
	assert_memory_equal(buf, "disc", 4);
	/* A locked tray stays where it is. */
	assert_int_equal(block_tray(node, BLOCK_TRAY_LOCK), 0);
	assert_int_equal(block_tray(node, BLOCK_TRAY_OPEN), -EBUSY);
	assert_int_equal(block_tray(node, BLOCK_TRAY_UNLOCK), 0);
	assert_int_equal(block_tray(node, BLOCK_TRAY_OPEN), 0);
	assert_int_equal(block_length(node), 0);
	assert_int_equal(block_pread(node, 4096, buf, 512), -EIO);
	/* Another disc. */
	fake()->size = 16384;
	assert_int_equal(block_tray(node, BLOCK_TRAY_CLOSE), 1);
	assert_int_equal(block_length(node), 16384);
	fake()->size = 4096;
	fake()->changed = true;
	assert_int_equal(block_tray(node, BLOCK_TRAY_LOOK), 1);
	assert_int_equal(block_length(node), 4096);
	fake()->size = 0;
	assert_int_equal(block_tray(node, BLOCK_TRAY_LOOK), 0);
	/* Who closes it leaves it unlocked. */
	assert_int_equal(block_tray(node, BLOCK_TRAY_LOCK), 0);
	assert_true(fake()->locked);
	block_unref(node);
	assert_false(fake()->locked);
	evloop_free(loop);
}

static void test_refusals(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct error *err = NULL;
	struct block_node *node;

	assert_null(try_open(loop, "host_cdrom", BLOCK_OPEN_RDWR, &err));
	assert_non_null(strstr(error_message(err), "only be read"));
	error_free(err);
	err = NULL;
	/* Some other block device. */
	fake()->is_cdrom = false;
	assert_null(try_open(loop, "host_cdrom", 0, &err));
	assert_non_null(strstr(error_message(err), "is not a CD-ROM drive"));
	error_free(err);
	assert_false(block_is_host_cdrom(fake()->path));
	node = try_open(loop, "null-co", 0, NULL);
	assert_null(node);
	evloop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_drive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
