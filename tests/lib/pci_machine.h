/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without CPUs for tests of PCI: a root bus with ports and ECAM, a device of every common
 * kind of BAR and interrupt, a message sink that remembers what came, and interrupt inputs.
 */
#ifndef TESTS_LIB_PCI_MACHINE_H
#define TESTS_LIB_PCI_MACHINE_H

#include "hw/pci/pci.h"

enum {
	PCI_TEST_MESSAGES = 64,
	PCI_TEST_ROUTES = 64,
	PCI_TEST_VENDOR = 0x1b36,
	PCI_TEST_DEVICE = 0x00f0,
	PCI_TEST_IO_BAR = 0,  /* 32 ports */
	PCI_TEST_MEM_BAR = 1, /* 4 KiB; MSI-X: table at 0x800, pending bits at 0xc00 */
	PCI_TEST_MEM_SIZE = 4096,
	PCI_TEST_WIDE_BAR = 2, /* 16 KiB, 64 bits, prefetchable: two pieces with a gap */
	PCI_TEST_WIDE_SIZE = 16384,
	PCI_TEST_MSIX_TABLE = 0x800,
	PCI_TEST_MSIX_PBA = 0xc00,
};

#define PCI_TEST_ECAM UINT64_C(0xe0000000)

struct pci_test_route {
	struct msi_route *route;
	int fd;
	struct msi_msg msg;
};

struct pci_machine {
	struct vm vm;
	struct pci_root root;
	struct io_reader pio, mmio;

	struct msi_sink sink;
	bool no_routes;	 /* route_add says -ENOSYS */
	int route_error; /* route_add fails with it */
	struct pci_test_route routes[PCI_TEST_ROUTES];
	unsigned route_count, batch_depth;
	struct msi_msg messages[PCI_TEST_MESSAGES];
	uint32_t requesters[PCI_TEST_MESSAGES];
	unsigned message_count;

	bool input[PCI_ROOT_INPUTS];
	unsigned rotation; /* map_intx: (slot + pin + rotation) % 4 */

	struct notifier events;
	char deleted[8][32]; /* ids of DEVICE_DELETED */
	unsigned deleted_count;
};

/* "pci-test": props vectors (MSI-X, 0: none), msi (vectors, 0: none), express, wide (size of the
 * 64-bit BAR). */
struct pci_test {
	struct pci_device pci;
	uint32_t vectors, msi;
	bool express;
	uint64_t wide;
	struct pci_info info;
	struct pci_bar_region io, mem, wide_low, wide_high;
	uint8_t ports[32];
	uint32_t words[PCI_TEST_MEM_SIZE / 4];
	unsigned resets, moves;
	_Atomic unsigned changes, changed_vector; /* the hook may run on two threads at once */
	uint64_t moved_from, moved_to;
	unsigned moved_bar;
	uint32_t written_value;
};

extern const struct device_desc pci_test_desc;

void pci_machine_init(struct pci_machine *m);
void pci_machine_destroy(struct pci_machine *m);
/* Of cmocka: the state is a machine. */
int pci_machine_setup(void **state);
int pci_machine_teardown(void **state);

/* props: "name=value,..." or NULL; bus NULL: the root. Fails the test if it cannot be made. */
struct device *pci_machine_add(struct pci_machine *m, const struct device_desc *desc,
			       const char *id, struct bus *bus, const char *props);
/* NULL if it cannot be made; err tells why. */
struct device *pci_machine_try(struct pci_machine *m, const struct device_desc *desc,
			       const char *id, struct bus *bus, const char *props, bool hotplug,
			       struct error **err);
struct pci_bus *pci_machine_bus(struct device *bridge);
void pci_machine_settle(struct pci_machine *m);

/* Through ports 0xcf8 and 0xcfc. */
uint32_t pci_cfg_read(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned offset,
		      unsigned size);
void pci_cfg_write(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned offset,
		   unsigned size, uint32_t value);
/* On the memory bus; size up to 8. */
uint64_t pci_mem_read(struct pci_machine *m, uint64_t addr, unsigned size);
void pci_mem_write(struct pci_machine *m, uint64_t addr, unsigned size, uint64_t value);
uint32_t pci_port_read(struct pci_machine *m, uint16_t port, unsigned size);
void pci_port_write(struct pci_machine *m, uint16_t port, unsigned size, uint32_t value);

/* Delivers what was written to bound eventfds; how many messages came. */
unsigned pci_machine_pump(struct pci_machine *m);

/* Bus numbers and windows of a bridge, decoding on. */
void pci_open_bridge(struct pci_machine *m, unsigned bus, unsigned devfn, unsigned secondary,
		     unsigned subordinate, uint32_t mem_base, uint32_t mem_limit);
/* The offset of a capability in the guest's eyes, 0 if it has none. */
unsigned pci_cfg_capability(struct pci_machine *m, unsigned bus, unsigned devfn, uint8_t id);

#endif
