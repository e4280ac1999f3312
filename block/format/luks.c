/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS version 1 as an image format: the header at the file's beginning (block/crypt/luks.h), and
 * behind it the disk, encrypted sector for sector.
 *
 * Options: key-secret, the id of a secret with a password of one of the key slots. An image that is
 * opened for its metadata alone (info) needs none.
 *
 * Thread: the node's loop; opening and amending on a private one.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"
#include "block/crypt/crypt_io.h"
#include "block/crypt/luks_node.h"

static int file_read(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
	struct block_node *file = opaque;

	return range_inside(offset, bytes, file->length) ? block_pread(file, offset, buf, bytes)
							 : -EIO;
}

static int file_write(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
	return block_pwrite(opaque, offset, buf, bytes, 0);
}

static int file_flush(void *opaque)
{
	return block_flush(opaque);
}

static struct luks_io file_io(struct block_node *file)
{
	return (struct luks_io){file_read, file_write, file_flush, file};
}

static bool read_header(struct block_node *node, struct luks *l, struct error **err)
{
	uint8_t buf[LUKS_HEADER] = {0};
	int ret = block_pread(node->file, 0, buf, MIN(node->file->length, (uint64_t)LUKS_HEADER));

	if (ret) {
		error_set_errno(err, ret, "Could not read the LUKS header");
		return false;
	}
	if (!luks_parse(l, buf, node->file->length, err))
		return false;
	if (l->payload > node->file->length) {
		error_set(err, "The LUKS payload begins behind the file's end");
		return false;
	}
	return true;
}

static bool luks_open(struct block_node *node, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	const char *id = opts_get(opts, "key-secret");
	struct luks_node *s = node->opaque;
	const struct objects *objects = how->names ? how->names->objects : NULL;
	struct luks_io io = file_io(node->file);
	struct crypt *crypt;

	if (!read_header(node, &s->luks, err))
		return false;
	node->length = ALIGN_DOWN(node->file->length - s->luks.payload, CRYPT_SECTOR);
	node->limits = node->file->limits;
	node->limits.request_alignment = 1;
	node->limits.discard = false;
	if (how->flags & BLOCK_OPEN_NO_IO)
		return true;
	crypt = luks_open_crypt(&s->luks, &io, objects, "", id, err);
	if (!crypt)
		return false;
	crypt_io_init(&s->io, node, crypt, s->luks.payload);
	node->key_secret = xstrdup(id);
	node->key_option = "key-secret";
	return true;
}

static void luks_close(struct block_node *node)
{
	struct luks_node *s = node->opaque;

	crypt_io_destroy(&s->io);
}

static void luks_submit(struct block_node *node, struct block_req *req)
{
	struct luks_node *s = node->opaque;

	if (s->io.crypt)
		crypt_io_submit(&s->io, req);
	else
		block_complete(req, -EIO);
}

static int luks_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	struct luks_node *s = node->opaque;
	int ret = -EFBIG;

	if (bytes > INT64_MAX - s->luks.payload)
		error_set_errno(err, ret, "Could not resize the image");
	else
		ret = block_truncate(node->file, s->luks.payload + bytes, err);
	if (!ret)
		block_set_length(node, bytes);
	return ret;
}

/* Room alone: what is read there is noise until it is written. */
static int luks_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	struct luks_node *s = node->opaque;

	return mode == PREALLOC_METADATA
		       ? -ENOTSUP
		       : block_preallocate(node->file, from + s->luks.payload, mode);
}

static void info(struct block_node *node, struct block_info *out)
{
	const struct luks_node *s = node->opaque;
	json_t *data = json_object();

	luks_info(&s->luks, false, data);
	out->encrypted = true;
	out->specific = json_pack("{s:s, s:o}", "type", "luks", "data", data);
}

static bool amend(struct block_node *node, struct opts *opts, bool force,
		  const struct objects *objects, struct error **err)
{
	struct luks_node *s = node->opaque;
	struct luks_io io = file_io(node->file);

	return luks_amend_as(&s->luks, &io, objects, node->key_secret, opts, "", force, err);
}

static bool create(const char *filename, const struct block_create *c, struct error **err)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	struct luks_params p;
	struct block_create file = *c;
	uint64_t payload;
	uint8_t *header;
	size_t len;
	int mode = 0, fd, ret;

	if (!opts_get_enum(c->opts, "preallocation", modes, &mode, err) ||
	    !luks_params_read(&p, c->opts, "", c->objects, err))
		return false;
	payload = luks_params_payload(&p);
	if (c->size > INT64_MAX - 511 - payload) {
		error_set(err, "The requested file size is too large");
		return false;
	}
	header = luks_make(&p, &len, err);
	if (!header)
		return false;
	file.size = ALIGN_UP(c->size, 512) + payload;
	file.prealloc = mode == PREALLOC_METADATA ? PREALLOC_OFF : (enum block_prealloc)mode;
	if (!block_create_raw(filename, &file, err)) {
		free(header);
		return false;
	}
	fd = block_create_again(filename, err);
	ret = fd < 0 ? 0 : block_create_write(fd, 0, header, len);
	free(header);
	return fd >= 0 && block_create_end(filename, fd, ret, err);
}

static const struct block_create_option options[] = {
	{"size", "size", NULL, "Virtual disk size"},
	{"key-secret", "str", NULL, "ID of the secret that provides the keyslot passphrase"},
	{"cipher-alg", "str", NULL, "Name of encryption cipher algorithm"},
	{"cipher-mode", "str", NULL, "Name of encryption cipher mode"},
	{"ivgen-alg", "str", NULL, "Name of IV generator algorithm"},
	{"ivgen-hash-alg", "str", NULL, "Name of IV generator hash algorithm"},
	{"hash-alg", "str", NULL, "Name of encryption hash algorithm"},
	{"iter-time", "num", NULL, "Time to spend in PBKDF in milliseconds", true},
	{"keyslot", "num", NULL, "Select a single keyslot to modify explicitly", true, true},
	{"new-secret", "str", NULL, "New secret to set in the matching keyslots", true, true},
	{"old-secret", "str", NULL, "Select all keyslots that match this password", true, true},
	{"state", "str", NULL, "Select new state of affected keyslots (active/inactive)", true,
	 true},
	{"preallocation", "str", NULL, "Preallocation mode (allowed values: off, falloc, full)"},
	{0},
};

const struct block_driver block_luks = {
	.name = "luks",
	.node_size = sizeof(struct luks_node),
	.req_size = sizeof(struct crypt_req),
	.probe = luks_probe,
	.open = luks_open,
	.close = luks_close,
	.submit = luks_submit,
	.truncate = luks_truncate,
	.preallocate = luks_preallocate,
	.amend = amend,
	.info = info,
	.create = create,
	.create_options = options,
};
