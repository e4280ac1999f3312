/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest of a few instructions on a real engine, for tests: 2 MiB of RAM, 64-bit page tables that
 * map the first 4 GiB one to one, flat segments, an interrupt table. Its code comes from code.S.
 * The test is the main thread and turns the event loop.
 *
 * A port device records what the guest says: bytes to GUEST_PORT_SAY, 32-bit numbers to
 * GUEST_PORT_NUMBER, anything to GUEST_PORT_DONE ends guest_run().
 */
#ifndef TESTS_GUEST_GUEST_H
#define TESTS_GUEST_GUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "accel/accel.h"
#include "accel/x86.h"
#include "vmm/core/vm.h"

enum {
	GUEST_RAM_SIZE = 2 << 20,
	GUEST_GDT = 0x1000,
	GUEST_TSS = 0x2000, /* with an I/O permission map that allows all */
	GUEST_IDT = 0x5000,
	GUEST_PAGE_TABLES = 0x10000, /* six pages */
	GUEST_CODE = 0x20000,
	GUEST_STACKS = 0x80000, /* each CPU's ends at (index + 1) * 4 KiB above, its ring 0's too */
	GUEST_DATA = 0x100000,	/* shared with the test */

	GUEST_MMIO = 0xd0000000, /* a device of 4 KiB that remembers bytes */

	GUEST_PORT_SAY = 0xe9,
	GUEST_PORT_DONE = 0xf4,
	GUEST_PORT_NUMBER = 0x600,

	GUEST_MAX_CPUS = 4,
};

/* code.S: begins and ends of position-independent pieces. */
#define GUEST_CODE_PIECE(name) extern const uint8_t guest_##name[], guest_##name##_end[]
/* A configuration's members of these names. */
#define GUEST_PROGRAM(name) .code = guest_##name, .code_end = guest_##name##_end
#define GUEST_HANDLER(name) .handler = guest_##name, .handler_end = guest_##name##_end

struct guest_config {
	unsigned cpus; /* 0: one */
	enum irqchip_mode irqchip;
	bool pit;
	bool user;    /* starts in ring 3 */
	bool startup; /* CPUs but the first wait for a start-up message */
	const uint8_t *code, *code_end;
	const uint8_t *handler, *handler_end; /* of every vector, or NULL */
};

struct guest {
	struct vm vm;
	struct evloop *loop;
	struct accel *accel;
	struct guest_config config;
	uint8_t *ram;
	struct x86_cpuid *cpuid;
	int cpuid_count;

	struct io_region ports, numbers, done_port, mmio;
	pthread_mutex_t lock; /* what follows */
	char said[256];
	unsigned said_len;
	uint32_t numbers_got[256];
	unsigned number_count;
	_Atomic bool done;
	uint8_t mmio_bytes[4096];
	unsigned mmio_reads, mmio_writes;

	struct notifier on_event;
	unsigned events[16]; /* how often each VM_EVENT_* came */
};

/* Skips the test where the host has no engine. */
void guest_need_kvm(void);
void guest_create(struct guest *g, const struct guest_config *config);
void guest_destroy(struct guest *g);
/* Starts it if need be, and turns the loop until it is done, or 10 s passed (false). */
bool guest_run(struct guest *g);
/* The same from a reset on, whatever state it is in. */
bool guest_rerun(struct guest *g);
/* Turns the loop until flag(g), or 10 s passed (false). */
bool guest_wait(struct guest *g, bool (*flag)(struct guest *g));
void *guest_data(struct guest *g, size_t offset);
uint32_t guest_data32(struct guest *g, size_t offset);
uint64_t guest_data64(struct guest *g, size_t offset);
/* How often count_vectors and count_pic have met one. */
uint32_t guest_vector_count(struct guest *g, unsigned vector);
/* To the first CPU, by an edge. */
struct msi_msg guest_message(unsigned vector);

#endif
