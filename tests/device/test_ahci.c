/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI with a disk and a CD-ROM as a driver uses it: command lists in guest memory, FISes that come
 * back, queued commands, errors of the host and of the guest, resets with a disk at work.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "hw/ata/ahci.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/pci_machine.h"
#include "tests/lib/state_copy.h"

#define ABAR   UINT64_C(0xfebf0000)
#define LIST   UINT64_C(0x10000)
#define RECV   UINT64_C(0x11000)
#define TABLES UINT64_C(0x12000) /* 4 KiB a slot */
#define DATA   UINT64_C(0x100000)

enum {
	RAM_SIZE = 8 << 20,
	DISK_SIZE = 4 << 20,
	DEVFN = 0xfa,
	IS = 0x10,
	IE = 0x14,
	CMD = 0x18,
	TFD = 0x20,
	SIG = 0x24,
	SSTS = 0x28,
	SCTL = 0x2c,
	SERR = 0x30,
	SACT = 0x34,
	CI = 0x38,
};

struct fixture {
	struct pci_machine m;
	uint8_t *ram;
	struct block_node *disk, *iso;
	struct drive hd, cd;
	struct device *ahci, *hd_dev, *cd_dev;
	struct notifier events;
	struct vm_event last;
	unsigned event_count;
};

static struct fixture *f;

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	return !strcmp(name, "hd") ? &f->hd : &f->cd;
}

static void on_event(struct notifier *n, void *data)
{
	f->last = *(const struct vm_event *)data;
	f->event_count++;
}

static uint32_t hba_read(unsigned reg)
{
	return (uint32_t)pci_mem_read(&f->m, ABAR + reg, 4);
}

static void hba_write(unsigned reg, uint32_t value)
{
	pci_mem_write(&f->m, ABAR + reg, 4, value);
}

static uint32_t port_read(unsigned port, unsigned reg)
{
	return hba_read(0x100 + 0x80 * port + reg);
}

static void port_write(unsigned port, unsigned reg, uint32_t value)
{
	hba_write(0x100 + 0x80 * port + reg, value);
}

static void port_start(unsigned port)
{
	port_write(port, 0x00, LIST + 0x400 * 0);
	port_write(port, 0x08, RECV);
	port_write(port, CMD, 0x10);
	port_write(port, SERR, ~0u);
	port_write(port, IS, ~0u);
	port_write(port, IE, 0x7840007f);
	port_write(port, CMD, 0x11);
	assert_int_equal(port_read(port, CMD) & 0xc011, 0xc011);
}

static int setup(void **state)
{
	f = calloc(1, sizeof(*f));
	pci_machine_init(&f->m);
	f->ram = calloc(1, RAM_SIZE);
	struct mem_region region = {.gpa = 0, .size = RAM_SIZE, .hva = f->ram, .fd = -1};
	assert_true(guest_mem_add(&f->m.vm.mem, &region, NULL));
	f->m.vm.resolver.resolve = resolve;
	f->events.fn = on_event;
	notifier_add(&f->m.vm.events, &f->events);
	f->disk = fake_block_new(f->m.vm.loop, DISK_SIZE);
	f->iso = fake_block_new(f->m.vm.loop, 1 << 20);
	f->iso->read_only = true;
	for (unsigned i = 0; i < DISK_SIZE; i++)
		f->disk->data[i] = (uint8_t)(i / 512 + i);
	for (unsigned i = 0; i < 1 << 20; i++)
		f->iso->data[i] = (uint8_t)(i / 2048 * 3 + i);
	f->hd = (struct drive){.id = "hd", .node = f->disk, .serial = "S123"};
	f->cd = (struct drive){.id = "cd", .node = f->iso, .cdrom = true};

	f->ahci = pci_machine_add(&f->m, &ich9_ahci_desc, NULL, NULL, "addr=1f.2");
	f->hd_dev = pci_machine_add(&f->m, &ide_hd_desc, NULL, bus_find(&f->m.vm, "ide.0"),
				    "drive=hd");
	f->cd_dev = pci_machine_add(&f->m, &ide_cd_desc, NULL, bus_find(&f->m.vm, "ide.2"),
				    "drive=cd");
	pci_cfg_write(&f->m, 0, DEVFN, 0x24, 4, ABAR);
	pci_cfg_write(&f->m, 0, DEVFN, 4, 2, 6);
	hba_write(0x04, 0x80000002);
	return 0;
}

static int teardown(void **state)
{
	pci_machine_destroy(&f->m);
	block_unref(f->disk);
	block_unref(f->iso);
	free(f->ram);
	free(f);
	return 0;
}

struct prd {
	uint64_t addr;
	uint32_t len;
};

/* A command in a slot's table and header, not yet issued. */
static void prepare(unsigned slot, uint8_t command, uint64_t lba, uint16_t count, uint16_t features,
		    const struct prd *prd, unsigned prds)
{
	uint8_t *header = f->ram + LIST + 32 * slot, *table = f->ram + TABLES + 4096 * slot;
	uint8_t fis[20] = {0x27, 0x80, command, (uint8_t)features};

	for (int i = 0; i < 3; i++) {
		fis[4 + i] = (uint8_t)(lba >> (8 * i));
		fis[8 + i] = (uint8_t)(lba >> (24 + 8 * i));
	}
	fis[7] = 0x40;
	fis[11] = features >> 8;
	fis[12] = (uint8_t)count;
	fis[13] = count >> 8;
	memset(table, 0, 4096);
	memcpy(table, fis, sizeof(fis));
	for (unsigned i = 0; i < prds; i++) {
		store_le64(table + 0x80 + 16 * i, prd[i].addr);
		store_le32(table + 0x80 + 16 * i + 12, prd[i].len - 1);
	}
	memset(header, 0, 32);
	store_le32(header, 5 | prds << 16);
	store_le64(header + 8, TABLES + 4096 * slot);
}

static void settle(void)
{
	pci_machine_settle(&f->m);
}

static void issue(unsigned port, unsigned slot)
{
	port_write(port, CI, 1u << slot);
	settle();
}

static void one(unsigned port, uint8_t command, uint64_t lba, uint16_t count, uint16_t features,
		uint32_t bytes)
{
	struct prd prd = {DATA, bytes};

	prepare(0, command, lba, count, features, &prd, bytes ? 1 : 0);
	issue(port, 0);
}

static void ncq(unsigned slot, bool write, uint64_t lba, uint16_t sectors, uint64_t addr)
{
	struct prd prd = {addr, sectors * 512u};

	prepare(slot, write ? 0x61 : 0x60, lba, (uint16_t)(slot << 3), sectors, &prd, 1);
	port_write(0, SACT, 1u << slot);
	port_write(0, CI, 1u << slot);
}

static void packet(const uint8_t *cdb, unsigned len, uint32_t bytes)
{
	struct prd prd = {DATA, bytes};

	prepare(0, 0xa0, 0, 0, 1, &prd, bytes ? 1 : 0);
	f->ram[LIST] |= 0x20;
	memcpy(f->ram + TABLES + 0x40, cdb, len);
	issue(2, 0);
}

#define PACKET(bytes, ...) packet((const uint8_t[16]){__VA_ARGS__}, 16, bytes)

static void restart(unsigned port)
{
	port_write(port, CMD, 0x10);
	settle();
	assert_int_equal(port_read(port, CMD) & 0x8000, 0);
	port_write(port, IS, ~0u);
	port_write(port, SERR, ~0u);
	port_write(port, CMD, 0x11);
}

static void test_what_is_there(void **state)
{
	assert_int_equal(pci_cfg_read(&f->m, 0, DEVFN, 0, 4), 0x29228086);
	assert_int_equal(pci_cfg_read(&f->m, 0, DEVFN, 8, 4) >> 8, 0x010601);
	assert_int_equal(hba_read(0x0c), 0x3f);
	assert_int_equal(hba_read(0x00) & 0x1f, 5);
	assert_int_equal(port_read(0, SSTS), 0x133);
	assert_int_equal(port_read(0, SIG), 0x00000101);
	assert_int_equal(port_read(2, SIG), 0xeb140101);
	assert_int_equal(port_read(1, SSTS), 0);
	assert_int_equal(port_read(1, SIG), 0xffffffff);
	assert_int_equal(port_read(0, TFD) & 0x88, 0);
}

static void test_identify(void **state)
{
	uint8_t *id = f->ram + DATA, sum = 0;

	port_start(0);
	one(0, 0xec, 0, 0, 0, 512);
	assert_int_equal(port_read(0, CI), 0);
	assert_int_equal(port_read(0, IS), 0x02); /* PIO setup */
	assert_int_equal(f->ram[RECV + 0x20], 0x5f);
	assert_int_equal(f->ram[RECV + 0x20 + 15], 0x50);
	assert_int_equal(load_le32(f->ram + LIST + 4), 512);
	assert_memory_equal(id + 20, "1S32", 4); /* bytes of words swapped */
	assert_int_equal(load_le32(id + 120), DISK_SIZE / 512);
	assert_int_equal(load_le64(id + 200), DISK_SIZE / 512);
	assert_int_equal(load_le16(id + 152) & 0x100, 0x100);
	for (int i = 0; i < 512; i++)
		sum += id[i];
	assert_int_equal(sum, 0);
	one(0, 0xa1, 0, 0, 0, 512); /* that is the other's */
	assert_int_equal(port_read(0, TFD), 0x0451);
}

static void test_dma_in_many_pieces(void **state)
{
	struct prd prds[] = {
		{DATA, 1000}, {DATA + 0x2000, 24}, {DATA + 0x1f00, 256}, {DATA + 0x8001, 1792}};
	uint8_t *disk = f->disk->data + 512 * 1000, back[3072];

	port_start(0);
	prepare(3, 0x25, 1000, 6, 0, prds, 4);
	issue(0, 3);
	assert_int_equal(port_read(0, CI), 0);
	assert_int_equal(port_read(0, IS), 0x01);
	assert_int_equal(port_read(0, TFD), 0x50);
	assert_int_equal(f->ram[RECV + 0x40], 0x34);
	assert_int_equal(load_le32(f->ram + LIST + 3 * 32 + 4), 3072);
	memcpy(back, f->ram + DATA, 1000);
	memcpy(back + 1000, f->ram + DATA + 0x2000, 24);
	memcpy(back + 1024, f->ram + DATA + 0x1f00, 256);
	memcpy(back + 1280, f->ram + DATA + 0x8001, 1792);
	assert_memory_equal(back, disk, 3072);

	memset(f->ram + DATA, 0x5a, 1024);
	one(0, 0xca, 7, 2, 0, 1024);
	assert_memory_equal(f->disk->data + 7 * 512, f->ram + DATA, 1024);
	one(0, 0x3d, 7, 1, 0, 512);
	assert_int_equal(f->disk->seen[f->disk->seen_count - 1].flags, BLOCK_FUA);
	one(0, 0xea, 0, 0, 0, 0);
	assert_int_equal(fake_block_count(f->disk, BLOCK_FLUSH), 1);
}

static void test_requests_are_cut_to_the_nodes_limits(void **state)
{
	port_start(0);
	f->disk->limits.max_transfer = 4096;
	one(0, 0x25, 0, 20, 0, 20 * 512);
	assert_int_equal(fake_block_count(f->disk, BLOCK_READ), 3);
	assert_memory_equal(f->ram + DATA, f->disk->data, 20 * 512);
	f->disk->limits.max_iov = 3;
	f->disk->limits.max_transfer = 1 << 20;
	struct prd prds[8];
	for (int i = 0; i < 8; i++)
		prds[i] = (struct prd){DATA + 0x10000 + 0x1000 * i, 320};
	prepare(0, 0x25, 40, 5, 0, prds, 8);
	issue(0, 0);
	assert_int_equal(port_read(0, TFD), 0x50);
	for (int i = 0; i < 8; i++)
		assert_memory_equal(f->ram + prds[i].addr, f->disk->data + 40 * 512 + 320 * i, 320);
}

static void test_queued_commands(void **state)
{
	port_start(0);
	f->disk->hold = true;
	ncq(1, false, 100, 8, DATA);
	ncq(4, false, 200, 8, DATA + 0x10000);
	memset(f->ram + DATA + 0x20000, 0x77, 512);
	ncq(31, true, 300, 1, DATA + 0x20000);
	settle();
	assert_int_equal(port_read(0, CI), 0);
	assert_int_equal(port_read(0, SACT), 0x80000012);
	assert_int_equal(port_read(0, TFD) & 0x80, 0);
	fake_block_release(f->disk, 1);
	settle();
	assert_int_equal(port_read(0, SACT), 0x80000010);
	assert_int_equal(port_read(0, IS), 0x08);
	assert_int_equal(f->ram[RECV + 0x58], 0xa1);
	assert_int_equal(load_le32(f->ram + RECV + 0x5c), 1 << 1);
	/* A command that is not queued waits for those that are. */
	prepare(2, 0xea, 0, 0, 0, NULL, 0);
	port_write(0, CI, 1 << 2);
	settle();
	assert_int_equal(fake_block_count(f->disk, BLOCK_FLUSH), 0);
	f->disk->hold = false;
	fake_block_release(f->disk, 10);
	settle();
	assert_int_equal(port_read(0, SACT) | port_read(0, CI), 0);
	assert_int_equal(fake_block_count(f->disk, BLOCK_FLUSH), 1);
	assert_memory_equal(f->ram + DATA + 0x10000, f->disk->data + 200 * 512, 4096);
	assert_int_equal(f->disk->data[300 * 512 + 511], 0x77);
}

static void test_interrupts(void **state)
{
	unsigned pin = 0;

	port_start(0);
	one(0, 0x25, 0, 1, 0, 512);
	for (unsigned i = 0; i < PCI_ROOT_INPUTS; i++)
		pin += f->m.input[i];
	assert_int_equal(pin, 1);
	assert_int_equal(hba_read(0x08), 1);
	port_write(0, IS, 1);
	hba_write(0x08, 1);
	assert_int_equal(hba_read(0x08), 0);
	for (unsigned i = 0; i < PCI_ROOT_INPUTS; i++)
		assert_false(f->m.input[i]);

	unsigned cap = pci_cfg_capability(&f->m, 0, DEVFN, 0x05);
	assert_int_not_equal(cap, 0);
	pci_cfg_write(&f->m, 0, DEVFN, cap + 4, 4, 0xfee00000);
	pci_cfg_write(&f->m, 0, DEVFN, cap + 8, 4, 0);
	pci_cfg_write(&f->m, 0, DEVFN, cap + 12, 2, 0x41);
	pci_cfg_write(&f->m, 0, DEVFN, cap + 2, 2, 1);
	one(0, 0x25, 0, 1, 0, 512);
	settle();
	pci_machine_pump(&f->m);
	assert_int_equal(f->m.message_count, 1);
	/* One that comes before the last was ended is told once it is. */
	one(0, 0x25, 0, 1, 0, 512);
	port_write(0, IS, 1);
	hba_write(0x08, 1);
	pci_machine_pump(&f->m);
	unsigned told = f->m.message_count;
	one(0, 0x25, 0, 1, 0, 512);
	pci_machine_pump(&f->m);
	assert_true(f->m.message_count > told);
	hba_write(0x04, 0x80000000);
	told = f->m.message_count;
	port_write(0, IS, 1);
	hba_write(0x08, 1);
	one(0, 0x25, 0, 1, 0, 512);
	pci_machine_pump(&f->m);
	assert_int_equal(f->m.message_count, told);
}

static void test_host_error_is_reported(void **state)
{
	port_start(0);
	f->disk->fail_count = 1;
	f->disk->fail_error = -EIO;
	one(0, 0x25, 10, 1, 0, 512);
	assert_int_equal(port_read(0, TFD), 0x4051);
	assert_int_equal(port_read(0, IS) & 0x40000000, 0x40000000);
	assert_int_equal(port_read(0, CI), 1); /* tells which it was */
	assert_int_equal(f->last.kind, VM_EVENT_BLOCK_IO_ERROR);
	assert_string_equal(f->last.action, "report");
	port_write(0, CI, 2); /* nothing goes on before it is restarted */
	settle();
	assert_int_equal(f->disk->seen_count, 1);
	restart(0);
	one(0, 0x25, 10, 1, 0, 512);
	assert_int_equal(port_read(0, TFD), 0x50);
}

static void test_queued_error_has_a_log(void **state)
{
	uint8_t *log = f->ram + DATA + 0x40000;
	struct prd prd = {DATA + 0x40000, 512};

	port_start(0);
	f->disk->fail_count = 1;
	f->disk->fail_error = -EIO;
	f->disk->fail_offset = 500 * 512;
	f->disk->hold = true;
	ncq(5, false, 499, 2, DATA);
	ncq(6, false, 600, 2, DATA + 0x1000);
	settle();
	f->disk->hold = false;
	fake_block_release(f->disk, 2);
	settle();
	assert_int_equal(port_read(0, SACT), 0x60); /* both: one failed, one was aborted */
	assert_int_equal(port_read(0, TFD) & 0xff01, 0x4001);
	restart(0);
	assert_int_equal(port_read(0, SACT), 0);
	prepare(0, 0x2f, 0x10, 1, 0, &prd, 1);
	issue(0, 0);
	assert_int_equal(port_read(0, TFD), 0x50);
	assert_int_equal(log[0], 5);
	assert_int_equal(log[2] & 1, 1);
	assert_int_equal(log[3], 0x40);
	assert_int_equal(load_le16(log + 4), 499);
	ncq(5, false, 499, 2, DATA);
	settle();
	assert_int_equal(port_read(0, SACT), 0);
}

static void test_an_error_stops_the_guest_and_is_retried(void **state)
{
	enum run_state running = RUN_STATE_RUNNING;

	port_start(0);
	f->hd.werror = BLOCK_ERR_ENOSPC;
	f->disk->fail_count = 2;
	f->disk->fail_error = -ENOSPC;
	memset(f->ram + DATA, 0x11, 1024);
	ncq(0, true, 10, 1, DATA);
	ncq(1, true, 20, 1, DATA + 512);
	settle();
	assert_int_equal(port_read(0, SACT), 3);
	assert_string_equal(f->last.action, "stop");
	assert_string_equal(f->last.operation, "write");
	assert_int_equal(f->last.error, ENOSPC);
	assert_int_equal(atomic_load(&f->m.vm.stop_state), RUN_STATE_IO_ERROR);
	notifier_fire(&f->m.vm.state_changed, &running);
	settle();
	assert_int_equal(port_read(0, SACT), 0);
	assert_int_equal(f->disk->data[10 * 512], 0x11);
	assert_int_equal(f->disk->data[20 * 512 + 511], 0x11);
	/* What is stopped when the guest resets the port is forgotten. */
	f->disk->fail_count = 1;
	ncq(0, true, 30, 1, DATA);
	settle();
	restart(0);
	notifier_fire(&f->m.vm.state_changed, &running);
	settle();
	assert_int_not_equal(f->disk->data[30 * 512], 0x11);
}

static void test_state_saved_in_the_middle_of_an_error(void **state)
{
	static uint8_t hba[65536], hd[512];
	enum run_state running = RUN_STATE_RUNNING;
	size_t hba_len, hd_len;

	port_start(0);
	one(0, 0xef, 0, 0, 0x82, 0); /* write cache off */
	f->hd.werror = BLOCK_ERR_STOP;
	f->disk->fail_count = 1;
	f->disk->fail_error = -EIO;
	memset(f->ram + DATA, 0x66, 512);
	ncq(9, true, 40, 1, DATA);
	settle();
	assert_int_equal(port_read(0, SACT), 1 << 9);
	hba_len = state_save(f->ahci->desc->state, f->ahci, hba, sizeof(hba));
	hd_len = state_save(f->hd_dev->desc->state, f->hd_dev, hd, sizeof(hd));

	f->ahci->desc->reset(f->ahci);
	f->disk->writeback = true;
	notifier_fire(&f->m.vm.state_changed, &running);
	settle();
	assert_int_equal(f->disk->data[40 * 512], (uint8_t)(40 + 40 * 512));
	assert_true(state_load(f->hd_dev->desc->state, f->hd_dev, hd, hd_len, NULL));
	assert_true(state_load(f->ahci->desc->state, f->ahci, hba, hba_len, NULL));
	assert_false(f->disk->writeback);
	assert_int_equal(port_read(0, CMD) & 0xc011, 0xc011);
	settle(); /* starts anew */
	assert_int_equal(port_read(0, SACT), 0);
	assert_int_equal(f->disk->data[40 * 512], 0x66);
}

static void test_stopping_waits_for_the_disk(void **state)
{
	port_start(0);
	f->disk->hold = true;
	one(0, 0x25, 0, 8, 0, 4096);
	assert_int_equal(port_read(0, CI), 1);
	assert_int_equal(port_read(0, TFD) & 0x80, 0x80);
	port_write(0, CMD, 0x10);
	assert_int_equal(port_read(0, CI), 0);
	assert_int_equal(port_read(0, CMD) & 0x8000, 0x8000);
	port_write(0, IS, ~0u);
	f->disk->hold = false;
	fake_block_release(f->disk, 1);
	settle();
	assert_int_equal(port_read(0, CMD) & 0x8000, 0);
	assert_int_equal(port_read(0, IS), 0); /* nobody wanted it */
	port_write(0, CMD, 0x19);
	one(0, 0x25, 0, 8, 0, 4096);
	assert_int_equal(port_read(0, TFD), 0x50);
}

static void test_resets(void **state)
{
	port_start(0);
	f->disk->hold = true;
	ncq(0, false, 0, 8, DATA);
	settle();
	hba_write(0x04, 0x80000001);
	assert_int_equal(hba_read(0x04), 0x80000001); /* until the disk is done */
	f->disk->hold = false;
	fake_block_release(f->disk, 1);
	assert_int_equal(hba_read(0x04), 0x80000000);
	assert_int_equal(port_read(0, 0x00), 0);
	assert_int_equal(port_read(0, CMD), 0x06);
	assert_int_equal(port_read(0, SSTS), 0x133);

	hba_write(0x04, 0x80000002);
	port_start(0);
	port_write(0, SCTL, 0x301);
	assert_int_equal(port_read(0, SSTS), 1);
	port_write(0, SCTL, 0x300);
	assert_int_equal(port_read(0, SSTS), 0x133);
	assert_int_equal(port_read(0, TFD) & 0x89, 0);
	assert_int_equal(port_read(0, SERR) & 1 << 26, 1 << 26);
	port_write(0, SERR, ~0u);

	/* Software reset: two FISes that only write the control register. */
	prepare(0, 0, 0, 0, 0, NULL, 0);
	f->ram[TABLES + 1] = 0;
	f->ram[TABLES + 15] = 4;
	issue(0, 0);
	assert_int_equal(port_read(0, CI), 0);
	assert_int_equal(port_read(0, TFD) & 0x80, 0x80);
	f->ram[TABLES + 15] = 0;
	issue(0, 0);
	assert_int_equal(port_read(0, TFD), 0x0150);
	assert_int_equal(port_read(0, SIG), 0x0101);

	/* The machine's own, with a disk at work. */
	f->disk->hold = true;
	one(0, 0x25, 0, 8, 0, 4096);
	f->ahci->desc->reset(f->ahci);
	assert_int_equal(f->disk->head, f->disk->tail);
}

static void test_trim(void **state)
{
	uint8_t *list = f->ram + DATA;

	port_start(0);
	store_le64(list, 100 | UINT64_C(8) << 48);
	store_le64(list + 16, 2000 | UINT64_C(16) << 48);
	one(0, 0x06, 0, 1, 1, 512);
	assert_int_equal(port_read(0, TFD), 0x50);
	assert_int_equal(fake_block_count(f->disk, BLOCK_DISCARD), 2);
	assert_int_equal(f->disk->data[2015 * 512], 0xdd);
	store_le64(list + 24, 8191 | UINT64_C(2) << 48);
	one(0, 0x06, 0, 1, 1, 512);
	assert_int_equal(port_read(0, TFD), 0x1051);
	assert_int_equal(fake_block_count(f->disk, BLOCK_DISCARD), 2);
}

static void test_settings(void **state)
{
	port_start(0);
	one(0, 0xef, 0, 0, 0x82, 0); /* write cache off: flushed first */
	assert_false(f->disk->writeback);
	assert_int_equal(fake_block_count(f->disk, BLOCK_FLUSH), 1);
	one(0, 0xef, 0, 0x45, 0x03, 0);
	assert_int_equal(port_read(0, TFD), 0x50);
	one(0, 0xb0, 0xc24f00, 0, 0xda, 0);
	assert_int_equal(f->ram[RECV + 0x40 + 5], 0x4f);
	assert_int_equal(f->ram[RECV + 0x40 + 6], 0xc2);
	one(0, 0xe5, 0, 0, 0, 0);
	assert_int_equal(f->ram[RECV + 0x40 + 12], 0xff);
	one(0, 0x27, 0, 0, 0, 0);
	assert_int_equal(f->ram[RECV + 0x40 + 4] | f->ram[RECV + 0x40 + 5] << 8,
			 DISK_SIZE / 512 - 1);
	one(0, 0xff, 0, 0, 0, 0);
	assert_int_equal(port_read(0, TFD), 0x0451);
}

/* Nothing of this may reach the disk, and all of it must be answered. */
static void test_bad_commands(void **state)
{
	struct prd outside = {RAM_SIZE - 256, 512};

	port_start(0);
	one(0, 0x25, DISK_SIZE / 512 - 1, 2, 0, 1024);
	assert_int_equal(port_read(0, TFD), 0x1051);
	restart(0);
	one(0, 0x35, UINT64_C(0xffffffffffff), 2, 0, 1024);
	assert_int_equal(port_read(0, TFD), 0x1051);
	restart(0);
	one(0, 0x25, 0, 2, 0, 1022); /* too short a list */
	assert_int_equal(port_read(0, TFD), 0x0451);
	restart(0);
	prepare(0, 0x25, 0, 1, 0, &outside, 1);
	issue(0, 0);
	assert_int_equal(port_read(0, TFD), 0x0451);
	restart(0);
	ncq(3, false, 0, 1, DATA);
	f->ram[TABLES + 3 * 4096 + 12] = 4 << 3; /* another's tag */
	settle();
	assert_int_equal(port_read(0, TFD) & 0xff01, 0x0401);
	restart(0);
	port_write(0, SCTL, 0x301);
	port_write(0, SCTL, 0x300);
	prepare(0, 0x25, 0, 1, 0, NULL, 0);
	f->ram[TABLES] = 0x99;
	issue(0, 0);
	assert_int_equal(port_read(0, IS) & 0x20000000, 0x20000000);
	restart(0);
	port_write(0, CMD, 0x10);
	port_write(0, 0x00, 0xfffff000); /* the list is nowhere */
	port_write(0, CMD, 0x11);
	issue(0, 7);
	assert_int_equal(port_read(0, IS) & 0x20000000, 0x20000000);
	assert_int_equal(f->disk->seen_count, 0);
	/* A table of pieces too small to be worth it. */
	port_write(0, CMD, 0x10);
	port_write(0, 0x00, LIST);
	port_write(0, CMD, 0x11);
	prepare(0, 0x25, 0, 64, 0, NULL, 0);
	store_le32(f->ram + LIST, 5 | 0xffffu << 16);
	issue(0, 0);
	assert_int_equal(port_read(0, TFD), 0x0451);
	assert_int_equal(f->disk->seen_count, 0);
}

static void test_read_only_disk(void **state)
{
	struct device *ro;

	device_free(f->hd_dev);
	f->disk->read_only = true;
	ro = pci_machine_add(&f->m, &ide_hd_desc, NULL, bus_find(&f->m.vm, "ide.0"), "drive=hd");
	port_start(0);
	one(0, 0x35, 0, 1, 0, 512);
	assert_int_equal(port_read(0, TFD), 0x0451);
	assert_int_equal(f->disk->seen_count, 0);
	device_free(ro);
	assert_null(f->hd.taken_by);
	assert_int_equal(port_read(0, SSTS), 0);
}

static void test_without_bus_mastering_nothing_is_read(void **state)
{
	port_start(0);
	pci_cfg_write(&f->m, 0, DEVFN, 4, 2, 2);
	one(0, 0x25, 0, 1, 0, 512);
	assert_int_equal(port_read(0, CI), 1);
	pci_cfg_write(&f->m, 0, DEVFN, 4, 2, 6);
	settle();
	assert_int_equal(port_read(0, CI), 0);
}

static void test_a_device_that_goes_takes_its_requests_along(void **state)
{
	port_start(0);
	f->disk->hold = true;
	one(0, 0x25, 0, 8, 0, 4096);
	device_free(f->hd_dev);
	assert_int_equal(f->disk->head, f->disk->tail);
	assert_int_equal(port_read(0, SSTS), 0);
}

static void sense_is(uint8_t key, uint8_t asc)
{
	restart(2);
	PACKET(18, 0x03, 0, 0, 0, 18);
	assert_int_equal(f->ram[DATA + 2], key);
	assert_int_equal(f->ram[DATA + 12], asc);
}

static void test_cdrom(void **state)
{
	port_start(2);
	one(2, 0xec, 0, 0, 0, 512); /* not a disk: says so by its signature */
	assert_int_equal(port_read(2, TFD), 0x0451);
	assert_int_equal(f->ram[RECV + 0x45], 0x14);
	assert_int_equal(f->ram[RECV + 0x46], 0xeb);
	restart(2);
	one(2, 0xa1, 0, 0, 0, 512);
	assert_int_equal(load_le16(f->ram + DATA), 0x8580);
	PACKET(36, 0x12, 0, 0, 0, 36);
	assert_int_equal(f->ram[DATA], 5);
	assert_int_equal(f->ram[RECV + 0x4c] & 3, 3);
	PACKET(0, 0x00);
	assert_int_equal(port_read(2, TFD), 0x50);
	PACKET(8, 0x25);
	assert_int_equal(load_be32(f->ram + DATA), 511);
	assert_int_equal(load_be32(f->ram + DATA + 4), 2048);
	PACKET(3 * 2048, 0x28, 0, 0, 0, 0, 100, 0, 0, 3);
	assert_memory_equal(f->ram + DATA, f->iso->data + 100 * 2048, 3 * 2048);
	assert_int_equal(load_le32(f->ram + LIST + 4), 3 * 2048);
	PACKET(2048, 0xa8, 0, 0, 0, 1, 255, 0, 0, 0, 1);
	assert_memory_equal(f->ram + DATA, f->iso->data + 511 * 2048, 2048);
	PACKET(20, 0x43, 0, 0, 0, 0, 0, 0, 0, 20);
	assert_int_equal(load_be16(f->ram + DATA), 18);
	assert_int_equal(load_be32(f->ram + DATA + 16), 512);
	PACKET(2048, 0x28, 0, 0, 0, 2, 0, 0, 0, 1);
	assert_int_equal(port_read(2, TFD), 0x5451);
	sense_is(5, 0x21);
	PACKET(0, 0xf7);
	sense_is(5, 0x20);
	f->iso->fail_count = 1;
	f->iso->fail_error = -EIO;
	PACKET(2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	sense_is(3, 0x11);
}

static void test_tray_and_medium(void **state)
{
	port_start(2);
	PACKET(0, 0x1e, 0, 0, 0, 1);
	assert_true(f->cd.removable_locked);
	PACKET(0, 0x1b, 0, 0, 0, 2);
	sense_is(5, 0x53);
	PACKET(0, 0x1e);
	PACKET(0, 0x1b, 0, 0, 0, 2);
	assert_int_equal(f->last.kind, VM_EVENT_TRAY_MOVED);
	assert_int_equal(f->last.value, 1);
	PACKET(0, 0x00);
	sense_is(2, 0x3a);
	PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	assert_int_equal(f->ram[DATA + 5], 3);
	PACKET(0, 0x1b, 0, 0, 0, 3);
	assert_int_equal(f->last.value, 0);
	PACKET(0, 0x00);
	sense_is(6, 0x28);
	PACKET(0, 0x00);
	assert_int_equal(port_read(2, TFD), 0x50);

	f->cd.node = NULL;
	f->cd.medium_changed(&f->cd, f->cd.opaque);
	PACKET(2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	sense_is(2, 0x3a);
	f->cd.node = f->iso;
	f->cd.medium_changed(&f->cd, f->cd.opaque);
	PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	assert_int_equal(f->ram[DATA + 4], 2);
	PACKET(0, 0x00);
	sense_is(6, 0x28);
	PACKET(8, 0x25);
	assert_int_equal(load_be32(f->ram + DATA), 511);
}

/* What the guest does with the tray is done with the host's. */
static void test_host_drive(void **state)
{
	f->iso->has_tray = true;
	port_start(2);
	PACKET(0, 0x1e, 0, 0, 0, 1);
	assert_true(f->iso->tray_locked);
	PACKET(0, 0x1b, 0, 0, 0, 2);
	sense_is(5, 0x53);
	assert_false(f->iso->tray_open);
	PACKET(0, 0x1e);
	assert_false(f->iso->tray_locked);
	PACKET(0, 0x1b, 0, 0, 0, 2);
	assert_true(f->iso->tray_open);
	assert_int_equal(f->last.value, 1);
	PACKET(0, 0x00);
	sense_is(2, 0x3a);
	/* Closed without a disc. */
	f->iso->empty = true;
	PACKET(0, 0x1b, 0, 0, 0, 3);
	assert_false(f->iso->tray_open);
	PACKET(0, 0x00);
	sense_is(2, 0x3a);
	/* Somebody puts one in, and takes it out. */
	f->iso->empty = false;
	f->iso->length = 4 * 2048;
	PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	assert_int_equal(f->ram[DATA + 4], 2);
	PACKET(0, 0x00);
	sense_is(6, 0x28);
	PACKET(8, 0x25);
	assert_int_equal(load_be32(f->ram + DATA), 3);
	f->iso->empty = true;
	PACKET(0, 0x00);
	sense_is(2, 0x3a);
	PACKET(8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	assert_int_equal(f->ram[DATA + 4], 3);
	/* A tray that sticks: the guest's is open all the same, and closes again. */
	f->iso->empty = false;
	PACKET(0, 0x00);
	sense_is(6, 0x28);
	f->iso->tray_error = -EBUSY;
	PACKET(0, 0x1b, 0, 0, 0, 2);
	PACKET(0, 0x00);
	sense_is(2, 0x3a);
	PACKET(0, 0x1b, 0, 0, 0, 3);
	PACKET(0, 0x00);
	sense_is(6, 0x28);
	/* A reset unlocks it. */
	PACKET(0, 0x1e, 0, 0, 0, 1);
	assert_true(f->iso->tray_locked);
	f->cd_dev->desc->reset(f->cd_dev);
	assert_false(f->iso->tray_locked);
	assert_false(f->cd.removable_locked);
	PACKET(0, 0x1e, 0, 0, 0, 1);
}

static void test_an_empty_drive(void **state)
{
	struct device *empty;

	f->cd.id = NULL;
	empty = pci_machine_add(&f->m, &ide_cd_desc, "e", bus_find(&f->m.vm, "ide.3"), NULL);
	assert_int_equal(port_read(3, SIG), 0xeb140101);
	device_free(empty);
	assert_int_equal(port_read(3, SSTS), 0);
	f->cd.id = "cd";
}

static void test_places(void **state)
{
	struct error *err = NULL;

	assert_null(pci_machine_try(&f->m, &ide_hd_desc, NULL, bus_find(&f->m.vm, "ide.0"), NULL,
				    false, &err));
	assert_non_null(strstr(error_message(err), "full"));
	error_free(err);
	err = NULL;
	assert_null(pci_machine_try(&f->m, &ide_hd_desc, NULL, bus_find(&f->m.vm, "ide.1"),
				    "drive=hd", false, &err));
	assert_non_null(strstr(error_message(err), "in use"));
	error_free(err);
	err = NULL;
	assert_null(pci_machine_try(&f->m, &ide_hd_desc, NULL, bus_find(&f->m.vm, "ide.1"), NULL,
				    false, &err));
	error_free(err);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_there),
		TEST(test_identify),
		TEST(test_dma_in_many_pieces),
		TEST(test_requests_are_cut_to_the_nodes_limits),
		TEST(test_queued_commands),
		TEST(test_interrupts),
		TEST(test_host_error_is_reported),
		TEST(test_queued_error_has_a_log),
		TEST(test_an_error_stops_the_guest_and_is_retried),
		TEST(test_state_saved_in_the_middle_of_an_error),
		TEST(test_stopping_waits_for_the_disk),
		TEST(test_resets),
		TEST(test_trim),
		TEST(test_settings),
		TEST(test_bad_commands),
		TEST(test_read_only_disk),
		TEST(test_without_bus_mastering_nothing_is_read),
		TEST(test_a_device_that_goes_takes_its_requests_along),
		TEST(test_cdrom),
		TEST(test_tray_and_medium),
		TEST(test_host_drive),
		TEST(test_an_empty_drive),
		TEST(test_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
