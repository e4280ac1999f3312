/* SPDX-License-Identifier: Apache-2.0 */
/* An in-process virtio driver: see vdriver.h. */
#include "tests/lib/vdriver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "vmm/core/util.h"

/* ---- the guest ---- */

static void sink_send(struct msi_sink *sink, struct msi_msg msg, uint32_t requester)
{
	struct vguest *g = sink->opaque;

	atomic_fetch_add(&g->msi[msg.data % VGUEST_VECTORS], 1);
}

static int sink_route_add(struct msi_sink *sink, struct msi_route *route, int fd,
			  struct msi_msg msg, uint32_t requester)
{
	return -ENOSYS;
}

static const struct msi_sink_ops sink_ops = {
	.send = sink_send,
	.route_add = sink_route_add,
};

static unsigned map_intx(void *opaque, uint8_t devfn, unsigned pin)
{
	return 0;
}

static void set_intx(void *opaque, unsigned input, bool level)
{
	struct vguest *g = opaque;

	g->intx = level;
}

static const struct pci_root_ops root_ops = {.map_intx = map_intx, .set_intx = set_intx};

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct vguest *g = opaque;

	for (unsigned i = 0; i < VGUEST_OBJECTS && g->objects[i].name; i++)
		if (!strcmp(g->objects[i].name, name))
			return g->objects[i].object;
	error_set(err, "no object '%s'", name);
	return NULL;
}

static void note_event(struct notifier *n, void *data)
{
	struct vguest *g = container_of(n, struct vguest, events);

	g->last_event = *(const struct vm_event *)data;
	g->event_count++;
}

void vguest_init(struct vguest *g)
{
	struct mem_region ram = {.size = VGUEST_RAM, .fd = -1};
	struct error *err = NULL;

	memset(g, 0, sizeof(*g));
	vm_init(&g->vm, evloop_new(NULL, &err));
	assert_non_null(g->vm.loop);
	g->ram = mmap(NULL, VGUEST_RAM, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(g->ram != MAP_FAILED);
	ram.hva = g->ram;
	assert_true(guest_mem_add(&g->vm.mem, &ram, &err));
	g->next = 1 << 20;
	io_reader_register(&g->vm.pio, &g->pio);
	io_reader_register(&g->vm.mmio, &g->mmio);
	g->sink.ops = &sink_ops;
	g->sink.opaque = g;
	g->vm.msi = &g->sink;
	g->vm.resolver = (struct prop_resolver){.resolve = resolve, .opaque = g};
	g->events.fn = note_event;
	notifier_add(&g->vm.events, &g->events);
	pci_root_init(&g->root, &g->vm, "pcie.0", true);
	pci_root_set_intx(&g->root, &root_ops, g);
}

void vguest_destroy(struct vguest *g)
{
	struct evloop *loop = g->vm.loop;

	pci_root_destroy(&g->root);
	io_reader_unregister(&g->vm.pio, &g->pio);
	io_reader_unregister(&g->vm.mmio, &g->mmio);
	vm_destroy(&g->vm);
	evloop_free(loop);
	munmap(g->ram, VGUEST_RAM);
}

void vguest_object(struct vguest *g, const char *name, void *object)
{
	unsigned i = 0;

	while (g->objects[i].name && strcmp(g->objects[i].name, name))
		i++;
	assert_true(i < VGUEST_OBJECTS);
	g->objects[i].name = name;
	g->objects[i].object = object;
}

static bool set_props(struct device *dev, const char *props, struct error **err)
{
	char *copy = xstrdup(props), *save = NULL;
	bool ok = true;

	for (char *p = strtok_r(copy, ",", &save); ok && p; p = strtok_r(NULL, ",", &save)) {
		char *value = strchr(p, '=');

		assert_non_null(value);
		*value++ = '\0';
		ok = device_set(dev, p, value, err);
	}
	free(copy);
	return ok;
}

struct device *vguest_add_on(struct vguest *g, struct bus *bus, const struct device_desc *desc,
			     const char *id, const char *props, struct error **err)
{
	struct device *dev = device_new(&g->vm, desc, id);
	struct error *own = NULL, **to = err ? err : &own;

	if ((!props || set_props(dev, props, to)) && device_realize(dev, bus, to))
		return dev;
	if (own)
		fail_msg("%s: %s", desc->name, error_message(own));
	device_free(dev);
	return NULL;
}

struct device *vguest_add(struct vguest *g, const struct device_desc *desc, const char *props,
			  struct error **err)
{
	return vguest_add_on(g, &g->root.bus.bus, desc, NULL, props, err);
}

void vguest_boot(struct vguest *g)
{
	static const struct pci_windows windows = {
		.io_base = 0x6000,
		.io_size = 0x6000,
		.mem32_base = 0x80000000,
		.mem32_size = 0x40000000,
		.mem64_base = UINT64_C(1) << 40,
		.mem64_size = UINT64_C(1) << 36,
	};
	struct error *err = NULL;

	vm_start(&g->vm);
	if (!pci_assign_resources(&g->root, &windows, &err))
		fail_msg("%s", error_message(err));
}

void vguest_settle(struct vguest *g)
{
	for (int i = 0; i < 10000; i++)
		if (!evloop_run_once(g->vm.loop, 0))
			return;
	fail_msg("the loop does not come to rest");
}

uint64_t vguest_alloc(struct vguest *g, uint64_t size, uint64_t align)
{
	uint64_t at = ALIGN_UP(g->next, align);

	assert_true(at + size <= VGUEST_RAM);
	g->next = at + size;
	return at;
}

uint64_t vguest_in(struct vguest *g, bool port, uint64_t addr, unsigned size)
{
	uint64_t value = 0;

	if (port)
		io_bus_read(&g->vm.pio, &g->pio, addr, &value, size);
	else
		io_bus_read(&g->vm.mmio, &g->mmio, addr, &value, size);
	return value;
}

void vguest_out(struct vguest *g, bool port, uint64_t addr, uint64_t value, unsigned size)
{
	if (port)
		io_bus_write(&g->vm.pio, &g->pio, addr, &value, size);
	else
		io_bus_write(&g->vm.mmio, &g->mmio, addr, &value, size);
}

/* ---- registers ---- */

uint32_t vdriver_pci_read(struct vdriver *d, unsigned offset, unsigned size)
{
	return pci_config_read(&d->g->root, pci_bus_number(d->pci->bus), d->pci->devfn, offset,
			       size);
}

void vdriver_pci_write(struct vdriver *d, unsigned offset, uint32_t value, unsigned size)
{
	pci_config_write(&d->g->root, pci_bus_number(d->pci->bus), d->pci->devfn, offset, value,
			 size);
}

static uint64_t bar(struct vdriver *d, unsigned n)
{
	uint32_t low = vdriver_pci_read(d, PCI_BAR0 + 4 * n, 4);

	if (low & PCI_BAR_SPACE_IO)
		return low & ~UINT32_C(3);
	if (low & PCI_BAR_MEM_64)
		return (uint64_t)vdriver_pci_read(d, PCI_BAR0 + 4 * n + 4, 4) << 32 |
		       (low & ~UINT32_C(15));
	return low & ~UINT32_C(15);
}

static void note_capability(struct vdriver *d, unsigned pos)
{
	uint64_t at = bar(d, vdriver_pci_read(d, pos + 4, 1)) + vdriver_pci_read(d, pos + 8, 4);

	switch (vdriver_pci_read(d, pos + 3, 1)) {
	case 1:
		d->common = at;
		break;
	case 2:
		d->notify = at;
		d->notify_stride = vdriver_pci_read(d, pos + 16, 4);
		break;
	case 3:
		d->isr = at;
		break;
	case 4:
		d->config = at;
		break;
	}
}

void vdriver_open(struct vdriver *d, struct vguest *g, struct device *dev, bool legacy)
{
	memset(d, 0, sizeof(*d));
	d->g = g;
	d->pci = pci_device_of(dev);
	d->legacy = legacy;
	for (unsigned pos = vdriver_pci_read(d, PCI_CAPABILITY_LIST, 1); pos;
	     pos = vdriver_pci_read(d, pos + 1, 1)) {
		if (vdriver_pci_read(d, pos, 1) == PCI_CAP_VENDOR)
			note_capability(d, pos);
		if (vdriver_pci_read(d, pos, 1) == PCI_CAP_MSIX)
			d->msix_table = bar(d, vdriver_pci_read(d, pos + PCI_MSIX_TABLE, 4) & 7);
	}
	if (legacy)
		d->port = bar(d, 0);
	assert_true(legacy ? d->port != 0 : d->common != 0);
}

uint8_t vdriver_status(struct vdriver *d)
{
	return d->legacy ? vguest_in(d->g, true, d->port + 18, 1)
			 : vguest_in(d->g, false, d->common + 20, 1);
}

void vdriver_set_status(struct vdriver *d, uint8_t status)
{
	if (d->legacy)
		vguest_out(d->g, true, d->port + 18, status, 1);
	else
		vguest_out(d->g, false, d->common + 20, status, 1);
}

void vdriver_reset(struct vdriver *d)
{
	vdriver_set_status(d, 0);
	for (int i = 0; vdriver_status(d); i++) {
		assert_true(i < 1000);
		evloop_run_once(d->g->vm.loop, NSEC_PER_MSEC);
	}
}

uint64_t vdriver_offered(struct vdriver *d)
{
	uint64_t f = 0;

	if (d->legacy)
		return vguest_in(d->g, true, d->port, 4);
	for (unsigned word = 0; word < 2; word++) {
		vguest_out(d->g, false, d->common, word, 4);
		f |= vguest_in(d->g, false, d->common + 4, 4) << (32 * word);
	}
	return f;
}

void vdriver_write_features(struct vdriver *d, uint64_t features)
{
	if (d->legacy) {
		vguest_out(d->g, true, d->port + 4, features, 4);
		return;
	}
	for (unsigned word = 0; word < 2; word++) {
		vguest_out(d->g, false, d->common + 8, word, 4);
		vguest_out(d->g, false, d->common + 12, features >> (32 * word), 4);
	}
}

void vdriver_negotiate(struct vdriver *d, uint64_t wanted)
{
	uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	vdriver_set_status(d, VIRTIO_STATUS_ACKNOWLEDGE);
	vdriver_set_status(d, status);
	d->features = vdriver_offered(d) & (wanted | VIRTIO_F_VERSION_1);
	vdriver_write_features(d, d->features);
	if (d->legacy)
		return;
	vdriver_set_status(d, status | VIRTIO_STATUS_FEATURES_OK);
	assert_true(vdriver_status(d) & VIRTIO_STATUS_FEATURES_OK);
}

static unsigned msix_pos(struct vdriver *d)
{
	unsigned pos = vdriver_pci_read(d, PCI_CAPABILITY_LIST, 1);

	while (pos && vdriver_pci_read(d, pos, 1) != PCI_CAP_MSIX)
		pos = vdriver_pci_read(d, pos + 1, 1);
	assert_true(pos);
	return pos;
}

void vdriver_enable_msix(struct vdriver *d, unsigned vectors)
{
	vdriver_pci_write(d, msix_pos(d) + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE, 2);
	for (unsigned v = 0; v < vectors; v++) {
		vguest_out(d->g, false, d->msix_table + 16 * v, 0xfee00000, 4);
		vguest_out(d->g, false, d->msix_table + 16 * v + 4, 0, 4);
		vguest_out(d->g, false, d->msix_table + 16 * v + 8, v, 4);
		vdriver_mask_vector(d, v, false);
	}
	d->msix = true;
}

void vdriver_mask_vector(struct vdriver *d, unsigned vector, bool masked)
{
	vguest_out(d->g, false, d->msix_table + 16 * vector + 12, masked, 4);
}

void vdriver_config_vector(struct vdriver *d, uint16_t vector)
{
	if (d->legacy)
		vguest_out(d->g, true, d->port + 20, vector, 2);
	else
		vguest_out(d->g, false, d->common + 16, vector, 2);
}

uint8_t vdriver_isr(struct vdriver *d)
{
	return d->legacy ? vguest_in(d->g, true, d->port + 19, 1)
			 : vguest_in(d->g, false, d->isr, 1);
}

uint64_t vdriver_config_read(struct vdriver *d, unsigned offset, unsigned size)
{
	if (d->legacy)
		return vguest_in(d->g, true, d->port + (d->msix ? 24 : 20) + offset, size);
	return vguest_in(d->g, false, d->config + offset, size);
}

void vdriver_config_write(struct vdriver *d, unsigned offset, uint64_t value, unsigned size)
{
	if (d->legacy)
		vguest_out(d->g, true, d->port + (d->msix ? 24 : 20) + offset, value, size);
	else
		vguest_out(d->g, false, d->config + offset, value, size);
}

/* ---- rings ---- */

static void place_modern(struct vdriver *d, struct vring *r, unsigned size)
{
	struct vguest *g = d->g;

	vguest_out(g, false, d->common + 22, r->index, 2);
	r->size = vguest_in(g, false, d->common + 24, 2);
	if (size) {
		r->size = size;
		vguest_out(g, false, d->common + 24, size, 2);
	}
	r->desc = vguest_alloc(g, 16 * r->size, 4096);
	r->avail = vguest_alloc(g, 6 + 2 * r->size, 4096);
	r->used = vguest_alloc(g, 6 + 8 * r->size, 4096);
	memset(vguest_ptr(g, r->desc), 0, g->next - r->desc);
	if (d->msix)
		vguest_out(g, false, d->common + 26, r->index + 1, 2);
	vguest_out(g, false, d->common + 32, r->desc, 4);
	vguest_out(g, false, d->common + 36, r->desc >> 32, 4);
	vguest_out(g, false, d->common + 40, r->avail, 4);
	vguest_out(g, false, d->common + 44, r->avail >> 32, 4);
	vguest_out(g, false, d->common + 48, r->used, 4);
	vguest_out(g, false, d->common + 52, r->used >> 32, 4);
	vguest_out(g, false, d->common + 28, 1, 2);
	assert_int_equal(vguest_in(g, false, d->common + 28, 2), 1);
}

static void place_legacy(struct vdriver *d, struct vring *r)
{
	struct vguest *g = d->g;

	vguest_out(g, true, d->port + 14, r->index, 2);
	r->size = vguest_in(g, true, d->port + 12, 2);
	assert_true(r->size);
	r->desc = vguest_alloc(g, 16 * r->size + 6 + 2 * r->size + 4096 + 6 + 8 * r->size, 4096);
	r->avail = r->desc + 16 * r->size;
	r->used = ALIGN_UP(r->avail + 6 + 2 * r->size, UINT64_C(4096));
	memset(vguest_ptr(g, r->desc), 0, g->next - r->desc);
	if (d->msix)
		vguest_out(g, true, d->port + 22, r->index + 1, 2);
	vguest_out(g, true, d->port + 8, r->desc >> 12, 4);
	assert_int_equal(vguest_in(g, true, d->port + 8, 4), r->desc >> 12);
}

struct vring *vdriver_ring(struct vdriver *d, unsigned index, unsigned size)
{
	struct vring *r = &d->rings[index];

	memset(r, 0, sizeof(*r));
	r->d = d;
	r->index = index;
	r->event_idx = d->features & VIRTIO_F_EVENT_IDX;
	if (d->legacy)
		place_legacy(d, r);
	else
		place_modern(d, r, size);
	return r;
}

void vdriver_ok(struct vdriver *d)
{
	uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK;

	if (!d->legacy)
		status |= VIRTIO_STATUS_FEATURES_OK;
	vdriver_set_status(d, status);
	assert_int_equal(vdriver_status(d), status);
}

static void put_desc(struct vguest *g, uint64_t at, uint64_t gpa, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	uint8_t *p = vguest_ptr(g, at);

	store_le64(p, gpa);
	store_le32(p + 8, len);
	store_le16(p + 12, flags);
	store_le16(p + 14, next);
}

void vring_desc(struct vring *r, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags,
		uint16_t next)
{
	put_desc(r->d->g, r->desc + 16 * i, gpa, len, flags, next);
}

static uint16_t *avail_word(struct vring *r, unsigned offset)
{
	return vguest_ptr(r->d->g, r->avail + offset);
}

void vring_offer(struct vring *r, uint16_t head)
{
	*avail_word(r, 4 + 2 * (r->avail_idx & (r->size - 1))) = head;
	r->avail_idx++;
	__atomic_store_n(avail_word(r, 2), r->avail_idx, __ATOMIC_RELEASE);
}

uint16_t vring_add(struct vring *r, const struct vbuf *bufs, unsigned out, unsigned in,
		   bool indirect)
{
	struct vguest *g = r->d->g;
	unsigned n = out + in;
	uint16_t head = r->free, first = indirect ? 0 : head;
	uint64_t table = indirect ? vguest_alloc(g, 16 * n, 16) : r->desc;

	assert_true(head + (indirect ? 1 : n) <= r->size);
	for (unsigned i = 0; i < n; i++) {
		uint16_t flags = (i >= out ? VQ_DESC_WRITE : 0) | (i + 1 < n ? VQ_DESC_NEXT : 0);

		put_desc(g, table + 16 * (first + i), bufs[i].gpa, bufs[i].len, flags,
			 first + i + 1);
	}
	if (indirect)
		vring_desc(r, head, table, 16 * n, VQ_DESC_INDIRECT, 0);
	r->free += indirect ? 1 : n;
	vring_offer(r, head);
	return head;
}

void vring_ring(struct vring *r)
{
	struct vdriver *d = r->d;

	if (d->legacy)
		vguest_out(d->g, true, d->port + 16, r->index, 2);
	else
		vguest_out(d->g, false, d->notify + (uint64_t)d->notify_stride * r->index, r->index,
			   2);
	r->kicks++;
}

bool vring_kick(struct vring *r)
{
	uint16_t old = r->kicked_idx, new = r->avail_idx;
	uint16_t *word;

	r->kicked_idx = new;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (r->event_idx) {
		word = vguest_ptr(r->d->g, r->used + 4 + 8 * r->size);
		if ((uint16_t)(new - __atomic_load_n(word, __ATOMIC_RELAXED) - 1) >=
		    (uint16_t)(new - old))
			return false;
	} else {
		word = vguest_ptr(r->d->g, r->used);
		if (__atomic_load_n(word, __ATOMIC_RELAXED) & 1)
			return false;
	}
	vring_ring(r);
	return true;
}

bool vring_used(struct vring *r, uint16_t *head, uint32_t *len)
{
	uint8_t *used = vguest_ptr(r->d->g, r->used);

	if (__atomic_load_n((uint16_t *)(used + 2), __ATOMIC_ACQUIRE) == r->used_idx)
		return false;
	used += 4 + 8 * (r->used_idx & (r->size - 1));
	if (head)
		*head = load_le32(used);
	if (len)
		*len = load_le32(used + 4);
	r->used_idx++;
	return true;
}

void vring_recycle(struct vring *r)
{
	assert_int_equal(r->used_idx, r->avail_idx);
	r->free = 0;
}

void vring_set_used_event(struct vring *r, uint16_t event)
{
	__atomic_store_n(avail_word(r, 4 + 2 * r->size), event, __ATOMIC_SEQ_CST);
}

void vring_suppress(struct vring *r, bool on)
{
	__atomic_store_n(avail_word(r, 0), on, __ATOMIC_SEQ_CST);
}
