/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What format a file's first bytes tell of. Pure; any thread.
 *
 * Formats that are only known by name are refused rather than shown to a guest as raw bytes: a
 * guess of raw would let the guest see, and change, what belongs to the container.
 */
#include "block/driver.h"

static const struct block_driver *const known[] = {
	&block_qcow2, &block_vdi, &block_vpc,	    &block_vhdx,  &block_vmdk,
	&block_qcow1, &block_qed, &block_parallels, &block_bochs, &block_cloop,
	&block_luks,
};

static const struct {
	const char *name;
	uint16_t offset, len;
	const char *magic;
} foreign[] = {
	{"vmdk", 0, 4, "COWD"},
	{"luks2", 0, 8, "LUKS\xba\xbe\0\2"},
};

const struct block_driver *block_probe(const uint8_t *buf, size_t len, const char **unsupported)
{
	*unsupported = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i]->probe(buf, len))
			return known[i];
	for (size_t i = 0; i < ARRAY_SIZE(foreign) && !*unsupported; i++)
		if (len >= (size_t)foreign[i].offset + foreign[i].len &&
		    !memcmp(buf + foreign[i].offset, foreign[i].magic, foreign[i].len))
			*unsupported = foreign[i].name;
	return &block_raw;
}
