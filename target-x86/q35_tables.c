/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the board tells its guest about itself: E820, CMOS, fw_cfg items, SMBIOS, ACPI, boot order.
 * With firmware they go through fw_cfg, and ACPI is built again when firmware has placed the ECAM
 * and fetches the tables; at direct boot they are written to guest memory at every reset.
 *
 * Main thread, but for fw_cfg's select call on a vCPU thread.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "hw/acpi/vmgenid.h"
#include "hw/fw_cfg/bootorder.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "hw/legacy/legacy.h"
#include "target-x86/q35_internal.h"
#include "vmm/core/util.h"

static const struct {
	uint16_t port;
	uint8_t irq;
} com_ports[Q35_SERIALS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static void build_e820(struct q35 *b)
{
	struct e820 *map = &b->e820;

	e820_init(map);
	e820_add(map, 0, b->ram_below_4g, E820_RAM);
	e820_add(map, Q35_4G, b->ram_above_4g, E820_RAM);
	e820_add(map, b->accel->reserved_base, b->accel->reserved_size, E820_RESERVED);
	if (!b->boot)
		return;
	/* Firmware makes these entries by itself. The last KiB below 640 KiB stays out of the way
	 * of what looks for an EBDA. */
	e820_remove(map, Q35_LOW_RAM_END, Q35_SHADOW_END - Q35_LOW_RAM_END);
	e820_add(map, Q35_LOW_RAM_END - KiB, KiB, E820_RESERVED);
	e820_add(map, Q35_RSDP, Q35_SHADOW_END - Q35_RSDP, E820_RESERVED);
	e820_add(map, Q35_ECAM_BASE, Q35_ECAM_SIZE, E820_RESERVED);
}

static void acpi_add_override(struct acpi_config *a, uint8_t source, uint32_t gsi, uint16_t flags)
{
	a->overrides[a->override_count++] =
		(struct acpi_irq_override){.source = source, .gsi = gsi, .flags = flags};
}

/* What of the memory hole below 4 GiB the host bridge decodes: all but the ECAM. */
static void acpi_mem_windows(struct q35 *b, struct acpi_range ecam)
{
	struct acpi_config *a = &b->acpi;
	uint64_t base = MAX(b->ram_below_4g, UINT64_C(0x80000000));

	a->mem_window_count = 0;
	a->mem_windows[a->mem_window_count++] = (struct acpi_range){Q35_LOW_RAM_END, Q35_VGA_SIZE};
	if (ecam.size && ecam.base < Q35_IOAPIC_BASE && ecam.base >= base) {
		if (ecam.base > base)
			a->mem_windows[a->mem_window_count++] =
				(struct acpi_range){base, ecam.base - base};
		base = ecam.base + ecam.size;
	}
	if (base < Q35_IOAPIC_BASE)
		a->mem_windows[a->mem_window_count++] = (struct acpi_range){base,
									    Q35_IOAPIC_BASE - base};
	a->mem_windows[a->mem_window_count++] =
		(struct acpi_range){q35_pci64_base(b), q35_pci64_end(b) - q35_pci64_base(b)};
}

static uint32_t port_property(struct device *d, const char *name)
{
	const struct prop_set *set;
	const struct prop *p = prop_find(d->desc->props, name, &set);

	return *(uint32_t *)((char *)d + set->base + p->offset);
}

static void acpi_cpus_and_power(struct q35 *b)
{
	struct acpi_config *a = &b->acpi;

	a->apic_ids = b->apic_ids;
	a->cpu_count = b->config.cpus;
	a->lapic_base = Q35_LAPIC_BASE;
	a->ioapic_base = Q35_IOAPIC_BASE;
	a->ioapic_id = 0;
	acpi_add_override(a, 0, 2, 0);
	acpi_add_override(a, 5, 5, 0xd);
	acpi_add_override(a, Q35_SCI, Q35_SCI, 0xd);
	acpi_add_override(a, 10, 10, 0xd);
	acpi_add_override(a, 11, 11, 0xd);
	a->pm_base = Q35_PM_BASE;
	a->sci_irq = Q35_SCI;
	a->reset_port = 0xcf9;
	a->reset_value = 0x0f;
	a->rtc_century = 0x32;
}

static void acpi_pci(struct q35 *b)
{
	static const uint8_t isa[] = {5, 10, 11};
	struct acpi_config *a = &b->acpi;

	a->io_windows[a->io_window_count++] = (struct acpi_range){0, 0xcf8};
	a->io_windows[a->io_window_count++] = (struct acpi_range){0xd00, 0x10000 - 0xd00};
	a->lpc_devfn = Q35_LPC_DEVFN;
	/* Nothing is plugged into the root bus itself while the guest runs. */
	for (unsigned i = 0; i < ARRAY_SIZE(b->pci.bus.devices); i++)
		if (b->pci.bus.devices[i])
			a->pci_slots |= UINT32_C(1) << (i >> 3);
	for (unsigned i = 0; i < 8; i++)
		a->pirq_gsi[i] = 16 + i;
	memcpy(a->pirq_isa, isa, sizeof(isa));
	a->pirq_isa_count = sizeof(isa);
}

static void acpi_isa(struct q35 *b)
{
	struct acpi_config *a = &b->acpi;

	a->rtc_port = 0x70;
	a->rtc_irq = 8;
	a->i8042 = true;
	a->kbd_irq = 1;
	a->mouse_irq = 12;
	for (unsigned i = 0; i < Q35_SERIALS; i++)
		if (b->config.serials[i].present)
			a->uarts[i] = (struct acpi_uart){com_ports[i].port, com_ports[i].irq};
	a->fw_cfg_port = 0x510;
	a->fw_cfg_ports = FW_CFG_PORTS;
	for (struct device *d = b->vm->devices; d; d = d->next)
		if (d->desc == &pvpanic_desc)
			a->pvpanic_port = port_property(d, "ioport");
	a->vmgenid = vmgenid_find(b->vm) != NULL;
}

/* What the guest's firmware decides: where the ECAM lies, how INTx is routed. acpi_lock held, or no
 * vCPU runs. */
static void acpi_firmware_choices(struct q35 *b)
{
	struct acpi_config *a = &b->acpi;

	a->ecam = b->ecam;
	a->bus_last = a->ecam.size ? a->ecam.size / MiB - 1 : 255;
	acpi_mem_windows(b, a->ecam);
	for (unsigned slot = 0; slot < ACPI_PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < 4; pin++)
			a->pirq[slot][pin] = ich9_lpc_pirq(b->lpc, slot, pin);
}

/* Main thread, where devices come and go. */
static void acpi_fill(struct q35 *b)
{
	memset(&b->acpi, 0, sizeof(b->acpi));
	acpi_cpus_and_power(b);
	acpi_pci(b);
	acpi_isa(b);
	acpi_firmware_choices(b);
}

/* Firmware has placed the ECAM by the time it asks for the tables. vCPU threads. */
static void acpi_refresh(void *opaque)
{
	struct q35 *b = opaque;

	pthread_mutex_lock(&b->acpi_lock);
	if (!b->acpi_fresh) {
		b->acpi_fresh = true;
		acpi_tables_destroy(&b->tables);
		acpi_firmware_choices(b);
		acpi_tables_build(&b->tables, &b->acpi);
		acpi_tables_to_fw_cfg(&b->tables, b->fw_cfg, acpi_refresh, b);
	}
	pthread_mutex_unlock(&b->acpi_lock);
}

static bool build_smbios(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;
	struct smbios_mem_range ranges[2] = {
		{0, b->ram_below_4g},
		{Q35_4G, b->ram_above_4g},
	};
	struct smbios_machine m = {
		.name = "pc-q35",
		.version = c->version,
		.bios = b->boot != NULL,
		.uuid = b->vm->uuid_set ? b->vm->uuid : NULL,
		.topology = c->topology,
		.ram_size = c->ram->size,
		.max_ram_size = c->ram->size,
		.ranges = ranges,
		.range_count = b->ram_above_4g ? 2 : 1,
	};

	cpu_type_signature(b->cpu_type, &m.cpu_signature, &m.cpu_features);
	return smbios_build(c->smbios, &m, &b->smbios, err);
}

/* CMOS bytes as SeaBIOS reads them (its src/rtc.h names them). */
void q35_tables_reset(struct q35 *b)
{
	const struct q35_config *c = &b->config;
	uint64_t kib = b->ram_below_4g / KiB;
	uint64_t extended = MIN(kib > 1024 ? kib - 1024 : 0, UINT64_C(65535));
	uint64_t above_16m = b->ram_below_4g > 16 * MiB ? (b->ram_below_4g - 16 * MiB) / 65536 : 0;
	uint64_t above_4g = b->ram_above_4g / 65536;
	const char *order = c->boot_once && !b->started_once ? c->boot_once
			    : c->boot_order		     ? c->boot_order
							     : "cad";
	uint8_t device[3] = {0};

	above_16m = MIN(above_16m, UINT64_C(65535));
	cmos_set(b->rtc, 0x14, 0x06); /* equipment: FPU, PS/2 mouse */
	cmos_set(b->rtc, 0x15, 640 & 0xff);
	cmos_set(b->rtc, 0x16, 640 >> 8);
	cmos_set(b->rtc, 0x17, extended);
	cmos_set(b->rtc, 0x18, extended >> 8);
	cmos_set(b->rtc, 0x30, extended);
	cmos_set(b->rtc, 0x31, extended >> 8);
	cmos_set(b->rtc, 0x34, above_16m);
	cmos_set(b->rtc, 0x35, above_16m >> 8);
	cmos_set(b->rtc, 0x5b, above_4g);
	cmos_set(b->rtc, 0x5c, above_4g >> 8);
	cmos_set(b->rtc, 0x5d, above_4g >> 16);
	cmos_set(b->rtc, 0x5f, c->cpus - 1);
	for (unsigned i = 0; i < 3 && order[i]; i++)
		device[i] = order[i] == 'a'   ? 1
			    : order[i] == 'c' ? 2
			    : order[i] == 'd' ? 3
			    : order[i] == 'n' ? 4
					      : 0;
	cmos_set(b->rtc, 0x3d, device[0] | device[1] << 4);
	cmos_set(b->rtc, 0x38, device[2] << 4);
	b->started_once = true;
}

/* The boot entry of a device that has a bootindex, or false. */
static bool boot_entry_of(struct device *d, struct boot_entry *e)
{
	const struct prop_set *set;
	const struct prop *p = prop_find(d->desc->props, "bootindex", &set);
	struct device *at = d;
	uint8_t path[ARRAY_SIZE(e->path)];
	unsigned n = 0;

	if (!p)
		return false;
	*e = (struct boot_entry){.bootindex = *(int32_t *)((char *)d + set->base + p->offset),
				 .kind = BOOT_PCI,
				 .label = device_label(d)};
	if (e->bootindex < 0)
		return false;
	if (!strncmp(d->desc->name, "virtio-blk", 10)) {
		e->kind = BOOT_VIRTIO_BLK;
	} else if (!strncmp(d->desc->name, "virtio-net", 10) ||
		   !strcmp(d->desc->name, "e1000e")) {
		e->kind = BOOT_ETHERNET;
	} else if (!strcmp(d->desc->bus ? d->desc->bus : "", "ide")) {
		e->kind = !strcmp(d->desc->name, "ide-cd") ? BOOT_AHCI_CDROM : BOOT_AHCI_DISK;
		e->target = strtoul(strchr(d->bus->name, '.') + 1, NULL, 10);
		at = d->bus->owner;
	}
	if (!at || !at->bus || strcmp(at->bus->type, "pci"))
		return false;
	e->vendor = pci_device_of(at)->info->vendor_id;
	e->device = pci_device_of(at)->info->device_id;
	for (; at && n < ARRAY_SIZE(path); at = at->bus ? at->bus->owner : NULL)
		if (at->bus && !strcmp(at->bus->type, "pci"))
			path[n++] = pci_device_of(at)->devfn;
	for (unsigned i = 0; i < n; i++)
		e->path[i] = path[n - 1 - i];
	e->path_len = n;
	return true;
}

static bool add_boot_order(struct q35 *b, struct error **err)
{
	struct boot_entry entries[64];
	size_t count = 0, len;
	char *text;

	for (struct device *d = b->vm->devices; d && count < ARRAY_SIZE(entries); d = d->next)
		if (boot_entry_of(d, &entries[count]))
			count++;
	if (!boot_order_build(entries, count, b->config.boot_strict, &text, &len, err))
		return false;
	if (text) {
		fw_cfg_add_blob(b->fw_cfg, "bootorder", text, len);
		free(text);
	}
	return true;
}

static void add_e820_file(struct q35 *b)
{
	uint8_t *wire = xmalloc(b->e820.count * E820_WIRE_SIZE);
	size_t n = e820_to_wire(&b->e820, 0, b->e820.count, wire);

	fw_cfg_add_blob(b->fw_cfg, "etc/e820", wire, n * E820_WIRE_SIZE);
	free(wire);
}

/* Items that do not depend on devices added later. */
void q35_tables_init(struct q35 *b)
{
	/* Sleep states S0 to S5: present (bit 7) and the value for PM1_CNT. Only soft-off exists.
	 */
	static const uint8_t states[6] = {0x80, 0, 0, 1, 2, 0x80};
	/* SeaBIOS stays where nothing boots, instead of trying again after a minute. */
	static const uint8_t fail_wait[4] = {0xff, 0xff, 0xff, 0xff};
	const struct q35_config *c = &b->config;
	uint32_t last_apic_id = b->apic_ids[c->cpus - 1];

	build_e820(b);
	fw_cfg_add_u16(b->fw_cfg, FW_CFG_NB_CPUS, c->cpus);
	fw_cfg_add_u16(b->fw_cfg, FW_CFG_MAX_CPUS, last_apic_id + 1);
	fw_cfg_add_u64(b->fw_cfg, FW_CFG_RAM_SIZE, c->ram->size);
	fw_cfg_add_u32(b->fw_cfg, FW_CFG_X86_IRQ0_OVERRIDE, 1);
	fw_cfg_add_u16(b->fw_cfg, FW_CFG_BOOT_MENU, c->boot_menu);
	fw_cfg_add_u16(b->fw_cfg, FW_CFG_NOGRAPHIC, c->nographic);
	fw_cfg_add_bytes(b->fw_cfg, FW_CFG_UUID, b->vm->uuid, sizeof(b->vm->uuid));
	add_e820_file(b);
	fw_cfg_add_blob(b->fw_cfg, "etc/system-states", states, sizeof(states));
	fw_cfg_add_blob(b->fw_cfg, "etc/boot-fail-wait", fail_wait, sizeof(fail_wait));
	if (c->boot_menu && c->boot_menu_wait_ms) {
		uint8_t wait[2];

		store_le16(wait, MIN(c->boot_menu_wait_ms, UINT64_C(65535)));
		fw_cfg_add_blob(b->fw_cfg, "etc/boot-menu-wait", wait, sizeof(wait));
	}
}

/* After all that is the board's own, so that a name that is taken is refused. */
static bool add_user_files(struct q35 *b, struct error **err)
{
	const struct q35_config *c = &b->config;

	for (size_t i = 0; i < c->fw_cfg_count; i++) {
		if (!fw_cfg_add_user(b->fw_cfg, c->fw_cfg[i], err)) {
			error_prefix(err, "-fw_cfg %s: ", opts_peek(c->fw_cfg[i], "name"));
			return false;
		}
	}
	return true;
}

/* What firmware alone reads. */
static bool add_firmware_files(struct q35 *b, struct error **err)
{
	fw_cfg_add_blob(b->fw_cfg, "etc/smbios/smbios-anchor", b->smbios.anchor,
			b->smbios.anchor_len);
	fw_cfg_add_blob(b->fw_cfg, "etc/smbios/smbios-tables", b->smbios.tables,
			b->smbios.tables_len);
	acpi_tables_to_fw_cfg(&b->tables, b->fw_cfg, acpi_refresh, b);
	return add_boot_order(b, err);
}

bool q35_tables_complete(struct q35 *b, struct error **err)
{
	struct vmgenid *genid = vmgenid_find(b->vm);

	if (!build_smbios(b, err))
		return false;
	if (genid)
		vmgenid_connect(genid, ich9_lpc_pm(b->lpc), b->fw_cfg);
	if (b->boot)
		b->ecam = (struct acpi_range){Q35_ECAM_BASE, Q35_ECAM_SIZE};
	acpi_fill(b);
	acpi_tables_build(&b->tables, &b->acpi);
	return (b->boot || add_firmware_files(b, err)) && add_user_files(b, err);
}

bool q35_tables_place(struct q35 *b, struct error **err)
{
	struct vmgenid *genid = vmgenid_find(b->vm);
	uint64_t genid_gpa = genid ? Q35_VMGENID : 0;
	uint64_t end = genid ? Q35_VMGENID : Q35_SMBIOS;
	size_t used;

	if (b->tables.len > end - Q35_ACPI_TABLES ||
	    !acpi_tables_place(&b->tables, &b->vm->mem, Q35_RSDP, Q35_ACPI_TABLES, genid_gpa)) {
		error_set(err,
			  "the ACPI tables do not fit into guest memory: it has too little, or "
			  "too many CPUs");
		return false;
	}
	if (genid)
		vmgenid_place(genid, genid_gpa);
	return smbios_place(&b->smbios, &b->vm->mem, Q35_SMBIOS, Q35_SHADOW_END, &used, err);
}

void q35_tables_destroy(struct q35 *b)
{
	acpi_tables_destroy(&b->tables);
	smbios_tables_destroy(&b->smbios);
	e820_destroy(&b->e820);
}
