/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key slots. A slot is filled in this order: key material and the slot's numbers, sync, the word
 * that makes it count (in one sector with nothing else of it), sync. It is erased the other way
 * round. So a power cut leaves it as it was, or as it will be.
 *
 * Buffers with keys in them are wiped, whatever happens. Main thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "block/crypt/luks_node.h"
#include "vmm/core/util.h"

static bool random_bytes(void *buf, size_t len, struct error **err)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = getrandom((uint8_t *)buf + at, len - at, 0);

		if (n < 0 && errno != EINTR) {
			error_set_errno(err, errno, "Could not get random bytes");
			return false;
		}
		at += MAX(n, 0);
	}
	return true;
}

/* Every byte of a stripe is made to depend on all of its bytes. */
static void diffuse(const struct crypt_hash *hash, uint8_t *block, size_t len)
{
	size_t unit = crypt_digest_bytes(hash);
	uint8_t digest[CRYPT_MAX_DIGEST], number[4];

	for (size_t at = 0, i = 0; at < len; at += unit, i++) {
		size_t n = MIN(unit, len - at);

		store_be32(number, i);
		crypt_digest(hash, number, 4, block + at, n, digest);
		memcpy(block + at, digest, n);
	}
	explicit_bzero(digest, sizeof(digest));
}

/* What the stripes but the last come to. */
static void fold(const struct luks *l, const uint8_t *stripes, uint8_t *block)
{
	memset(block, 0, l->key_bytes);
	for (unsigned i = 0; i < LUKS_STRIPES - 1; i++) {
		for (size_t k = 0; k < l->key_bytes; k++)
			block[k] ^= stripes[i * l->key_bytes + k];
		diffuse(l->hash, block, l->key_bytes);
	}
}

static void merge(const struct luks *l, const uint8_t *stripes, uint8_t *key)
{
	fold(l, stripes, key);
	for (size_t k = 0; k < l->key_bytes; k++)
		key[k] ^= stripes[(LUKS_STRIPES - 1) * l->key_bytes + k];
}

static bool split(const struct luks *l, const uint8_t *key, uint8_t *stripes, struct error **err)
{
	uint8_t block[CRYPT_MAX_KEY];

	if (!random_bytes(stripes, (LUKS_STRIPES - 1) * l->key_bytes, err))
		return false;
	fold(l, stripes, block);
	for (size_t k = 0; k < l->key_bytes; k++)
		stripes[(LUKS_STRIPES - 1) * l->key_bytes + k] = block[k] ^ key[k];
	explicit_bzero(block, sizeof(block));
	return true;
}

static void key_digest(const struct luks *l, const uint8_t *key, uint8_t digest[LUKS_DIGEST])
{
	crypt_pbkdf2(l->hash, key, l->key_bytes, l->digest_salt, LUKS_SALT, l->digest_iterations,
		     digest, LUKS_DIGEST);
}

/* The cipher of a slot's key material. */
static struct crypt *slot_cipher(const struct luks *l, const struct luks_slot *slot,
				 const uint8_t *password, size_t len)
{
	uint8_t key[CRYPT_MAX_KEY];
	struct crypt *c;

	crypt_pbkdf2(l->hash, password, len, slot->salt, LUKS_SALT, slot->iterations, key,
		     l->key_bytes);
	c = crypt_new(&l->spec, key);
	explicit_bzero(key, sizeof(key));
	return c;
}

int luks_try_slot(const struct luks *l, unsigned index, const struct luks_io *io,
		  const uint8_t *password, size_t len, uint8_t key[CRYPT_MAX_KEY])
{
	const struct luks_slot *slot = &l->slots[index];
	size_t bytes = luks_material(l);
	uint8_t *stripes = malloc(bytes), digest[LUKS_DIGEST];
	int ret = stripes ? io->read(io->opaque, slot->offset, stripes, bytes) : -ENOMEM;
	struct crypt *c = ret ? NULL : slot_cipher(l, slot, password, len);

	if (!ret && !c)
		ret = -ENOMEM;
	if (!ret) {
		crypt_decrypt(c, 0, stripes, bytes);
		merge(l, stripes, key);
		key_digest(l, key, digest);
		ret = !memcmp(digest, l->digest, LUKS_DIGEST);
	}
	crypt_free(c);
	secret_free(stripes, bytes);
	return ret;
}

bool luks_unlock(const struct luks *l, const struct luks_io *io, const uint8_t *password,
		 size_t len, uint8_t key[CRYPT_MAX_KEY], struct error **err)
{
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		int ret = l->slots[i].active ? luks_try_slot(l, i, io, password, len, key) : 0;

		if (ret > 0)
			return true;
		explicit_bzero(key, CRYPT_MAX_KEY);
		if (ret) {
			error_set_errno(err, ret, "Could not read LUKS key slot %u", i);
			return false;
		}
	}
	error_set(err, "Invalid password, cannot unlock any keyslot");
	return false;
}

bool luks_set_key(struct luks *l, const uint8_t *key, uint32_t iterations, struct error **err)
{
	l->digest_iterations = iterations;
	if (!random_bytes(l->digest_salt, LUKS_SALT, err))
		return false;
	key_digest(l, key, l->digest);
	return true;
}

static int write_slot(const struct luks *l, unsigned index, const struct luks_io *io)
{
	uint8_t buf[LUKS_SLOT_BYTES];
	int ret;

	luks_store_slot(&l->slots[index], buf);
	ret = io->write(io->opaque, luks_slot_at(index), buf, sizeof(buf));
	return ret ? ret : io->flush(io->opaque);
}

/* The word alone that says whether the slot counts. */
static int write_state(const struct luks *l, unsigned index, const struct luks_io *io)
{
	uint8_t buf[LUKS_SLOT_BYTES];
	int ret;

	luks_store_slot(&l->slots[index], buf);
	ret = io->write(io->opaque, luks_slot_at(index), buf, 4);
	return ret ? ret : io->flush(io->opaque);
}

/* The stripes are ready: to the disk with them. */
static int put_slot(struct luks *l, unsigned index, const struct luks_io *io,
		    const uint8_t *stripes, size_t bytes)
{
	struct luks_slot *slot = &l->slots[index];
	int ret = 0;

	if (slot->active) {
		slot->active = false;
		ret = write_state(l, index, io);
	}
	if (!ret)
		ret = io->write(io->opaque, slot->offset, stripes, bytes);
	if (!ret)
		ret = write_slot(l, index, io);
	if (!ret) {
		slot->active = true;
		ret = write_state(l, index, io);
	}
	return ret;
}

bool luks_fill_slot(struct luks *l, unsigned index, const struct luks_io *io, const uint8_t *key,
		    const uint8_t *password, size_t len, uint32_t iterations, struct error **err)
{
	struct luks_slot *slot = &l->slots[index];
	size_t bytes = luks_material(l);
	uint8_t *stripes = calloc(1, bytes);
	struct crypt *c = NULL;
	bool ok = false;
	int ret = -ENOMEM;

	if (!stripes) {
		error_set_errno(err, ret, "Could not write LUKS key slot %u", index);
		return false;
	}
	if (split(l, key, stripes, err) && random_bytes(slot->salt, LUKS_SALT, err)) {
		slot->iterations = iterations;
		c = slot_cipher(l, slot, password, len);
		if (c) {
			crypt_encrypt(c, 0, stripes, bytes);
			ret = put_slot(l, index, io, stripes, bytes);
		}
		ok = !ret;
		if (!ok)
			error_set_errno(err, ret, "Could not write LUKS key slot %u", index);
	}
	crypt_free(c);
	secret_free(stripes, bytes);
	return ok;
}

bool luks_erase_slot(struct luks *l, unsigned index, const struct luks_io *io, struct error **err)
{
	struct luks_slot *slot = &l->slots[index];
	size_t bytes = luks_material(l);
	uint8_t *noise = malloc(bytes);
	int ret = noise ? 0 : -ENOMEM;

	if (!ret && !random_bytes(noise, bytes, err)) {
		free(noise);
		return false;
	}
	slot->active = false;
	if (!ret)
		ret = write_state(l, index, io);
	if (!ret)
		ret = io->write(io->opaque, slot->offset, noise, bytes);
	if (!ret) {
		slot->iterations = 0;
		memset(slot->salt, 0, LUKS_SALT);
		ret = write_slot(l, index, io);
	}
	if (ret)
		error_set_errno(err, ret, "Could not erase LUKS key slot %u", index);
	free(noise);
	return !ret;
}

static bool unlock_as(const struct luks *l, const struct luks_io *io, const struct objects *objects,
		      const char *prefix, const char *id, uint8_t key[CRYPT_MAX_KEY],
		      struct error **err)
{
	const uint8_t *password;
	size_t len = 0;

	if (!id) {
		error_set(err, "Parameter '%skey-secret' is required for cipher", prefix);
		return false;
	}
	password = secret_find(objects, id, &len, err);
	return password && luks_unlock(l, io, password, len, key, err);
}

struct crypt *luks_open_crypt(const struct luks *l, const struct luks_io *io,
			      const struct objects *objects, const char *prefix, const char *id,
			      struct error **err)
{
	uint8_t key[CRYPT_MAX_KEY];
	struct crypt *c;

	if (!unlock_as(l, io, objects, prefix, id, key, err))
		return NULL;
	c = crypt_new(&l->spec, key);
	explicit_bzero(key, sizeof(key));
	if (!c)
		error_set_errno(err, ENOMEM, "Could not set up the cipher");
	return c;
}

bool luks_amend_as(struct luks *l, const struct luks_io *io, const struct objects *objects,
		   const char *id, struct opts *opts, const char *prefix, bool force,
		   struct error **err)
{
	uint8_t key[CRYPT_MAX_KEY];
	bool ok;

	if (!unlock_as(l, io, objects, prefix, id, key, err))
		return false;
	ok = luks_amend(l, io, key, opts, prefix, force, objects, err);
	explicit_bzero(key, sizeof(key));
	return ok;
}
