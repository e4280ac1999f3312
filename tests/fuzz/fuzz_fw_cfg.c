/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw_cfg driven by arbitrary port accesses and DMA requests. Input: a run of operations, a byte
 * that says which and its operands; numbers are little-endian.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hw/fw_cfg/fw_cfg.h"
#include "tests/lib/fuzz_input.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAM_SIZE = 0x4000, HOLE = 0x1000, WRITABLE_SIZE = 24, GUARD = 8 };

struct rig {
	struct vm vm;
	struct evloop *loop;
	struct io_reader reader;
	struct fw_cfg *fw;
	uint8_t *ram;
	uint8_t writable[WRITABLE_SIZE + GUARD];
};

static void out(struct rig *r, uint16_t port, unsigned size, uint32_t value)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	io_bus_write(&r->vm.pio, &r->reader, port, bytes, size);
}

static void in(struct rig *r, uint16_t port, unsigned size)
{
	uint8_t bytes[4];

	io_bus_read(&r->vm.pio, &r->reader, port, bytes, size);
}

static void dma(struct rig *r, struct fuzz_input *i)
{
	uint64_t request = fuzz_take(i, 2);
	uint8_t bytes[16];

	store_be32(bytes, fuzz_take(i, 4));
	store_be32(bytes + 4, fuzz_take(i, 3));
	store_be64(bytes + 8, fuzz_take(i, 2));
	gm_write(&r->vm.mem, request, bytes, sizeof(bytes));
	out(r, 0x514, 4, htobe32(request >> 32));
	out(r, 0x518, 4, htobe32(request));
}

/* Replaces a file while it is selected, as the board's ACPI tables do. */
static void on_select(void *opaque)
{
	struct rig *r = opaque;

	fw_cfg_replace(r->fw, "lazy", r->ram, r->ram[0]);
}

static void add_files(struct rig *r)
{
	struct fw_cfg_file lazy = {.name = "lazy", .select = on_select, .opaque = r};
	struct fw_cfg_file writable = {
		.name = "w", .data = r->writable, .len = WRITABLE_SIZE, .writable = true};

	fw_cfg_add_file(r->fw, &lazy, NULL);
	fw_cfg_add_file(r->fw, &writable, NULL);
	fw_cfg_add_string(r->fw, "etc/text", "some text");
	fw_cfg_add_blob(r->fw, "empty", NULL, 0);
	fw_cfg_add_u64(r->fw, FW_CFG_RAM_SIZE, 0x1234);
}

static void run(struct rig *r, struct fuzz_input *i)
{
	while (i->left) {
		switch (fuzz_take(i, 1) % 6) {
		case 0:
			out(r, 0x510, 2, fuzz_take(i, 2));
			break;
		case 1:
			in(r, 0x511, 1);
			break;
		case 2:
			in(r, 0x510 + fuzz_take(i, 1) % 16, 1 << fuzz_take(i, 1) % 3);
			break;
		case 3:
			out(r, 0x510 + fuzz_take(i, 1) % 16, 1 << fuzz_take(i, 1) % 3,
			    fuzz_take(i, 4));
			break;
		case 4:
			dma(r, i);
			break;
		case 5:
			fw_cfg_desc.reset((struct device *)r->fw);
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct mem_region low = {.size = RAM_SIZE / 2, .fd = -1};
	struct mem_region high = low;
	struct fuzz_input input = {data, size};
	struct device *dev;

	/* Two regions with a hole between them, and one piece of memory for each. */
	r->ram = aligned_alloc(4096, RAM_SIZE);
	memset(r->ram, 0, RAM_SIZE);
	r->loop = evloop_new(NULL, NULL);
	vm_init(&r->vm, r->loop);
	low.hva = r->ram;
	high.hva = r->ram + RAM_SIZE / 2;
	high.gpa = RAM_SIZE / 2 + HOLE;
	guest_mem_add(&r->vm.mem, &low, NULL);
	guest_mem_add(&r->vm.mem, &high, NULL);
	io_reader_register(&r->vm.pio, &r->reader);
	dev = device_new(&r->vm, &fw_cfg_desc, NULL);
	r->fw = (struct fw_cfg *)dev;
	device_realize(dev, NULL, NULL);
	add_files(r);

	run(r, &input);
	for (unsigned i = 0; i < GUARD; i++)
		assert(!r->writable[WRITABLE_SIZE + i]);

	io_reader_unregister(&r->vm.pio, &r->reader);
	vm_destroy(&r->vm);
	evloop_free(r->loop);
	free(r->ram);
	free(r);
	return 0;
}
