/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS version 1 (Clemens Fruhwirth, "LUKS On-Disk Format Specification 1.2.3"): the header, and
 * the master key that up to eight passwords unlock. The header lies at the beginning of a file
 * (driver luks) or in clusters of a qcow2 image.
 *
 *   luks.c       the header's bytes (pure functions on bytes that nobody trusts)
 *   luks_key.c   key slots: unlocking, filling, erasing
 *   luks_make.c  new headers by options, and amending
 *
 * A key slot's key material is the master key blown up to 4000 stripes, of which none may be
 * missing if the key is to be had again, encrypted with what PBKDF2 makes of the password.
 *
 * Main thread, synchronous: deriving a key takes a second or two by design.
 */
#ifndef BLOCK_CRYPT_LUKS_H
#define BLOCK_CRYPT_LUKS_H

#include "block/crypt/cipher.h"
#include "vmm/core/opts.h"
#include "vmm/core/secret.h"

enum {
	LUKS_HEADER = 592,
	LUKS_SLOTS = 8,
	LUKS_STRIPES = 4000,
	LUKS_DIGEST = 20,
	LUKS_SALT = 32,
	LUKS_ALIGN = 4096, /* of new headers' key material and payload */
	/* A header that asks for more is not obeyed: at this rate a password takes minutes. */
	LUKS_MAX_ITERATIONS = 1 << 28,
};

struct luks_slot {
	bool active;
	uint32_t iterations;
	uint8_t salt[LUKS_SALT];
	uint64_t offset; /* bytes */
};

struct luks {
	struct crypt_spec spec;
	const struct crypt_hash *hash;
	uint64_t payload; /* bytes */
	uint32_t key_bytes;
	uint8_t digest[LUKS_DIGEST], digest_salt[LUKS_SALT];
	uint32_t digest_iterations;
	char uuid[41];
	struct luks_slot slots[LUKS_SLOTS];
};

bool luks_probe(const uint8_t *buf, size_t len);
/* buf has LUKS_HEADER bytes; room is how many there are for the header and all key material. */
bool luks_parse(struct luks *l, const uint8_t *buf, uint64_t room, struct error **err);
void luks_store(const struct luks *l, uint8_t buf[LUKS_HEADER]);
/* A slot's 48 bytes, and where in the header they lie. */
enum { LUKS_SLOT_BYTES = 48 };
void luks_store_slot(const struct luks_slot *slot, uint8_t buf[LUKS_SLOT_BYTES]);
static inline uint64_t luks_slot_at(unsigned index)
{
	return 208 + index * UINT64_C(48);
}
/* Bytes of a slot's key material, in whole sectors. */
static inline uint64_t luks_material(const struct luks *l)
{
	return ((uint64_t)l->key_bytes * LUKS_STRIPES + 511) / 512 * 512;
}

/* Where header and key material are. 0 or -errno. */
struct luks_io {
	int (*read)(void *opaque, uint64_t offset, void *buf, size_t bytes);
	int (*write)(void *opaque, uint64_t offset, const void *buf, size_t bytes);
	int (*flush)(void *opaque);
	void *opaque;
};

/* luks_key.c */
/* Tries all active slots; key gets l->key_bytes, which the caller wipes. */
bool luks_unlock(const struct luks *l, const struct luks_io *io, const uint8_t *password,
		 size_t len, uint8_t key[CRYPT_MAX_KEY], struct error **err);
/* One slot: 1 the password is its own, 0 it is not, or -errno. */
int luks_try_slot(const struct luks *l, unsigned index, const struct luks_io *io,
		  const uint8_t *password, size_t len, uint8_t key[CRYPT_MAX_KEY]);
/* Salts, digest and iterations of a new master key. */
bool luks_set_key(struct luks *l, const uint8_t *key, uint32_t iterations, struct error **err);
/* The slot gets the key under a password; it counts when all of it is durable. */
bool luks_fill_slot(struct luks *l, unsigned index, const struct luks_io *io, const uint8_t *key,
		    const uint8_t *password, size_t len, uint32_t iterations, struct error **err);
/* First it does not count any more, then its key material is overwritten. */
bool luks_erase_slot(struct luks *l, unsigned index, const struct luks_io *io, struct error **err);

/* luks_make.c; prefix is what stands before the options' names: "", or "encrypt.". */
struct luks_params {
	struct crypt_spec spec;
	const struct crypt_hash *hash;
	uint64_t iter_ms;
	const uint8_t *password; /* borrowed */
	size_t password_len;
};
/* What those say about a new header; defaults are QEMU's. */
bool luks_params_read(struct luks_params *p, struct opts *opts, const char *prefix,
		      const struct objects *objects, struct error **err);
/* Bytes before the payload. */
uint64_t luks_params_payload(const struct luks_params *p);
/* The header and its first slot's key material, *len bytes; the rest up to the payload is zeroes.
 * NULL with err. Freed by the caller: nothing of it is secret. */
uint8_t *luks_make(const struct luks_params *p, size_t *len, struct error **err);
/* state, new-secret, old-secret, keyslot, iter-time. */
bool luks_amend(struct luks *l, const struct luks_io *io, const uint8_t *key, struct opts *opts,
		const char *prefix, bool force, const struct objects *objects, struct error **err);

#endif
