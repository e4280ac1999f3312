/* SPDX-License-Identifier: Apache-2.0 */
/*
 * External data files: the image has the tables alone, and the guest's bytes lie in another file at
 * the guest's offsets ("External data file" in the format's document).
 *
 * The name in the header is taken as it is, so that a relative one is relative to the working
 * directory, as QEMU has it. A node that is opened for its metadata alone (info, check) opens
 * nothing that the image names.
 */
#include <errno.h>

#include "block/qcow2/qcow2.h"

static void synced(struct block_req *req, int ret)
{
	struct qcow2 *s = req->ctx;

	if (ret)
		s->data_unsynced = true;
	qcow2_commit_data_synced(s, ret);
}

bool qcow2_sync_data(struct qcow2 *s)
{
	/* Once in a step: what is written meanwhile is for the next commit. */
	if (!s->data_unsynced || s->data_synced == (int)s->step)
		return false;
	s->data_unsynced = false;
	s->data_synced = s->step;
	qcow2_file_io(s, s->data_req, BLOCK_FLUSH, 0, NULL, NULL, 0);
	return true;
}

bool qcow2_open_data(struct qcow2 *s, const struct block_open *how, struct opts *opts,
		     struct error **err)
{
	const uint32_t metadata = BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_CHECK;

	if (!s->external) {
		s->data = s->file;
		return true;
	}
	if ((how->flags & metadata) == metadata)
		return true;
	if (!block_open_data_file(s->node, how, opts, s->data_name, err))
		return false;
	s->data = s->node->data;
	s->data_req = xcalloc(1, block_req_size(s->data));
	s->data_req->node = s->data;
	s->data_req->done = synced;
	s->data_req->ctx = s;
	return true;
}
