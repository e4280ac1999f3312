/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng: random bytes, from where, and how many at a time. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hw/virtio/virtio_rng.h"
#include "tests/lib/vdriver.h"
#include "vmm/core/util.h"

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct vring *q;
	struct device *dev;
	struct rng_backend *rng;
	char dir[64], path[96];
	int feed; /* the source's other end */
	uint64_t buf;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	vguest_init(&f->g);
	f->buf = vguest_alloc(&f->g, MiB, 4096);
	f->feed = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vguest_destroy(&f->g);
	rng_backend_free(f->rng);
	if (f->feed >= 0)
		close(f->feed);
	if (f->path[0]) {
		unlink(f->path);
		rmdir(f->dir);
	}
	free(f);
	return 0;
}

static void start(struct fixture *f, const char *props)
{
	f->dev = vguest_add(&f->g, &virtio_rng_pci_desc, props, NULL);
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_reset(&f->d);
	vdriver_enable_msix(&f->d, 2);
	vdriver_negotiate(&f->d, UINT64_MAX);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

static void ask(struct fixture *f, uint32_t len)
{
	struct vbuf buf = {f->buf, len};

	if (f->q->free == f->q->size)
		f->q->free = 0;
	vring_add(f->q, &buf, 0, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
}

static bool answered(struct fixture *f, uint32_t *len)
{
	return vring_used(f->q, NULL, len);
}

/* A source that has bytes only when the test gives some. */
static void use_fifo(struct fixture *f)
{
	struct error *err = NULL;

	snprintf(f->dir, sizeof(f->dir), "/tmp/test_virtio_rng.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/source", f->dir);
	assert_int_equal(mkfifo(f->path, 0600), 0);
	f->rng = rng_random_new("r", f->path, &err);
	assert_non_null(f->rng);
	f->feed = open(f->path, O_WRONLY | O_CLOEXEC);
	assert_true(f->feed >= 0);
	vguest_object(&f->g, "r", f->rng);
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !p[n - 1])
		n--;
	return !n;
}

static void bytes_of_the_host(void **state)
{
	struct fixture *f = *state;
	uint32_t len;

	start(f, NULL);
	assert_int_equal(f->q->size, VIRTIO_RNG_QUEUE_SIZE);
	for (int i = 0; i < 20; i++) {
		memset(vguest_ptr(&f->g, f->buf), 0, 64);
		ask(f, 64);
		assert_true(answered(f, &len));
		assert_int_equal(len, 64);
		assert_false(all_zero(vguest_ptr(&f->g, f->buf), 64));
	}
	assert_true(f->g.msi[1] > 0);
	/* As much as one request may have. */
	ask(f, MiB);
	assert_true(answered(f, &len));
	assert_int_equal(len, VIRTIO_RNG_MAX_REQUEST);
	assert_true(all_zero((uint8_t *)vguest_ptr(&f->g, f->buf) + VIRTIO_RNG_MAX_REQUEST, 4096));
}

static void a_rate_is_kept(void **state)
{
	struct fixture *f = *state;
	uint32_t len;

	start(f, "max-bytes=100,period=30");
	ask(f, 64);
	ask(f, 64);
	ask(f, 64);
	assert_true(answered(f, &len));
	assert_int_equal(len, 64);
	assert_true(answered(f, &len));
	assert_int_equal(len, 36);
	assert_false(answered(f, &len));
	while (!answered(f, &len))
		evloop_run_once(f->g.vm.loop, 100 * NSEC_PER_MSEC);
	assert_int_equal(len, 64);
	/* The timer does not outlive a reset's ring. */
	vdriver_reset(&f->d);
	evloop_run_once(f->g.vm.loop, 60 * NSEC_PER_MSEC);
	vguest_settle(&f->g);
}

static void a_source_that_has_to_be_waited_for(void **state)
{
	struct fixture *f = *state;
	uint32_t len;

	use_fifo(f);
	start(f, "rng=r");
	ask(f, 8);
	ask(f, 8);
	assert_false(answered(f, &len));
	assert_int_equal(write(f->feed, "01234", 5), 5);
	vguest_settle(&f->g);
	assert_true(answered(f, &len));
	assert_int_equal(len, 5);
	assert_memory_equal(vguest_ptr(&f->g, f->buf), "01234", 5);
	assert_false(answered(f, &len));
	/* A reset while it waits: what comes afterwards is not this ring's. */
	vdriver_reset(&f->d);
	assert_int_equal(write(f->feed, "abc", 3), 3);
	vguest_settle(&f->g);
	assert_memory_equal(vguest_ptr(&f->g, f->buf), "01234", 5);
	vdriver_negotiate(&f->d, UINT64_MAX);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	ask(f, 8);
	assert_true(answered(f, &len));
	assert_int_equal(len, 3);
	/* The source comes to its end. */
	close(f->feed);
	f->feed = -1;
	ask(f, 8);
	assert_true(answered(f, &len));
	assert_int_equal(len, 0);
}

static void built_in_and_files(void **state)
{
	struct fixture *f = *state;
	struct error *err = NULL;
	uint32_t len;

	assert_null(rng_random_new("r", "/nonexistent", &err));
	assert_non_null(err);
	error_free(err);
	f->rng = rng_builtin_new("r");
	vguest_object(&f->g, "r", f->rng);
	start(f, "rng=r");
	ask(f, 64);
	assert_true(answered(f, &len));
	assert_int_equal(len, 64);
}

static void nonsense(void **state)
{
	struct fixture *f = *state;
	struct vbuf bufs[] = {{f->buf, 4}, {f->buf + 4, 4}};
	struct error *err = NULL;
	uint32_t len;

	assert_null(vguest_add(&f->g, &virtio_rng_pci_desc, "period=0", &err));
	error_free(err);
	err = NULL;
	assert_null(vguest_add(&f->g, &virtio_rng_pci_desc, "max-bytes=0", &err));
	error_free(err);
	start(f, NULL);
	/* Nothing to write to. */
	vring_add(f->q, bufs, 2, 0, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_true(answered(f, &len));
	assert_int_equal(len, 0);
	vring_desc(f->q, 5, f->buf, 4, VQ_DESC_NEXT | VQ_DESC_WRITE, 5);
	vring_offer(f->q, 5);
	vring_kick(f->q);
	vguest_settle(&f->g);
	assert_true(vdriver_status(&f->d) & VIRTIO_STATUS_NEEDS_RESET);
}

static void legacy_and_unplug(void **state)
{
	struct fixture *f = *state;
	uint32_t len;

	use_fifo(f);
	f->dev = vguest_add(&f->g, &virtio_rng_pci_transitional_desc, "rng=r", NULL);
	vguest_boot(&f->g);
	vdriver_open(&f->d, &f->g, f->dev, true);
	assert_int_equal(vdriver_pci_read(&f->d, 0, 4), 0x1005 << 16 | 0x1af4);
	vdriver_negotiate(&f->d, UINT64_MAX);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	assert_int_equal(write(f->feed, "0123", 4), 4);
	ask(f, 4);
	assert_true(answered(f, &len));
	assert_int_equal(len, 4);
	ask(f, 4);
	device_free(f->dev);
	assert_int_equal(write(f->feed, "4567", 4), 4);
	vguest_settle(&f->g);
	assert_false(answered(f, &len));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bytes_of_the_host),
		TEST(a_rate_is_kept),
		TEST(a_source_that_has_to_be_waited_for),
		TEST(built_in_and_files),
		TEST(nonsense),
		TEST(legacy_and_unplug),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
