/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI with a disk and a CD-ROM under a hostile guest and a disk that fails and dawdles. Input: a
 * run of operations, a byte that says which and its operands; numbers are little-endian.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/ata/ahci.h"
#include "tests/lib/fake_block.h"
#include "tests/lib/fuzz_input.h"
#include "tests/lib/pci_machine.h"
#include "vmm/core/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ABAR UINT64_C(0xfebf0000)

enum {
	RAM_SIZE = 1 << 20,
	DISK_SIZE = 256 << 10,
	DEVFN = 0xfa,
	LIST = 0x1000,
	RECV = 0x1400,
	TABLES = 0x2000,
	TABLE_SIZE = 0x200,
	MAX_OPS = 500,
};

struct rig {
	struct pci_machine m;
	uint8_t *ram;
	struct block_node *disk, *iso;
	struct drive hd, cd;
	struct device *ahci;
};

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct rig *r = opaque;

	return !strcmp(name, "hd") ? &r->hd : &r->cd;
}

static void write_reg(struct rig *r, unsigned reg, uint32_t value)
{
	pci_mem_write(&r->m, ABAR + reg, 4, value);
}

static void start_port(struct rig *r, unsigned port)
{
	unsigned base = 0x100 + 0x80 * port;

	write_reg(r, base + 0x00, LIST);
	write_reg(r, base + 0x08, RECV);
	write_reg(r, base + 0x14, ~0u);
	write_reg(r, base + 0x18, 0);
	write_reg(r, base + 0x10, ~0u);
	write_reg(r, base + 0x18, 0x11);
}

/* A command that is well-formed but for what the input says. */
static void command(struct rig *r, struct fuzz_input *in)
{
	unsigned port = fuzz_take(in, 1) % 2 * 2, slot = fuzz_take(in, 1) % 32;
	uint8_t *header = r->ram + LIST + 32 * slot, *table = r->ram + TABLES + TABLE_SIZE * slot;
	unsigned prds = fuzz_take(in, 1) % 8;
	uint8_t flags = fuzz_take(in, 1);

	store_le32(header, 5 | (flags & 0xe0) | prds << 16);
	store_le64(header + 8, TABLES + TABLE_SIZE * slot);
	table[0] = 0x27;
	table[1] = flags & 1 ? 0 : 0x80;
	for (int i = 2; i < 16; i++)
		table[i] = fuzz_take(in, 1);
	if (flags & 2)
		for (int i = 0; i < 16; i++)
			table[0x40 + i] = fuzz_take(in, 1);
	for (unsigned i = 0; i < prds; i++) {
		store_le64(table + 0x80 + 16 * i, fuzz_take(in, 3));
		store_le32(table + 0x80 + 16 * i + 12, fuzz_take(in, 2));
	}
	if (flags & 4)
		write_reg(r, 0x100 + 0x80 * port + 0x34, 1u << slot);
	write_reg(r, 0x100 + 0x80 * port + 0x38, 1u << slot);
}

static void change_medium(struct rig *r)
{
	block_drain(r->iso);
	r->cd.node = r->cd.node ? NULL : r->iso;
	r->cd.medium_changed(&r->cd, r->cd.opaque);
}

static void operate(struct rig *r, struct fuzz_input *in)
{
	enum run_state running = RUN_STATE_RUNNING;
	uint64_t a, b;

	switch (fuzz_take(in, 1) % 12) {
	case 0:
		a = fuzz_take(in, 2) % 0x1000;
		write_reg(r, a & ~3u, fuzz_take(in, 4));
		break;
	case 1:
		a = fuzz_take(in, 2) % 0x1000;
		pci_mem_read(&r->m, ABAR + a, 1u << fuzz_take(in, 1) % 4);
		break;
	case 2:
		a = fuzz_take(in, 3) % (RAM_SIZE - 8);
		b = fuzz_take(in, 8);
		store_le64(r->ram + a, b);
		break;
	case 3:
	case 4:
	case 5:
		command(r, in);
		break;
	case 6:
		start_port(r, fuzz_take(in, 1) % 2 * 2);
		break;
	case 7:
		pci_machine_settle(&r->m);
		break;
	case 8:
		r->disk->hold = r->iso->hold = fuzz_take(in, 1) & 1;
		fake_block_release(r->disk, fuzz_take(in, 1));
		fake_block_release(r->iso, 1);
		break;
	case 9:
		a = fuzz_take(in, 1);
		r->disk->fail_count = a & 7;
		r->disk->fail_error = a & 8 ? -ENOSPC : -EIO;
		r->iso->fail_count = a >> 4 & 3;
		r->iso->fail_error = -EIO;
		r->hd.werror = r->hd.rerror = r->cd.rerror = a >> 6;
		break;
	case 10:
		change_medium(r);
		break;
	case 11:
		a = fuzz_take(in, 1);
		if (a & 1)
			r->ahci->desc->reset(r->ahci);
		else
			notifier_fire(&r->m.vm.state_changed, &running);
		pci_cfg_write(&r->m, 0, DEVFN, 0x24, 4, ABAR);
		pci_cfg_write(&r->m, 0, DEVFN, 4, 2, 6);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	struct rig *r = calloc(1, sizeof(*r));

	log_set_file("/dev/null");
	pci_machine_init(&r->m);
	r->ram = calloc(1, RAM_SIZE);
	struct mem_region region = {.size = RAM_SIZE, .hva = r->ram, .fd = -1};
	guest_mem_add(&r->m.vm.mem, &region, NULL);
	r->m.vm.resolver = (struct prop_resolver){resolve, r};
	r->disk = fake_block_new(r->m.vm.loop, DISK_SIZE);
	r->iso = fake_block_new(r->m.vm.loop, DISK_SIZE);
	r->disk->limits.max_transfer = 64 << 10;
	r->disk->limits.max_iov = 16;
	r->hd = (struct drive){.id = "hd", .node = r->disk};
	r->cd = (struct drive){.id = "cd", .node = r->iso, .cdrom = true};
	r->ahci = pci_machine_add(&r->m, &ich9_ahci_desc, NULL, NULL, "addr=1f.2");
	pci_machine_add(&r->m, &ide_hd_desc, NULL, bus_find(&r->m.vm, "ide.0"), "drive=hd");
	pci_machine_add(&r->m, &ide_cd_desc, NULL, bus_find(&r->m.vm, "ide.2"), "drive=cd");
	pci_cfg_write(&r->m, 0, DEVFN, 0x24, 4, ABAR);
	pci_cfg_write(&r->m, 0, DEVFN, 4, 2, 6);
	write_reg(r, 4, 0x80000002);
	start_port(r, 0);
	start_port(r, 2);
	for (int i = 0; in.left && i < MAX_OPS; i++)
		operate(r, &in);
	pci_machine_settle(&r->m);
	pci_machine_destroy(&r->m);
	block_unref(r->disk);
	block_unref(r->iso);
	free(r->ram);
	free(r);
	return 0;
}
