/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task's data: the physical region descriptor table (AHCI 1.3.1, 4.2.3.3) read once, entry by
 * entry, and turned into host addresses or copied through.
 *
 * Nothing the table says is believed: its addresses must be RAM, and its lengths only ever make the
 * transfer shorter. Thread: main loop, with the adapter's lock. Owner: the adapter.
 */
#include <errno.h>
#include <stdlib.h>

#include "hw/ata/ahci_port.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum { PRD_SIZE = 16, PRD_LEN_MASK = 0x3fffff };

struct prd {
	uint64_t addr;
	uint32_t len; /* bytes, 1 to 4 MiB */
};

static const struct guest_mem *task_mem(const struct ata_task *t)
{
	return &t->port->hba->pci.dev.vm->mem;
}

static bool read_prd(const struct ata_task *t, uint32_t i, struct prd *prd)
{
	uint8_t raw[PRD_SIZE];

	if (!gm_read(task_mem(t), t->prdt + (uint64_t)i * PRD_SIZE, raw, sizeof(raw)))
		return false;
	prd->addr = load_le64(raw);
	prd->len = (load_le32(raw + 12) & PRD_LEN_MASK) + 1;
	return true;
}

static bool grow(struct ata_task *t)
{
	int room = t->iov_room ? t->iov_room * 2 : 32;

	if (room > ATA_MAX_IOV)
		return false;
	t->iov = xrealloc(t->iov, room * sizeof(*t->iov));
	t->extents = xrealloc(t->extents, room * sizeof(*t->extents));
	t->iov_room = room;
	return true;
}

/* Appends [addr, addr + len). */
static int append(struct ata_task *t, uint64_t addr, uint32_t len, enum gm_direction dir)
{
	int n;

	for (;;) {
		if (t->extent_count < t->iov_room) {
			n = gm_map(task_mem(t), addr, len, dir, t->iov + t->iovcnt,
				   t->iov_room - t->iovcnt);
			if (n != -E2BIG)
				break;
		}
		if (!grow(t))
			return -E2BIG;
	}
	if (n < 0)
		return n;
	t->extents[t->extent_count++] = (struct ata_extent){addr, len};
	t->iovcnt += n;
	return 0;
}

int ata_task_map(struct ata_task *t, uint64_t bytes, enum gm_direction dir)
{
	struct prd prd;

	t->iovcnt = t->extent_count = 0;
	for (uint32_t i = 0; bytes && i < t->prdtl; i++) {
		if (!read_prd(t, i, &prd))
			return -EFAULT;
		uint32_t len = (uint32_t)MIN(bytes, (uint64_t)prd.len);
		int ret = append(t, prd.addr, len, dir);
		if (ret < 0)
			return ret;
		bytes -= len;
	}
	return bytes ? -EMSGSIZE : 0;
}

void ata_task_mark_dirty(const struct ata_task *t)
{
	for (int i = 0; i < t->extent_count; i++)
		gm_mark_dirty(task_mem(t), t->extents[i].gpa, t->extents[i].len);
}

static int64_t copy(struct ata_task *t, uint8_t *data, uint32_t len, enum gm_direction dir)
{
	uint32_t done = 0;
	struct prd prd;

	for (uint32_t i = 0; done < len && i < t->prdtl; i++) {
		if (!read_prd(t, i, &prd))
			return -EFAULT;
		uint32_t n = MIN(len - done, prd.len);
		bool ok = dir == GM_TO_GUEST ? gm_write(task_mem(t), prd.addr, data + done, n)
					     : gm_read(task_mem(t), prd.addr, data + done, n);
		if (!ok)
			return -EFAULT;
		done += n;
	}
	return done;
}

int64_t ata_task_give(struct ata_task *t, const void *data, uint32_t len)
{
	return copy(t, (uint8_t *)data, len, GM_TO_GUEST);
}

int64_t ata_task_take(struct ata_task *t, void *data, uint32_t len)
{
	return copy(t, data, len, GM_FROM_GUEST);
}
