/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e1000e as a driver uses it, through its registers: identity, memory, PHY, interrupts of all three
 * kinds, the link, statistics, resets, its state elsewhere. What moves packets is tested in
 * test_e1000e_tx.c and test_e1000e_rx.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/e1000e_rig.h"
#include "tests/lib/state_copy.h"
#include "vmm/core/util.h"

static struct e1000e_rig *r;

static int setup(void **state)
{
	r = xcalloc(1, sizeof(*r));
	e1000e_rig_init(r, 0, 0, "mac=52:54:00:0a:0b:0c");
	return 0;
}

static int teardown(void **state)
{
	e1000e_rig_destroy(r);
	free(r);
	return 0;
}

static uint32_t get(unsigned reg)
{
	return e1000e_rig_read(r, reg);
}

static void set(unsigned reg, uint32_t value)
{
	e1000e_rig_write(r, reg, value);
}

static uint32_t cfg(unsigned offset, unsigned size)
{
	return pci_cfg_read(&r->m, 0, E1000E_RIG_DEVFN, offset, size);
}

static uint32_t bar_size(unsigned n)
{
	uint32_t old = cfg(PCI_BAR0 + 4 * n, 4), mask;

	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 4 * n, 4, UINT32_MAX);
	mask = cfg(PCI_BAR0 + 4 * n, 4);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 4 * n, 4, old);
	return -(mask & (mask & 1 ? ~3u : ~15u));
}

static void test_identity(void **state)
{
	unsigned msi, msix, express;

	assert_int_equal(cfg(0, 4), 0x10d38086);
	assert_int_equal(cfg(PCI_REVISION, 4), 0x02000000);
	assert_int_equal(cfg(PCI_SUBSYSTEM_VENDOR_ID, 4), 0x00008086);
	assert_int_equal(cfg(PCI_INTERRUPT_PIN, 1), 1);
	assert_int_equal(bar_size(0), 128 << 10);
	assert_int_equal(bar_size(1), 128 << 10);
	assert_int_equal(bar_size(2), 32);
	assert_int_equal(bar_size(3), 16 << 10);
	assert_int_equal(cfg(PCI_BAR0 + 8, 4) & 1, 1);
	msi = pci_cfg_capability(&r->m, 0, E1000E_RIG_DEVFN, PCI_CAP_MSI);
	assert_int_equal(cfg(msi + PCI_MSI_FLAGS, 2), PCI_MSI_FLAGS_64BIT);
	msix = pci_cfg_capability(&r->m, 0, E1000E_RIG_DEVFN, PCI_CAP_MSIX);
	assert_int_equal(cfg(msix + PCI_MSIX_FLAGS, 2), 4);
	assert_int_equal(cfg(msix + PCI_MSIX_TABLE, 4), 3);
	assert_int_equal(cfg(msix + PCI_MSIX_PBA, 4), 0x2003);
	express = pci_cfg_capability(&r->m, 0, E1000E_RIG_DEVFN, PCI_CAP_EXPRESS);
	assert_int_equal(cfg(express + PCI_EXP_FLAGS, 2) >> 4 & 15, PCIE_RC_ENDPOINT);
	/* The serial number is made of the address. */
	assert_int_equal(pci_mem_read(&r->m, PCI_TEST_ECAM + (E1000E_RIG_DEVFN << 12) + 0x104, 8),
			 0x525400ffff0a0b0c);
	/* Flash is erased. */
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0 + 4, 4, 0xf0200000);
	assert_int_equal(pci_mem_read(&r->m, 0xf0200000, 4), UINT32_MAX);
}

static void test_properties(void **state)
{
	struct error *err = NULL;
	struct device *dev;
	char *text;

	assert_null(pci_machine_try(&r->m, &e1000e_desc, NULL, NULL, "netdev=n0", false, &err));
	assert_non_null(strstr(error_message(err), "in use"));
	error_free(err);
	err = NULL;
	assert_null(pci_machine_try(&r->m, &e1000e_desc, NULL, NULL, "mac=01:00:00:00:00:01", false,
				    &err));
	error_free(err);
	/* Without a network, and with the next free address. */
	dev = pci_machine_add(&r->m, &e1000e_desc, NULL, NULL, "subsys=0x1234,subsys_ven=0x1af4");
	assert_int_equal(load_le32(((struct e1000e *)dev)->pci.config + PCI_SUBSYSTEM_VENDOR_ID),
			 0x12341af4);
	assert_int_equal(((struct e1000e *)dev)->nvm[2], 0x5634);
	device_free(dev);
	text = r->net.nd.peer->info(r->net.nd.peer->opaque);
	assert_string_equal(text, "model=e1000e,macaddr=52:54:00:0a:0b:0c");
	free(text);
	assert_string_equal(r->net.nd.peer->name, "card");
}

static uint16_t nvm(unsigned word)
{
	uint32_t v;

	set(E1000E_EERD, word << 2 | 1);
	v = get(E1000E_EERD);
	assert_int_equal(v & 2, 2);
	assert_int_equal(v >> 2 & 0x3fff, word);
	return v >> 16;
}

static void test_nvm(void **state)
{
	uint16_t sum = 0;

	assert_int_equal(nvm(0), 0x5452);
	assert_int_equal(nvm(1), 0x0a00);
	assert_int_equal(nvm(2), 0x0c0b);
	for (unsigned i = 0; i < 64; i++)
		sum += nvm(i);
	assert_int_equal(sum, 0xbaba);
	assert_int_equal(nvm(64), 0);
	assert_int_equal(nvm(0x3fff), 0);
	/* Where drivers look for who manages the card, nobody does. */
	assert_int_equal(nvm(0x0f) & 0x6000, 0);
	set(E1000E_EEWR, 0x77660000 | 2 << 2 | 1);
	assert_int_equal(get(E1000E_EEWR) & 2, 2);
	assert_int_equal(nvm(2), 0x7766);
	set(E1000E_EEWR, 0x77660000 | 100 << 2 | 1);
	/* It is loaded when that is asked for. */
	assert_int_equal(get(E1000E_RAH), 0x80000c0b);
	set(E1000E_CTRL_EXT, E1000E_CTRL_EXT_EE_RST);
	assert_int_equal(get(E1000E_RAH), 0x80007766);
	assert_int_equal(get(E1000E_CTRL_EXT), 0);
	/* Whoever asks for the memory gets it. */
	set(E1000E_EECD, E1000E_EECD_REQ);
	assert_int_equal(get(E1000E_EECD) & 0x3c0, 0x3c0);
	set(E1000E_EECD, 0);
	assert_int_equal(get(E1000E_EECD) & 0x3c0, 0x300);
}

static uint16_t phy(unsigned reg)
{
	uint32_t v;

	set(E1000E_MDIC, 2u << 26 | 1 << 21 | reg << 16);
	v = get(E1000E_MDIC);
	assert_int_equal(v & (E1000E_MDIC_READY | E1000E_MDIC_ERROR), E1000E_MDIC_READY);
	return v;
}

static void phy_set(unsigned reg, uint16_t value)
{
	set(E1000E_MDIC, 1u << 26 | 1 << 21 | reg << 16 | value);
	assert_true(get(E1000E_MDIC) & E1000E_MDIC_READY);
}

static void test_phy(void **state)
{
	assert_int_equal(phy(2), 0x0141);
	assert_int_equal(phy(3), 0x0cb1);
	assert_int_equal(phy(1) & 0x24, 0x24);
	/* Nobody at another address, nothing but reads and writes. */
	set(E1000E_MDIC, 2u << 26 | 2 << 21);
	assert_true(get(E1000E_MDIC) & E1000E_MDIC_ERROR);
	set(E1000E_MDIC, 3u << 26 | 1 << 21);
	assert_true(get(E1000E_MDIC) & E1000E_MDIC_ERROR);
	/* Pages from 16 on. */
	phy_set(22, 2);
	phy_set(16, 0xbeef);
	assert_int_equal(phy(16), 0xbeef);
	assert_int_equal(phy(2), 0x0141);
	phy_set(22, 0);
	assert_int_equal(phy(16), 0x0360);
	phy_set(22, 0xffff);
	phy_set(16, 1);
	assert_int_equal(phy(16), 0);
	phy_set(22, 0);
	/* What only tells cannot be written. */
	phy_set(2, 0);
	phy_set(17, 0);
	assert_int_equal(phy(2), 0x0141);
	assert_int_equal(phy(17), 0xac08);
	phy_set(4, 0x0101);
	assert_int_equal(phy(4), 0x0101);
	phy_set(0, 0x8000);
	assert_int_equal(phy(4), 0x0de1);
	assert_int_equal(phy(0), 0x1140);
}

static bool has_link(void)
{
	assert_int_equal(!!(phy(1) & 4), !!(get(E1000E_STATUS) & E1000E_STATUS_LU));
	return phy(1) & 4;
}

/* Negotiation takes its time, and LSC tells of both ends. */
static void wait_for_link(void)
{
	for (unsigned i = 0; i < 100 && !has_link(); i++)
		evloop_run_once(r->m.vm.loop, 20 * NSEC_PER_MSEC);
	assert_true(has_link());
}

static void test_link(void **state)
{
	assert_true(has_link());
	get(E1000E_ICR);
	phy_set(0, 0x1340);
	assert_false(has_link());
	assert_int_equal(get(E1000E_ICR) & E1000E_INT_LSC, E1000E_INT_LSC);
	assert_int_equal(phy(0), 0x1140);
	wait_for_link();
	assert_int_equal(get(E1000E_ICR) & E1000E_INT_LSC, E1000E_INT_LSC);
	/* The network's end. */
	net_set_link(&r->net.nd, false);
	e1000e_rig_settle(r);
	assert_false(has_link());
	assert_int_equal(get(E1000E_ICR), E1000E_INT_LSC);
	phy_set(0, 0x1340);
	evloop_run_once(r->m.vm.loop, 300 * NSEC_PER_MSEC);
	assert_false(has_link());
	net_set_link(&r->net.nd, true);
	wait_for_link();
	/* A PHY without power has none; one that is reset by the card has it again. */
	phy_set(0, 0x1940);
	assert_false(has_link());
	set(E1000E_STATUS, 0);
	assert_false(get(E1000E_STATUS) & E1000E_STATUS_PHYRA);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_PHY_RST);
	assert_true(get(E1000E_STATUS) & E1000E_STATUS_PHYRA);
	assert_false(get(E1000E_CTRL) & E1000E_CTRL_PHY_RST);
	wait_for_link();
	assert_int_equal(get(E1000E_STATUS) & 0xc1, 0x81); /* 1000 Mbit/s, full duplex */
}

static void test_access(void **state)
{
	/* Through the ports. */
	pci_port_write(&r->m, E1000E_RIG_PORT, 4, E1000E_FCTTV);
	pci_port_write(&r->m, E1000E_RIG_PORT + 4, 4, 0x1234);
	assert_int_equal(get(E1000E_FCTTV), 0x1234);
	assert_int_equal(pci_port_read(&r->m, E1000E_RIG_PORT, 4), E1000E_FCTTV);
	assert_int_equal(pci_port_read(&r->m, E1000E_RIG_PORT + 4, 4), 0x1234);
	pci_port_write(&r->m, E1000E_RIG_PORT, 4, 0xfffffffc);
	pci_port_write(&r->m, E1000E_RIG_PORT + 4, 4, 0x1234);
	assert_int_equal(pci_port_read(&r->m, E1000E_RIG_PORT + 4, 4), 0);
	/* Pieces are read, and not written. */
	set(E1000E_VET, 0x88a8);
	assert_int_equal(pci_mem_read(&r->m, E1000E_RIG_BAR + E1000E_VET + 1, 1), 0x88);
	pci_mem_write(&r->m, E1000E_RIG_BAR + E1000E_VET, 1, 0);
	assert_int_equal(get(E1000E_VET), 0x88a8);
	set(E1000E_VET, UINT32_MAX);
	assert_int_equal(get(E1000E_VET), 0xffff);
	/* Old places of registers. */
	set(0x5200 + 4 * 127, 7);
	assert_int_equal(get(0x200 + 4 * 127), 7);
	set(0x110, 0x12345678);
	assert_int_equal(get(E1000E_RDBAL), 0x12345670);
	set(0x438, 0x12345678);
	assert_int_equal(get(E1000E_TDT), 0x5678);
	set(E1000E_RDLEN, UINT32_MAX);
	assert_int_equal(get(E1000E_RDLEN), 0xfff80);
	/* Nothing is there. */
	for (unsigned reg = 0x6000; reg < 0x20000; reg += 0x1004) {
		set(reg & ~3u, UINT32_MAX);
		assert_int_equal(get(reg & ~3u), 0);
	}
	/* A semaphore. */
	set(E1000E_SWSM, 0);
	assert_int_equal(get(E1000E_SWSM), 0);
	assert_int_equal(get(E1000E_SWSM), 1);
	set(E1000E_EXTCNF_CTRL, 0x20);
	assert_int_equal(get(E1000E_EXTCNF_CTRL), 0x20);
	/* Time goes by in steps of the increment. */
	set(E1000E_TIMINCA, 1 << 24 | 40);
	uint32_t first = get(E1000E_SYSTIML), later;
	assert_int_equal(get(E1000E_SYSTIMH), 0);
	do
		later = get(E1000E_SYSTIML);
	while (later == first);
	assert_int_equal((later - first) % 40, 0);
}

static void test_reset(void **state)
{
	set(E1000E_RCTL, E1000E_RCTL_EN);
	set(E1000E_RAL, 0x12345678);
	set(E1000E_RETA, 5);
	set(E1000E_ICS, E1000E_INT_LSC);
	set(E1000E_CTRL, get(E1000E_CTRL) | E1000E_CTRL_RST);
	assert_int_equal(get(E1000E_CTRL), 0x00100241);
	assert_int_equal(get(E1000E_RCTL), 0);
	assert_int_equal(get(E1000E_RETA), 0);
	assert_int_equal(get(E1000E_RAL), 0x0a005452);
	assert_int_equal(get(E1000E_RAH), 0x80000c0b);
	assert_int_equal(get(E1000E_ICR), 0);
	assert_int_equal(get(E1000E_PBA), 0x00140014);
	assert_int_equal(get(E1000E_TARC), 0x403);
	assert_true(has_link());
	/* The machine's, which the memory does not outlive either. */
	set(E1000E_EEWR, 0x77660000 | 2 << 2 | 1);
	vm_reset(&r->m.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_BAR0, 4, E1000E_RIG_BAR);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, PCI_COMMAND, 2, 7);
	assert_int_equal(get(E1000E_RAH), 0x80000c0b);
}

/* ---- interrupts ---- */

static bool line(void)
{
	return r->m.input[E1000E_RIG_INPUT];
}

static void test_intx(void **state)
{
	set(E1000E_ICS, E1000E_INT_LSC);
	assert_false(line());
	set(E1000E_IMS, E1000E_INT_LSC | E1000E_INT_RXT0);
	assert_true(line());
	assert_int_equal(get(E1000E_IMS), E1000E_INT_LSC | E1000E_INT_RXT0);
	assert_int_equal(get(E1000E_ICR), E1000E_INT_ASSERTED | E1000E_INT_LSC);
	assert_false(line());
	assert_int_equal(get(E1000E_ICR), 0);
	/* Masks. */
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_true(line());
	set(E1000E_IMC, E1000E_INT_RXT0);
	assert_false(line());
	set(E1000E_IMS, E1000E_INT_RXT0);
	assert_true(line());
	set(E1000E_ICR, E1000E_INT_RXT0);
	assert_false(line());
	/* Reading masks what IAM says, if that is wanted. */
	set(E1000E_CTRL_EXT, E1000E_CTRL_EXT_IAME);
	set(E1000E_IAM, E1000E_INT_RXT0);
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_int_equal(get(E1000E_ICR), E1000E_INT_ASSERTED | E1000E_INT_RXT0);
	assert_int_equal(get(E1000E_IMS), E1000E_INT_LSC);
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_false(line());
	assert_int_equal(get(E1000E_ICR), E1000E_INT_RXT0);
	/* Bits that are none. */
	set(E1000E_IMS, UINT32_MAX);
	set(E1000E_ICS, 1 << 30 | 1 << 26);
	assert_false(line());
	assert_int_equal(get(E1000E_IAC), 4);
	assert_int_equal(get(E1000E_IAC), 0);
}

static void test_msi(void **state)
{
	unsigned cap = pci_cfg_capability(&r->m, 0, E1000E_RIG_DEVFN, PCI_CAP_MSI);

	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, cap + PCI_MSI_ADDRESS, 4, 0xfee00000);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, cap + 12, 2, 0x31);
	pci_cfg_write(&r->m, 0, E1000E_RIG_DEVFN, cap + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE);
	set(E1000E_IMS, E1000E_INT_LSC | E1000E_INT_RXT0);
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_int_equal(r->m.message_count, 1);
	assert_int_equal(r->m.messages[0].data, 0x31);
	set(E1000E_ICS, E1000E_INT_RXT0); /* it is pending already */
	assert_int_equal(r->m.message_count, 1);
	set(E1000E_ICS, E1000E_INT_LSC);
	assert_int_equal(r->m.message_count, 2);
	assert_int_equal(get(E1000E_ICR), E1000E_INT_ASSERTED | E1000E_INT_LSC | E1000E_INT_RXT0);
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_int_equal(r->m.message_count, 3);
	assert_false(line());
}

static void test_msix(void **state)
{
	e1000e_rig_use_msix(r);
	/* Receive queue 0: 1, 1: 2, transmit queue 0: 3, 1: none, the rest: 4. */
	set(E1000E_IVAR, 0x000c0ba9);
	set(E1000E_EIAC, E1000E_INT_RXQ0 | E1000E_INT_TXQ0);
	set(E1000E_IMS, E1000E_INT_MSIX | E1000E_INT_LSC);
	set(E1000E_ICS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 1);
	assert_int_equal(r->m.messages[0].data, 0x41);
	/* It has cleared and masked itself, */
	assert_int_equal(get(E1000E_IMS), (E1000E_INT_MSIX | E1000E_INT_LSC) & ~E1000E_INT_RXQ0);
	set(E1000E_ICS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 1);
	set(E1000E_IMS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 2);
	/* or not. */
	set(E1000E_ICS, E1000E_INT_RXQ0 << 1);
	assert_int_equal(r->m.messages[2].data, 0x42);
	set(E1000E_ICS, E1000E_INT_RXQ0 << 1);
	assert_int_equal(r->m.message_count, 3);
	assert_int_equal(get(E1000E_ICR) & E1000E_INT_MSIX, E1000E_INT_RXQ0 << 1);
	set(E1000E_ICS, E1000E_INT_RXQ0 << 1);
	assert_int_equal(r->m.message_count, 4);
	set(E1000E_ICR, UINT32_MAX);
	/* Others come together, and go together. */
	set(E1000E_ICS, E1000E_INT_LSC);
	assert_int_equal(r->m.message_count, 5);
	assert_int_equal(r->m.messages[4].data, 0x44);
	set(E1000E_ICR, E1000E_INT_OTHER);
	assert_int_equal(get(E1000E_ICR), 0);
	/* EIAME masks what IAM says as it fires. */
	set(E1000E_CTRL_EXT, E1000E_CTRL_EXT_EIAME | E1000E_CTRL_EXT_IAME);
	set(E1000E_IAM, E1000E_INT_OTHER);
	set(E1000E_ICS, E1000E_INT_LSC);
	assert_int_equal(r->m.message_count, 6);
	assert_false(get(E1000E_IMS) & E1000E_INT_OTHER);
	set(E1000E_IMS, E1000E_INT_RXQ0);
	set(E1000E_ICS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 7);
	assert_true(get(E1000E_IMS) & E1000E_INT_RXQ0);
	/* A queue without a vector. */
	set(E1000E_ICR, UINT32_MAX);
	set(E1000E_IMS, E1000E_INT_MSIX);
	set(E1000E_ICS, E1000E_INT_TXQ0 << 1);
	assert_int_equal(r->m.message_count, 7);
}

static void wait_ms(unsigned ms)
{
	int64_t end = evloop_now(r->m.vm.loop) + ms * NSEC_PER_MSEC;

	while (evloop_now(r->m.vm.loop) < end)
		evloop_run_once(r->m.vm.loop, end - evloop_now(r->m.vm.loop));
}

static void test_moderation(void **state)
{
	e1000e_rig_use_msix(r);
	set(E1000E_IVAR, 0x000c0ba9);
	set(E1000E_EITR + 4, 10000000 / 256); /* 10 ms */
	set(E1000E_EIAC, E1000E_INT_MSIX);
	set(E1000E_CTRL_EXT, E1000E_CTRL_EXT_IAME);
	set(E1000E_IMS, E1000E_INT_MSIX);
	set(E1000E_ICS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 1);
	for (int i = 0; i < 5; i++)
		set(E1000E_ICS, E1000E_INT_RXQ0);
	e1000e_rig_settle(r);
	assert_int_equal(r->m.message_count, 1);
	set(E1000E_ICS, E1000E_INT_TXQ0); /* another vector */
	assert_int_equal(r->m.message_count, 2);
	wait_ms(15);
	assert_int_equal(r->m.message_count, 3);
	wait_ms(15);
	assert_int_equal(r->m.message_count, 3);
	/* A shorter interval counts at once. */
	set(E1000E_ICS, E1000E_INT_RXQ0);
	set(E1000E_EITR + 4, 0);
	set(E1000E_ICS, E1000E_INT_RXQ0);
	assert_int_equal(r->m.message_count, 5);
}

static void test_moderated_line(void **state)
{
	set(E1000E_ITR, 10000000 / 256);
	set(E1000E_IMS, E1000E_INT_RXT0);
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_true(line());
	get(E1000E_ICR);
	assert_false(line());
	set(E1000E_ICS, E1000E_INT_RXT0);
	assert_false(line());
	wait_ms(15);
	assert_true(line());
	/* What was cleared meanwhile does not come. */
	get(E1000E_ICR);
	set(E1000E_ICS, E1000E_INT_RXT0);
	get(E1000E_ICR);
	wait_ms(15);
	assert_false(line());
}

/* ---- elsewhere ---- */

static void test_state(void **state)
{
	static uint8_t bytes[1 << 17];
	struct e1000e_rig *from = r, *to = xcalloc(1, sizeof(*to));
	struct error *err = NULL;
	size_t len;

	e1000e_rig_init(to, 0, 0, NULL);
	e1000e_rig_start(from, 1, E1000E_RCTL_UPE | E1000E_RCTL_SECRC);
	set(E1000E_IMS, E1000E_INT_RXT0);
	set(E1000E_ICS, E1000E_INT_RXT0);
	set(E1000E_RETA + 8, 0x80);
	set(E1000E_EEWR, 0x77660000 | 5 << 2 | 1);
	phy_set(22, 3);
	phy_set(18, 0xabcd);
	/* A context, and half a packet. */
	e1000e_rig_put(from, 0, 0x00320022000e180e, E1000E_TXD_DEXT, 0x05b43600);
	e1000e_rig_put_bytes(from, 0, "half", 4, E1000E_TXD_DEXT | E1000E_TXD_DTYP_DATA, 0);
	e1000e_rig_kick(from, 0);
	len = state_save(e1000e_desc.state, from->dev, bytes, sizeof(bytes));
	assert_true(state_load(e1000e_desc.state, to->dev, bytes, len, &err));
	memcpy(to->ram, from->ram, E1000E_RIG_RAM);
	to->tail[0] = from->tail[0];
	to->tx_at = from->tx_at;
	r = to;
	e1000e_rig_settle(r);
	assert_true(line());
	assert_int_equal(get(E1000E_ICR), E1000E_INT_ASSERTED | E1000E_INT_RXT0 | E1000E_INT_TXQE);
	assert_int_equal(get(E1000E_RAL), 0x0a005452);
	assert_int_equal(get(E1000E_RETA + 8), 0x80);
	assert_int_equal(get(E1000E_TDH), 2);
	assert_int_equal(nvm(5), 0x7766);
	assert_int_equal(phy(18), 0xabcd);
	assert_true(has_link());
	assert_int_equal(to->d->tx[0].context.mss, 0x5b4);
	/* The other half goes with the first; the next packet is whole. */
	e1000e_rig_put_bytes(to, 0, "halfhalfhalfhalf", 16,
			     E1000E_TXD_EOP | E1000E_TXD_DEXT | E1000E_TXD_DTYP_DATA, 0);
	e1000e_rig_put_bytes(to, 0, "a whole packet...", 17, E1000E_TXD_EOP, 0);
	e1000e_rig_kick(to, 0);
	assert_int_equal(to->net.sent_count, 1);
	assert_memory_equal(to->net.sent[0].data, "a whole packet...", 17);
	/* Any bytes at all can be loaded. */
	for (unsigned seed = 1; seed < 50; seed++) {
		srand(seed);
		for (size_t i = 0; i < len; i++)
			if (i > 5000) /* behind configuration space */
				bytes[i] = rand();
		/* Booleans are not the loader's to check here. */
		for (size_t i = len - 80; i < len; i++)
			bytes[i] &= 1;
		state_load(e1000e_desc.state, to->dev, bytes, len, &err);
		error_free(err);
		err = NULL;
		e1000e_rig_settle(to);
		fake_netdev_receive(&to->net, 0, bytes, 1500);
	}
	r = from;
	e1000e_rig_destroy(to);
	free(to);
}

static void test_announce(void **state)
{
	static const uint8_t mac[] = {0x52, 0x54, 0x00, 0x0a, 0x0b, 0x0c};

	r->net.nd.peer->announce(r->net.nd.peer->opaque);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 1);
	assert_int_equal(r->net.sent[0].len, 60);
	assert_memory_equal(r->net.sent[0].data + 6, mac, 6);
	assert_int_equal(load_be16(r->net.sent[0].data + 12), 0x8035);
	vm_stop(&r->m.vm, RUN_STATE_PAUSED);
	r->net.nd.peer->announce(r->net.nd.peer->opaque);
	e1000e_rig_settle(r);
	assert_int_equal(r->net.sent_count, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_identity), TEST(test_properties), TEST(test_nvm),
		TEST(test_phy),	     TEST(test_link),	    TEST(test_access),
		TEST(test_reset),    TEST(test_intx),	    TEST(test_msi),
		TEST(test_msix),     TEST(test_moderation), TEST(test_moderated_line),
		TEST(test_state),    TEST(test_announce),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
