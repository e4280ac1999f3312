/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The algorithms behind cipher.h, by nettle. XTS is IEEE 1619's, with the sector's number as its
 * tweak; ESSIV is Clemens Fruhwirth's ("New Methods in Hard Disk Encryption").
 *
 * Sectors are worked on in groups, so that the cipher is given many blocks at a time. Without
 * nettle no name of an algorithm is known, and what needs one is refused by that.
 */
#include "block/crypt/cipher.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "vmm/core/secret.h"
#include "vmm/core/util.h"

#ifdef CONFIG_NETTLE
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/hmac.h>
#include <nettle/memxor.h>
#include <nettle/nettle-meta.h>
#include <nettle/pbkdf2.h>

enum { BLOCK_MAX = 16, GROUP = 8 /* sectors */ };

struct crypt_alg {
	const char *name; /* up to '-' it is LUKS's */
	const struct nettle_cipher *cipher;
};
struct crypt_hash {
	const char *name;
	const struct nettle_hash *hash;
};

static const struct crypt_alg algs[] = {
	{"aes-128", &nettle_aes128},	     {"aes-192", &nettle_aes192},
	{"aes-256", &nettle_aes256},	     {"serpent-128", &nettle_serpent128},
	{"serpent-192", &nettle_serpent192}, {"serpent-256", &nettle_serpent256},
	{"twofish-128", &nettle_twofish128}, {"twofish-192", &nettle_twofish192},
	{"twofish-256", &nettle_twofish256}, {"cast5-128", &nettle_cast128},
};
static const struct crypt_hash hashes[] = {
	{"sha1", &nettle_sha1},	    {"sha224", &nettle_sha224}, {"sha256", &nettle_sha256},
	{"sha384", &nettle_sha384}, {"sha512", &nettle_sha512}, {"ripemd160", &nettle_ripemd160},
	{"md5", &nettle_md5},
};

struct crypt {
	struct crypt_spec spec;
	const struct nettle_cipher *cipher, *iv_cipher;
	size_t context; /* bytes of each */
	void *encrypt, *decrypt;
	void *iv; /* encrypts the tweak (xts); NULL for others */
	void *essiv;
	size_t essiv_context;
};

const struct crypt_alg *crypt_find_alg(const char *key, const char *name, struct error **err)
{
	for (size_t i = 0; i < ARRAY_SIZE(algs); i++)
		if (!strcmp(algs[i].name, name))
			return &algs[i];
	error_set(err, "Parameter '%s' does not accept value '%.40s'", key, name);
	return NULL;
}

const struct crypt_hash *crypt_find_hash(const char *key, const char *name, struct error **err)
{
	for (size_t i = 0; i < ARRAY_SIZE(hashes); i++)
		if (!strcmp(hashes[i].name, name))
			return &hashes[i];
	error_set(err, "Parameter '%s' does not accept value '%.40s'", key, name);
	return NULL;
}

const char *crypt_alg_name(const struct crypt_alg *alg)
{
	return alg->name;
}

const char *crypt_hash_name(const struct crypt_hash *hash)
{
	return hash->name;
}

/* The variant of a cipher ("aes") that has keys of that size, or NULL. */
static const struct crypt_alg *of_key_size(const char *name, size_t len, size_t key_bytes)
{
	for (size_t i = 0; i < ARRAY_SIZE(algs); i++)
		if (strcspn(algs[i].name, "-") == len && !strncmp(algs[i].name, name, len) &&
		    algs[i].cipher->key_size == key_bytes)
			return &algs[i];
	return NULL;
}

static const struct crypt_alg *essiv_alg(const struct crypt_spec *spec)
{
	return of_key_size(spec->alg->name, strcspn(spec->alg->name, "-"),
			   spec->ivhash->hash->digest_size);
}

bool crypt_spec_set_alg(struct crypt_spec *spec, const char *cipher, size_t key_bytes,
			struct error **err)
{
	size_t size = spec->mode == CRYPT_XTS ? key_bytes / 2 : key_bytes;

	spec->alg = spec->mode == CRYPT_XTS && key_bytes % 2
			    ? NULL
			    : of_key_size(cipher, strlen(cipher), size);
	if (!spec->alg)
		error_set(err, "Cipher '%.32s' with %zu bytes of key is not supported", cipher,
			  key_bytes);
	return spec->alg != NULL;
}

bool crypt_spec_check(const struct crypt_spec *spec, struct error **err)
{
	if (spec->mode == CRYPT_XTS && spec->alg->cipher->block_size != 16) {
		error_set(err, "Cipher mode xts needs a cipher with blocks of 16 bytes, unlike %s",
			  spec->alg->name);
		return false;
	}
	if (spec->ivgen == CRYPT_ESSIV && !essiv_alg(spec)) {
		error_set(err, "No variant of %s has keys as long as a digest of %s, for essiv",
			  spec->alg->name, spec->ivhash->name);
		return false;
	}
	return true;
}

size_t crypt_key_bytes(const struct crypt_spec *spec)
{
	return spec->alg->cipher->key_size * (spec->mode == CRYPT_XTS ? 2u : 1u);
}

static void *context(size_t bytes)
{
	void *p;

	return posix_memalign(&p, 64, ALIGN_UP(bytes, 64)) ? NULL : p;
}

void crypt_free(struct crypt *c)
{
	if (!c)
		return;
	secret_free(c->encrypt, c->context);
	secret_free(c->decrypt, c->context);
	secret_free(c->iv, c->context);
	secret_free(c->essiv, c->essiv_context);
	free(c);
}

/* The key of essiv's cipher is the key's digest. */
static bool init_essiv(struct crypt *c, const uint8_t *key)
{
	uint8_t digest[CRYPT_MAX_DIGEST];

	c->iv_cipher = essiv_alg(&c->spec)->cipher;
	c->essiv_context = c->iv_cipher->context_size;
	c->essiv = context(c->essiv_context);
	if (!c->essiv)
		return false;
	crypt_digest(c->spec.ivhash, key, crypt_key_bytes(&c->spec), NULL, 0, digest);
	c->iv_cipher->set_encrypt_key(c->essiv, digest);
	explicit_bzero(digest, sizeof(digest));
	return true;
}

struct crypt *crypt_new(const struct crypt_spec *spec, const uint8_t *key)
{
	struct crypt *c = calloc(1, sizeof(*c));
	const struct nettle_cipher *cipher = spec->alg->cipher;

	if (!c)
		return NULL;
	c->spec = *spec;
	c->cipher = cipher;
	c->context = cipher->context_size;
	c->encrypt = context(c->context);
	c->decrypt = context(c->context);
	if (spec->mode == CRYPT_XTS)
		c->iv = context(c->context);
	if (!c->encrypt || !c->decrypt || (spec->mode == CRYPT_XTS && !c->iv) ||
	    (spec->ivgen == CRYPT_ESSIV && !init_essiv(c, key))) {
		crypt_free(c);
		return NULL;
	}
	cipher->set_encrypt_key(c->encrypt, key);
	cipher->set_decrypt_key(c->decrypt, key);
	if (c->iv)
		cipher->set_encrypt_key(c->iv, key + cipher->key_size);
	return c;
}

/* The IVs of count sectors, a block each. */
static void make_ivs(const struct crypt *c, uint64_t sector, size_t count, uint8_t *out)
{
	size_t block = c->cipher->block_size;

	memset(out, 0, count * block);
	for (size_t i = 0; i < count; i++) {
		if (c->spec.ivgen == CRYPT_PLAIN)
			store_le32(out + i * block, sector + i);
		else
			store_le64(out + i * block, sector + i);
	}
	if (c->essiv)
		c->iv_cipher->encrypt(c->essiv, count * block, out, out);
}

/* The tweaks of a sector's blocks: each is the one before times x in GF(2^128). */
static void spread_tweak(uint8_t *out, const uint8_t *first)
{
	uint64_t lo = load_le64(first), hi = load_le64(first + 8), carry;

	for (size_t i = 0; i < CRYPT_SECTOR; i += 16) {
		store_le64(out + i, lo);
		store_le64(out + i + 8, hi);
		carry = -(hi >> 63) & 0x87;
		hi = hi << 1 | lo >> 63;
		lo = lo << 1 ^ carry;
	}
}

static void xts(const struct crypt *c, uint8_t *ivs, size_t count, uint8_t *buf, bool encrypt)
{
	uint8_t tweaks[GROUP * CRYPT_SECTOR];
	size_t bytes = count * CRYPT_SECTOR;

	c->cipher->encrypt(c->iv, count * 16, ivs, ivs);
	for (size_t i = 0; i < count; i++)
		spread_tweak(tweaks + i * CRYPT_SECTOR, ivs + i * 16);
	memxor(buf, tweaks, bytes);
	if (encrypt)
		c->cipher->encrypt(c->encrypt, bytes, buf, buf);
	else
		c->cipher->decrypt(c->decrypt, bytes, buf, buf);
	memxor(buf, tweaks, bytes);
}

static void one_sector(const struct crypt *c, uint8_t *iv, uint8_t *buf, bool encrypt)
{
	const struct nettle_cipher *n = c->cipher;

	if (c->spec.mode == CRYPT_CTR)
		ctr_crypt(c->encrypt, n->encrypt, n->block_size, iv, CRYPT_SECTOR, buf, buf);
	else if (c->spec.mode == CRYPT_CBC && encrypt)
		cbc_encrypt(c->encrypt, n->encrypt, n->block_size, iv, CRYPT_SECTOR, buf, buf);
	else if (c->spec.mode == CRYPT_CBC)
		cbc_decrypt(c->decrypt, n->decrypt, n->block_size, iv, CRYPT_SECTOR, buf, buf);
	else if (encrypt)
		n->encrypt(c->encrypt, CRYPT_SECTOR, buf, buf);
	else
		n->decrypt(c->decrypt, CRYPT_SECTOR, buf, buf);
}

static void run(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes, bool encrypt)
{
	uint8_t ivs[GROUP * BLOCK_MAX];

	for (size_t left = bytes / CRYPT_SECTOR, n; left; left -= n) {
		n = MIN(left, (size_t)GROUP);
		make_ivs(c, sector, n, ivs);
		if (c->spec.mode == CRYPT_XTS)
			xts(c, ivs, n, buf, encrypt);
		else
			for (size_t i = 0; i < n; i++)
				one_sector(c, ivs + i * c->cipher->block_size,
					   buf + i * CRYPT_SECTOR, encrypt);
		sector += n;
		buf += n * CRYPT_SECTOR;
	}
}

void crypt_encrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes)
{
	run(c, sector, buf, bytes, true);
}

void crypt_decrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes)
{
	run(c, sector, buf, bytes, false);
}

/* What a hash keeps between updates; the largest is SHA-512's. */
union hash_context {
	struct sha512_ctx largest;
	uint64_t words[32];
};

size_t crypt_digest_bytes(const struct crypt_hash *hash)
{
	return hash->hash->digest_size;
}

void crypt_digest(const struct crypt_hash *hash, const void *a, size_t a_len, const void *b,
		  size_t b_len, uint8_t *out)
{
	union hash_context h;

	hash->hash->init(&h);
	hash->hash->update(&h, a_len, a);
	if (b_len)
		hash->hash->update(&h, b_len, b);
	hash->hash->digest(&h, hash->hash->digest_size, out);
	explicit_bzero(&h, sizeof(h));
}

struct mac {
	const struct nettle_hash *hash;
	union hash_context outer, inner, state;
};

static void mac_update(void *ctx, size_t len, const uint8_t *data)
{
	struct mac *m = ctx;

	hmac_update(&m->state, m->hash, len, data);
}

static void mac_digest(void *ctx, size_t len, uint8_t *out)
{
	struct mac *m = ctx;

	hmac_digest(&m->outer, &m->inner, &m->state, m->hash, len, out);
}

void crypt_pbkdf2(const struct crypt_hash *hash, const uint8_t *password, size_t len,
		  const uint8_t *salt, size_t salt_len, uint32_t iterations, uint8_t *out,
		  size_t out_len)
{
	struct mac m = {.hash = hash->hash};

	hmac_set_key(&m.outer, &m.inner, &m.state, m.hash, len, password);
	pbkdf2(&m, mac_update, mac_digest, hash->hash->digest_size, iterations, salt_len, salt,
	       out_len, out);
	explicit_bzero(&m, sizeof(m));
}

#else

struct crypt_alg {
	const char *name;
};
struct crypt_hash {
	const char *name;
};

static void missing(struct error **err)
{
	error_set(err, "Encryption needs nettle, which this program was built without");
}

const struct crypt_alg *crypt_find_alg(const char *key, const char *name, struct error **err)
{
	missing(err);
	return NULL;
}

const struct crypt_hash *crypt_find_hash(const char *key, const char *name, struct error **err)
{
	missing(err);
	return NULL;
}

bool crypt_spec_set_alg(struct crypt_spec *spec, const char *cipher, size_t key_bytes,
			struct error **err)
{
	missing(err);
	return false;
}

bool crypt_spec_check(const struct crypt_spec *spec, struct error **err)
{
	missing(err);
	return false;
}

/* What follows needs one of the above first, and so is never reached. */

const char *crypt_alg_name(const struct crypt_alg *alg)
{
	return alg->name;
}

const char *crypt_hash_name(const struct crypt_hash *hash)
{
	return hash->name;
}

size_t crypt_key_bytes(const struct crypt_spec *spec)
{
	return 0;
}

struct crypt *crypt_new(const struct crypt_spec *spec, const uint8_t *key)
{
	return NULL;
}

void crypt_free(struct crypt *c)
{
}

void crypt_encrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes)
{
}

void crypt_decrypt(const struct crypt *c, uint64_t sector, uint8_t *buf, size_t bytes)
{
}

size_t crypt_digest_bytes(const struct crypt_hash *hash)
{
	return 1;
}

void crypt_digest(const struct crypt_hash *hash, const void *a, size_t a_len, const void *b,
		  size_t b_len, uint8_t *out)
{
}

void crypt_pbkdf2(const struct crypt_hash *hash, const uint8_t *password, size_t len,
		  const uint8_t *salt, size_t salt_len, uint32_t iterations, uint8_t *out,
		  size_t out_len)
{
}
#endif

uint64_t crypt_pbkdf2_count(const struct crypt_hash *hash, size_t out_len, uint64_t ms)
{
	static const uint8_t salt[32] = {0};
	uint8_t out[CRYPT_MAX_KEY];
	uint64_t n = 1 << 10, ns = 0, enough = MIN(ms, UINT64_C(200)) * 250000;

	/* Until a round takes long enough to be measured. */
	for (; ns < enough && n < UINT32_MAX; n *= 2) {
		struct timespec a, b;

		clock_gettime(CLOCK_MONOTONIC, &a);
		crypt_pbkdf2(hash, salt, 8, salt, sizeof(salt), n, out, out_len);
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = (b.tv_sec - a.tv_sec) * UINT64_C(1000000000) + b.tv_nsec - a.tv_nsec;
	}
	n /= 2;
	explicit_bzero(out, sizeof(out));
	return MAX((uint64_t)((double)n * ms * 1e6 / (ns + 1)), UINT64_C(1));
}
