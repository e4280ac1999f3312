/* SPDX-License-Identifier: Apache-2.0 */
/* An e1000e and its driver's rings: see e1000e_rig.h. */
#include "tests/lib/e1000e_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/core/util.h"

static void *resolve(void *opaque, const struct prop *prop, const char *name, struct error **err)
{
	struct e1000e_rig *r = opaque;

	if (prop->type == PROP_NETDEV && !strcmp(name, "n0"))
		return &r->net.nd;
	error_set(err, "there is no '%s'", name);
	return NULL;
}

void e1000e_rig_init(struct e1000e_rig *r, unsigned vnet_hdr, unsigned offloads, const char *props)
{
	struct mem_region region = {.gpa = 0, .size = E1000E_RIG_RAM, .fd = -1};
	char all[256];

	memset(r, 0, sizeof(*r));
	pci_machine_init(&r->m);
	r->m.no_routes = true;
	r->ram = xcalloc(1, E1000E_RIG_RAM);
	region.hva = r->ram;
	assert_true(guest_mem_add(&r->m.vm.mem, &region, NULL));
	r->m.vm.resolver = (struct prop_resolver){resolve, r};
	fake_netdev_init(&r->net, "n0", 1, vnet_hdr, offloads);
	snprintf(all, sizeof(all), "addr=3,netdev=n0%s%s", props ? "," : "", props ? props : "");
	r->dev = pci_machine_add(&r->m, &e1000e_desc, "card", NULL, all);
	r->d = (struct e1000e *)r->dev;
	vm_start(&r->m.vm);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0, 4, E1000E_RIG_BAR);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 8, 4, E1000E_RIG_PORT);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 12, 4, E1000E_RIG_MSIX);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 7);
	e1000e_rig_settle(r);
}

void e1000e_rig_destroy(struct e1000e_rig *r)
{
	pci_machine_destroy(&r->m);
	fake_netdev_destroy(&r->net);
	free(r->ram);
}

uint32_t e1000e_rig_read(struct e1000e_rig *r, unsigned reg)
{
	return pci_mem_read(&r->m, E1000E_RIG_BAR + reg, 4);
}

void e1000e_rig_write(struct e1000e_rig *r, unsigned reg, uint32_t value)
{
	pci_mem_write(&r->m, E1000E_RIG_BAR + reg, 4, value);
}

void e1000e_rig_settle(struct e1000e_rig *r)
{
	for (unsigned i = 0; i < 1000 && evloop_run_once(r->m.vm.loop, 0); i++)
		;
}

static unsigned rx_desc_size(struct e1000e_rig *r)
{
	return e1000e_rig_read(r, E1000E_RCTL) & E1000E_RCTL_DTYP_PS ? 32 : 16;
}

void e1000e_rig_start(struct e1000e_rig *r, unsigned queues, uint32_t rctl)
{
	e1000e_rig_write(r, E1000E_RCTL, rctl);
	for (unsigned q = 0; q < queues; q++) {
		unsigned base = q * E1000E_QUEUE_STRIDE;

		e1000e_rig_write(r, E1000E_TDBAL + base, E1000E_RIG_TX + q * 0x1000);
		e1000e_rig_write(r, E1000E_TDLEN + base, E1000E_RIG_RING * 16);
		e1000e_rig_write(r, E1000E_TDH + base, 0);
		e1000e_rig_write(r, E1000E_TDT + base, 0);
		e1000e_rig_write(r, E1000E_RDBAL + base, E1000E_RIG_RX + q * 0x1000);
		e1000e_rig_write(r, E1000E_RDLEN + base, E1000E_RIG_RING * rx_desc_size(r));
		e1000e_rig_write(r, E1000E_RDH + base, 0);
		e1000e_rig_write(r, E1000E_RDT + base, 0);
		r->tail[q] = r->rx_tail[q] = 0;
	}
	r->tx_at = E1000E_RIG_TX_BYTES;
	e1000e_rig_write(r, E1000E_TCTL, E1000E_TCTL_EN);
	e1000e_rig_write(r, E1000E_RCTL, rctl | E1000E_RCTL_EN);
}

void e1000e_rig_put(struct e1000e_rig *r, unsigned queue, uint64_t addr, uint32_t command,
		    uint32_t status)
{
	uint8_t *desc = r->ram + E1000E_RIG_TX + queue * 0x1000 + r->tail[queue] * 16;

	store_le64(desc, addr);
	store_le32(desc + 8, command);
	store_le32(desc + 12, status);
	r->tail[queue] = (r->tail[queue] + 1) % E1000E_RIG_RING;
}

void e1000e_rig_put_bytes(struct e1000e_rig *r, unsigned queue, const void *bytes, size_t len,
			  uint32_t command, uint32_t status)
{
	if (r->tx_at + len > E1000E_RIG_RX_BYTES)
		r->tx_at = E1000E_RIG_TX_BYTES;
	memcpy(r->ram + r->tx_at, bytes, len);
	e1000e_rig_put(r, queue, r->tx_at, command | len, status);
	r->tx_at += len;
}

void e1000e_rig_kick(struct e1000e_rig *r, unsigned queue)
{
	e1000e_rig_write(r, E1000E_TDT + queue * E1000E_QUEUE_STRIDE, r->tail[queue]);
	e1000e_rig_settle(r);
}

uint8_t *e1000e_rig_rx_desc(struct e1000e_rig *r, unsigned queue, unsigned i)
{
	return r->ram + E1000E_RIG_RX + queue * 0x1000 + i % E1000E_RIG_RING * rx_desc_size(r);
}

static uint64_t buffer_at(unsigned queue, unsigned i, unsigned k)
{
	return E1000E_RIG_RX_BYTES +
	       (uint64_t)(queue * E1000E_RIG_RING + i % E1000E_RIG_RING) * E1000E_RIG_RX_STRIDE +
	       k * 0x1000;
}

uint8_t *e1000e_rig_buffer(struct e1000e_rig *r, unsigned queue, unsigned i, unsigned k)
{
	return r->ram + buffer_at(queue, i, k);
}

void e1000e_rig_offer(struct e1000e_rig *r, unsigned queue, unsigned n)
{
	unsigned size = rx_desc_size(r);

	for (unsigned i = 0; i < n; i++) {
		unsigned at = r->rx_tail[queue];
		uint8_t *desc = e1000e_rig_rx_desc(r, queue, at);

		memset(desc, 0, size);
		for (unsigned k = 0; k < (size == 32 ? 4 : 1); k++)
			store_le64(desc + 8 * k, buffer_at(queue, at, k));
		r->rx_tail[queue] = (at + 1) % E1000E_RIG_RING;
	}
	e1000e_rig_write(r, E1000E_RDT + queue * E1000E_QUEUE_STRIDE, r->rx_tail[queue]);
	e1000e_rig_settle(r);
}

void e1000e_rig_use_msix(struct e1000e_rig *r)
{
	unsigned cap = pci_cfg_capability(&r->m, 0, E1000E_RIG_DEVFN, PCI_CAP_MSIX);

	for (unsigned v = 0; v < E1000E_VECTORS; v++) {
		pci_mem_write(&r->m, E1000E_RIG_MSIX + 16 * v, 4, 0xfee00000);
		pci_mem_write(&r->m, E1000E_RIG_MSIX + 16 * v + 8, 4, 0x40 + v);
		pci_mem_write(&r->m, E1000E_RIG_MSIX + 16 * v + 12, 4, 0);
	}
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
}
