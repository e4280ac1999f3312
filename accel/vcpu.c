/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads: each runs the guest, serves its exits on the buses, and stands still when asked.
 *
 * A thread is asked by its attention flag and a kick of the engine, which brings it out of the
 * guest. It then finishes the instruction whose I/O it served (so that registers and memory agree)
 * and parks. What it is asked for lies under one lock, a leaf: devices may kick while they hold
 * their own. A kick is skipped for a thread that is parked; both are decided under the lock.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "accel/accel.h"
#include "vmm/core/log.h"
#include "vmm/core/thread.h"
#include "vmm/core/util.h"

struct vcpus {
	struct accel *accel;
	unsigned count;
	pthread_mutex_t lock;
	pthread_cond_t parked; /* a thread parked, or ended a call */
	bool running;	       /* the machine is */
	bool quit;
	struct vcpu *cpu[];
};

static struct vcpus *vcpus_of(const struct vm *vm)
{
	return vm->cpus;
}

struct vcpu *vcpu_get(struct vm *vm, unsigned index)
{
	struct vcpus *s = vcpus_of(vm);

	return s && index < s->count ? s->cpu[index] : NULL;
}

static void internal_error(struct vcpu *v)
{
	char report[4096];

	report[0] = '\0';
	v->accel->ops->vcpu_report(v, report, sizeof(report));
	log_error("%s", report);
	atomic_store(&v->halted_for_ever, true);
	vm_request_stop(v->accel->vm, RUN_STATE_INTERNAL_ERROR);
}

static void serve_io(struct vcpu *v, const struct vcpu_exit *e)
{
	struct io_bus *bus = &v->accel->vm->pio;
	uint8_t *data = e->io.data;

	for (uint32_t i = 0; i < e->io.count; i++, data += e->io.size) {
		if (e->io.write)
			io_bus_write(bus, &v->pio_reader, e->io.port, data, e->io.size);
		else
			io_bus_read(bus, &v->pio_reader, e->io.port, data, e->io.size);
	}
}

static void serve_mmio(struct vcpu *v, const struct vcpu_exit *e)
{
	struct io_bus *bus = &v->accel->vm->mmio;

	if (e->mmio.write)
		io_bus_write(bus, &v->mmio_reader, e->mmio.addr, e->mmio.data, e->mmio.len);
	else
		io_bus_read(bus, &v->mmio_reader, e->mmio.addr, e->mmio.data, e->mmio.len);
}

/* Without an interrupt controller in the engine a halted CPU wakes by a kick. */
static void wait_for_kick(struct vcpu *v)
{
	struct vcpus *s = vcpus_of(v->accel->vm);

	pthread_mutex_lock(&s->lock);
	while (!atomic_load(&v->attention))
		pthread_cond_wait(&v->wake, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void serve(struct vcpu *v, struct vcpu_exit *e)
{
	struct vm *vm = v->accel->vm;

	switch (e->kind) {
	case VCPU_EXIT_INTR:
		break;
	case VCPU_EXIT_IO:
		serve_io(v, e);
		v->io_pending = true;
		break;
	case VCPU_EXIT_MMIO:
		serve_mmio(v, e);
		v->io_pending = true;
		break;
	case VCPU_EXIT_MSR_READ:
	case VCPU_EXIT_MSR_WRITE:
		if (!v->msr_access || !v->msr_access(v, e))
			*e->msr.refused = 1;
		v->io_pending = true;
		break;
	case VCPU_EXIT_EOI:
		if (v->irq_ops)
			v->irq_ops->eoi(v->irq_opaque, e->eoi_vector);
		break;
	case VCPU_EXIT_HLT:
		wait_for_kick(v);
		break;
	case VCPU_EXIT_SHUTDOWN:
	case VCPU_EXIT_RESET:
		vm_request_reset(vm, CAUSE_GUEST_RESET);
		break;
	case VCPU_EXIT_POWEROFF:
		vm_request_shutdown(vm, CAUSE_GUEST_SHUTDOWN);
		break;
	case VCPU_EXIT_CRASH:
		vm_request_panic(vm);
		break;
	case VCPU_EXIT_DEBUG:
		vm_request_stop(vm, RUN_STATE_DEBUG);
		break;
	case VCPU_EXIT_INTERNAL_ERROR:
		internal_error(v);
		break;
	}
}

static bool must_leave(const struct vcpu *v)
{
	return atomic_load(&v->attention) || atomic_load(&v->accel->vm->stop_requested) ||
	       atomic_load_explicit(&v->halted_for_ever, memory_order_relaxed);
}

static void run_until_asked(struct vcpu *v)
{
	const struct accel_ops *ops = v->accel->ops;
	struct vcpu_exit exit;

	while (!must_leave(v)) {
		v->io_pending = false;
		ops->vcpu_run(v, &exit);
		serve(v, &exit);
	}
	/* An access that spans pages makes several exits. */
	while (v->io_pending) {
		v->io_pending = false;
		if (ops->vcpu_complete_io(v, &exit))
			serve(v, &exit);
	}
}

/* Lock held. */
static bool may_run(const struct vcpus *s, const struct vcpu *v)
{
	return s->running && !v->call_fn && !atomic_load(&s->accel->vm->stop_requested) &&
	       !atomic_load(&v->halted_for_ever);
}

/* Lock held; dropped meanwhile. */
static void serve_call(struct vcpus *s, struct vcpu *v)
{
	pthread_mutex_unlock(&s->lock);
	v->call_fn(v, v->call_opaque);
	pthread_mutex_lock(&s->lock);
	v->call_fn = NULL;
	pthread_cond_broadcast(&s->parked);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *v = opaque;
	struct vcpus *s = vcpus_of(v->accel->vm);
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, VCPU_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);

	pthread_mutex_lock(&s->lock);
	while (!s->quit) {
		if (v->call_fn) {
			serve_call(s, v);
		} else if (may_run(s, v)) {
			atomic_store(&v->attention, false);
			atomic_store(&v->paused, false);
			pthread_mutex_unlock(&s->lock);
			run_until_asked(v);
			pthread_mutex_lock(&s->lock);
			atomic_store(&v->paused, true);
			pthread_cond_broadcast(&s->parked);
		} else {
			pthread_cond_wait(&v->wake, &s->lock);
		}
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Lock held: gets another thread out of the guest. */
static void kick(struct vcpu *v)
{
	if (v->thread_started && !atomic_load(&v->paused) &&
	    !pthread_equal(v->thread, pthread_self()))
		v->accel->ops->vcpu_kick(v);
}

/* Lock held: brings the thread to where it looks at what it is asked. */
static void ask(struct vcpu *v)
{
	atomic_store(&v->attention, true);
	pthread_cond_signal(&v->wake);
	kick(v);
}

/*
 * Lock held; dropped meanwhile. A register handler may stand on a vCPU's thread until the main loop
 * has done something for it (the reset of a virtio device); the main thread, which is here, does it.
 */
static void await(struct vcpus *s, bool (*reached)(const struct vcpu *v), const struct vcpu *v)
{
	while (!reached(v)) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += NSEC_PER_MSEC;
		if (until.tv_nsec >= NSEC_PER_SEC) {
			until.tv_nsec -= NSEC_PER_SEC;
			until.tv_sec++;
		}
		if (pthread_cond_clockwait(&s->parked, &s->lock, CLOCK_MONOTONIC, &until) !=
		    ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&s->lock);
		notifier_fire(&s->accel->vm->vcpus_awaited, NULL);
		pthread_mutex_lock(&s->lock);
	}
}

static bool is_parked(const struct vcpu *v)
{
	return atomic_load(&v->paused);
}

static bool has_no_call(const struct vcpu *v)
{
	return !v->call_fn;
}

static void pause_all(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);
	bool was_running;

	pthread_mutex_lock(&s->lock);
	was_running = s->running;
	s->running = false;
	for (unsigned i = 0; i < s->count; i++)
		ask(s->cpu[i]);
	for (unsigned i = 0; i < s->count; i++)
		await(s, is_parked, s->cpu[i]);
	pthread_mutex_unlock(&s->lock);
	if (was_running)
		s->accel->ops->pause(s->accel);
}

static void resume_all(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);

	if (!s->running)
		s->accel->ops->resume(s->accel);
	pthread_mutex_lock(&s->lock);
	s->running = true;
	for (unsigned i = 0; i < s->count; i++)
		pthread_cond_signal(&s->cpu[i]->wake);
	pthread_mutex_unlock(&s->lock);
}

static void reset_all(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);

	/* They are parked: their state may be touched from here, without waking them. */
	for (unsigned i = 0; i < s->count; i++) {
		struct vcpu *v = s->cpu[i];

		atomic_store(&v->halted_for_ever, false);
		if (v->reset && !v->reset(v, v->reset_opaque)) {
			log_error("CPU %u cannot be reset", i);
			atomic_store(&v->halted_for_ever, true);
			vm_request_stop(vm, RUN_STATE_INTERNAL_ERROR);
		}
	}
}

static void kick_all(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->count; i++)
		ask(s->cpu[i]);
	pthread_mutex_unlock(&s->lock);
}

static const struct vm_cpu_ops vcpu_ops = {
	.pause_all = pause_all,
	.resume_all = resume_all,
	.reset_all = reset_all,
	.kick_all = kick_all,
};

static bool create_one(struct vcpus *s, unsigned index, uint32_t apic_id, struct error **err)
{
	struct vm *vm = s->accel->vm;
	struct vcpu *v = s->accel->ops->vcpu_create(s->accel, index, apic_id, err);

	if (!v)
		return false;
	pthread_cond_init(&v->wake, NULL);
	atomic_store(&v->paused, true);
	io_reader_register(&vm->pio, &v->pio_reader);
	io_reader_register(&vm->mmio, &v->mmio_reader);
	if (index)
		s->cpu[index - 1]->next = v;
	s->cpu[index] = v;
	s->count = index + 1;
	return true;
}

bool vcpus_create(struct accel *a, unsigned count, const uint32_t *apic_ids, struct error **err)
{
	struct vm *vm = a->vm;
	struct vcpus *s = xcalloc(1, sizeof(*s) + count * sizeof(s->cpu[0]));

	s->accel = a;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->parked, NULL);
	vm->cpus = s;
	vm->cpu_ops = &vcpu_ops;
	for (unsigned i = 0; i < count; i++) {
		if (!create_one(s, i, apic_ids[i], err)) {
			vcpus_destroy(vm);
			return false;
		}
	}
	return true;
}

static void ignore(int sig)
{
}

bool vcpus_start(struct vm *vm, struct error **err)
{
	struct vcpus *s = vcpus_of(vm);
	/* Handlers' own system calls go on; the engine's run returns all the same. */
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };

	sigaction(VCPU_SIGNAL, &action, NULL);
	for (unsigned i = 0; i < s->count; i++) {
		struct vcpu *v = s->cpu[i];
		char name[32] = "vmm";
		pthread_t thread;

		if (vm->debug_threads)
			snprintf(name, sizeof(name), "CPU %u/KVM", i);
		if (!thread_start(&thread, name, vcpu_thread, v, err))
			return false;
		pthread_mutex_lock(&s->lock);
		v->thread = thread;
		v->thread_started = true;
		pthread_mutex_unlock(&s->lock);
	}
	return true;
}

void vcpus_stop(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	for (unsigned i = 0; i < s->count; i++)
		ask(s->cpu[i]);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->count; i++) {
		struct vcpu *v = s->cpu[i];

		if (!v->thread_started)
			continue;
		/* It parks before it ends, and who is parked is not kicked. */
		pthread_join(v->thread, NULL);
		pthread_mutex_lock(&s->lock);
		v->thread_started = false;
		pthread_mutex_unlock(&s->lock);
	}
}

void vcpus_destroy(struct vm *vm)
{
	struct vcpus *s = vcpus_of(vm);

	if (!s)
		return;
	vcpus_stop(vm);
	vm->cpu_ops = NULL;
	vm->cpus = NULL;
	for (unsigned i = s->count; i-- > 0;) {
		struct vcpu *v = s->cpu[i];

		io_reader_unregister(&vm->pio, &v->pio_reader);
		io_reader_unregister(&vm->mmio, &v->mmio_reader);
		pthread_cond_destroy(&v->wake);
		v->accel->ops->vcpu_destroy(v);
	}
	pthread_cond_destroy(&s->parked);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void vcpu_interrupt(struct vcpu *v)
{
	struct vcpus *s = vcpus_of(v->accel->vm);

	pthread_mutex_lock(&s->lock);
	kick(v);
	pthread_mutex_unlock(&s->lock);
}

void vcpu_call(struct vcpu *v, void (*fn)(struct vcpu *v, void *opaque), void *opaque)
{
	struct vcpus *s = vcpus_of(v->accel->vm);

	if (!v->thread_started) {
		fn(v, opaque);
		return;
	}
	pthread_mutex_lock(&s->lock);
	v->call_opaque = opaque;
	v->call_fn = fn;
	ask(v);
	await(s, has_no_call, v);
	pthread_mutex_unlock(&s->lock);
}
