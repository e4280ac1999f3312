/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM and the vCPU threads with guests of a few instructions: what makes a CPU stop for the device
 * model, start-up, faults, pauses, resets, calls. Skipped where there is no /dev/kvm.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/guest/guest.h"
#include "vmm/core/util.h"

GUEST_CODE_PIECE(hello);
GUEST_CODE_PIECE(mmio);
GUEST_CODE_PIECE(string);
GUEST_CODE_PIECE(start_up);
GUEST_CODE_PIECE(real_mode);
GUEST_CODE_PIECE(triple_fault);
GUEST_CODE_PIECE(emulator_gap);
GUEST_CODE_PIECE(spin);
GUEST_CODE_PIECE(spin_mmio);
GUEST_CODE_PIECE(astray);
GUEST_CODE_PIECE(requests);

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

	guest_need_kvm();
	for (int user = 0; user < 2 - host_is_emulated(); user++) {
		guest_create(&g, &(struct guest_config){GUEST_PROGRAM(hello), .user = user});
		assert_true(guest_run(&g));
		assert_string_equal(g.said, "hello");
		guest_destroy(&g);
	}
}

static void test_mmio(void **state)
{
	static const uint32_t expected[] = {0x11,	0x2222,	    0x33333333,
					    0x55555555, 0x44444444, 0xffff0000};
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(mmio)});
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

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(string)});
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

static bool second_cpu_came(struct guest *g)
{
	return load_le32(g->ram + 0x70100) == 0x600dcafe;
}

static void test_start_up(void **state)
{
	struct guest g;

	guest_need_kvm();
	for (int mode = IRQCHIP_KERNEL; mode <= IRQCHIP_SPLIT; mode++) {
		guest_create(&g, &(struct guest_config){GUEST_PROGRAM(start_up), .cpus = 2,
							.startup = true, .irqchip = mode});
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

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(triple_fault)});
	assert_true(guest_run(&g));
	assert_int_equal(guest_data32(&g, 0), 3);
	assert_int_equal(g.events[VM_EVENT_RESET], 2);
	guest_destroy(&g);

	/* -no-reboot */
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(triple_fault)});
	g.vm.no_reboot = true;
	vm_start(&g.vm);
	evloop_run(g.loop);
	assert_int_equal(g.events[VM_EVENT_SHUTDOWN], 1);
	assert_int_equal(guest_data32(&g, 0), 1);
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

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(emulator_gap)});
	text = stderr_of(&g, start_and_wait);
	assert_int_equal(g.vm.state, RUN_STATE_INTERNAL_ERROR);
	assert_int_equal(g.events[VM_EVENT_STOP], 1);
	assert_non_null(strstr(text, "CPU 0 cannot go on: KVM internal error 1"));
	assert_non_null(strstr(text, "48 0f c7 0b"));
	assert_non_null(strstr(text, "(cmpxchg16b)"));
	assert_non_null(strstr(text, "64-bit mode, ring 0"));
	assert_non_null(strstr(text, "RBX=00000000d0000000"));
	assert_null(strstr(strstr(text, "cannot go on") + 1, "cannot go on"));
	assert_int_equal(guest_data32(&g, 0), 1);
	free(text);

	/* To go on is not to run. */
	vm_start(&g.vm);
	evloop_run_once(g.loop, 20 * NSEC_PER_MSEC);
	assert_int_equal(guest_data32(&g, 0), 1);
	assert_false(atomic_load(&g.done));
	assert_true(guest_rerun(&g));
	assert_int_equal(guest_data32(&g, 0), 2);
	guest_destroy(&g);

	/* Where there is no memory at all. */
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(astray)});
	text = stderr_of(&g, start_and_wait);
	assert_int_equal(g.vm.state, RUN_STATE_INTERNAL_ERROR);
	assert_non_null(strstr(text, "00000000b0000000"));
	free(text);
	guest_destroy(&g);
}

static bool all_counted(struct guest *g)
{
	for (unsigned i = 0; i < g->config.cpus; i++)
		if (!guest_data64(g, i * 64))
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
			before[i] = guest_data64(&g, i * 64);
			if (!n)
				first[i] = before[i];
		}
		if (n % 16 == 0)
			usleep(200);
		for (unsigned i = 0; i < GUEST_MAX_CPUS; i++)
			assert_int_equal(guest_data64(&g, i * 64), before[i]);
		vm_start(&g.vm);
		if (n % 4 == 0)
			g.vm.cpu_ops->kick_all(&g.vm);
		if (n % 64 == 0)
			usleep(2000);
	}
	usleep(20000);
	vm_stop(&g.vm, RUN_STATE_PAUSED);
	for (unsigned i = 0; i < GUEST_MAX_CPUS; i++)
		assert_true(guest_data64(&g, i * 64) > first[i]);
	guest_destroy(&g);
}

static void test_pause_resume(void **state)
{
	guest_need_kvm();
	pause_often(&(struct guest_config){GUEST_PROGRAM(spin), .cpus = 4, .user = true}, 1000);
	pause_often(&(struct guest_config){GUEST_PROGRAM(spin_mmio), .cpus = 4}, 300);
}

/* A pause finds no vCPU inside an instruction: what the device was told, registers agree with. */
static void test_pause_completes_io(void **state)
{
	uint64_t jump = GUEST_CODE + (guest_spin_mmio_end - guest_spin_mmio) - 2;
	unsigned behind_write = 0;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(spin_mmio), .cpus = 4});
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
			assert_in_range(guest_data64(&g, i * 64) - told, 0, 1);
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

static void test_call(void **state)
{
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(spin), .cpus = 2});
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
		msi_send(g->vm.msi, guest_message(0x40 + n % 64), 0);
		if (n % 20 == 0)
			vm_request_reset(&g->vm, CAUSE_HOST_QMP_SYSTEM_RESET);
		if (n % 70 == 0)
			vm_request_powerdown(&g->vm);
	}
	return NULL;
}

static void test_storm(void **state)
{
	struct storm s = {0};
	pthread_t threads[2];
	struct guest g;
	int64_t end;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(spin_mmio), .cpus = 4});
	s.g = &g;
	vm_start(&g.vm);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, storm_thread, &s), 0);
	/* Slow machines make fewer rounds. */
	end = evloop_now(g.loop) + 10 * NSEC_PER_SEC;
	for (unsigned n = 0;
	     (n < 60 || atomic_load(&s.rounds) < 50) && (n < 6 || evloop_now(g.loop) < end); n++) {
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
	static const struct io_ops ops = {.write = request_reset};
	struct io_region region = {.base = 0x640, .size = 1, .ops = &ops, .name = "reset"};
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(requests)});
	region.opaque = &g;
	assert_true(io_bus_add(&g.vm.pio, &region, NULL));
	vm_start(&g.vm);
	for (int i = 0; i < 50; i++) {
		unsigned resets = g.events[VM_EVENT_RESET];

		while (g.events[VM_EVENT_RESET] == resets)
			evloop_run_once(g.loop, NSEC_PER_MSEC);
	}
	assert_int_equal(guest_data32(&g, 4), 0);
	assert_true(guest_data32(&g, 0) >= 50);
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
	static const struct io_ops ops = {.write = wait_for_main};
	struct waiting_device d = {.awaited = {.fn = serve_waiting},
				   .lock = PTHREAD_MUTEX_INITIALIZER,
				   .cond = PTHREAD_COND_INITIALIZER};
	struct io_region region = {
		.base = 0x640, .size = 1, .ops = &ops, .opaque = &d, .name = "waiting"};
	bool inside = false;
	struct guest g;

	guest_need_kvm();
	guest_create(&g, &(struct guest_config){GUEST_PROGRAM(requests), .cpus = 1});
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
	assert_int_equal(guest_data32(&g, 0), 1);
	assert_true(guest_run(&g));
	assert_int_equal(guest_data32(&g, 0), 3);
	guest_destroy(&g);
}

/* An argument chooses tests by a pattern ("test_mm*"). */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_port_output),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_string_io),
		cmocka_unit_test(test_start_up),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_internal_error),
		cmocka_unit_test(test_pause_resume),
		cmocka_unit_test(test_pause_completes_io),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_request_stops),
		cmocka_unit_test(test_pause_serves_handlers),
		cmocka_unit_test(test_call),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
