/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypting sectors of 512 bytes, as LUKS and qcow2 name the ways to do it: a cipher ("aes-256"),
 * a mode ("xts"), where a sector's initialization vector comes from ("plain64", or "essiv" with a
 * hash), and PBKDF2. Ciphers and hashes are nettle's; the modes over a run of sectors are here,
 * because nettle's XTS takes one block at a time.
 *
 * Pure but for memory: a struct crypt is never changed between crypt_new() and crypt_free(), so any
 * number of threads may use it. Keys lie in it and in the caller's buffers, which the caller wipes.
 */
#ifndef BLOCK_CRYPT_CIPHER_H
#define BLOCK_CRYPT_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

enum { CRYPT_SECTOR = 512, CRYPT_MAX_KEY = 64, CRYPT_MAX_DIGEST = 64 };

struct crypt_alg;
struct crypt_hash;

enum crypt_mode { CRYPT_CBC, CRYPT_XTS, CRYPT_ECB, CRYPT_CTR };
enum crypt_ivgen { CRYPT_PLAIN, CRYPT_PLAIN64, CRYPT_ESSIV };

struct crypt_spec {
	const struct crypt_alg *alg;
	enum crypt_mode mode;
	enum crypt_ivgen ivgen;
	const struct crypt_hash *ivhash; /* of essiv; else NULL */
};

/* By QEMU's names ("aes-256", "sha256", "xts", "plain64"); what is wrong is said of parameter
 * key. */
const struct crypt_alg *crypt_find_alg(const char *key, const char *name, struct error **err);
const struct crypt_hash *crypt_find_hash(const char *key, const char *name, struct error **err);
bool crypt_find_mode(const char *key, const char *name, enum crypt_mode *mode, struct error **err);
bool crypt_find_ivgen(const char *key, const char *name, enum crypt_ivgen *ivgen,
		      struct error **err);
const char *crypt_alg_name(const struct crypt_alg *alg);
const char *crypt_hash_name(const struct crypt_hash *hash);
const char *crypt_mode_name(enum crypt_mode mode);
const char *crypt_ivgen_name(enum crypt_ivgen ivgen);

/* By the names in a LUKS header: "aes" and "xts-plain64", with so many bytes of key. */
bool crypt_spec_parse(struct crypt_spec *spec, const char *cipher, const char *mode,
		      size_t key_bytes, struct error **err);
/* The reverse, each of 32 bytes. */
void crypt_spec_names(const struct crypt_spec *spec, char *cipher, char *mode);
/* The variant of a cipher ("aes") that has so many bytes of key in spec's mode. */
bool crypt_spec_set_alg(struct crypt_spec *spec, const char *cipher, size_t key_bytes,
			struct error **err);
/* Whether cipher, mode and IV go together. */
bool crypt_spec_check(const struct crypt_spec *spec, struct error **err);
size_t crypt_key_bytes(const struct crypt_spec *spec);

/* NULL: no memory. spec was checked, key has crypt_key_bytes(). */
struct crypt *crypt_new(const struct crypt_spec *spec, const uint8_t *key);
/* Wipes. NULL is allowed. */
void crypt_free(struct crypt *c);
/* In place; bytes is a multiple of 512, the first of which is that sector. */
void crypt_encrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes);
void crypt_decrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes);

size_t crypt_digest_bytes(const struct crypt_hash *hash);
/* out gets crypt_digest_bytes(). */
void crypt_digest(const struct crypt_hash *hash, const void *a, size_t a_len, const void *b,
		  size_t b_len, uint8_t *out);
/* iterations is not 0. */
void crypt_pbkdf2(const struct crypt_hash *hash, const uint8_t *password, size_t len,
		  const uint8_t *salt, size_t salt_len, uint32_t iterations, uint8_t *out,
		  size_t out_len);
/* How many iterations, for out_len bytes, take that long on this host; at least 1. */
uint64_t crypt_pbkdf2_count(const struct crypt_hash *hash, size_t out_len, uint64_t ms);

#endif
