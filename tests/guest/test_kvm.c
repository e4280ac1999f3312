/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KVM engine and the vCPU threads on the host's /dev/kvm, with guests of a few instructions.
 * Skipped where there is none.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hw/legacy/legacy.h"
#include "tests/guest/guest.h"
#include "vmm/core/util.h"

GUEST_CODE_PIECE(hello);
GUEST_CODE_PIECE(mmio);
GUEST_CODE_PIECE(string);
GUEST_CODE_PIECE(doorbells);
GUEST_CODE_PIECE(count_vectors);
GUEST_CODE_PIECE(interrupts);
GUEST_CODE_PIECE(interrupts_awake);
GUEST_CODE_PIECE(ioapic);
GUEST_CODE_PIECE(pit);
GUEST_CODE_PIECE(count_pic);
GUEST_CODE_PIECE(pic);
GUEST_CODE_PIECE(pic_late);
GUEST_CODE_PIECE(start_up);
GUEST_CODE_PIECE(real_mode);
GUEST_CODE_PIECE(legacy_chips);
GUEST_CODE_PIECE(triple_fault);
GUEST_CODE_PIECE(emulator_gap);
GUEST_CODE_PIECE(spin);
GUEST_CODE_PIECE(spin_mmio);
GUEST_CODE_PIECE(rom);
GUEST_CODE_PIECE(dirty);
GUEST_CODE_PIECE(watch);
GUEST_CODE_PIECE(astray);
GUEST_CODE_PIECE(requests);

#define CODE(name) .code = guest_##name, .code_end = guest_##name##_end
#define HANDLER(name) .handler = guest_##name, .handler_end = guest_##name##_end

enum { HIGH = 0xc0000000u };

static void need_kvm(void)
{
	if (!guest_possible())
		skip();
}

static uint32_t data32(struct guest *g, size_t offset)
{
	return *(volatile uint32_t *)guest_data(g, offset);
}

static uint64_t data64(struct guest *g, size_t offset)
{
	return *(volatile uint64_t *)guest_data(g, offset);
}

static uint32_t vector_count(struct guest *g, unsigned vector)
{
	return data32(g, 0x800 + vector * 4);
}

static uint64_t eventfd_take(int fd)
{
	uint64_t value = 0;

	return read(fd, &value, sizeof(value)) == sizeof(value) ? value : 0;
}

static void eventfd_ring(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void *map_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

/* QEMU's CPU emulation: there port accesses in ring 3 fault unless the task state segment in use is
 * marked available, which it is on no processor. */
static bool host_is_emulated(void)
{
	unsigned eax, ebx, ecx, edx;

	__cpuid(0x40000000, eax, ebx, ecx, edx);
	return ebx == 0x54474354; /* "TCGT" */
}

static void test_port_output(void **state)
{
	struct guest g;

	need_kvm();
	for (int user = 0; user < 2 - host_is_emulated(); user++) {
		guest_create(&g, &(struct guest_config){ CODE(hello), .user = user });
		assert_true(guest_run(&g));
		assert_string_equal(g.said, "hello");
		guest_destroy(&g);
	}
}

static void test_mmio(void **state)
{
	static const uint32_t expected[] = { 0x11,	 0x2222,     0x33333333,
					     0x55555555, 0x44444444, 0xffff0000 };
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(mmio) });
	assert_true(guest_run(&g));
	assert_int_equal(g.number_count, ARRAY_SIZE(expected));
	assert_memory_equal(g.numbers_got, expected, sizeof(expected));
	assert_int_equal(g.mmio_writes, 4);
	assert_int_equal(g.mmio_reads, 5);
	guest_destroy(&g);
}

static void test_string_io(void **state)
{
	struct guest g;
	uint8_t *memory;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(string) });
	memory = guest_data(&g, 0);
	for (unsigned i = 0; i < 200; i++)
		memory[i] = i;
	assert_true(guest_run(&g));
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal((uint8_t)g.said[i], i);
		assert_int_equal(memory[0x1000 + i], 'a' + (200 + i) % 26);
	}
	assert_int_equal(memory[0x1000 + 200], 0);
	assert_int_equal(g.said_len, 400);
	assert_int_equal(g.numbers_got[0], 0);
	guest_destroy(&g);
}

static void test_doorbells(void **state)
{
	struct io_doorbell pio16 = { .addr = 0x700, .size = 2 },
			   pio32 = { .addr = 0x704, .size = 4, .match = true, .value = 7 },
			   any = { .addr = GUEST_MMIO + 0x100 },
			   one = { .addr = GUEST_MMIO + 0x110, .size = 4, .match = true,
				   .value = 3 };
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(doorbells) });
	pio16.fd = new_eventfd();
	pio32.fd = new_eventfd();
	any.fd = new_eventfd();
	one.fd = new_eventfd();
	assert_true(io_bus_add_doorbell(&g.vm.pio, &pio16, NULL));
	assert_true(io_bus_add_doorbell(&g.vm.mmio, &any, NULL));
	assert_false(g.vm.pio.doorbells[0].in_kernel); /* from the first resume on */
	vm_start(&g.vm);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	vm_reset(&g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	eventfd_take(pio16.fd);
	eventfd_take(any.fd);
	g.mmio_writes = 0;
	assert_true(io_bus_add_doorbell(&g.vm.pio, &pio32, NULL));
	assert_true(io_bus_add_doorbell(&g.vm.mmio, &one, NULL));
	for (unsigned i = 0; i < 2; i++) {
		assert_true(g.vm.pio.doorbells[i].in_kernel);
		assert_true(g.vm.mmio.doorbells[i].in_kernel);
	}
	assert_true(guest_run(&g));
	assert_int_equal(eventfd_take(pio16.fd), 10);
	assert_int_equal(eventfd_take(pio32.fd), 1);
	assert_int_equal(eventfd_take(any.fd), 20);
	assert_int_equal(eventfd_take(one.fd), 1);
	assert_int_equal(g.mmio_writes, 9); /* what did not match */

	io_bus_remove_doorbell(&g.vm.pio, &pio16);
	io_bus_remove_doorbell(&g.vm.pio, &pio32);
	io_bus_remove_doorbell(&g.vm.mmio, &any);
	assert_true(guest_rerun(&g));
	assert_int_equal(eventfd_take(pio16.fd), 0);
	assert_int_equal(eventfd_take(any.fd), 0);
	assert_int_equal(eventfd_take(one.fd), 1);
	io_bus_remove_doorbell(&g.vm.mmio, &one);
	guest_destroy(&g);
	close(pio16.fd);
	close(pio32.fd);
	close(any.fd);
	close(one.fd);
}

static bool vector_41(struct guest *g)
{
	return vector_count(g, 0x41);
}

static bool vector_42(struct guest *g)
{
	return vector_count(g, 0x42);
}

static bool vector_43(struct guest *g)
{
	return vector_count(g, 0x43);
}

static bool vector_45(struct guest *g)
{
	return vector_count(g, 0x45);
}

static bool vector_45_twice(struct guest *g)
{
	return vector_count(g, 0x45) >= 2;
}

static struct msi_msg message(unsigned vector)
{
	return (struct msi_msg){ 0xfee00000, vector };
}

static void messages(enum irqchip_mode mode)
{
	struct msi_route a = { 0 }, b = { 0 };
	const struct msi_sink_ops *msi;
	int fd_a = new_eventfd(), fd_b = new_eventfd();
	struct guest g;

	guest_create(&g, &(struct guest_config){ CODE(interrupts), HANDLER(count_vectors),
						 .irqchip = mode });
	msi = g.vm.msi->ops;
	/* One before the guest runs, two together. */
	assert_int_equal(msi->route_add(g.vm.msi, &a, fd_a, message(0x41), 0), 0);
	assert_true(guest_run(&g));
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_41));
	msi_send(g.vm.msi, message(0x42), 0);
	assert_true(guest_wait(&g, vector_42));
	msi_batch_begin(g.vm.msi);
	assert_int_equal(msi->route_add(g.vm.msi, &b, fd_b, message(0x43), 0), 0);
	assert_int_equal(msi->route_update(g.vm.msi, &a, message(0x45)), 0);
	msi_batch_end(g.vm.msi);
	assert_true(a.active && b.active && a.gsi != b.gsi);
	eventfd_ring(fd_b);
	assert_true(guest_wait(&g, vector_43));
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_45));
	/* Neither a write that is no message nor one to nobody comes to anything. */
	msi_send(g.vm.msi, (struct msi_msg){ 0x12345678, 0x42 }, 0);
	msi_send(g.vm.msi, (struct msi_msg){ 0xfee00fe0, 0x42 }, 0);
	msi_send(g.vm.msi, (struct msi_msg){ UINT64_C(0x77fee00000), 0x42 }, 0);
	assert_int_equal(msi->route_update(g.vm.msi, &a, (struct msi_msg){ UINT64_MAX, 0x45 }), 0);
	eventfd_ring(fd_a);
	assert_int_equal(msi->route_update(g.vm.msi, &a, message(0x45)), 0);
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_45_twice));
	assert_int_equal(vector_count(&g, 0x41), 1);
	assert_int_equal(vector_count(&g, 0x43), 1);
	msi->route_remove(g.vm.msi, &a);
	msi->route_remove(g.vm.msi, &b);
	msi->route_remove(g.vm.msi, &b);
	assert_int_equal(a.gsi, -1);
	eventfd_ring(fd_b);
	msi_send(g.vm.msi, message(0x41), 0);
	guest_wait(&g, vector_41);
	assert_int_equal(vector_count(&g, 0x43), 1);
	guest_destroy(&g);
	close(fd_a);
	close(fd_b);
}

static void test_messages(void **state)
{
	need_kvm();
	messages(IRQCHIP_KERNEL);
	messages(IRQCHIP_SPLIT);
}

static void test_many_routes(void **state)
{
	enum { COUNT = 500 };
	struct msi_route *routes = calloc(COUNT, sizeof(*routes));
	int *fds = calloc(COUNT, sizeof(*fds));
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(interrupts), HANDLER(count_vectors) });
	assert_true(guest_run(&g));
	msi_batch_begin(g.vm.msi);
	for (int i = 0; i < COUNT; i++) {
		fds[i] = new_eventfd();
		assert_int_equal(g.vm.msi->ops->route_add(g.vm.msi, &routes[i], fds[i],
							  message(0x30 + i % 128), 0), 0);
	}
	msi_batch_end(g.vm.msi);
	for (int i = 0; i < COUNT; i++)
		assert_true(routes[i].active);
	eventfd_ring(fds[0x11]);
	assert_true(guest_wait(&g, vector_41));
	eventfd_ring(fds[0x12 + 128]);
	assert_true(guest_wait(&g, vector_42));
	for (int i = 0; i < COUNT; i++)
		g.vm.msi->ops->route_remove(g.vm.msi, &routes[i]);
	guest_destroy(&g);
	for (int i = 0; i < COUNT; i++)
		close(fds[i]);
	free(routes);
	free(fds);
}

static void test_level_line(void **state)
{
	const struct accel_ops *ops;
	int fd = new_eventfd(), resample = new_eventfd();
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(ioapic), HANDLER(count_vectors) });
	ops = g.accel->ops;
	assert_true(guest_run(&g));
	irq_set(&g.accel->gsi[5], true);
	assert_true(guest_wait(&g, vector_45_twice)); /* again and again while it is high */
	irq_set(&g.accel->gsi[5], false);
	usleep(5000); /* the last one may be on its way */
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	memset(guest_data(&g, 0x800), 0, 1024);
	vm_start(&g.vm);

	/* A descriptor raises it, the guest's end of interrupt lowers it and tells. */
	assert_int_equal(ops->irqfd_add(g.accel, fd, 5, resample), 0);
	eventfd_ring(fd);
	assert_true(guest_wait(&g, vector_45));
	for (int i = 0; i < 1000 && !eventfd_take(resample); i++)
		usleep(1000);
	assert_int_equal(vector_count(&g, 0x45), 1);
	eventfd_ring(fd);
	assert_true(guest_wait(&g, vector_45_twice));
	assert_int_equal(ops->irqfd_remove(g.accel, fd, 5), 0);
	assert_int_equal(ops->irq_set(g.accel, 24, true), -EINVAL);
	guest_destroy(&g);
	close(fd);
	close(resample);
}

static _Atomic int eoi_vector;

static void note_eoi(void *opaque, uint8_t vector)
{
	atomic_store(&eoi_vector, vector);
}

static bool eoi_came(struct guest *g)
{
	return atomic_load(&eoi_vector);
}

/* A board's own I/O APIC hears of the end of its level-triggered interrupts, and of no others. */
static void test_split_eoi(void **state)
{
	static const struct vcpu_irq_ops irq_ops = { .eoi = note_eoi };
	struct msi_msg level = { 0xfee00000, 0xc045 };
	struct guest g;

	need_kvm();
	atomic_store(&eoi_vector, 0);
	guest_create(&g, &(struct guest_config){ CODE(interrupts_awake), HANDLER(count_vectors),
						 .irqchip = IRQCHIP_SPLIT });
	vcpu_get(&g.vm, 0)->irq_ops = &irq_ops;
	assert_int_equal(g.accel->ops->irq_set(g.accel, 5, true), -ENOSYS);
	assert_true(guest_run(&g));
	msi_send(g.vm.msi, message(0x41), 0);
	assert_true(guest_wait(&g, vector_41));
	assert_int_equal(atomic_load(&eoi_vector), 0);
	msi_ioapic_pin(g.vm.msi, 5, &level);
	msi_send(g.vm.msi, level, 0);
	assert_true(guest_wait(&g, eoi_came));
	assert_int_equal(atomic_load(&eoi_vector), 0x45);
	assert_int_equal(vector_count(&g, 0x45), 1);
	msi_ioapic_pin(g.vm.msi, 5, NULL);
	guest_destroy(&g);
}

/* A board's own 8259s at the boot CPU's LINT0. */
static void pic_eoi(void *opaque, uint8_t vector)
{
}

static bool pic_pending(void *opaque)
{
	return i8259_pending(opaque);
}

static uint8_t pic_acknowledge(void *opaque)
{
	return i8259_acknowledge(opaque);
}

static void pic_output(struct irq_line *line, bool level)
{
	struct guest *g = line->opaque;

	if (level)
		vcpu_interrupt(vcpu_get(&g->vm, 0));
}

static struct device *add_pic(struct guest *g, struct irq_line *output)
{
	static const struct vcpu_irq_ops irq_ops = {
		.eoi = pic_eoi,
		.extint_pending = pic_pending,
		.extint_acknowledge = pic_acknowledge,
	};
	struct device *pic = device_new(&g->vm, &i8259_desc, NULL);
	struct vcpu *v = vcpu_get(&g->vm, 0);

	*output = (struct irq_line){ .set = pic_output, .opaque = g };
	i8259_set_output(pic, output);
	assert_true(device_realize(pic, NULL, NULL));
	v->irq_opaque = pic;
	v->irq_ops = &irq_ops;
	return pic;
}

static bool vector_48(struct guest *g)
{
	return vector_count(g, 0x48);
}

static void test_split_pic(void **state)
{
	struct irq_line output;
	struct device *pic;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(pic), HANDLER(count_pic),
						 .irqchip = IRQCHIP_SPLIT });
	pic = add_pic(&g, &output);
	irq_set(i8259_input(pic, 3), true);
	irq_set(i8259_input(pic, 3), false); /* gone before anybody looks */
	assert_true(guest_run(&g));
	irq_set(i8259_input(pic, 1), true);
	assert_true(guest_wait(&g, vector_41));
	irq_set(i8259_input(pic, 8), true);
	assert_true(guest_wait(&g, vector_48));
	/* They are edges. */
	irq_set(i8259_input(pic, 1), true);
	irq_set(i8259_input(pic, 2 + 3), true);
	assert_true(guest_wait(&g, vector_45));
	assert_int_equal(vector_count(&g, 0x41), 1);
	assert_int_equal(vector_count(&g, 0x48), 1);
	assert_int_equal(vector_count(&g, 0x43), 0);
	/* A reset while it sleeps forgets what it was told. */
	memset(guest_data(&g, 0x800), 0, 1024);
	assert_true(guest_rerun(&g));
	irq_set(i8259_input(pic, 1), false);
	irq_set(i8259_input(pic, 1), true);
	assert_true(guest_wait(&g, vector_41));
	assert_int_equal(vector_count(&g, 0x45) + vector_count(&g, 0x48), 0);
	guest_destroy(&g);
}

static bool goes_on(struct guest *g)
{
	return data32(g, 8);
}

/* While interrupts are off, and while LINT0 is masked, none is taken from the 8259. */
static void test_split_pic_late(void **state)
{
	uint32_t *data;
	struct irq_line output;
	struct device *pic;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(pic_late), HANDLER(count_pic),
						 .irqchip = IRQCHIP_SPLIT });
	data = guest_data(&g, 0);
	pic = add_pic(&g, &output);
	assert_true(guest_run(&g));
	irq_set(i8259_input(pic, 1), true);
	usleep(5000);
	assert_int_equal(vector_count(&g, 0x41), 0);
	assert_true(i8259_pending(pic));
	data[0] = 1;
	g.vm.cpu_ops->kick_all(&g.vm);
	usleep(5000);
	assert_int_equal(vector_count(&g, 0x41), 0);
	assert_true(i8259_pending(pic));
	data[1] = 1;
	assert_true(guest_wait(&g, vector_41));
	assert_true(guest_wait(&g, goes_on));
	assert_int_equal(vector_count(&g, 0x41), 1);
	assert_false(i8259_pending(pic));
	guest_destroy(&g);
}

static uint32_t pic_expected;

static bool pic_caught_up(struct guest *g)
{
	return vector_count(g, 0x41) == pic_expected && vector_count(g, 0x4c) == pic_expected;
}

/* None is lost, none comes twice, whatever kicks the CPU meanwhile. */
static void test_split_pic_storm(void **state)
{
	struct irq_line output;
	struct device *pic;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(pic), HANDLER(count_pic),
						 .irqchip = IRQCHIP_SPLIT });
	pic = add_pic(&g, &output);
	assert_true(guest_run(&g));
	for (pic_expected = 1; pic_expected <= 500; pic_expected++) {
		irq_set(i8259_input(pic, 1), false);
		irq_set(i8259_input(pic, 12), false);
		irq_set(i8259_input(pic, 12), true);
		if (pic_expected % 3 == 0)
			g.vm.cpu_ops->kick_all(&g.vm);
		irq_set(i8259_input(pic, 1), true);
		for (unsigned i = 0; i < pic_expected % 4; i++)
			vcpu_interrupt(vcpu_get(&g.vm, 0));
		if (pic_expected % 7 == 0) {
			vm_stop(&g.vm, RUN_STATE_PAUSED);
			vm_start(&g.vm);
		}
		assert_true(guest_wait(&g, pic_caught_up));
	}
	guest_destroy(&g);
}

static bool ten_ticks(struct guest *g)
{
	return vector_count(g, 0x41) >= 10;
}

static void test_pit(void **state)
{
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(pit), HANDLER(count_vectors), .pit = true });
	assert_true(guest_run(&g));
	assert_true(guest_wait(&g, ten_ticks));
	/* Its speaker port is there too. */
	assert_int_not_equal(g.numbers_got[0], 0xff);
	guest_destroy(&g);
}

/* Ticks of the time in which the machine stood are not made up for. */
static void test_pit_pause(void **state)
{
	enum { TICK_NS = 838096, STOOD_MS = 500, SLACK_MS = 200 };
	int64_t begin, elapsed;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(pit), HANDLER(count_vectors), .pit = true });
	assert_true(guest_run(&g));
	assert_true(guest_wait(&g, ten_ticks));
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	memset(guest_data(&g, 0x800), 0, 1024);
	usleep(STOOD_MS * 1000);
	begin = evloop_now(g.loop);
	vm_start(&g.vm);
	assert_true(guest_wait(&g, ten_ticks));
	usleep(100 * 1000);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	elapsed = evloop_now(g.loop) - begin;
	assert_true((int64_t)vector_count(&g, 0x41) * TICK_NS <
		    elapsed + SLACK_MS * NSEC_PER_MSEC);
	guest_destroy(&g);
}

static bool second_cpu_came(struct guest *g)
{
	return load_le32(g->ram + 0x70100) == 0x600dcafe;
}

static void test_start_up(void **state)
{
	struct guest g;

	need_kvm();
	for (int mode = IRQCHIP_KERNEL; mode <= IRQCHIP_SPLIT; mode++) {
		guest_create(&g, &(struct guest_config){ CODE(start_up), .cpus = 2, .startup = true,
							 .irqchip = mode });
		memcpy(g.ram + 0x70000, guest_real_mode, guest_real_mode_end - guest_real_mode);
		assert_true(guest_run(&g));
		assert_true(guest_wait(&g, second_cpu_came));
		memset(g.ram + 0x70100, 0, 4);
		/* Again after a reset. */
		assert_true(guest_rerun(&g));
		assert_true(guest_wait(&g, second_cpu_came));
		guest_destroy(&g);
	}
}

static void test_triple_fault(void **state)
{
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(triple_fault) });
	assert_true(guest_run(&g));
	assert_int_equal(data32(&g, 0), 3);
	assert_int_equal(g.events[VM_EVENT_RESET], 2);
	guest_destroy(&g);

	/* -no-reboot */
	guest_create(&g, &(struct guest_config){ CODE(triple_fault) });
	g.vm.no_reboot = true;
	vm_start(&g.vm);
	evloop_run(g.loop);
	assert_int_equal(g.events[VM_EVENT_SHUTDOWN], 1);
	assert_int_equal(data32(&g, 0), 1);
	guest_destroy(&g);
}

/* What fn(g) writes to standard error. */
static char *stderr_of(struct guest *g, void (*fn)(struct guest *g))
{
	char path[] = "/tmp/test_kvm.XXXXXX", *text = calloc(1, 8192);
	int saved = dup(STDERR_FILENO), fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	dup2(fd, STDERR_FILENO);
	fn(g);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_true(pread(fd, text, 8191, 0) >= 0);
	close(fd);
	return text;
}

static bool stopped(struct guest *g)
{
	return !vm_is_running(&g->vm);
}

static void start_and_wait(struct guest *g)
{
	vm_start(&g->vm);
	guest_wait(g, stopped);
}

static void test_internal_error(void **state)
{
	struct guest g;
	char *text;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(emulator_gap) });
	text = stderr_of(&g, start_and_wait);
	assert_int_equal(g.vm.state, RUN_STATE_INTERNAL_ERROR);
	assert_int_equal(g.events[VM_EVENT_STOP], 1);
	assert_non_null(strstr(text, "CPU 0 cannot go on: KVM internal error 1"));
	assert_non_null(strstr(text, "48 0f c7 0b"));
	assert_non_null(strstr(text, "(cmpxchg16b)"));
	assert_non_null(strstr(text, "64-bit mode, ring 0"));
	assert_non_null(strstr(text, "RBX=00000000d0000000"));
	assert_null(strstr(strstr(text, "cannot go on") + 1, "cannot go on"));
	assert_int_equal(data32(&g, 0), 1);
	free(text);

	/* To go on is not to run. */
	vm_start(&g.vm);
	evloop_run_once(g.loop, 20 * NSEC_PER_MSEC);
	assert_int_equal(data32(&g, 0), 1);
	assert_false(atomic_load(&g.done));
	assert_true(guest_rerun(&g));
	assert_int_equal(data32(&g, 0), 2);
	guest_destroy(&g);

	/* Where there is no memory at all. */
	guest_create(&g, &(struct guest_config){ CODE(astray) });
	text = stderr_of(&g, start_and_wait);
	assert_int_equal(g.vm.state, RUN_STATE_INTERNAL_ERROR);
	assert_non_null(strstr(text, "00000000b0000000"));
	free(text);
	guest_destroy(&g);
}

static bool all_counted(struct guest *g)
{
	for (unsigned i = 0; i < g->config.cpus; i++)
		if (!data64(g, i * 64))
			return false;
	return true;
}

static void pause_often(const struct guest_config *config, unsigned times)
{
	struct guest g;
	uint64_t before[GUEST_MAX_CPUS], first[GUEST_MAX_CPUS];

	guest_create(&g, config);
	vm_start(&g.vm);
	assert_true(guest_wait(&g, all_counted));
	for (unsigned n = 0; n < times; n++) {
		vm_stop(&g.vm, RUN_STATE_PAUSED);
		for (unsigned i = 0; i < GUEST_MAX_CPUS; i++) {
			assert_true(atomic_load(&vcpu_get(&g.vm, i)->paused));
			before[i] = data64(&g, i * 64);
			if (!n)
				first[i] = before[i];
		}
		if (n % 16 == 0)
			usleep(200);
		for (unsigned i = 0; i < GUEST_MAX_CPUS; i++)
			assert_int_equal(data64(&g, i * 64), before[i]);
		vm_start(&g.vm);
		if (n % 4 == 0)
			g.vm.cpu_ops->kick_all(&g.vm);
		if (n % 64 == 0)
			usleep(2000);
	}
	usleep(20000);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	for (unsigned i = 0; i < GUEST_MAX_CPUS; i++)
		assert_true(data64(&g, i * 64) > first[i]);
	guest_destroy(&g);
}

static void test_pause_resume(void **state)
{
	need_kvm();
	pause_often(&(struct guest_config){ CODE(spin), .cpus = 4, .user = true }, 1000);
	pause_often(&(struct guest_config){ CODE(spin_mmio), .cpus = 4 }, 300);
}

/* A pause finds no vCPU inside an instruction: what the device was told, registers agree with. */
static void test_pause_completes_io(void **state)
{
	uint64_t jump = GUEST_CODE + (guest_spin_mmio_end - guest_spin_mmio) - 2;
	unsigned behind_write = 0;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(spin_mmio), .cpus = 4 });
	vm_start(&g.vm);
	for (unsigned n = 0; n < 100; n++) {
		usleep(100);
		vm_stop(&g.vm, RUN_STATE_PAUSED);
		for (unsigned i = 0; i < 4; i++) {
			uint32_t told = load_le32(g.mmio_bytes + i * 8);
			struct x86_regs regs;

			assert_int_equal(g.accel->ops->x86->get_regs(vcpu_get(&g.vm, i), &regs), 0);
			assert_in_range(regs.rip, GUEST_CODE, jump);
			/* The device has each count as soon as the write is behind. */
			if (regs.rip == jump) {
				behind_write++;
				assert_int_equal(told, regs.rax);
			}
			assert_in_range(data64(&g, i * 64) - told, 0, 1);
		}
		vm_start(&g.vm);
	}
	assert_true(behind_write > 0);
	guest_destroy(&g);
}

static void note_thread(struct vcpu *v, void *opaque)
{
	*(pthread_t *)opaque = pthread_self();
}

struct storm {
	struct guest *g;
	_Atomic bool end;
	_Atomic unsigned rounds;
};

/* What devices' threads may do at any time. */
static void *storm_thread(void *opaque)
{
	struct storm *s = opaque;
	struct guest *g = s->g;

	while (!atomic_load(&s->end)) {
		unsigned n = atomic_fetch_add(&s->rounds, 1);

		g->vm.cpu_ops->kick_all(&g->vm);
		irq_set(&g->accel->gsi[n % 24], n & 32);
		msi_send(g->vm.msi, message(0x40 + n % 64), 0);
		if (n % 20 == 0)
			vm_request_reset(&g->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
		if (n % 70 == 0)
			vm_request_powerdown(&g->vm);
	}
	return NULL;
}

static void test_storm(void **state)
{
	struct storm s = { 0 };
	pthread_t threads[2];
	struct guest g;
	int64_t end;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(spin_mmio), .cpus = 4 });
	s.g = &g;
	vm_start(&g.vm);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, storm_thread, &s), 0);
	/* Slow machines make fewer rounds. */
	end = evloop_now(g.loop) + 10 * NSEC_PER_SEC;
	for (unsigned n = 0; (n < 60 || atomic_load(&s.rounds) < 50) &&
			     (n < 6 || evloop_now(g.loop) < end); n++) {
		pthread_t thread = 0;

		evloop_run_once(g.loop, 0);
		switch (n % 3) {
		case 0:
			vm_stop(&g.vm, RUN_STATE_PAUSED);
			break;
		case 1:
			vcpu_call(vcpu_get(&g.vm, n / 3 % 4), note_thread, &thread);
			assert_true(pthread_equal(thread, vcpu_get(&g.vm, n / 3 % 4)->thread));
			break;
		case 2:
			vm_start(&g.vm);
			break;
		}
	}
	atomic_store(&s.end, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	while (evloop_run_once(g.loop, 0))
		;
	assert_true(g.events[VM_EVENT_RESET] > 0);
	memset(guest_data(&g, 0), 0, 4096);
	vm_start(&g.vm);
	assert_true(guest_wait(&g, all_counted));
	guest_destroy(&g);
}

static void request_reset(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct guest *g = opaque;

	vm_request_reset(&g->vm, CAUSE_GUEST_RESET);
}

/* The vCPU that asks does not execute another instruction. */
static void test_request_stops(void **state)
{
	static const struct io_ops ops = { .write = request_reset };
	struct io_region region = { .base = 0x640, .size = 1, .ops = &ops, .name = "reset" };
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(requests) });
	region.opaque = &g;
	assert_true(io_bus_add(&g.vm.pio, &region, NULL));
	vm_start(&g.vm);
	for (int i = 0; i < 50; i++) {
		unsigned resets = g.events[VM_EVENT_RESET];

		while (g.events[VM_EVENT_RESET] == resets)
			evloop_run_once(g.loop, NSEC_PER_MSEC);
	}
	assert_int_equal(data32(&g, 4), 0);
	assert_true(data32(&g, 0) >= 50);
	assert_false(atomic_load(&g.done));
	guest_destroy(&g);
}

struct waiting_device {
	struct guest *g;
	struct notifier awaited;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool inside, served;
};

static void wait_for_main(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct waiting_device *d = opaque;

	pthread_mutex_lock(&d->lock);
	d->inside = true;
	while (!d->served)
		pthread_cond_wait(&d->cond, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

static void serve_waiting(struct notifier *n, void *data)
{
	struct waiting_device *d = container_of(n, struct waiting_device, awaited);

	pthread_mutex_lock(&d->lock);
	d->served = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

/* A pause comes to its end although a register handler waits for the main thread. */
static void test_pause_serves_handlers(void **state)
{
	static const struct io_ops ops = { .write = wait_for_main };
	struct waiting_device d = { .awaited = { .fn = serve_waiting },
				    .lock = PTHREAD_MUTEX_INITIALIZER,
				    .cond = PTHREAD_COND_INITIALIZER };
	struct io_region region = {
		.base = 0x640, .size = 1, .ops = &ops, .opaque = &d, .name = "waiting"
	};
	bool inside = false;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(requests), .cpus = 1 });
	assert_true(io_bus_add(&g.vm.pio, &region, NULL));
	notifier_add(&g.vm.vcpus_awaited, &d.awaited);
	vm_start(&g.vm);
	while (!inside) {
		evloop_run_once(g.loop, NSEC_PER_MSEC);
		pthread_mutex_lock(&d.lock);
		inside = d.inside;
		pthread_mutex_unlock(&d.lock);
	}
	assert_false(d.served);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	assert_true(d.served);
	/* The access that waited was made once. */
	assert_int_equal(data32(&g, 0), 1);
	assert_true(guest_run(&g));
	assert_int_equal(data32(&g, 0), 3);
	guest_destroy(&g);
}

static void test_readonly(void **state)
{
	struct guest g;
	uint32_t *rom;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(rom) });
	rom = map_pages(4096);
	rom[0] = 0xabcdef01;
	rom[2] = 0x11111111;
	assert_int_equal(g.accel->ops->mem_map(g.accel, HIGH, 4096, rom, ACCEL_MEM_READONLY), 0);
	io_bus_remove(&g.vm.mmio, &g.mmio);
	g.mmio.base = HIGH;
	assert_true(io_bus_add(&g.vm.mmio, &g.mmio, NULL));
	assert_true(guest_run(&g));
	assert_int_equal(g.numbers_got[0], 0xabcdef01);
	assert_int_equal(g.numbers_got[1], 0x11111111);
	assert_int_equal(g.mmio_reads, 0);
	assert_int_equal(g.mmio_writes, 1);
	assert_int_equal(load_le32(g.mmio_bytes + 8), 0x12345678);
	assert_int_equal(rom[2], 0x11111111);
	guest_destroy(&g);
	munmap(rom, 4096);
}

static void test_dirty_log(void **state)
{
	enum { PAGES = 80, SIZE = PAGES * 4096 };
	const struct accel_ops *ops;
	uint64_t bitmap[2];
	struct guest g;
	void *memory;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(dirty) });
	ops = g.accel->ops;
	memory = map_pages(SIZE);
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, 0), 0);
	assert_true(guest_run(&g));
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), -ENOENT);

	/* Switched on in place. */
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, ACCEL_MEM_DIRTY_LOG), 0);
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_true(guest_rerun(&g));
	memset(bitmap, 0xff, sizeof(bitmap));
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_int_equal(bitmap[0], 1 << 3 | 1 << 5);
	assert_int_equal(bitmap[1], 1 << 6);
	assert_int_equal(ops->dirty_get(g.accel, HIGH, SIZE, bitmap), 0);
	assert_int_equal(bitmap[0] | bitmap[1], 0);
	assert_int_equal(ops->mem_map(g.accel, HIGH, SIZE, memory, 0), 0);
	guest_destroy(&g);
	munmap(memory, SIZE);
}

static void test_slot_rules(void **state)
{
	const struct accel_ops *ops;
	struct guest g;
	char *memory;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(hello) });
	ops = g.accel->ops;
	memory = map_pages(256 * 4096);
	assert_int_equal(ops->mem_map(g.accel, HIGH + 1, 4096, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4095, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 0, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, -4096ull, 8192, memory, 0), -EINVAL);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory + 1, 0), -EINVAL);
	/* Every second page, backwards, then the gaps. */
	for (int i = 254; i >= 0; i -= 2)
		assert_int_equal(
			ops->mem_map(g.accel, HIGH + i * 4096, 4096, memory + i * 4096, 0), 0);
	assert_int_equal(ops->mem_map(g.accel, HIGH + 4096, 8192, memory, 0), -EEXIST);
	assert_int_equal(ops->mem_map(g.accel, HIGH - 4096, 8192, memory, 0), -EEXIST);
	assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory + 4096, 0), -EEXIST);
	for (int i = 1; i < 256; i += 2)
		assert_int_equal(
			ops->mem_map(g.accel, HIGH + i * 4096, 4096, memory + i * 4096, 0), 0);
	assert_int_equal(ops->mem_unmap(g.accel, HIGH, 8192), -ENOENT);
	assert_int_equal(ops->mem_unmap(g.accel, HIGH + 256 * 4096, 4096), -ENOENT);
	for (int i = 0; i < 256; i++)
		assert_int_equal(ops->mem_unmap(g.accel, HIGH + i * 4096, 4096), 0);
	assert_true(guest_run(&g));
	guest_destroy(&g);
	munmap(memory, 256 * 4096);
}

static void test_remap_while_running(void **state)
{
	const struct accel_ops *ops;
	struct guest g;
	uint32_t *memory;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(watch) });
	ops = g.accel->ops;
	memory = map_pages(4096);
	*memory = 0x600d600d;
	vm_start(&g.vm);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(ops->mem_map(g.accel, HIGH, 4096, memory, 0), 0);
		usleep(100);
		assert_int_equal(ops->mem_unmap(g.accel, HIGH, 4096), 0);
		usleep(100);
	}
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	assert_int_equal(data64(&g, 0), 0);
	assert_true(data64(&g, 8) > 0);
	assert_true(data64(&g, 16) > 0);
	guest_destroy(&g);
	munmap(memory, 4096);
}

static void test_call(void **state)
{
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(spin), .cpus = 2 });
	for (int running = 0; running < 2; running++) {
		for (unsigned i = 0; i < 2; i++) {
			struct vcpu *v = vcpu_get(&g.vm, i);
			pthread_t thread = pthread_self();

			vcpu_call(v, note_thread, &thread);
			assert_true(pthread_equal(thread, v->thread));
		}
		vm_start(&g.vm);
	}
	assert_null(vcpu_get(&g.vm, 2));
	guest_destroy(&g);
}

static void test_clock(void **state)
{
	const struct accel_ops *ops;
	uint64_t a, b;
	struct guest g;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(spin), .cpus = 1 });
	ops = g.accel->ops;
	vm_start(&g.vm);
	assert_int_equal(ops->clock_get(g.accel, &a), 0);
	usleep(2000);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_true(b >= a + 2000000);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	assert_int_equal(ops->clock_get(g.accel, &a), 0);
	assert_true(a >= b);
	usleep(20000);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_int_equal(a, b);
	assert_int_equal(ops->clock_set(g.accel, a + 3600 * UINT64_C(1000000000)), 0);
	vm_start(&g.vm);
	assert_int_equal(ops->clock_get(g.accel, &b), 0);
	assert_true(b >= a + 3600 * UINT64_C(1000000000));
	assert_true(b < a + 3610 * UINT64_C(1000000000));
	guest_destroy(&g);
}

struct cpu_state {
	struct x86_regs regs;
	struct x86_sregs sregs;
	enum x86_mp_state mp;
	uint8_t blob[5][8192];
	int blob_size[5];
};

static void save_cpu(struct guest *g, struct vcpu *v, struct cpu_state *c)
{
	const struct accel_x86_ops *x86 = g->accel->ops->x86;

	memset(c, 0, sizeof(*c));
	assert_int_equal(x86->get_regs(v, &c->regs), 0);
	assert_int_equal(x86->get_sregs(v, &c->sregs), 0);
	assert_int_equal(x86->get_mp_state(v, &c->mp), 0);
	for (unsigned i = 0; i < 5; i++) {
		c->blob_size[i] = x86->get_blob(v, i, NULL, 0);
		assert_in_range(c->blob_size[i], 1, sizeof(c->blob[i]));
		assert_int_equal(x86->get_blob(v, i, c->blob[i], sizeof(c->blob[i])),
				 c->blob_size[i]);
	}
}

/* State that is saved and set again goes on as before. */
static void test_cpu_state(void **state)
{
	struct cpu_state *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	const struct accel_x86_ops *x86;
	struct x86_msr msrs[2] = { { 0x277, 0 }, { 0xc0000081, 0 } };
	uint32_t list[1024];
	struct guest g;
	struct vcpu *v;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(hello) });
	x86 = g.accel->ops->x86;
	v = vcpu_get(&g.vm, 0);
	assert_true(guest_run(&g));
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	save_cpu(&g, v, a);
	assert_true(x86->msr_list(g.accel, list, 1024) > 20);
	assert_true(x86->tsc_khz(g.accel) > 100000);
	msrs[1].value = 0x23001000000000;
	msrs[0].value = 0x0007040600070406;
	assert_int_equal(x86->set_msrs(v, msrs, 2), 2);
	msrs[0].value = msrs[1].value = 0;
	assert_int_equal(x86->get_msrs(v, msrs, 2), 2);
	assert_int_equal(msrs[1].value, 0x23001000000000);
	assert_int_equal(msrs[0].value, 0x0007040600070406);
	vm_reset(&g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(x86->set_sregs(v, &a->sregs), 0);
	assert_int_equal(x86->set_regs(v, &a->regs), 0);
	assert_int_equal(x86->set_mp_state(v, a->mp), 0);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(x86->set_blob(v, i, a->blob[i], a->blob_size[i]), a->blob_size[i]);
		assert_int_equal(x86->set_blob(v, i, a->blob[i], a->blob_size[i] - 1), -EINVAL);
	}
	save_cpu(&g, v, b);
	assert_memory_equal(a, b, sizeof(*a));
	guest_destroy(&g);
	free(a);
	free(b);
}

/* PIC, PIC, I/O APIC or PIT, but for the times at which counters were loaded. */
static void save_chip(struct guest *g, unsigned chip, uint8_t state[1024])
{
	struct kvm_pit_state2 *pit = (struct kvm_pit_state2 *)state;

	memset(state, 0, 1024);
	assert_true(g->accel->ops->x86->get_irqchip(g->accel, chip, state, 1024) > 0);
	for (unsigned i = 0; chip == 3 && i < 3; i++)
		pit->channels[i].count_load_time = 0;
}

/* After a reset controllers, timer and CPU are as after creation, whatever was done to them. */
static void test_reset_state(void **state)
{
	struct cpu_state *fresh = calloc(1, sizeof(*fresh)), *after = calloc(1, sizeof(*after));
	const struct accel_x86_ops *x86;
	_Alignas(8) uint8_t chips[4][1024], chip[1024];
	struct x86_msr x2apic = { 0x1b, 0xfee00d00 };
	struct guest g;
	bool differed = false;

	need_kvm();
	guest_create(&g, &(struct guest_config){ CODE(legacy_chips), .pit = true });
	x86 = g.accel->ops->x86;
	for (unsigned i = 0; i < 4; i++)
		save_chip(&g, i, chips[i]);
	g.vm.cpu_ops->reset_all(&g.vm);
	save_cpu(&g, vcpu_get(&g.vm, 0), fresh);
	assert_true(guest_run(&g));
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	for (unsigned i = 0; i < 4; i++) {
		save_chip(&g, i, chip);
		if (memcmp(chip, chips[i], sizeof(chip)))
			differed = true;
	}
	assert_true(differed);
	assert_int_equal(x86->set_msrs(vcpu_get(&g.vm, 0), &x2apic, 1), 1);
	vm_reset(&g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	assert_int_equal(x86->reset_irqchip(g.accel), 0);
	for (unsigned i = 0; i < 4; i++) {
		save_chip(&g, i, chip);
		assert_memory_equal(chip, chips[i], sizeof(chip));
	}
	save_cpu(&g, vcpu_get(&g.vm, 0), after);
	assert_memory_equal(fresh, after, sizeof(*fresh));
	guest_destroy(&g);
	free(fresh);
	free(after);
}

/* An argument chooses tests by a pattern ("test_mm*"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_port_output),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_string_io),
		cmocka_unit_test(test_doorbells),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_many_routes),
		cmocka_unit_test(test_level_line),
		cmocka_unit_test(test_split_eoi),
		cmocka_unit_test(test_split_pic),
		cmocka_unit_test(test_split_pic_late),
		cmocka_unit_test(test_split_pic_storm),
		cmocka_unit_test(test_pit),
		cmocka_unit_test(test_pit_pause),
		cmocka_unit_test(test_start_up),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_internal_error),
		cmocka_unit_test(test_pause_resume),
		cmocka_unit_test(test_pause_completes_io),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_request_stops),
		cmocka_unit_test(test_pause_serves_handlers),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_slot_rules),
		cmocka_unit_test(test_remap_while_running),
		cmocka_unit_test(test_call),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_cpu_state),
		cmocka_unit_test(test_reset_state),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
