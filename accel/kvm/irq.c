/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: the controllers in the kernel, the table that leads a GSI to a pin or a message, and
 * eventfds bound to GSIs (Linux: Documentation/virt/kvm/api.rst, KVM_CREATE_IRQCHIP,
 * KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SIGNAL_MSI).
 *
 * GSIs 0 to 23 are the I/O APIC's inputs; those above are given to message routes. The kernel takes
 * the table only whole, which costs 15 to 60 us however much of it changed, so changes wait for the
 * end of a batch and what did not change is not sent. Any thread, under irq_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/kvm/kvm.h"
#include "vmm/core/log.h"

/* Intel SDM volume 3, 11.11.1: what makes a write a message to local APICs. */
#define MSI_ADDR_MASK UINT64_C(0xfff00000)
#define MSI_ADDR_BASE UINT64_C(0xfee00000)
#define MSI_DATA_LEVEL (1u << 15)

static bool msg_is_interrupt(struct msi_msg msg)
{
	return (msg.addr & MSI_ADDR_MASK) == MSI_ADDR_BASE;
}

/*
 * The upper half as KVM wants it: bits 31 to 8 of the destination, the rest zero. Guests that know
 * of extended destination IDs (KVM_FEATURE_MSI_EXT_DEST_ID) put bits 14 to 8 of the destination
 * into bits 11 to 5 of the address instead.
 */
static uint32_t msg_addr_high(struct msi_msg msg)
{
	uint32_t high = msg.addr >> 32;

	if (!high && !(msg.addr & 0x10))
		high = (msg.addr & 0xfe0) << 3;
	return high & 0xffffff00;
}

static uint32_t msg_addr_low(struct msi_msg msg)
{
	return msg.addr & ~UINT64_C(0xfe0);
}

static void add_pin(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin)
{
	t->entries[t->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

/* As PC boards wire them: the timer, ISA interrupt 0, comes in at the I/O APIC's pin 2, where the
 * MADT's override says it does; nothing comes in at pin 0. */
static void add_pins(struct kvm_irq_routing *t)
{
	for (unsigned i = 0; i < KVM_IOAPIC_NR_PINS; i++) {
		if (i < KVM_PIC_NR_PINS && i != 2)
			add_pin(t, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				i % 8);
		if (i == 0)
			add_pin(t, i, KVM_IRQCHIP_IOAPIC, 2);
		else if (i != 2)
			add_pin(t, i, KVM_IRQCHIP_IOAPIC, i);
	}
}

static int set_irqfd(struct kvm_accel *k, int fd, unsigned gsi, int resample, uint32_t flags)
{
	struct kvm_irqfd irqfd = { .fd = fd, .gsi = gsi, .flags = flags };

	if (resample >= 0) {
		irqfd.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		irqfd.resamplefd = resample;
	}
	return kvm_ioctl(k->vm_fd, KVM_IRQFD, &irqfd);
}

static void gsi_free(struct kvm_accel *k, unsigned gsi)
{
	/* It stays in the kernel's table until that is next sent: nothing raises it. */
	k->gsis[gsi] = (struct kvm_gsi){ 0 };
}

/* Binds what waited for the table; the last failure. */
static int bind_waiting(struct kvm_accel *k, int error)
{
	int ret = error;

	for (unsigned i = KVM_FIRST_FREE_GSI; i < k->gsi_count; i++) {
		struct msi_route *route = k->gsis[i].waiting;
		int r;

		if (!route)
			continue;
		k->gsis[i].waiting = NULL;
		r = error ? error : set_irqfd(k, route->fd, i, -1, 0);
		if (r) {
			ret = r;
			gsi_free(k, i);
			route->gsi = -1;
			route->active = false;
		}
	}
	return ret;
}

static int table_send(struct kvm_accel *k)
{
	struct kvm_irq_routing *t = k->table;
	int ret;

	t->nr = 0;
	t->flags = 0;
	if (k->base.config.irqchip == IRQCHIP_KERNEL)
		add_pins(t);
	for (unsigned i = 0; i < k->gsi_count; i++) {
		const struct kvm_gsi *g = &k->gsis[i];

		if (!g->routed)
			continue;
		t->entries[t->nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {
				.address_lo = msg_addr_low(g->msg),
				.address_hi = msg_addr_high(g->msg),
				.data = g->msg.data,
			},
		};
	}
	ret = kvm_ioctl(k->vm_fd, KVM_SET_GSI_ROUTING, t);
	if (!ret)
		k->table_stale = false;
	return ret;
}

/* Puts into force what was changed, unless the calling thread has a batch open (another's changes
 * so far go along) or there are no controllers yet. */
static int commit(struct kvm_accel *k)
{
	if (!k->irqchip_created || (k->batch && pthread_equal(k->batch_owner, pthread_self())))
		return 0;
	return bind_waiting(k, k->table_stale ? table_send(k) : 0);
}

static size_t table_size(unsigned gsis)
{
	/* Pins may lead to two controllers each. */
	return sizeof(struct kvm_irq_routing) +
	       (KVM_IOAPIC_NR_PINS + KVM_PIC_NR_PINS + gsis) *
		       sizeof(struct kvm_irq_routing_entry);
}

/* Room for GSIs 0 to count - 1. */
static bool gsis_grow(struct kvm_accel *k, unsigned count)
{
	struct kvm_irq_routing *table;
	struct kvm_gsi *gsis;

	gsis = realloc(k->gsis, count * sizeof(*gsis));
	if (!gsis)
		return false;
	memset(gsis + k->gsi_count, 0, (count - k->gsi_count) * sizeof(*gsis));
	k->gsis = gsis;
	table = realloc(k->table, table_size(count));
	if (!table)
		return false;
	k->table = table;
	k->gsi_count = count;
	return true;
}

static int gsi_alloc(struct kvm_accel *k)
{
	unsigned gsi = KVM_FIRST_FREE_GSI;

	while (gsi < k->gsi_count && k->gsis[gsi].used)
		gsi++;
	if (gsi == k->gsi_count) {
		/* The kernel limits GSIs and entries alike, and pins have two each. */
		unsigned max = k->gsi_max > KVM_PIC_NR_PINS ? k->gsi_max - KVM_PIC_NR_PINS : 0;
		unsigned count = MIN(max, k->gsi_count * 2);

		if (gsi >= max)
			return -ENOSPC;
		if (!gsis_grow(k, count))
			return -ENOMEM;
	}
	k->gsis[gsi].used = true;
	return gsi;
}

static void set_msg(struct kvm_accel *k, unsigned gsi, bool routed, struct msi_msg msg)
{
	struct kvm_gsi *g = &k->gsis[gsi];

	if (g->routed == routed &&
	    (!routed || (g->msg.addr == msg.addr && g->msg.data == msg.data)))
		return;
	g->routed = routed;
	g->msg = msg;
	k->table_stale = true;
}

static void send_msi(struct msi_sink *sink, struct msi_msg msg, uint32_t requester)
{
	struct kvm_accel *k = sink->opaque;
	struct kvm_msi msi = {
		.address_lo = msg_addr_low(msg),
		.address_hi = msg_addr_high(msg),
		.data = msg.data,
	};

	if (msg_is_interrupt(msg))
		kvm_ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static int route_add(struct msi_sink *sink, struct msi_route *route, int fd, struct msi_msg msg,
		     uint32_t requester)
{
	struct kvm_accel *k = sink->opaque;
	int ret;

	pthread_mutex_lock(&k->irq_lock);
	ret = gsi_alloc(k);
	if (ret >= 0) {
		*route = (struct msi_route){
			.fd = fd,
			.gsi = ret,
			.requester = requester,
			.msg = msg,
			.active = true,
		};
		set_msg(k, ret, msg_is_interrupt(msg), msg);
		k->gsis[ret].waiting = route;
		ret = commit(k);
		if (route->active)
			ret = 0; /* what failed was another's */
	}
	pthread_mutex_unlock(&k->irq_lock);
	if (ret)
		*route = (struct msi_route){
			.fd = fd, .gsi = -1, .requester = requester, .msg = msg
		};
	return ret;
}

static int route_update(struct msi_sink *sink, struct msi_route *route, struct msi_msg msg)
{
	struct kvm_accel *k = sink->opaque;
	int ret = -ENOENT;

	pthread_mutex_lock(&k->irq_lock);
	if (route->active) {
		route->msg = msg;
		set_msg(k, route->gsi, msg_is_interrupt(msg), msg);
		ret = commit(k);
	}
	pthread_mutex_unlock(&k->irq_lock);
	return ret;
}

static void route_remove(struct msi_sink *sink, struct msi_route *route)
{
	struct kvm_accel *k = sink->opaque;

	pthread_mutex_lock(&k->irq_lock);
	if (route->active) {
		if (!k->gsis[route->gsi].waiting)
			set_irqfd(k, route->fd, route->gsi, -1, KVM_IRQFD_FLAG_DEASSIGN);
		gsi_free(k, route->gsi);
		route->active = false;
		route->gsi = -1;
	}
	pthread_mutex_unlock(&k->irq_lock);
}

/* One thread at a time has a batch; what others do meanwhile is put into force at once. */
static void batch_begin(struct msi_sink *sink)
{
	struct kvm_accel *k = sink->opaque;

	pthread_mutex_lock(&k->irq_lock);
	if (!k->batch)
		k->batch_owner = pthread_self();
	if (pthread_equal(k->batch_owner, pthread_self()))
		k->batch++;
	pthread_mutex_unlock(&k->irq_lock);
}

static void batch_end(struct msi_sink *sink)
{
	struct kvm_accel *k = sink->opaque;

	pthread_mutex_lock(&k->irq_lock);
	if (k->batch && pthread_equal(k->batch_owner, pthread_self()) && --k->batch == 0)
		commit(k);
	pthread_mutex_unlock(&k->irq_lock);
}

/* The kernel looks at these entries to tell for which vectors an end of interrupt must exit; a pin
 * that is edge-triggered needs none. */
static void ioapic_pin(struct msi_sink *sink, unsigned pin, const struct msi_msg *msg)
{
	struct kvm_accel *k = sink->opaque;
	bool level = msg && (msg->data & MSI_DATA_LEVEL) && msg_is_interrupt(*msg);

	if (k->base.config.irqchip != IRQCHIP_SPLIT || pin >= KVM_IOAPIC_NR_PINS)
		return;
	pthread_mutex_lock(&k->irq_lock);
	set_msg(k, pin, level, level ? *msg : (struct msi_msg){ 0 });
	commit(k);
	pthread_mutex_unlock(&k->irq_lock);
}

const struct msi_sink_ops kvm_msi_ops = {
	.send = send_msi,
	.route_add = route_add,
	.route_update = route_update,
	.route_remove = route_remove,
	.batch_begin = batch_begin,
	.batch_end = batch_end,
	.ioapic_pin = ioapic_pin,
};

static int create_controllers(struct kvm_accel *k)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int ret;

	if (k->base.config.irqchip == IRQCHIP_SPLIT) {
		struct kvm_enable_cap split = {
			.cap = KVM_CAP_SPLIT_IRQCHIP,
			.args = { KVM_IOAPIC_NR_PINS },
		};

		return kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &split);
	}
	ret = kvm_ioctl_value(k->vm_fd, KVM_CREATE_IRQCHIP, 0);
	/* Ticks that the guest missed are delivered late ("delay"), which is how KVM begins. */
	if (!ret && k->base.config.pit)
		ret = kvm_ioctl(k->vm_fd, KVM_CREATE_PIT2, &pit);
	return ret;
}

bool kvm_irqchip_create(struct kvm_accel *k, struct error **err)
{
	struct kvm_enable_cap x2apic = {
		.cap = KVM_CAP_X2APIC_API,
		.args = { KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK },
	};
	struct kvm_enable_cap payload = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	int ret;

	if (k->irqchip_created)
		return true;
	ret = create_controllers(k);
	if (ret) {
		error_set_errno(err, ret, "KVM cannot create interrupt controllers");
		return false;
	}
	/* Both are refused by kernels that are too old to have them. */
	kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &x2apic);
	kvm_ioctl(k->vm_fd, KVM_ENABLE_CAP, &payload);
	pthread_mutex_lock(&k->irq_lock);
	k->irqchip_created = true;
	if (k->base.config.irqchip == IRQCHIP_KERNEL)
		k->table_stale = true;
	ret = commit(k);
	pthread_mutex_unlock(&k->irq_lock);
	if (ret)
		error_set_errno(err, ret, "KVM refuses the table of interrupts");
	return !ret;
}

int kvm_irq_set(struct accel *a, unsigned gsi, bool level)
{
	struct kvm_accel *k = to_kvm(a);
	struct kvm_irq_level line = { .irq = gsi, .level = level };

	if (a->config.irqchip != IRQCHIP_KERNEL)
		return -ENOSYS;
	if (gsi >= KVM_IOAPIC_NR_PINS)
		return -EINVAL;
	return kvm_ioctl(k->vm_fd, KVM_IRQ_LINE, &line);
}

void kvm_gsi_line_set(struct irq_line *line, bool level)
{
	struct kvm_accel *k = line->opaque;

	kvm_irq_set(&k->base, line->number, level);
}

int kvm_irqfd_add(struct accel *a, int fd, unsigned gsi, int resample)
{
	struct kvm_accel *k = to_kvm(a);

	if (a->config.irqchip != IRQCHIP_KERNEL)
		return -ENOSYS;
	if (gsi >= KVM_IOAPIC_NR_PINS)
		return -EINVAL;
	return set_irqfd(k, fd, gsi, resample, 0);
}

int kvm_irqfd_remove(struct accel *a, int fd, unsigned gsi)
{
	return set_irqfd(to_kvm(a), fd, gsi, -1, KVM_IRQFD_FLAG_DEASSIGN);
}

void kvm_irq_init(struct kvm_accel *k)
{
	pthread_mutex_init(&k->irq_lock, NULL);
	k->gsi_count = 64;
	k->gsis = xcalloc(k->gsi_count, sizeof(*k->gsis));
	k->table = xcalloc(1, table_size(k->gsi_count));
}

void kvm_irq_destroy(struct kvm_accel *k)
{
	free(k->gsis);
	free(k->table);
	pthread_mutex_destroy(&k->irq_lock);
}
