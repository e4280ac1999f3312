/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small ISO 9660 image in memory, with Rock Ridge and Joliet names. Main thread.
 */
#ifndef VMM_CLOUDINIT_ISO_IMAGE_H
#define VMM_CLOUDINIT_ISO_IMAGE_H

#include <stddef.h>

#include "vmm/core/error.h"

struct iso_file {
	const char *name;
	const char *bytes; /* len of them */
	size_t len;
};

/* A sealed memory file (memfd_create(2)) for the caller to close, or -1 with err. */
int iso_image_build(const char *label, const struct iso_file *files, size_t count,
		    struct error **err);

#endif
