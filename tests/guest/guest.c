/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest of a few instructions, for tests; see guest.h.
 */
#include "tests/guest/guest.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/core/util.h"

enum {
	STUBS = 0x60000,
	SEL_CODE0 = 0x08,
	SEL_DATA0 = 0x10,
	SEL_DATA3 = 0x18 | 3,
	SEL_CODE3 = 0x20 | 3,
	SEL_TSS = 0x28,
	TSS_LIMIT = 0x68 + 8192,
};

void guest_need_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR);

	if (fd < 0)
		skip();
	close(fd);
}

void *guest_data(struct guest *g, size_t offset)
{
	return g->ram + GUEST_DATA + offset;
}

uint32_t guest_data32(struct guest *g, size_t offset)
{
	return *(volatile uint32_t *)guest_data(g, offset);
}

uint64_t guest_data64(struct guest *g, size_t offset)
{
	return *(volatile uint64_t *)guest_data(g, offset);
}

uint32_t guest_vector_count(struct guest *g, unsigned vector)
{
	return guest_data32(g, 0x800 + vector * 4);
}

struct msi_msg guest_message(unsigned vector)
{
	return (struct msi_msg){0xfee00000, vector};
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	pthread_mutex_lock(&g->lock);
	if (g->said_len < sizeof(g->said) - 1)
		g->said[g->said_len++] = value;
	pthread_mutex_unlock(&g->lock);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct guest *g = opaque;
	uint64_t value;

	pthread_mutex_lock(&g->lock);
	value = 'a' + g->said_len++ % 26;
	pthread_mutex_unlock(&g->lock);
	return value;
}

static void number_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	pthread_mutex_lock(&g->lock);
	if (g->number_count < ARRAY_SIZE(g->numbers_got))
		g->numbers_got[g->number_count++] = value;
	pthread_mutex_unlock(&g->lock);
}

static void done_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	atomic_store(&g->done, true);
	evloop_wake(g->loop);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct guest *g = opaque;
	uint64_t value;

	pthread_mutex_lock(&g->lock);
	g->mmio_reads++;
	value = load_le(g->mmio_bytes + offset, size);
	pthread_mutex_unlock(&g->lock);
	return value;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	pthread_mutex_lock(&g->lock);
	g->mmio_writes++;
	store_le(g->mmio_bytes + offset, size, value);
	pthread_mutex_unlock(&g->lock);
}

static const struct io_ops port_ops = {.read = port_read, .write = port_write};
static const struct io_ops number_ops = {.write = number_write};
static const struct io_ops done_ops = {.write = done_write};
static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

static void count_event(struct notifier *n, void *data)
{
	struct guest *g = container_of(n, struct guest, on_event);
	const struct vm_event *event = data;

	g->events[event->kind]++;
}

static void add_region(struct guest *g, struct io_bus *bus, struct io_region *r, uint64_t base,
		       uint64_t size, const struct io_ops *ops)
{
	*r = (struct io_region){
		.base = base, .size = size, .ops = ops, .opaque = g, .name = "guest test"};
	assert_true(io_bus_add(bus, r, NULL));
}

/* Six pages: PML4, PDPT, four directories of 2 MiB pages; everything for ring 3 too. */
static void write_page_tables(uint8_t *ram)
{
	uint8_t *p = ram + GUEST_PAGE_TABLES;

	memset(p, 0, 6 * 4096);
	store_le64(p, (GUEST_PAGE_TABLES + 0x1000) | 7);
	for (unsigned i = 0; i < 4; i++)
		store_le64(p + 0x1000 + i * 8, (GUEST_PAGE_TABLES + 0x2000 + i * 0x1000) | 7);
	for (uint64_t i = 0; i < 2048; i++)
		store_le64(p + 0x2000 + i * 8, i << 21 | 0x87);
}

static void write_gdt(uint8_t *ram)
{
	static const uint64_t gdt[] = {
		0,
		0x00209b0000000000, /* code, ring 0, 64-bit */
		0x00cf93000000ffff, /* data, ring 0 */
		0x00cff3000000ffff, /* data, ring 3 */
		0x0020fb0000000000, /* code, ring 3, 64-bit */
		0x0000890000000000 | (uint64_t)GUEST_TSS << 16 | TSS_LIMIT,
		0,
	};

	for (size_t i = 0; i < ARRAY_SIZE(gdt); i++)
		store_le64(ram + GUEST_GDT + i * 8, gdt[i]);
	memset(ram + GUEST_TSS, 0, TSS_LIMIT + 1);
	store_le64(ram + GUEST_TSS + 4, GUEST_STACKS + 0x8000); /* RSP0 */
	store_le16(ram + GUEST_TSS + 0x66, 0x68);		/* permission map */
	ram[GUEST_TSS + TSS_LIMIT] = 0xff;
}

/* Each vector pushes its number and goes to the handler. */
static void write_idt(struct guest *g)
{
	uint32_t handler = GUEST_CODE + 0x8000;

	memset(g->ram + GUEST_IDT, 0, 4096);
	if (!g->config.handler)
		return;
	memcpy(g->ram + handler, g->config.handler, g->config.handler_end - g->config.handler);
	for (unsigned i = 0; i < 256; i++) {
		uint32_t at = STUBS + i * 16;
		uint8_t *stub = g->ram + at, *gate = g->ram + GUEST_IDT + i * 16;

		stub[0] = 0x68; /* push imm32 */
		store_le32(stub + 1, i);
		stub[5] = 0xe9; /* jmp rel32 */
		store_le32(stub + 6, handler - (at + 10));
		store_le16(gate, at);
		store_le16(gate + 2, SEL_CODE0);
		store_le16(gate + 4, 0x8e00);
		store_le16(gate + 6, at >> 16);
	}
}

static void write_memory(struct guest *g)
{
	write_page_tables(g->ram);
	write_gdt(g->ram);
	write_idt(g);
	memcpy(g->ram + GUEST_CODE, g->config.code, g->config.code_end - g->config.code);
}

static struct x86_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct x86_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = selector & 3,
		.db = !code,
		.l = code,
		.s = 1,
		.g = 1,
	};
}

static bool reset_cpu(struct vcpu *v, void *opaque)
{
	struct guest *g = opaque;
	const struct accel_x86_ops *x86 = v->accel->ops->x86;
	bool user = g->config.user;
	struct x86_regs regs = {
		.rip = GUEST_CODE,
		.rflags = 2,
		.rdi = v->index,
		.rsp = GUEST_STACKS + (v->index + 1) * 4096,
	};
	struct x86_sregs s;

	if (x86->reset_rest(v) || x86->get_sregs(v, &s))
		return false;
	s.cs = segment(user ? SEL_CODE3 : SEL_CODE0, 0xb, true);
	s.ss = s.ds = s.es = s.fs = s.gs = segment(user ? SEL_DATA3 : SEL_DATA0, 3, false);
	s.tr = (struct x86_segment){.base = GUEST_TSS,
				    .limit = TSS_LIMIT,
				    .selector = SEL_TSS,
				    .type = 0xb,
				    .present = 1};
	s.ldt = (struct x86_segment){.unusable = 1, .type = 2};
	s.gdt = (struct x86_table){GUEST_GDT, 7 * 8 - 1};
	s.idt = (struct x86_table){GUEST_IDT, 4095};
	s.cr0 = 0x80010033;
	s.cr2 = 0;
	s.cr3 = GUEST_PAGE_TABLES;
	s.cr4 = 0x620; /* PAE, SSE */
	s.cr8 = 0;
	s.efer = 0x500;
	if (g->config.startup && v->index)
		return !x86->set_mp_state(v, X86_MP_UNINITIALIZED);
	return !x86->set_sregs(v, &s) && !x86->set_regs(v, &regs) &&
	       !x86->set_mp_state(v, X86_MP_RUNNABLE);
}

static void set_cpuid(struct guest *g, struct vcpu *v)
{
	for (int i = 0; i < g->cpuid_count; i++) {
		struct x86_cpuid *e = &g->cpuid[i];

		if (e->function == 1)
			e->ebx = (e->ebx & 0xffffff) | v->apic_id << 24;
		else if (e->function == 0xb || e->function == 0x1f)
			e->edx = v->apic_id;
	}
	assert_int_equal(v->accel->ops->x86->set_cpuid(v, g->cpuid, g->cpuid_count), 0);
}

static void fail_with(struct error *err)
{
	if (err)
		print_error("%s\n", error_message(err));
	error_free(err);
	fail();
}

static void create_cpus(struct guest *g)
{
	unsigned count = g->config.cpus ? g->config.cpus : 1;
	uint32_t ids[GUEST_MAX_CPUS] = {0, 1, 2, 3};
	struct error *err = NULL;

	g->cpuid = calloc(512, sizeof(*g->cpuid));
	g->cpuid_count = g->accel->ops->x86->supported_cpuid(g->accel, g->cpuid, 512);
	assert_true(g->cpuid_count > 0);
	if (!vcpus_create(g->accel, count, ids, &err))
		fail_with(err);
	for (unsigned i = 0; i < count; i++) {
		struct vcpu *v = vcpu_get(&g->vm, i);

		set_cpuid(g, v);
		v->reset = reset_cpu;
		v->reset_opaque = g;
	}
	if (!vcpus_start(&g->vm, &err))
		fail_with(err);
}

void guest_create(struct guest *g, const struct guest_config *config)
{
	struct accel_config accel = {
		.irqchip = config->irqchip,
		.max_cpus = GUEST_MAX_CPUS,
		.pit = config->pit,
	};
	struct error *err = NULL;

	memset(g, 0, sizeof(*g));
	g->config = *config;
	pthread_mutex_init(&g->lock, NULL);
	g->loop = evloop_new(NULL, NULL);
	vm_init(&g->vm, g->loop);
	g->on_event.fn = count_event;
	notifier_add(&g->vm.events, &g->on_event);
	g->accel = accel_find("kvm")->open(&g->vm, &accel, &err);
	if (!g->accel)
		fail_with(err);
	g->vm.msi = &g->accel->msi;

	g->ram = mmap(NULL, GUEST_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	assert_ptr_not_equal(g->ram, MAP_FAILED);
	write_memory(g);
	assert_int_equal(g->accel->ops->mem_map(g->accel, 0, GUEST_RAM_SIZE, g->ram, 0), 0);
	add_region(g, &g->vm.pio, &g->ports, GUEST_PORT_SAY, 1, &port_ops);
	add_region(g, &g->vm.pio, &g->numbers, GUEST_PORT_NUMBER, 4, &number_ops);
	add_region(g, &g->vm.pio, &g->done_port, GUEST_PORT_DONE, 1, &done_ops);
	add_region(g, &g->vm.mmio, &g->mmio, GUEST_MMIO, 4096, &mmio_ops);
	create_cpus(g);
}

void guest_destroy(struct guest *g)
{
	vcpus_destroy(&g->vm);
	io_bus_remove(&g->vm.pio, &g->ports);
	io_bus_remove(&g->vm.pio, &g->numbers);
	io_bus_remove(&g->vm.pio, &g->done_port);
	io_bus_remove(&g->vm.mmio, &g->mmio);
	vm_destroy(&g->vm);
	g->accel->ops->destroy(g->accel);
	evloop_free(g->loop);
	munmap(g->ram, GUEST_RAM_SIZE);
	free(g->cpuid);
	pthread_mutex_destroy(&g->lock);
}

bool guest_wait(struct guest *g, bool (*flag)(struct guest *g))
{
	int64_t end = evloop_now(g->loop) + 10 * NSEC_PER_SEC;

	while (!flag(g)) {
		if (evloop_now(g->loop) > end)
			return false;
		evloop_run_once(g->loop, NSEC_PER_MSEC);
	}
	return true;
}

static bool is_done(struct guest *g)
{
	return atomic_load(&g->done);
}

bool guest_run(struct guest *g)
{
	atomic_store(&g->done, false);
	vm_start(&g->vm);
	return guest_wait(g, is_done);
}

bool guest_rerun(struct guest *g)
{
	vm_stop(&g->vm, RUN_STATE_PAUSED);
	vm_reset(&g->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	atomic_store(&g->done, false);
	vm_start(&g->vm);
	return guest_wait(g, is_done);
}
