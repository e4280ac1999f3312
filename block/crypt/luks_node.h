/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS headers under nodes: what driver luks keeps, and what it shares with qcow2. Main thread.
 */
#ifndef BLOCK_CRYPT_LUKS_NODE_H
#define BLOCK_CRYPT_LUKS_NODE_H

#include "block/crypt/crypt_io.h"
#include "block/crypt/luks.h"

struct luks_node {
	struct luks luks;
	struct crypt_io io; /* crypt is NULL: opened for its metadata alone */
};

/* What info tells of a header, into an object. */
struct json_t;
void luks_info(const struct luks *l, bool in_qcow2, struct json_t *o);
/* Unlocks with the secret id (NULL: that it is missing is the error). */
struct crypt *luks_open_crypt(const struct luks *l, const struct luks_io *io,
			      const struct objects *objects, const char *prefix, const char *id,
			      struct error **err);
/* luks_amend() by one who has that secret. */
bool luks_amend_as(struct luks *l, const struct luks_io *io, const struct objects *objects,
		   const char *id, struct opts *opts, const char *prefix, bool force,
		   struct error **err);

#endif
