/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypted images ("Data encryption" in the format's document). The guest's clusters are encrypted
 * sector for sector, metadata is not: data goes through a node above the file (block/crypt), and
 * metadata past it. Compressed clusters are not encrypted, so that none is written; those that are
 * there can be read.
 *
 *   1, AES: AES-128-CBC with the password's first 16 bytes as its key, and the guest's offset for
 *      the IV. Nothing tells whether a password is right. Old images are read and written; new ones
 *      are not made.
 *   2, LUKS: the header extension tells where a LUKS header lies; its payload's place means
 * nothing, and the IV is the offset in the file.
 *
 * Main thread, at opening and amending.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/crypt/luks_node.h"
#include "block/qcow2/qcow2.h"

static int header_read(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
	struct qcow2 *s = opaque;

	return range_inside(offset, bytes, s->crypt_bytes)
		       ? block_pread(s->file, s->crypt_offset + offset, buf, bytes)
		       : -EIO;
}

static int header_write(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
	struct qcow2 *s = opaque;

	return range_inside(offset, bytes, s->crypt_bytes)
		       ? block_pwrite(s->file, s->crypt_offset + offset, buf, bytes, 0)
		       : -EIO;
}

static int header_flush(void *opaque)
{
	return block_flush(((struct qcow2 *)opaque)->file);
}

static struct luks_io header_io(struct qcow2 *s)
{
	return (struct luks_io){header_read, header_write, header_flush, s};
}

static bool read_luks(struct qcow2 *s, struct error **err)
{
	uint8_t buf[LUKS_HEADER];
	int ret = header_read(s, 0, buf, sizeof(buf));

	if (ret) {
		error_set_errno(err, ret, "Could not read the image's LUKS header");
		return false;
	}
	s->luks = xcalloc(1, sizeof(*s->luks));
	return luks_parse(s->luks, buf, s->crypt_bytes, err);
}

static struct crypt *open_aes(const struct objects *objects, const char *id, struct error **err)
{
	struct crypt_spec spec = {.mode = CRYPT_CBC, .ivgen = CRYPT_PLAIN64};
	const uint8_t *password = NULL;
	uint8_t key[16] = {0};
	struct crypt *c;
	size_t len = 0;

	spec.alg = crypt_find_alg("cipher-alg", "aes-128", err);
	if (!spec.alg)
		return NULL;
	if (id)
		password = secret_find(objects, id, &len, err);
	else
		error_set(err, "Parameter 'encrypt.key-secret' is required for cipher");
	if (!password)
		return NULL;
	memcpy(key, password, MIN(len, sizeof(key)));
	c = crypt_new(&spec, key);
	explicit_bzero(key, sizeof(key));
	if (!c)
		error_set_errno(err, ENOMEM, "Could not set up the cipher");
	return c;
}

static bool check_format(const struct qcow2 *s, struct opts *opts, struct error **err)
{
	const char *format = opts_get(opts, "encrypt.format");
	const char *here = s->h.crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks";

	if (!format || !strcmp(format, here))
		return true;
	error_set(err, "Header reported '%s' encryption format but options specify '%s'", here,
		  format);
	return false;
}

bool qcow2_open_crypt(struct qcow2 *s, const struct block_open *how, struct opts *opts,
		      struct error **err)
{
	bool aes = s->h.crypt_method == QCOW2_CRYPT_AES;
	struct block_node *node = s->node, **below = s->external ? &node->data : &node->file;
	struct luks_io io = header_io(s);
	const struct objects *objects = how->names ? how->names->objects : NULL;
	struct crypt *crypt;
	const char *id;

	if (!s->h.crypt_method)
		return true;
	id = opts_get(opts, "encrypt.key-secret");
	if (!check_format(s, opts, err) || (!aes && !read_luks(s, err)))
		return false;
	if (how->flags & BLOCK_OPEN_NO_IO) {
		s->data = NULL;
		return true;
	}
	crypt = aes ? open_aes(objects, id, err)
		    : luks_open_crypt(s->luks, &io, objects, "encrypt.", id, err);
	if (!crypt)
		return false;
	node->key_secret = xstrdup(id);
	node->key_option = "encrypt.key-secret";
	*below = crypt_node_above(*below, crypt, aes);
	s->data = *below;
	s->guest_iv = aes;
	block_init_req_bytes(node);
	return true;
}

static bool is_crypt_option(const char *key)
{
	return !strncmp(key, "encrypt.", 8);
}

bool qcow2_amend_crypt(struct qcow2 *s, struct opts *opts, bool force,
		       const struct objects *objects, struct error **err)
{
	struct luks_io io = header_io(s);
	bool any = false;

	for (size_t i = 0; i < opts->count; i++)
		any |= is_crypt_option(opts->items[i].key);
	if (!any)
		return true;
	if (!s->luks) {
		error_set(err, s->h.crypt_method
				       ? "Only LUKS encryption options can be amended for "
					 "qcow2 with 'encrypt.format'"
				       : "No encryption in image header");
		return false;
	}
	return luks_amend_as(s->luks, &io, objects, s->node->key_secret, opts, "encrypt.", force,
			     err);
}
