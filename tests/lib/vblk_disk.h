/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio-blk device over a disk in memory, d0, and its driver, for tests. Included by one file of
 * a program, as fake_block.h is.
 */
#ifndef TESTS_LIB_VBLK_DISK_H
#define TESTS_LIB_VBLK_DISK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_blk.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/vblk.h"

enum { VBLK_DISK_SIZE = 8 << 20 };

struct vblk_disk {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	struct block_node *node;
	struct iothread *iothread;
	struct device *dev;
	struct vring *q;
	uint64_t buf; /* 1 MiB of guest memory */
};

static inline int vblk_disk_setup(void **state)
{
	struct vblk_disk *f = calloc(1, sizeof(*f));

	vguest_init(&f->g);
	f->node = fake_block_new(f->g.vm.loop, VBLK_DISK_SIZE);
	for (unsigned i = 0; i < VBLK_DISK_SIZE; i++)
		f->node->data[i] = i / 512 + i;
	f->drive = (struct drive){.id = "d0",
				  .node = f->node,
				  .rerror = BLOCK_ERR_REPORT,
				  .werror = BLOCK_ERR_ENOSPC,
				  .serial = "SERIAL"};
	vguest_object(&f->g, "d0", &f->drive);
	f->buf = vguest_alloc(&f->g, MiB, 4096);
	*state = f;
	return 0;
}

static inline int vblk_disk_teardown(void **state)
{
	struct vblk_disk *f = *state;

	vguest_destroy(&f->g);
	assert_null(f->drive.taken_by);
	assert_int_equal(f->node->refs, 1);
	block_unref(f->node);
	if (f->iothread)
		iothread_free(f->iothread);
	free(f);
	return 0;
}

/* props besides drive=d0. */
static inline void vblk_disk_add(struct vblk_disk *f, const char *props)
{
	char all[256];

	snprintf(all, sizeof(all), "drive=d0%s%s", props ? "," : "", props ? props : "");
	f->dev = vguest_add(&f->g, &virtio_blk_pci_desc, all, NULL);
	vguest_boot(&f->g);
}

/* Sets the device up with one ring. */
static inline void vblk_disk_drive(struct vblk_disk *f, bool legacy, uint64_t features, bool msix)
{
	vdriver_open(&f->d, &f->g, f->dev, legacy);
	vdriver_reset(&f->d);
	if (msix)
		vdriver_enable_msix(&f->d, 2);
	vdriver_negotiate(&f->d, features);
	if (msix)
		vdriver_config_vector(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

/* A device with these properties, and a driver that wants all of its features. */
static inline void vblk_disk_start(struct vblk_disk *f, const char *props)
{
	vblk_disk_add(f, props);
	vblk_disk_drive(f, false, UINT64_MAX, true);
}

/* Another ring, as after a reset. */
static inline void vblk_disk_restart(struct vblk_disk *f)
{
	vdriver_negotiate(&f->d, UINT64_MAX);
	if (f->d.msix)
		vdriver_config_vector(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

/* A read. */
static inline void vblk_disk_check(struct vblk_disk *f)
{
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 7, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data + 7 * 512, 512);
}

#endif
