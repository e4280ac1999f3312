/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC's old devices under arbitrary port accesses, with time, typing and a stubborn chardev in
 * between. Input: a run of operations, a byte that says which and its operands; numbers are
 * little-endian.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/lib/fuzz_input.h"
#include "tests/lib/legacy_machine.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_OPS = 1000 };

static uint16_t a_port(struct fuzz_input *in)
{
	static const uint16_t ports[] = {
		0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,	 0x41,	0x42,
		0x43,  0x61,  0x60,  0x64,  0x92,  0x70,  0x71,	 0x3f8, 0x3f9,
		0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x402, 0x505,
	};
	return ports[fuzz_take(in, 1) % ARRAY_SIZE(ports)];
}

static void operate(struct test_machine *m, struct device *kbc, struct device *pic,
		    struct device *ioapic, struct fuzz_input *in)
{
	const struct chardev_peer *peer = m->chr.chr.peer;
	uint8_t text[16];
	uint64_t a;

	switch (fuzz_take(in, 1) % 10) {
	case 0:
	case 1:
	case 2:
		a = a_port(in);
		test_outb(m, (uint16_t)a, (uint8_t)fuzz_take(in, 1));
		break;
	case 3:
		test_inb(m, a_port(in));
		break;
	case 4:
		m->clock.now += (int64_t)(fuzz_take(in, 4) << (fuzz_take(in, 1) % 16));
		test_settle(m);
		break;
	case 5:
		for (size_t i = 0; i < sizeof(text); i++)
			text[i] = (uint8_t)fuzz_take(in, 1);
		test_type(m, (const char *)text, sizeof(text));
		break;
	case 6:
		a = fuzz_take(in, 1);
		m->chr.len = 0;
		m->chr.room = a & 1 ? SIZE_MAX : a;
		peer->writable(peer->opaque);
		if (a & 2)
			peer->event(peer->opaque, CHARDEV_BREAK);
		break;
	case 7:
		a = fuzz_take(in, 3);
		if (a & 1)
			ps2_key(kbc, (uint8_t)(a >> 8), a & 2);
		else
			ps2_mouse(kbc, (int8_t)(a >> 8), (int8_t)(a >> 16), a & 4, a >> 3 & 31);
		break;
	case 8:
		i8259_acknowledge(pic);
		irq_set(i8259_input(pic, fuzz_take(in, 1)), fuzz_take(in, 1) & 1);
		break;
	case 9:
		a = fuzz_take(in, 1);
		test_write32(m, 0xfec00000 + (a & 0x70), (uint32_t)fuzz_take(in, 4));
		irq_set(ioapic_input(ioapic, a % 24), a & 1);
		ioapic_eoi(ioapic, (uint8_t)fuzz_take(in, 1));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	static struct test_machine m;

	log_set_file("/dev/null");
	test_machine_init(&m);
	m.vm.panic_action = PANIC_NONE;
	test_device(&m, &isa_debugcon_desc, "iobase=0x402");
	test_device(&m, &isa_serial_desc, "chardev=c");
	test_device(&m, &pvpanic_desc, NULL);
	test_device(&m, &port92_desc, NULL);
	test_device(&m, &mc146818rtc_desc, "base=2024-02-28T23:59:58,clock=rt,driftfix=slew");
	test_device(&m, &i8254_desc, NULL);
	struct device *kbc = test_device(&m, &i8042_desc, NULL);
	struct device *pic = test_device(&m, &i8259_desc, NULL);
	struct device *ioapic = test_device(&m, &ioapic_desc, NULL);
	for (int i = 0; in.left && i < MAX_OPS; i++)
		operate(&m, kbc, pic, ioapic, &in);
	test_settle(&m);
	test_machine_destroy(&m);
	return 0;
}
