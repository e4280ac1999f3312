/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cloud-init's NoCloud seed, made in memory: an ISO 9660 image called cidata with user-data,
 * meta-data and network-config in its root
 * (https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html).
 *
 * Main thread, while options are handled.
 */
#ifndef VMM_CLOUDINIT_SEED_H
#define VMM_CLOUDINIT_SEED_H

#include <stdbool.h>
#include <stddef.h>

#include "vmm/core/error.h"

struct seed_options {
	const char *user_data; /* file names; NULL: not given, but for user_data */
	const char *meta_data;
	const char *network_config;
	const char *ssh_key; /* public keys, one a line, as in authorized_keys(5) */
	const char *name;    /* the guest's, for its host name; NULL: none */
};

/* A descriptor of the image (memfd_create(2), sealed) that the caller closes, or -1 with err.
 * "/proc/self/fd/N" names it for block_open() as a raw, read-only file. */
int seed_build(const struct seed_options *options, struct error **err);

/* The pieces, pure; text is the caller's to free. */
struct seed_text {
	char *bytes;
	size_t len;
};
/* meta-data where none is given: an instance-id that changes with the other files, so that
 * cloud-init runs again when they do, and local-hostname from name if that can be one. */
struct seed_text seed_meta_data(const struct seed_text *user, const struct seed_text *network,
				const char *keys, const char *name);
/* Adds public-keys from the lines of keys. */
bool seed_add_keys(struct seed_text *meta, const char *keys, struct error **err);

#endif
