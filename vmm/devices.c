/* SPDX-License-Identifier: Apache-2.0 */
/* Every kind of device there is. */
#include "vmm/devices.h"

#include "hw/acpi/vmgenid.h"
#include "hw/ata/ahci.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "hw/legacy/legacy.h"
#include "hw/net/e1000e.h"
#include "hw/pci/pci.h"
#include "hw/pci/q35_chipset.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtio_net.h"
#include "hw/virtio/virtio_rng.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

const struct device_desc *const device_table[] = {
	&virtio_blk_pci_desc,
	&virtio_blk_pci_transitional_desc,
	&virtio_blk_pci_non_transitional_desc,
	&virtio_net_pci_desc,
	&virtio_net_pci_transitional_desc,
	&virtio_net_pci_non_transitional_desc,
	&e1000e_desc,
	&virtio_rng_pci_desc,
	&virtio_rng_pci_transitional_desc,
	&virtio_rng_pci_non_transitional_desc,
	&ich9_ahci_desc,
	&ide_hd_desc,
	&ide_cd_desc,
	&pcie_root_port_desc,
	&pcie_pci_bridge_desc,
	&pci_bridge_desc,
	&isa_serial_desc,
	&isa_debugcon_desc,
	&isa_debug_exit_desc,
	&pvpanic_desc,
	&vmgenid_desc,
	/* the board's own */
	&q35_mch_desc,
	&ich9_lpc_desc,
	&fw_cfg_desc,
	&mc146818rtc_desc,
	&i8042_desc,
	&port92_desc,
	&pflash_desc,
	&i8254_desc,
	&i8259_desc,
	&ioapic_desc,
	NULL,
};

static const char *bus_of(const struct device_desc *d)
{
	return d->bus ? d->bus : "none";
}

void device_help(FILE *out)
{
	/* Grouped by bus, in the table's order. */
	for (size_t i = 0; device_table[i]; i++) {
		bool first = true;

		for (size_t j = 0; j < i && first; j++)
			first = device_table[j]->internal ||
				strcmp(bus_of(device_table[j]), bus_of(device_table[i]));
		if (!first || device_table[i]->internal)
			continue;
		fprintf(out, "%sDevices on bus '%s':\n", i ? "\n" : "", bus_of(device_table[i]));
		for (size_t j = i; device_table[j]; j++) {
			const struct device_desc *d = device_table[j];

			if (d->internal || strcmp(bus_of(d), bus_of(device_table[i])))
				continue;
			fprintf(out, "name \"%s\"", d->name);
			if (d->alias)
				fprintf(out, ", alias \"%s\"", d->alias);
			fprintf(out, ", desc \"%s\"\n", d->help);
		}
	}
}

static bool has_netdev(const struct device_desc *d)
{
	for (const struct prop_set *s = d->props; s && s->props; s++)
		for (const struct prop *p = s->props; p->type != PROP_END; p++)
			if (p->type == PROP_NETDEV)
				return true;
	return false;
}

void nic_help(FILE *out)
{
	fputs("Available NIC models:\n", out);
	for (const struct device_desc *const *d = device_table; *d; d++)
		if (!(*d)->internal && has_netdev(*d))
			fprintf(out, "%s\n", (*d)->name);
}

/* "  NAME=<TYPE>", or a choice's values; how wide. */
static int print_value(FILE *out, const struct prop *p)
{
	int used = fprintf(out, "  %s=", p->name);

	if (p->type != PROP_ENUM)
		return used + fprintf(out, "<%s>", prop_type_name(p));
	for (const char *const *name = p->names; *name; name++)
		used += fprintf(out, "%s%s", name == p->names ? "" : "|", *name);
	return used;
}

bool device_help_of(FILE *out, const char *name, struct error **err)
{
	const struct vm vm = { .device_table = device_table };
	const struct device_desc *d = device_desc_find(&vm, name);

	if (!d || d->internal) {
		const char *names[ARRAY_SIZE(device_table)], *nearest;
		size_t count = 0;

		for (size_t i = 0; device_table[i]; i++)
			if (!device_table[i]->internal)
				names[count++] = device_table[i]->name;
		nearest = nearest_name(name, names, count);
		error_set(err, "-device %s,help: not a device model name%s%s%s", name,
			  nearest ? " (did you mean '" : "", nearest ? nearest : "",
			  nearest ? "'?)" : "");
		return false;
	}
	fprintf(out, "%s options:\n", d->name);
	for (const struct prop_set *s = d->props; s && s->props; s++) {
		for (const struct prop *p = s->props; p->type != PROP_END; p++) {
			int used = print_value(out, p);

			fprintf(out, "%*s - %s", used < 32 ? 32 - used : 0, "",
				p->help ? p->help : "");
			if (p->def)
				fprintf(out, " (default: %s)", p->def);
			fputc('\n', out);
		}
	}
	return true;
}
