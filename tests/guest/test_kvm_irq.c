/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells and interrupts of KVM: eventfds, messages, lines, a board's own 8259s and I/O APIC, the
 * timer. Skipped where there is no /dev/kvm.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "hw/legacy/legacy.h"
#include "tests/guest/guest.h"
#include "vmm/core/util.h"

GUEST_CODE_PIECE(doorbells);
GUEST_CODE_PIECE(count_vectors);
GUEST_CODE_PIECE(interrupts);
GUEST_CODE_PIECE(interrupts_awake);
GUEST_CODE_PIECE(ioapic);
GUEST_CODE_PIECE(pit);
GUEST_CODE_PIECE(count_pic);
GUEST_CODE_PIECE(pic);
GUEST_CODE_PIECE(pic_late);

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

static void test_doorbells(void **state)
{
	struct io_doorbell pio16 = {.addr = 0x700, .size = 2},
			   pio32 = {.addr = 0x704, .size = 4, .match = true, .value = 7},
			   any = {.addr = GUEST_MMIO + 0x100},
			   one = {.addr = GUEST_MMIO + 0x110, .size = 4, .match = true, .value = 3};
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(doorbells)});
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
	return guest_vector_count(g, 0x41);
}

static bool vector_42(struct guest *g)
{
	return guest_vector_count(g, 0x42);
}

static bool vector_43(struct guest *g)
{
	return guest_vector_count(g, 0x43);
}

static bool vector_45(struct guest *g)
{
	return guest_vector_count(g, 0x45);
}

static bool vector_45_twice(struct guest *g)
{
	return guest_vector_count(g, 0x45) >= 2;
}

static void messages(enum irqchip_mode mode)
{
	struct msi_route a = {0}, b = {0};
	const struct msi_sink_ops *msi;
	int fd_a = new_eventfd(), fd_b = new_eventfd();
	struct guest g;

	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(interrupts),
						GUEST_HANDLER(count_vectors), .irqchip = mode});
	msi = g.vm.msi->ops;
	/* One before the guest runs, two together. */
	assert_int_equal(msi->route_add(g.vm.msi, &a, fd_a, guest_message(0x41), 0), 0);
	assert_true(guest_run(&g));
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_41));
	msi_send(g.vm.msi, guest_message(0x42), 0);
	assert_true(guest_wait(&g, vector_42));
	msi_batch_begin(g.vm.msi);
	assert_int_equal(msi->route_add(g.vm.msi, &b, fd_b, guest_message(0x43), 0), 0);
	assert_int_equal(msi->route_update(g.vm.msi, &a, guest_message(0x45)), 0);
	msi_batch_end(g.vm.msi);
	assert_true(a.active && b.active && a.gsi != b.gsi);
	eventfd_ring(fd_b);
	assert_true(guest_wait(&g, vector_43));
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_45));
	/* Neither a write that is no message nor one to nobody comes to anything. */
	msi_send(g.vm.msi, (struct msi_msg){0x12345678, 0x42}, 0);
	msi_send(g.vm.msi, (struct msi_msg){0xfee00fe0, 0x42}, 0);
	msi_send(g.vm.msi, (struct msi_msg){UINT64_C(0x77fee00000), 0x42}, 0);
	assert_int_equal(msi->route_update(g.vm.msi, &a, (struct msi_msg){UINT64_MAX, 0x45}), 0);
	eventfd_ring(fd_a);
	assert_int_equal(msi->route_update(g.vm.msi, &a, guest_message(0x45)), 0);
	eventfd_ring(fd_a);
	assert_true(guest_wait(&g, vector_45_twice));
	assert_int_equal(guest_vector_count(&g, 0x41), 1);
	assert_int_equal(guest_vector_count(&g, 0x43), 1);
	msi->route_remove(g.vm.msi, &a);
	msi->route_remove(g.vm.msi, &b);
	msi->route_remove(g.vm.msi, &b);
	assert_int_equal(a.gsi, -1);
	eventfd_ring(fd_b);
	msi_send(g.vm.msi, guest_message(0x41), 0);
	guest_wait(&g, vector_41);
	assert_int_equal(guest_vector_count(&g, 0x43), 1);
	guest_destroy(&g);
	close(fd_a);
	close(fd_b);
}

static void test_messages(void **state)
{
	guest_need_kvm();
	messages(IRQCHIP_KERNEL);
	messages(IRQCHIP_SPLIT);
}

static void test_many_routes(void **state)
{
	enum { COUNT = 500 };
	struct msi_route *routes = calloc(COUNT, sizeof(*routes));
	int *fds = calloc(COUNT, sizeof(*fds));
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(interrupts),
						GUEST_HANDLER(count_vectors)});
	assert_true(guest_run(&g));
	msi_batch_begin(g.vm.msi);
	for (int i = 0; i < COUNT; i++) {
		fds[i] = new_eventfd();
		assert_int_equal(g.vm.msi->ops->route_add(g.vm.msi, &routes[i], fds[i],
							  guest_message(0x30 + i % 128), 0),
				 0);
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

	guest_need_kvm();
	guest_create(&g,
		     &(struct guest_config){GUEST_PROGRAM(ioapic), GUEST_HANDLER(count_vectors)});
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
	assert_int_equal(guest_vector_count(&g, 0x45), 1);
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
	static const struct vcpu_irq_ops irq_ops = {.eoi = note_eoi};
	struct msi_msg level = {0xfee00000, 0xc045};
	struct guest g;

	guest_need_kvm();
	atomic_store(&eoi_vector, 0);
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(interrupts_awake),
						GUEST_HANDLER(count_vectors),
						.irqchip = IRQCHIP_SPLIT});
	vcpu_get(&g.vm, 0)->irq_ops = &irq_ops;
	assert_int_equal(g.accel->ops->irq_set(g.accel, 5, true), -ENOSYS);
	assert_true(guest_run(&g));
	msi_send(g.vm.msi, guest_message(0x41), 0);
	assert_true(guest_wait(&g, vector_41));
	assert_int_equal(atomic_load(&eoi_vector), 0);
	msi_ioapic_pin(g.vm.msi, 5, &level);
	msi_send(g.vm.msi, level, 0);
	assert_true(guest_wait(&g, eoi_came));
	assert_int_equal(atomic_load(&eoi_vector), 0x45);
	assert_int_equal(guest_vector_count(&g, 0x45), 1);
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

	*output = (struct irq_line){.set = pic_output, .opaque = g};
	i8259_set_output(pic, output);
	assert_true(device_realize(pic, NULL, NULL));
	v->irq_opaque = pic;
	v->irq_ops = &irq_ops;
	return pic;
}

static bool vector_48(struct guest *g)
{
	return guest_vector_count(g, 0x48);
}

static void test_split_pic(void **state)
{
	struct irq_line output;
	struct device *pic;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(pic), GUEST_HANDLER(count_pic),
						.irqchip = IRQCHIP_SPLIT});
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
	assert_int_equal(guest_vector_count(&g, 0x41), 1);
	assert_int_equal(guest_vector_count(&g, 0x48), 1);
	assert_int_equal(guest_vector_count(&g, 0x43), 0);
	/* A reset while it sleeps forgets what it was told. */
	memset(guest_data(&g, 0x800), 0, 1024);
	assert_true(guest_rerun(&g));
	irq_set(i8259_input(pic, 1), false);
	irq_set(i8259_input(pic, 1), true);
	assert_true(guest_wait(&g, vector_41));
	assert_int_equal(guest_vector_count(&g, 0x45) + guest_vector_count(&g, 0x48), 0);
	guest_destroy(&g);
}

static bool goes_on(struct guest *g)
{
	return guest_data32(g, 8);
}

/* While interrupts are off, and while LINT0 is masked, none is taken from the 8259. */
static void test_split_pic_late(void **state)
{
	uint32_t *data;
	struct irq_line output;
	struct device *pic;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(pic_late), GUEST_HANDLER(count_pic),
						.irqchip = IRQCHIP_SPLIT});
	data = guest_data(&g, 0);
	pic = add_pic(&g, &output);
	assert_true(guest_run(&g));
	irq_set(i8259_input(pic, 1), true);
	usleep(5000);
	assert_int_equal(guest_vector_count(&g, 0x41), 0);
	assert_true(i8259_pending(pic));
	data[0] = 1;
	g.vm.cpu_ops->kick_all(&g.vm);
	usleep(5000);
	assert_int_equal(guest_vector_count(&g, 0x41), 0);
	assert_true(i8259_pending(pic));
	data[1] = 1;
	assert_true(guest_wait(&g, vector_41));
	assert_true(guest_wait(&g, goes_on));
	assert_int_equal(guest_vector_count(&g, 0x41), 1);
	assert_false(i8259_pending(pic));
	guest_destroy(&g);
}

static uint32_t pic_expected;

static bool pic_caught_up(struct guest *g)
{
	return guest_vector_count(g, 0x41) == pic_expected &&
	       guest_vector_count(g, 0x4c) == pic_expected;
}

/* None is lost, none comes twice, whatever kicks the CPU meanwhile. */
static void test_split_pic_storm(void **state)
{
	struct irq_line output;
	struct device *pic;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(pic), GUEST_HANDLER(count_pic),
						.irqchip = IRQCHIP_SPLIT});
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
	return guest_vector_count(g, 0x41) >= 10;
}

static void test_pit(void **state)
{
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(pit), GUEST_HANDLER(count_vectors),
						.pit = true});
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

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(pit), GUEST_HANDLER(count_vectors),
						.pit = true});
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
	assert_true((int64_t)guest_vector_count(&g, 0x41) * TICK_NS <
		    elapsed + SLACK_MS * NSEC_PER_MSEC);
	guest_destroy(&g);
}

/* An argument chooses tests by a pattern ("test_mm*"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
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
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
