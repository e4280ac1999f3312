/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio PCI transport, modern and legacy: identity, interrupts, doorbells, reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "hw/virtio/virtio_blk.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/vblk.h"

enum { DISK = 1 << 20 };

struct fixture {
	struct vguest g;
	struct vdriver d;
	struct drive drive;
	struct block_node *node;
	struct device *dev;
	struct vring *q;
	uint64_t buf;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	vguest_init(&f->g);
	f->node = fake_block_new(f->g.vm.loop, DISK);
	f->drive = (struct drive){.id = "d0", .node = f->node};
	vguest_object(&f->g, "d0", &f->drive);
	f->buf = vguest_alloc(&f->g, 65536, 4096);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vguest_destroy(&f->g);
	block_unref(f->node);
	free(f);
	return 0;
}

static void add(struct fixture *f, const struct device_desc *desc, const char *props)
{
	char all[128];

	snprintf(all, sizeof(all), "drive=d0%s%s", props ? "," : "", props ? props : "");
	f->dev = vguest_add(&f->g, desc, all, NULL);
	vguest_boot(&f->g);
}

static void drive_it(struct fixture *f, bool legacy, unsigned vectors)
{
	vdriver_open(&f->d, &f->g, f->dev, legacy);
	vdriver_reset(&f->d);
	if (vectors)
		vdriver_enable_msix(&f->d, vectors);
	vdriver_negotiate(&f->d, UINT64_MAX);
	if (vectors)
		vdriver_config_vector(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	vdriver_ok(&f->d);
	vguest_settle(&f->g);
}

static void check_works(struct fixture *f)
{
	f->node->data[512] ^= 0xff;
	assert_int_equal(vblk_do(f->q, VIRTIO_BLK_T_IN, 1, f->buf, 512), VIRTIO_BLK_S_OK);
	assert_memory_equal(vguest_ptr(&f->g, f->buf), f->node->data + 512, 512);
}

static void identity(void **state)
{
	static const struct {
		const struct device_desc *desc;
		const char *props;
		uint16_t device, subsystem;
		uint8_t revision;
		bool legacy, modern;
	} kinds[] = {
		{&virtio_blk_pci_desc, NULL, 0x1001, 2, 0, true, true},
		{&virtio_blk_pci_desc, "disable-legacy=on", 0x1042, 0x1100, 1, false, true},
		{&virtio_blk_pci_desc, "disable-legacy=off", 0x1001, 2, 0, true, true},
		{&virtio_blk_pci_desc, "disable-modern=on", 0x1001, 2, 0, true, false},
		{&virtio_blk_pci_transitional_desc, NULL, 0x1001, 2, 0, true, true},
		{&virtio_blk_pci_non_transitional_desc, NULL, 0x1042, 0x1100, 1, false, true},
		{&virtio_blk_pci_non_transitional_desc, "iommu_platform=on", 0x1042, 0x1100, 1,
		 false, true},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct fixture *f;
		bool modern = false;

		setup(state);
		f = *state;
		add(f, kinds[i].desc, kinds[i].props);
		f->d.g = &f->g;
		f->d.pci = pci_device_of(f->dev);
		assert_int_equal(vdriver_pci_read(&f->d, 0, 4), kinds[i].device << 16 | 0x1af4);
		assert_int_equal(vdriver_pci_read(&f->d, 8, 4), 0x01000000 | kinds[i].revision);
		assert_int_equal(vdriver_pci_read(&f->d, 0x2c, 4),
				 (uint32_t)kinds[i].subsystem << 16 | 0x1af4);
		assert_int_equal(vdriver_pci_read(&f->d, PCI_BAR0, 4) & 1, kinds[i].legacy);
		for (unsigned pos = vdriver_pci_read(&f->d, PCI_CAPABILITY_LIST, 1); pos;
		     pos = vdriver_pci_read(&f->d, pos + 1, 1))
			modern |= vdriver_pci_read(&f->d, pos, 1) == PCI_CAP_VENDOR;
		assert_int_equal(modern, kinds[i].modern);
		if (kinds[i].modern) {
			drive_it(f, false, 2);
			assert_int_equal((f->d.features & VIRTIO_F_ACCESS_PLATFORM) != 0,
					 kinds[i].props &&
						 !strcmp(kinds[i].props, "iommu_platform=on"));
			check_works(f);
		}
		if (kinds[i].legacy) {
			drive_it(f, true, 2);
			check_works(f);
		}
		teardown(state);
	}
}

static void legacy_registers(void **state)
{
	struct fixture *f = *state;
	struct vdriver *d = &f->d;

	add(f, &virtio_blk_pci_desc, NULL);
	drive_it(f, true, 0);
	assert_false(vdriver_offered(d) >> 32);
	assert_true(vdriver_offered(d) & VIRTIO_F_ANY_LAYOUT);
	assert_int_equal(vguest_in(&f->g, true, d->port + 4, 4), d->features & UINT32_MAX);
	assert_int_equal(vguest_in(&f->g, true, d->port + 14, 2), 0);
	assert_int_equal(vdriver_config_read(d, 0, 4), DISK / 512);
	assert_int_equal(vdriver_config_read(d, 0, 1), (DISK / 512) & 0xff);
	assert_int_equal(vdriver_config_read(d, 1, 1), DISK / 512 >> 8);
	/* A queue that is not there has no size. */
	vguest_out(&f->g, true, d->port + 14, 9, 2);
	assert_int_equal(vguest_in(&f->g, true, d->port + 12, 2), 0);
	assert_int_equal(vguest_in(&f->g, true, d->port + 8, 4), 0);
	vguest_out(&f->g, true, d->port + 14, 0, 2);
	assert_false(f->g.intx);
	check_works(f);
	/* The pin follows the status, which reading clears. */
	assert_true(f->g.intx);
	assert_int_equal(vdriver_isr(d), VIRTIO_ISR_QUEUE);
	assert_false(f->g.intx);
	assert_int_equal(vdriver_isr(d), 0);
	fake_block_resize(f->node, 2 * DISK);
	assert_int_equal(vdriver_isr(d), VIRTIO_ISR_CONFIG);
	/* Page number 0 is a reset, too. */
	vguest_out(&f->g, true, d->port + 8, 0, 4);
	assert_int_equal(vdriver_status(d), 0);
	assert_int_equal(vguest_in(&f->g, true, d->port + 8, 4), 0);
	/* With MSI-X the configuration moves by four. */
	drive_it(f, true, 2);
	assert_int_equal(vguest_in(&f->g, true, d->port + 20, 2), 0);
	assert_int_equal(vguest_in(&f->g, true, d->port + 22, 2), 1);
	assert_int_equal(vdriver_config_read(d, 0, 4), 2 * DISK / 512);
	check_works(f);
	assert_int_equal(f->g.msi[1], 1);
	assert_false(f->g.intx);
}

static void legacy_drivers_may_start_early(void **state)
{
	struct fixture *f = *state;

	add(f, &virtio_blk_pci_desc, NULL);
	vdriver_open(&f->d, &f->g, f->dev, true);
	vdriver_negotiate(&f->d, 0);
	f->q = vdriver_ring(&f->d, 0, 0);
	check_works(f); /* without DRIVER_OK */
	vdriver_ok(&f->d);
	check_works(f);
}

static void a_legacy_reset_is_complete_when_status_is_read(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	add(f, &virtio_blk_pci_desc, NULL);
	drive_it(f, true, 0);
	f->node->hold = true;
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	vdriver_set_status(&f->d, 0);
	assert_int_equal(vdriver_status(&f->d), 0);
	assert_int_equal(f->node->head, f->node->tail);
	assert_int_equal(vblk_status(f->q, &req), VBLK_PENDING);
}

static void pin_interrupts_of_a_modern_driver(void **state)
{
	struct fixture *f = *state;

	add(f, &virtio_blk_pci_desc, NULL);
	drive_it(f, false, 0);
	check_works(f);
	assert_true(f->g.intx);
	assert_int_equal(vguest_in(&f->g, false, f->d.isr, 4), VIRTIO_ISR_QUEUE);
	assert_false(f->g.intx);
	vdriver_pci_write(&f->d, PCI_COMMAND,
			  vdriver_pci_read(&f->d, PCI_COMMAND, 2) | PCI_COMMAND_INTX_DISABLE, 2);
	vring_set_used_event(f->q, f->q->used_idx);
	check_works(f);
	assert_false(f->g.intx);
}

static void masked_vectors_are_pending(void **state)
{
	struct fixture *f = *state;
	uint64_t pba;

	add(f, &virtio_blk_pci_desc, NULL);
	drive_it(f, false, 2);
	pba = f->d.msix_table + 2048;
	vdriver_mask_vector(&f->d, 1, true);
	check_works(f);
	assert_int_equal(f->g.msi[1], 0);
	assert_int_equal(vguest_in(&f->g, false, pba, 4), 2);
	vdriver_mask_vector(&f->d, 1, false);
	assert_int_equal(f->g.msi[1], 1);
	assert_int_equal(vguest_in(&f->g, false, pba, 4), 0);
	vring_set_used_event(f->q, f->q->used_idx);
	check_works(f);
	assert_int_equal(f->g.msi[1], 2);
	assert_false(f->g.intx);
}

static void vectors_that_are_not_there(void **state)
{
	struct fixture *f = *state;
	uint64_t common;

	add(f, &virtio_blk_pci_desc, "vectors=2");
	vdriver_open(&f->d, &f->g, f->dev, false);
	common = f->d.common;
	vguest_out(&f->g, false, common + 16, 2, 2);
	assert_int_equal(vguest_in(&f->g, false, common + 16, 2), VIRTIO_NO_VECTOR);
	vguest_out(&f->g, false, common + 16, 1, 2);
	assert_int_equal(vguest_in(&f->g, false, common + 16, 2), 1);
	vguest_out(&f->g, false, common + 26, 1, 2);
	assert_int_equal(vguest_in(&f->g, false, common + 26, 2), 1);
	vguest_out(&f->g, false, common + 26, 1, 2);
	vguest_out(&f->g, false, common + 26, 0xfff0, 2);
	assert_int_equal(vguest_in(&f->g, false, common + 26, 2), VIRTIO_NO_VECTOR);
	assert_int_equal(f->d.pci->msix.vectors[1].users, 1);
	vdriver_set_status(&f->d, 0);
	assert_int_equal(vguest_in(&f->g, false, common + 16, 2), VIRTIO_NO_VECTOR);
	assert_int_equal(f->d.pci->msix.vectors[1].users, 0);
}

static void without_msix(void **state)
{
	struct fixture *f = *state;

	add(f, &virtio_blk_pci_desc, "vectors=0");
	drive_it(f, false, 0);
	assert_int_equal(f->d.msix_table, 0);
	check_works(f);
	assert_true(f->g.intx);
}

static unsigned window_pos(struct vdriver *d)
{
	unsigned pos = vdriver_pci_read(d, PCI_CAPABILITY_LIST, 1);

	while (vdriver_pci_read(d, pos, 1) != PCI_CAP_VENDOR ||
	       vdriver_pci_read(d, pos + 3, 1) != 5)
		pos = vdriver_pci_read(d, pos + 1, 1);
	return pos;
}

static void aim(struct vdriver *d, unsigned pos, uint32_t offset, uint32_t length)
{
	vdriver_pci_write(d, pos + 4, 4, 1);
	vdriver_pci_write(d, pos + 8, offset, 4);
	vdriver_pci_write(d, pos + 12, length, 4);
}

/* For those who cannot reach the BAR: 4.1.4.9. */
static void registers_through_configuration_space(void **state)
{
	struct fixture *f = *state;
	struct vdriver *d = &f->d;
	unsigned pos;

	add(f, &virtio_blk_pci_desc, NULL);
	vdriver_open(d, &f->g, f->dev, false);
	pos = window_pos(d);
	aim(d, pos, 18, 2);
	assert_int_equal(vdriver_pci_read(d, pos + 16, 2), 1); /* num_queues */
	aim(d, pos, 0x2000, 4);
	assert_int_equal(vdriver_pci_read(d, pos + 16, 4), DISK / 512);
	aim(d, pos, 20, 1);
	vdriver_pci_write(d, pos + 16, 3, 1);
	assert_int_equal(vdriver_status(d), 3);
	/* Aims at nothing, askew, or of no size that there is: nothing happens. */
	static const uint32_t bad[][2] = {{0x4000, 4}, {UINT32_MAX, 1}, {1, 2},
					  {0, 3},      {0, 0},		{0, UINT32_MAX}};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		aim(d, pos, bad[i][0], bad[i][1]);
		vdriver_pci_read(d, pos + 16, 4);
		vdriver_pci_write(d, pos + 16, 0, 4);
	}
	vdriver_pci_write(d, pos + 4, 1, 1);
	vdriver_pci_write(d, pos + 16, 0, 4);
	assert_int_equal(vdriver_status(d), 3);
}

static void doorbells_follow_device_and_bar(void **state)
{
	struct fixture *f = *state;
	struct io_bus *mmio = &f->g.vm.mmio, *pio = &f->g.vm.pio;
	uint64_t old;

	add(f, &virtio_blk_pci_desc, NULL);
	assert_int_equal(mmio->doorbell_count, 0);
	drive_it(f, false, 2);
	assert_int_equal(mmio->doorbell_count, 1);
	assert_int_equal(pio->doorbell_count, 0);
	assert_int_equal(mmio->doorbells[0].addr, f->d.notify);
	check_works(f);
	/* Another place for the BAR. */
	old = f->d.notify;
	vdriver_pci_write(&f->d, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
	assert_int_equal(mmio->doorbell_count, 0);
	vdriver_pci_write(&f->d, PCI_BAR0 + 16, 0xa0000000, 4);
	vdriver_pci_write(&f->d, PCI_BAR0 + 20, 0, 4);
	vdriver_pci_write(&f->d, PCI_COMMAND,
			  PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO, 2);
	assert_int_equal(mmio->doorbell_count, 1);
	assert_int_equal(mmio->doorbells[0].addr, 0xa0003000);
	assert_int_not_equal(old, 0xa0003000);
	f->d.notify = 0xa0003000;
	f->d.common = 0xa0000000;
	check_works(f);
	vdriver_reset(&f->d);
	assert_int_equal(mmio->doorbell_count, 0);
	drive_it(f, true, 0);
	assert_int_equal(mmio->doorbell_count, 0);
	assert_int_equal(pio->doorbell_count, 1);
	assert_true(pio->doorbells[0].match);
	check_works(f);
	virtio_pci_reset(f->dev);
	assert_int_equal(pio->doorbell_count, 0);
}

static void doorbells_of_every_size(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;

	add(f, &virtio_blk_pci_desc, "ioeventfd=off");
	drive_it(f, false, 2);
	assert_int_equal(f->g.vm.mmio.doorbell_count, 0);
	for (unsigned size = 1; size <= 8; size *= 2) {
		vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
		vguest_out(&f->g, false, f->d.notify, 0, size);
		vguest_settle(&f->g);
		assert_int_equal(vblk_status(f->q, &req), VIRTIO_BLK_S_OK);
	}
	/* Of queues that are not there. */
	for (unsigned offset = 4; offset < 0x1000; offset += 4)
		vguest_out(&f->g, false, f->d.notify + offset, 0, 2);
	vguest_settle(&f->g);
	assert_int_equal(vdriver_status(&f->d), 15);
}

static void behind_a_port(void **state)
{
	struct fixture *f = *state;
	struct vblk_req req;
	struct bus *bus;
	uint32_t bars[6], command;
	unsigned express = 0;

	vguest_add_on(&f->g, &f->g.root.bus.bus, &pcie_root_port_desc, "rp0", "chassis=1", NULL);
	bus = bus_find(&f->g.vm, "rp0");
	assert_non_null(bus);
	f->dev = vguest_add_on(&f->g, bus, &virtio_blk_pci_desc, NULL, "drive=d0", NULL);
	vguest_boot(&f->g);
	drive_it(f, false, 2);
	assert_int_equal(vdriver_pci_read(&f->d, 0, 4), 0x1042 << 16 | 0x1af4);
	assert_int_equal(vdriver_pci_read(&f->d, 8, 1), 1);
	check_works(f);

	/* A function-level reset with a request in flight. */
	for (unsigned pos = vdriver_pci_read(&f->d, PCI_CAPABILITY_LIST, 1); pos;
	     pos = vdriver_pci_read(&f->d, pos + 1, 1))
		if (vdriver_pci_read(&f->d, pos, 1) == PCI_CAP_EXPRESS)
			express = pos;
	assert_true(express);
	assert_true(vdriver_pci_read(&f->d, express + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
	command = vdriver_pci_read(&f->d, PCI_COMMAND, 2);
	for (int i = 0; i < 6; i++)
		bars[i] = vdriver_pci_read(&f->d, PCI_BAR0 + 4 * i, 4);
	f->node->hold = true;
	vblk_add(f->q, &req, VIRTIO_BLK_T_IN, 0, f->buf, 512, 1, false);
	vring_kick(f->q);
	vguest_settle(&f->g);
	vdriver_pci_write(&f->d, express + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_FLR, 2);
	vguest_settle(&f->g);
	assert_int_equal(f->node->head, f->node->tail);
	assert_int_equal(vblk_status(f->q, &req), VBLK_PENDING);
	f->node->hold = false;
	for (int i = 0; i < 6; i++)
		vdriver_pci_write(&f->d, PCI_BAR0 + 4 * i, bars[i], 4);
	vdriver_pci_write(&f->d, PCI_COMMAND, command, 2);
	assert_int_equal(vdriver_status(&f->d), 0);
	drive_it(f, false, 2);
	check_works(f);
}

/* Nobody may die of what is written to registers at random. */
static void registers_at_random(void **state)
{
	struct fixture *f = *state;
	uint32_t seed = 1;
	unsigned pos;

	add(f, &virtio_blk_pci_desc, "num-queues=2");
	drive_it(f, false, 2);
	pos = window_pos(&f->d);
	for (int i = 0; i < 20000; i++) {
		uint32_t r = seed = seed * 1664525 + 1013904223;
		unsigned size = 1 << (r >> 8) % 4;
		uint64_t value = (r >> 10) % 3 ? (r >> 12) % 16 : (uint64_t)r << 20 ^ r;

		switch ((r >> 28) % 8) {
		case 0:
			vguest_out(&f->g, true,
				   f->g.root.bus.devices[f->d.pci->devfn]->bars[0].addr +
					   (r >> 16) % 128,
				   value, size > 4 ? 4 : size);
			break;
		case 1:
			vguest_in(&f->g, false, f->d.common + (r >> 14) % 0x4000, size);
			break;
		case 2:
			vdriver_pci_write(&f->d, pos + 4 * ((r >> 16) % 5), value, 4);
			break;
		case 3:
			evloop_run_once(f->g.vm.loop, 0);
			break;
		default:
			vguest_out(&f->g, false, f->d.common + (r >> 16) % 64, value, size);
		}
	}
	vdriver_open(&f->d, &f->g, f->dev, false);
	drive_it(f, false, 2);
	check_works(f);
}

struct hostile_cpu {
	struct fixture *f;
	struct io_reader mmio;
	uint64_t common, notify, rings;
	uint32_t seed;
};

static void cpu_out(struct hostile_cpu *c, unsigned offset, uint64_t value, unsigned size)
{
	io_bus_write(&c->f->g.vm.mmio, &c->mmio, c->common + offset, &value, size);
}

/* Sets the device up, uses it a little, and resets it, with no regard for the other one. */
static void *hostile_cpu(void *opaque)
{
	struct hostile_cpu *c = opaque;
	uint64_t status;

	for (int i = 0; i < 300; i++) {
		uint32_t r = c->seed = c->seed * 1664525 + 1013904223;

		cpu_out(c, 20, 0, 1);
		if (r >> 30)
			io_bus_read(&c->f->g.vm.mmio, &c->mmio, c->common + 20, &status, 1);
		cpu_out(c, 20, 3, 1);
		cpu_out(c, 8, 1, 4);
		cpu_out(c, 12, 1, 4);
		cpu_out(c, 20, 11, 1);
		for (unsigned q = 0; q < 2; q++) {
			cpu_out(c, 22, q, 2);
			cpu_out(c, 26, (r >> 20) % 4, 2);
			cpu_out(c, 32, c->rings, 4);
			cpu_out(c, 40, c->rings + 4096, 4);
			cpu_out(c, 48, c->rings + 8192, 4);
			cpu_out(c, 28, 1, 2);
		}
		cpu_out(c, 20, 15, 1);
		io_bus_write(&c->f->g.vm.mmio, &c->mmio, c->notify + 4 * (r >> 29), &r, 2);
		if (i % 16 == 0)
			io_bus_read(&c->f->g.vm.mmio, &c->mmio, c->common + 0x2000, &status, 4);
	}
	return NULL;
}

static void several_cpus_at_once(void **state)
{
	struct fixture *f = *state;
	struct hostile_cpu cpus[2] = {0};
	struct iothread *io = iothread_new("io0", NULL);
	pthread_t threads[2];

	assert_non_null(io);
	vguest_object(&f->g, "io0", io);
	add(f, &virtio_blk_pci_desc, "num-queues=2,iothread=io0");
	vdriver_open(&f->d, &f->g, f->dev, false);
	vdriver_enable_msix(&f->d, 3);
	for (int i = 0; i < 2; i++) {
		cpus[i] = (struct hostile_cpu){.f = f,
					       .common = f->d.common,
					       .notify = f->d.notify,
					       .rings = vguest_alloc(&f->g, 16384, 4096),
					       .seed = i};
		io_reader_register(&f->g.vm.mmio, &cpus[i].mmio);
		assert_int_equal(pthread_create(&threads[i], NULL, hostile_cpu, &cpus[i]), 0);
	}
	for (int i = 0; i < 20; i++) {
		virtio_reset(&((struct virtio_blk_pci *)f->dev)->blk.vdev);
		evloop_run_once(f->g.vm.loop, NSEC_PER_MSEC);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		io_reader_unregister(&f->g.vm.mmio, &cpus[i].mmio);
	}
	drive_it(f, false, 2);
	vblk_do(f->q, VIRTIO_BLK_T_IN, 1, f->buf, 512);
	device_free(f->dev);
	iothread_free(io);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identity),
		TEST(legacy_registers),
		TEST(legacy_drivers_may_start_early),
		TEST(a_legacy_reset_is_complete_when_status_is_read),
		TEST(pin_interrupts_of_a_modern_driver),
		TEST(masked_vectors_are_pending),
		TEST(vectors_that_are_not_there),
		TEST(without_msix),
		TEST(registers_through_configuration_space),
		TEST(doorbells_follow_device_and_bar),
		TEST(doorbells_of_every_size),
		TEST(behind_a_port),
		TEST(registers_at_random),
		TEST(several_cpus_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
