/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ATA registers and ATAPI packets ask. Input: a byte that says which and what the drive is
 * like, then FISes of 20 bytes, or packets of 16 bytes to one drive in turn.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/ata/ata_decode.h"
#include "hw/ata/atapi.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void one_fis(struct ata_disk *d, const uint8_t *fis)
{
	struct ata_taskfile tf;
	struct ata_plan p;
	uint8_t out[512], sum = 0;
	uint64_t lba;
	uint32_t sectors;

	if (!ata_parse_fis(fis, &tf))
		return;
	must(tf.lba < UINT64_C(1) << 48);
	ata_decode(&tf, &p);
	must(p.sectors <= 65536 && p.lba < UINT64_C(1) << 48);
	if (p.action == ATA_READ || p.action == ATA_WRITE || p.action == ATA_VERIFY)
		must(p.sectors > 0);
	if (p.action == ATA_SET_FEATURES && ata_set_features(d, &tf))
		must(d->udma <= 6);
	if (p.action == ATA_TABLE_LOG)
		ata_log_page(d, p.lba & 0xff, (uint16_t)(p.lba >> 8), out);
	ata_identify_disk(d, "serial", "1.0", "model", out);
	for (size_t i = 0; i < sizeof(out); i++)
		sum += out[i];
	must(sum == 0);
	if (ata_trim_range(fis, &lba, &sectors))
		must(lba < UINT64_C(1) << 48 && sectors <= 65535);
}

static void one_packet(struct atapi_unit *u, const uint8_t *cdb)
{
	struct atapi_reply r;

	atapi_command(u, cdb, &r);
	must(r.len <= sizeof(r.data));
	must(r.action != ATAPI_DATA || r.len > 0);
	must(r.action != ATAPI_FAILED || u->sense_key != SENSE_NONE);
	if (r.action == ATAPI_READ)
		must(u->medium && !u->tray_open && r.blocks > 0 &&
		     range_inside(r.lba, r.blocks, u->blocks));
	must(u->event <= ATAPI_EVENT_REMOVED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ata_disk disk = {.sectors = UINT64_C(1) << 33, .physical_block = 4096, .trim = true};
	struct atapi_unit unit = {.model = "CD", .version = "1"};
	uint8_t what;

	if (!size)
		return 0;
	what = data[0];
	data++;
	size--;
	unit.medium = what & 2;
	unit.blocks = !unit.medium ? 0 : what & 4 ? UINT64_C(5000000000) : 1000;
	unit.attention = what & 8;
	disk.ncq_failed = what & 16;
	if (what & 1)
		for (; size >= ATA_FIS_H2D_SIZE; size -= ATA_FIS_H2D_SIZE, data += ATA_FIS_H2D_SIZE)
			one_fis(&disk, data);
	else
		for (; size >= ATAPI_CDB; size -= ATAPI_CDB, data += ATAPI_CDB)
			one_packet(&unit, data);
	return 0;
}
