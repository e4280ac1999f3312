/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts as devices see them: a line with a level, or a message. Who stands behind (an
 * interrupt controller in the kernel or here, a test) is not the device's business.
 *
 * All functions: any thread, never blocking.
 */
#ifndef VMM_CORE_IRQ_H
#define VMM_CORE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

/* One interrupt input. Embedded in whoever receives it; a sender holds a pointer. */
struct irq_line {
	void (*set)(struct irq_line *line, bool level);
	void *opaque;
	unsigned number; /* the receiver's own */
};

static inline void irq_set(struct irq_line *line, bool level)
{
	if (line)
		line->set(line, level);
}

/* An edge: up and down. */
static inline void irq_pulse(struct irq_line *line)
{
	irq_set(line, true);
	irq_set(line, false);
}

struct msi_msg {
	uint64_t addr;
	uint32_t data;
};

/* A message bound to an eventfd, so that a thread or a kernel device interrupts the guest by
 * writing the descriptor. The sink's own fields; zero-initialise. */
struct msi_route {
	int fd;
	int gsi;	/* -1 when the sink has no kernel route */
	uint32_t requester;
	struct msi_msg msg;
	bool active;
};

struct msi_sink;
struct msi_sink_ops {
	/* Delivers msg now. requester: PCI routing ID. */
	void (*send)(struct msi_sink *sink, struct msi_msg msg, uint32_t requester);
	/* Binds, rebinds, unbinds. 0 or -errno; -ENOSYS: no kernel routes here, use send(). */
	int (*route_add)(struct msi_sink *sink, struct msi_route *route, int fd, struct msi_msg msg,
			 uint32_t requester);
	int (*route_update)(struct msi_sink *sink, struct msi_route *route, struct msi_msg msg);
	void (*route_remove)(struct msi_sink *sink, struct msi_route *route);
	/* Routes that the calling thread binds or changes between the two take effect together
	 * at the end; that is what costs. One that could not be bound then is no longer active:
	 * use send(). Nests. May be NULL: use msi_batch_begin() and msi_batch_end(). */
	void (*batch_begin)(struct msi_sink *sink);
	void (*batch_end)(struct msi_sink *sink);
	/*
	 * For an I/O APIC that is a device of ours while the local APICs are the accelerator's:
	 * tells which message an input's entry makes, masked or not, so that the end of a
	 * level-triggered interrupt (bit 15 of data) is told to the board. NULL msg: none, as
	 * after reset. The message itself still goes through send(). May be NULL, or do nothing,
	 * where nobody needs it.
	 */
	void (*ioapic_pin)(struct msi_sink *sink, unsigned pin, const struct msi_msg *msg);
};
struct msi_sink {
	const struct msi_sink_ops *ops;
	void *opaque;
};

static inline void msi_send(struct msi_sink *sink, struct msi_msg msg, uint32_t requester)
{
	sink->ops->send(sink, msg, requester);
}

static inline void msi_batch_begin(struct msi_sink *sink)
{
	if (sink->ops->batch_begin)
		sink->ops->batch_begin(sink);
}

static inline void msi_batch_end(struct msi_sink *sink)
{
	if (sink->ops->batch_end)
		sink->ops->batch_end(sink);
}

static inline void msi_ioapic_pin(struct msi_sink *sink, unsigned pin, const struct msi_msg *msg)
{
	if (sink->ops->ioapic_pin)
		sink->ops->ioapic_pin(sink, pin, msg);
}

#endif
