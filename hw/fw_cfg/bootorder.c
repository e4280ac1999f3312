/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenFirmware device paths, and the boot order made of them; see bootorder.h. Firmware matches
 * unit addresses and, for most nodes, takes any name; the names here are those that OVMF asks for.
 *
 * Pure functions; any thread.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/fw_cfg/bootorder.h"
#include "vmm/core/util.h"

struct text {
	char *s; /* owned */
	size_t len;
};

static void append(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void append(struct text *t, const char *fmt, ...)
{
	char buf[128];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	n = MIN(n, sizeof(buf) - 1);
	t->s = xrealloc(t->s, t->len + n + 1);
	memcpy(t->s + t->len, buf, n + 1);
	t->len += n;
}

/* The unit address: slot, and function unless it is 0. */
static void append_unit(struct text *t, uint8_t devfn)
{
	append(t, "@%x", devfn >> 3);
	if (devfn & 7)
		append(t, ",%x", devfn & 7);
}

static void append_pci(struct text *t, const struct boot_entry *e)
{
	unsigned last = e->path_len - 1;

	append(t, "/pci@i0cf8");
	for (unsigned i = 0; i < last; i++) {
		append(t, "/pci-bridge");
		append_unit(t, e->path[i]);
	}
	switch (e->kind) {
	case BOOT_VIRTIO_BLK:
	case BOOT_VIRTIO_SCSI:
		append(t, "/scsi");
		break;
	case BOOT_ETHERNET:
		append(t, "/ethernet");
		break;
	case BOOT_FLOPPY:
		append(t, "/isa");
		break;
	default:
		append(t, "/pci%04x,%04x", e->vendor, e->device);
		break;
	}
	append_unit(t, e->path[last]);
}

char *boot_path(const struct boot_entry *e)
{
	struct text t = {NULL, 0};

	if (e->kind == BOOT_ROM)
		return xasprintf("/rom@%s", e->rom);
	append_pci(&t, e);
	switch (e->kind) {
	case BOOT_VIRTIO_BLK:
		append(&t, "/disk@0,0");
		break;
	case BOOT_VIRTIO_SCSI:
		append(&t, "/channel@%x/disk@%x,%x", e->channel, e->target, e->lun);
		break;
	case BOOT_ETHERNET:
		append(&t, "/ethernet-phy@0");
		break;
	case BOOT_NVME:
		append(&t, "/namespace@%x,0", e->target);
		break;
	case BOOT_AHCI_DISK:
	case BOOT_AHCI_CDROM:
		append(&t, "/drive@%x/disk@0", e->target);
		break;
	case BOOT_FLOPPY:
		append(&t, "/fdc@03f0/floppy@%x", e->target);
		break;
	case BOOT_ROM:
	case BOOT_PCI:
		break;
	}
	return t.s;
}

static int by_bootindex(const void *a, const void *b)
{
	const struct boot_entry *const *left = a, *const *right = b;

	return ((*left)->bootindex > (*right)->bootindex) -
	       ((*left)->bootindex < (*right)->bootindex);
}

bool boot_order_build(const struct boot_entry *entries, size_t count, bool strict, char **text,
		      size_t *len, struct error **err)
{
	const struct boot_entry **sorted = xcalloc(count + 1, sizeof(*sorted));
	struct text t = {NULL, 0};
	bool ok = true;
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (entries[i].bootindex >= 0)
			sorted[n++] = &entries[i];
	qsort(sorted, n, sizeof(*sorted), by_bootindex);
	for (size_t i = 1; ok && i < n; i++) {
		if (sorted[i]->bootindex == sorted[i - 1]->bootindex) {
			error_set(err, "The bootindex %d has already been used",
				  (int)sorted[i]->bootindex);
			ok = false;
		}
	}
	for (size_t i = 0; ok && i < n; i++) {
		char *path = boot_path(sorted[i]);

		append(&t, "%s", i ? "\n" : "");
		t.s = xrealloc(t.s, t.len + strlen(path) + 1);
		memcpy(t.s + t.len, path, strlen(path) + 1);
		t.len += strlen(path);
		free(path);
	}
	if (n && strict)
		append(&t, "\nHALT");
	free(sorted);
	*text = ok ? t.s : NULL;
	*len = ok && n ? t.len + 1 : 0;
	return ok;
}
