/* SPDX-License-Identifier: Apache-2.0 */
/* A guest without CPUs for tests of PCI (pci_machine.h). One thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/pci_machine.h"
#include "vmm/core/util.h"

/* The message sink. */

static struct pci_machine *machine_of(struct msi_sink *sink)
{
	return container_of(sink, struct pci_machine, sink);
}

static void sink_send(struct msi_sink *sink, struct msi_msg msg, uint32_t requester)
{
	struct pci_machine *m = machine_of(sink);

	if (m->message_count < PCI_TEST_MESSAGES) {
		m->messages[m->message_count] = msg;
		m->requesters[m->message_count] = requester;
	}
	m->message_count++;
}

static int sink_route_add(struct msi_sink *sink, struct msi_route *route, int fd,
			  struct msi_msg msg, uint32_t requester)
{
	struct pci_machine *m = machine_of(sink);

	if (m->no_routes)
		return -ENOSYS;
	if (m->route_error)
		return m->route_error;
	assert_true(m->route_count < PCI_TEST_ROUTES);
	m->routes[m->route_count++] = (struct pci_test_route){.route = route, .fd = fd, .msg = msg};
	return 0;
}

static struct pci_test_route *find_route(struct pci_machine *m, struct msi_route *route)
{
	for (unsigned i = 0; i < m->route_count; i++)
		if (m->routes[i].route == route)
			return &m->routes[i];
	fail_msg("a route that was never added");
	return NULL;
}

static int sink_route_update(struct msi_sink *sink, struct msi_route *route, struct msi_msg msg)
{
	find_route(machine_of(sink), route)->msg = msg;
	return 0;
}

static void sink_route_remove(struct msi_sink *sink, struct msi_route *route)
{
	struct pci_machine *m = machine_of(sink);

	*find_route(m, route) = m->routes[m->route_count - 1];
	m->route_count--;
}

static void sink_batch_begin(struct msi_sink *sink)
{
	machine_of(sink)->batch_depth++;
}

static void sink_batch_end(struct msi_sink *sink)
{
	assert_true(machine_of(sink)->batch_depth-- > 0);
}

static const struct msi_sink_ops sink_ops = {
	.send = sink_send,
	.route_add = sink_route_add,
	.route_update = sink_route_update,
	.route_remove = sink_route_remove,
	.batch_begin = sink_batch_begin,
	.batch_end = sink_batch_end,
};

unsigned pci_machine_pump(struct pci_machine *m)
{
	unsigned before = m->message_count;

	for (unsigned i = 0; i < m->route_count; i++) {
		uint64_t count;

		if (read(m->routes[i].fd, &count, sizeof(count)) == sizeof(count))
			sink_send(&m->sink, m->routes[i].msg, 0);
	}
	return m->message_count - before;
}

/* Interrupt inputs. */

static unsigned map_intx(void *opaque, uint8_t devfn, unsigned pin)
{
	struct pci_machine *m = opaque;

	return (PCI_SLOT(devfn) + pin + m->rotation) % 4;
}

static void set_intx(void *opaque, unsigned input, bool level)
{
	struct pci_machine *m = opaque;

	assert_int_not_equal(m->input[input], level);
	m->input[input] = level;
}

static const struct pci_root_ops root_ops = {.map_intx = map_intx, .set_intx = set_intx};

/* The machine. */

static void on_event(struct notifier *n, void *data)
{
	struct pci_machine *m = container_of(n, struct pci_machine, events);
	const struct vm_event *event = data;

	if (event->kind == VM_EVENT_DEVICE_DELETED && m->deleted_count < ARRAY_SIZE(m->deleted))
		snprintf(m->deleted[m->deleted_count++], sizeof(m->deleted[0]), "%s",
			 event->device);
}

void pci_machine_init(struct pci_machine *m)
{
	struct evloop *loop;

	memset(m, 0, sizeof(*m));
	loop = evloop_new(NULL, NULL);
	assert_non_null(loop);
	vm_init(&m->vm, loop);
	m->sink.ops = &sink_ops;
	m->vm.msi = &m->sink;
	m->events.fn = on_event;
	notifier_add(&m->vm.events, &m->events);
	io_reader_register(&m->vm.pio, &m->pio);
	io_reader_register(&m->vm.mmio, &m->mmio);
	pci_root_init(&m->root, &m->vm, "pcie.0", true);
	pci_root_set_intx(&m->root, &root_ops, m);
	assert_true(pci_root_map_ports(&m->root, NULL));
	assert_true(pci_root_set_ecam(&m->root, PCI_TEST_ECAM, 256 * MiB, NULL));
}

void pci_machine_destroy(struct pci_machine *m)
{
	struct evloop *loop = m->vm.loop;

	while (m->vm.devices) {
		struct device *last = m->vm.devices;

		while (last->next)
			last = last->next;
		device_free(last);
	}
	pci_root_destroy(&m->root);
	for (unsigned i = 0; i < PCI_ROOT_INPUTS; i++)
		assert_false(m->input[i]);
	assert_int_equal(m->route_count, 0);
	assert_int_equal(m->batch_depth, 0);
	io_reader_unregister(&m->vm.pio, &m->pio);
	io_reader_unregister(&m->vm.mmio, &m->mmio);
	vm_destroy(&m->vm);
	evloop_free(loop);
}

int pci_machine_setup(void **state)
{
	struct pci_machine *m = calloc(1, sizeof(*m));

	pci_machine_init(m);
	*state = m;
	return 0;
}

int pci_machine_teardown(void **state)
{
	pci_machine_destroy(*state);
	free(*state);
	return 0;
}

struct device *pci_machine_try(struct pci_machine *m, const struct device_desc *desc,
			       const char *id, struct bus *bus, const char *props, bool hotplug,
			       struct error **err)
{
	struct device *dev = device_new(&m->vm, desc, id);
	struct opts opts = {0};
	bool ok;

	dev->hotplugged = hotplug;
	ok = !props || opts_parse(&opts, props, NULL, err);
	for (size_t i = 0; ok && i < opts.count; i++)
		ok = device_set(dev, opts.items[i].key, opts.items[i].value, err);
	opts_free(&opts);
	if (ok && device_realize(dev, bus ? bus : &m->root.bus.bus, err))
		return dev;
	device_free(dev);
	return NULL;
}

struct device *pci_machine_add(struct pci_machine *m, const struct device_desc *desc,
			       const char *id, struct bus *bus, const char *props)
{
	struct error *err = NULL;
	struct device *dev = pci_machine_try(m, desc, id, bus, props, false, &err);

	if (!dev)
		fail_msg("%s: %s", desc->name, error_message(err));
	return dev;
}

struct pci_bus *pci_machine_bus(struct device *bridge)
{
	return pci_bridge_secondary(pci_device_of(bridge));
}

void pci_machine_settle(struct pci_machine *m)
{
	while (evloop_run_once(m->vm.loop, 0))
		;
}

/* Accesses. */

uint64_t pci_mem_read(struct pci_machine *m, uint64_t addr, unsigned size)
{
	uint64_t v = 0;

	io_bus_read(&m->vm.mmio, &m->mmio, addr, &v, size);
	return v;
}

void pci_mem_write(struct pci_machine *m, uint64_t addr, unsigned size, uint64_t value)
{
	io_bus_write(&m->vm.mmio, &m->mmio, addr, &value, size);
}

uint32_t pci_port_read(struct pci_machine *m, uint16_t port, unsigned size)
{
	uint32_t v = 0;

	io_bus_read(&m->vm.pio, &m->pio, port, &v, size);
	return v;
}

void pci_port_write(struct pci_machine *m, uint16_t port, unsigned size, uint32_t value)
{
	io_bus_write(&m->vm.pio, &m->pio, port, &value, size);
}

static void select_register(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned offset)
{
	pci_port_write(m, 0xcf8, 4, 0x80000000 | bus << 16 | devfn << 8 | (offset & 0xfc));
}

uint32_t pci_cfg_read(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned offset,
		      unsigned size)
{
	select_register(m, bus, devfn, offset);
	return pci_port_read(m, 0xcfc + (offset & 3), size);
}

void pci_cfg_write(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned offset,
		   unsigned size, uint32_t value)
{
	select_register(m, bus, devfn, offset);
	pci_port_write(m, 0xcfc + (offset & 3), size, value);
}

void pci_open_bridge(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned secondary,
		     unsigned subordinate, uint32_t mem_base, uint32_t mem_limit)
{
	pci_cfg_write(m, bus, devfn, PCI_PRIMARY_BUS, 1, bus);
	pci_cfg_write(m, bus, devfn, PCI_SECONDARY_BUS, 1, secondary);
	pci_cfg_write(m, bus, devfn, PCI_SUBORDINATE_BUS, 1, subordinate);
	pci_cfg_write(m, bus, devfn, PCI_MEMORY_BASE, 2, mem_base >> 16);
	pci_cfg_write(m, bus, devfn, PCI_MEMORY_LIMIT, 2, mem_limit >> 16);
	pci_cfg_write(m, bus, devfn, PCI_COMMAND, 2,
		      PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

unsigned pci_cfg_capability(struct pci_machine *m, unsigned bus, unsigned devfn, uint8_t id)
{
	unsigned at = pci_cfg_read(m, bus, devfn, PCI_CAPABILITY_LIST, 1);

	for (unsigned hops = 0; at && hops < 64; hops++) {
		if (pci_cfg_read(m, bus, devfn, at, 1) == id)
			return at;
		at = pci_cfg_read(m, bus, devfn, at + 1, 1);
	}
	return 0;
}

/* The test device. */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_test *t = opaque;

	return load_le(t->ports + offset, size);
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_test *t = opaque;

	store_le(t->ports + offset, size, value);
}

static uint64_t mem_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_test *t = opaque;

	return load_le((uint8_t *)t->words + offset, size);
}

static void mem_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pci_test *t = opaque;

	store_le((uint8_t *)t->words + offset, size, value);
}

static uint64_t low_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x1000 + offset;
}

static uint64_t high_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0x2000 + offset;
}

static const struct io_ops port_ops = {.read = port_read, .write = port_write};
static const struct io_ops mem_ops = {.read = mem_read, .write = mem_write};
static const struct io_ops low_ops = {.read = low_read};
static const struct io_ops high_ops = {.read = high_read};

static uint32_t config_read(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	/* A register that the device answers itself. */
	return offset == 0xf0 && size == 4 ? 0xfeedface : value;
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
	if (offset == 0xf0)
		((struct pci_test *)dev)->written_value = value;
}

static void bar_moved(struct pci_device *dev, unsigned bar, uint64_t from, uint64_t to)
{
	struct pci_test *t = (struct pci_test *)dev;

	t->moves++;
	t->moved_bar = bar;
	t->moved_from = from;
	t->moved_to = to;
}

static void msix_changed(struct pci_device *dev, unsigned v)
{
	struct pci_test *t = (struct pci_test *)dev;

	t->changes++;
	t->changed_vector = v;
}

static const struct pci_device_ops test_ops = {
	.config_read = config_read,
	.config_written = config_written,
	.bar_moved = bar_moved,
	.msix_changed = msix_changed,
};

static void regions_init(struct pci_test *t)
{
	t->io.io = (struct io_region){.size = 32, .ops = &port_ops, .opaque = t, .name = "t-io"};
	t->mem.io = (struct io_region){
		.size = PCI_TEST_MEM_SIZE, .ops = &mem_ops, .opaque = t, .name = "t-mem"};
	t->wide_low.io =
		(struct io_region){.size = 0x1000, .ops = &low_ops, .opaque = t, .name = "t-low"};
	t->wide_high.io =
		(struct io_region){.size = 0x1000, .ops = &high_ops, .opaque = t, .name = "t-high"};
	pci_bar_init(&t->pci, PCI_TEST_IO_BAR, PCI_BAR_IO, 32);
	pci_bar_add_region(&t->pci, PCI_TEST_IO_BAR, 0, &t->io);
	pci_bar_init(&t->pci, PCI_TEST_MEM_BAR, PCI_BAR_MEM32, PCI_TEST_MEM_SIZE);
	pci_bar_add_region(&t->pci, PCI_TEST_MEM_BAR, 0, &t->mem);
	pci_bar_init(&t->pci, PCI_TEST_WIDE_BAR, PCI_BAR_MEM64_PREF, t->wide);
	pci_bar_add_region(&t->pci, PCI_TEST_WIDE_BAR, 0, &t->wide_low);
	pci_bar_add_region(&t->pci, PCI_TEST_WIDE_BAR, 0x2000, &t->wide_high);
}

static bool test_realize(struct device *dev, struct error **err)
{
	struct pci_test *t = (struct pci_test *)dev;

	t->info = (struct pci_info){.vendor_id = PCI_TEST_VENDOR,
				    .device_id = PCI_TEST_DEVICE,
				    .subsystem_vendor_id = 0x1af4,
				    .subsystem_id = 0x1100,
				    .class_code = 0x00ff01,
				    .revision = 3,
				    .intx_pin = 1,
				    .express = t->express,
				    .ops = &test_ops};
	if (!pci_device_init(&t->pci, &t->info, err))
		return false;
	regions_init(t);
	if (!pci_pm_init(&t->pci, err) ||
	    (t->express &&
	     !pcie_cap_init(&t->pci, pci_bus_is_root(t->pci.bus) ? PCIE_RC_ENDPOINT : PCIE_ENDPOINT,
			    0, err)) ||
	    (t->msi && !pci_msi_init(&t->pci, t->msi, true, err)) ||
	    (t->vectors &&
	     !pci_msix_init(&t->pci, t->vectors, PCI_TEST_MEM_BAR, PCI_TEST_MSIX_TABLE,
			    PCI_TEST_MEM_BAR, PCI_TEST_MSIX_PBA, err))) {
		pci_device_exit(&t->pci);
		return false;
	}
	pci_set32(t->pci.wmask + 0xf0, 0xffffffff);
	return true;
}

static void test_reset(struct device *dev)
{
	struct pci_test *t = (struct pci_test *)dev;

	pci_device_reset(&t->pci);
	memset(t->ports, 0, sizeof(t->ports));
	t->resets++;
}

static void test_unrealize(struct device *dev)
{
	pci_device_exit(pci_device_of(dev));
}

static const struct prop test_props[] = {
	{.name = "vectors", .type = PROP_U32, .offset = offsetof(struct pci_test, vectors)},
	{.name = "msi", .type = PROP_U32, .offset = offsetof(struct pci_test, msi)},
	{.name = "express", .type = PROP_BOOL, .offset = offsetof(struct pci_test, express)},
	{.name = "wide",
	 .type = PROP_SIZE,
	 .offset = offsetof(struct pci_test, wide),
	 .def = "16384"},
	{.type = PROP_END},
};

const struct device_desc pci_test_desc = {
	.name = "pci-test",
	.help = "a device for tests",
	.bus = "pci",
	.size = sizeof(struct pci_test),
	.props = (const struct prop_set[]){PCI_DEVICE_PROPS, {.props = test_props}, {}},
	.state =
		&(const struct state_desc){
			.name = "pci-test",
			.version = 1,
			.fields = (const struct state_field[]){PCI_DEVICE_STATE,
							       {.type = STATE_END}},
		},
	.hotpluggable = true,
	.realize = test_realize,
	.reset = test_reset,
	.unplug = pci_device_unplug,
	.unrealize = test_unrealize,
};
