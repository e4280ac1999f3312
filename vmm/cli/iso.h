/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CD-ROM image is called: the volume identifier of ISO 9660 (ECMA-119 8.4.7). Any thread.
 */
#ifndef VMM_CLI_ISO_H
#define VMM_CLI_ISO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISO_PRIMARY_OFFSET 0x8000 /* of the primary volume descriptor: 16 sectors of 2 KiB */
#define ISO_PRIMARY_SIZE   72	  /* of what iso_volume_label() looks at */
#define ISO_LABEL_SIZE	   33

/* Pure: descriptor is ISO_PRIMARY_SIZE bytes. False if that is no primary volume descriptor. */
bool iso_volume_label(const uint8_t *descriptor, char label[ISO_LABEL_SIZE]);
/* Whether path is a seed for cloud-init's NoCloud: an ISO called cidata, in either case. */
bool iso_is_cidata(const char *path);

#endif
