/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VM generation ID device. Firmware allocates a page from "etc/vmgenid_guid" and writes the GUID's
 * guest address to "etc/vmgenid_addr" (the linker script of hw/acpi/loader.c tells it to).
 *
 * Main thread, while no vCPU runs; the owner is the board or the user.
 */
#include <string.h>

#include "hw/acpi/pm.h"
#include "hw/acpi/vmgenid.h"
#include "hw/fw_cfg/fw_cfg.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum { GUID_SIZE = 16 };

struct vmgenid {
	struct device dev;
	uint8_t guid[GUID_SIZE]; /* as written: big-endian fields */
	struct acpi_pm *pm;
	struct fw_cfg *fw;
	uint8_t address[8]; /* of the GUID, little-endian, 0: not known; the guest writes it */
};

/* As the guest sees it: the first three fields are little-endian. */
static void guest_order(const uint8_t guid[GUID_SIZE], uint8_t out[GUID_SIZE])
{
	static const uint8_t from[GUID_SIZE] = {3, 2, 1,  0,  5,  4,  7,  6,
						8, 9, 10, 11, 12, 13, 14, 15};

	for (unsigned i = 0; i < GUID_SIZE; i++)
		out[i] = guid[from[i]];
}

static bool write_guid(struct vmgenid *v)
{
	uint8_t bytes[GUID_SIZE];

	guest_order(v->guid, bytes);
	return gm_write(&v->dev.vm->mem, load_le64(v->address), bytes, sizeof(bytes));
}

static void fill_page(const struct vmgenid *v, uint8_t page[VMGENID_PAGE_SIZE])
{
	memset(page, 0, VMGENID_PAGE_SIZE);
	guest_order(v->guid, page + VMGENID_GUID_OFFSET);
}

static void tell_guest(struct vmgenid *v)
{
	if (load_le64(v->address) && write_guid(v) && v->pm)
		acpi_pm_gpe(v->pm, ACPI_GPE_VMGENID);
}

struct vmgenid *vmgenid_find(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->desc == &vmgenid_desc)
			return container_of(d, struct vmgenid, dev);
	return NULL;
}

void vmgenid_connect(struct vmgenid *v, struct acpi_pm *pm, struct fw_cfg *fw)
{
	struct fw_cfg_file address = {.name = "etc/vmgenid_addr",
				      .data = v->address,
				      .len = sizeof(v->address),
				      .writable = true};
	uint8_t page[VMGENID_PAGE_SIZE];

	v->pm = pm;
	v->fw = fw;
	if (!fw)
		return;
	fill_page(v, page);
	fw_cfg_add_blob(fw, "etc/vmgenid_guid", page, sizeof(page));
	fw_cfg_add_file(fw, &address, NULL);
}

bool vmgenid_place(struct vmgenid *v, uint64_t gpa)
{
	uint8_t page[VMGENID_PAGE_SIZE];

	fill_page(v, page);
	store_le64(v->address, gpa + VMGENID_GUID_OFFSET);
	return gm_write(&v->dev.vm->mem, gpa, page, sizeof(page));
}

void vmgenid_set_guid(struct vmgenid *v, const uint8_t guid[16])
{
	uint8_t page[VMGENID_PAGE_SIZE];

	if (guid)
		memcpy(v->guid, guid, GUID_SIZE);
	else
		prop_assign(vmgenid_desc.props, v, "guid", "auto", NULL, NULL);
	if (v->fw) {
		fill_page(v, page);
		fw_cfg_replace(v->fw, "etc/vmgenid_guid", page, sizeof(page));
	}
	tell_guest(v);
}

static bool vmgenid_realize(struct device *dev, struct error **err)
{
	if (vmgenid_find(dev->vm)) {
		error_set(err, "at most one vmgenid device is permitted");
		return false;
	}
	return true;
}

/* The guest's memory starts anew, and firmware chooses again. */
static void vmgenid_reset(struct device *dev)
{
	struct vmgenid *v = container_of(dev, struct vmgenid, dev);

	memset(v->address, 0, sizeof(v->address));
}

/* A restored guest must learn that this process has another identity. */
static bool vmgenid_post_load(void *object, unsigned version, struct error **err)
{
	tell_guest(object);
	return true;
}

static const struct prop vmgenid_props[] = {
	{.name = "guid",
	 .type = PROP_UUID,
	 .offset = offsetof(struct vmgenid, guid),
	 .def = "auto",
	 .help = "the generation's GUID, or auto for a random one"},
	{.type = PROP_END},
};

static const struct state_field vmgenid_fields[] = {
	STATE_BUFFER(struct vmgenid, address),
	{.type = STATE_END},
};

static const struct state_desc vmgenid_state = {
	.name = "vmgenid",
	.version = 1,
	.fields = vmgenid_fields,
	.post_load = vmgenid_post_load,
};

const struct device_desc vmgenid_desc = {
	.name = "vmgenid",
	.help = "VM generation ID",
	.size = sizeof(struct vmgenid),
	.props = (const struct prop_set[]){{.props = vmgenid_props}, {NULL}},
	.state = &vmgenid_state,
	.realize = vmgenid_realize,
	.reset = vmgenid_reset,
};
