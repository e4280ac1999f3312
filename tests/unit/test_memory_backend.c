/* SPDX-License-Identifier: Apache-2.0 */
/* Memory behind the guest's RAM: what is shared, what files see, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/core/memory_backend.h"
#include "vmm/core/util.h"

static const struct memory_defaults defaults = {.merge = true, .dump = true};

static struct memory_backend *made(const char *line, struct error **err)
{
	struct memory_backend *list = NULL;
	struct opts opts = {0};

	assert_true(opts_parse(&opts, line, "qom-type", NULL));
	assert_true(memory_backend_is_type(opts_peek(&opts, "qom-type")));
	if (!memory_backends_add(&list, &opts, &defaults, err))
		assert_null(list);
	opts_free(&opts);
	return list;
}

static struct memory_backend *good(const char *line)
{
	struct error *err = NULL;
	struct memory_backend *mb = made(line, &err);

	if (!mb)
		fail_msg("%s: %s", line, error_message(err));
	return mb;
}

static void bad(const char *line, const char *said)
{
	struct error *err = NULL;

	assert_null(made(line, &err));
	if (!strstr(error_message(err), said))
		fail_msg("%s: %s", line, error_message(err));
	error_free(err);
}

/* What another process sees that was given the descriptor. */
static uint8_t seen_elsewhere(const struct memory_backend *mb, uint64_t at)
{
	uint8_t *p = mmap(NULL, mb->size, PROT_READ, MAP_SHARED, mb->fd, 0), byte;

	assert_ptr_not_equal(p, MAP_FAILED);
	byte = p[at];
	munmap(p, mb->size);
	return byte;
}

static void test_what_is_shared(void **state)
{
	struct memory_backend *mb = memory_backend_new(4 * MiB, false, &defaults, NULL);

	assert_int_equal(mb->fd, -1);
	assert_true(IS_ALIGNED((uintptr_t)mb->hva, 2 * MiB));
	mb->hva[4 * MiB - 1] = 1;
	memory_backend_free(mb);

	mb = memory_backend_new(64 * KiB, true, &defaults, NULL);
	mb->hva[4096] = 7;
	assert_true(mb->share);
	assert_int_equal(seen_elsewhere(mb, 4096), 7);
	memory_backend_free(mb);

	mb = good("memory-backend-memfd,id=m,size=1M");
	mb->hva[5] = 9;
	assert_true(mb->share);
	assert_int_equal(seen_elsewhere(mb, 5), 9);
	assert_int_equal(ftruncate(mb->fd, 4096), -1); /* sealed */
	memory_backend_free(mb);

	mb = good("memory-backend-memfd,id=m,size=1M,share=off");
	mb->hva[5] = 9;
	assert_int_equal(seen_elsewhere(mb, 5), 0);
	memory_backend_free(mb);

	mb = good("memory-backend-ram,id=m,size=8M,merge=off,dump=off,reserve=off");
	assert_int_equal(mb->fd, -1);
	assert_int_equal(mb->size, 8 * MiB);
	memory_backend_free(mb);
}

static uint64_t blocks(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_prealloc(void **state)
{
	struct memory_backend *mb = good("memory-backend-memfd,id=m,size=1M");

	assert_int_equal(blocks(mb->fd), 0);
	memory_backend_free(mb);
	mb = good("memory-backend-memfd,id=m,size=1M,prealloc=on");
	assert_true(blocks(mb->fd) >= MiB);
	memory_backend_free(mb);
}

static void test_placement(void **state)
{
	static const char *const lines[] = {
		"memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=0",
		"{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m\",\"size\":1048576,"
		"\"policy\":\"bind\",\"host-nodes\":[0]}",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		struct memory_backend *mb = good(lines[i]);
		unsigned long nodes[2] = {0};
		int policy = -1;

		assert_int_equal(syscall(SYS_get_mempolicy, &policy, nodes, 128l, mb->hva,
					 MPOL_F_ADDR),
				 0);
		assert_int_equal(policy, MPOL_BIND);
		assert_int_equal(nodes[0], 1);
		memory_backend_free(mb);
	}
}

static unsigned entries(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_files(void **state)
{
	char folder[] = "/tmp/test-memory-XXXXXX";
	struct memory_backend *mb;
	uint8_t byte;
	char *path, *line;
	int fd;

	assert_non_null(mkdtemp(folder));
	path = xasprintf("%s/ram", folder);

	/* Made as long as asked for; what the guest writes is in it. */
	line = xasprintf("memory-backend-file,id=m,size=1M,share=on,mem-path=%s", path);
	mb = good(line);
	mb->hva[MiB - 1] = 0x5a;
	memory_backend_free(mb);
	fd = open(path, O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_END), MiB);
	assert_int_equal(pread(fd, &byte, 1, MiB - 1), 1);
	assert_int_equal(byte, 0x5a);

	/* There already: its bytes are the guest's. */
	mb = good(line);
	assert_int_equal(mb->hva[MiB - 1], 0x5a);
	memory_backend_free(mb);
	free(line);

	/* Private: the file stays as it is. */
	line = xasprintf("memory-backend-file,id=m,size=1M,mem-path=%s", path);
	mb = good(line);
	assert_int_equal(mb->hva[MiB - 1], 0x5a);
	mb->hva[MiB - 1] = 1;
	assert_false(mb->share);
	memory_backend_free(mb);
	assert_int_equal(pread(fd, &byte, 1, MiB - 1), 1);
	assert_int_equal(byte, 0x5a);
	free(line);

	line = xasprintf("memory-backend-file,id=m,size=2M,mem-path=%s", path);
	bad(line, "has 1048576 bytes, fewer than size");
	assert_int_equal(lseek(fd, 0, SEEK_END), MiB);
	close(fd);
	free(line);

	/* The contents are given up at the end, the file is not. */
	line = xasprintf("memory-backend-file,id=m,size=1M,share=on,discard-data=on,mem-path=%s",
			 path);
	memory_backend_free(good(line));
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, &byte, 1, MiB - 1), 1);
	assert_int_equal(byte, 0);
	close(fd);
	free(line);

	/* In a folder nothing is left. */
	unlink(path);
	line = xasprintf("memory-backend-file,id=m,size=1M,share=on,mem-path=%s", folder);
	mb = good(line);
	mb->hva[0] = 3;
	assert_int_equal(seen_elsewhere(mb, 0), 3);
	assert_int_equal(entries(folder), 0);
	memory_backend_free(mb);
	free(line);
	assert_int_equal(rmdir(folder), 0);
	free(path);
}

static void test_refused(void **state)
{
	bad("memory-backend-ram,id=m", "size 0");
	bad("memory-backend-ram,id=m,size=1000", "4 KiB");
	bad("memory-backend-ram,id=m,size=1M,szie=1", "did you mean 'size'");
	bad("memory-backend-ram,id=m,size=1M,mem-path=/tmp", "mem-path");
	bad("memory-backend-ram,id=m,size=1M,policy=bind", "host-nodes must be set for policy bind");
	bad("memory-backend-ram,id=m,size=1M,host-nodes=0", "a policy other than default");
	bad("memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=1-0", "not '1-0'");
	bad("memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=128", "not '128'");
	bad("memory-backend-ram,id=m,size=1M,policy=bnd,host-nodes=0", "bnd");
	/* A node that this host does not have. */
	bad("memory-backend-ram,id=m,size=1M,policy=bind,host-nodes=127", "NUMA");
	bad("memory-backend-file,id=m,size=1M", "mem-path property not set");
	bad("memory-backend-file,id=m,size=1M,mem-path=/nonexistent/x", "No such file");
	bad("memory-backend-memfd,id=m,size=1M,hugetlbsize=2M", "hugetlb=on");
	bad("memory-backend-memfd,id=m,size=1M,hugetlb=on,hugetlbsize=3M", "power of two");
}

static void test_found_by_id(void **state)
{
	struct memory_backend *list = good("memory-backend-ram,id=a,size=1M");

	list->next = good("memory-backend-ram,id=b,size=2M");
	assert_int_equal(memory_backends_find(list, "b")->size, 2 * MiB);
	assert_null(memory_backends_find(list, "c"));
	memory_backend_free(list->next);
	memory_backend_free(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_shared), cmocka_unit_test(test_prealloc),
		cmocka_unit_test(test_files),	       cmocka_unit_test(test_refused),
		cmocka_unit_test(test_found_by_id),    cmocka_unit_test(test_placement),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
