/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New LUKS headers, and the amending of key slots, by options (QEMU's names and defaults). Main
 * thread.
 *
 * A new header keeps 4 KiB for itself, then the key material of each slot and then the payload
 * begin at multiples of 4 KiB, as QEMU has it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "block/create.h"
#include "block/crypt/luks.h"
#include "vmm/core/util.h"

enum { ITER_MS = 2000, MIN_ITERATIONS = 1000 };

/* The option's value, marked; a key of opts or NULL. */
static const char *option(struct opts *opts, const char *prefix, const char *name)
{
	char key[64];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	return opts_get(opts, key);
}

static bool number(struct opts *opts, const char *prefix, const char *name, uint64_t *out,
		   struct error **err)
{
	char key[64];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	return opts_get_u64(opts, key, out, err);
}

static bool read_spec(struct luks_params *p, struct opts *opts, const char *prefix,
		      struct error **err)
{
	const char *cipher = option(opts, prefix, "cipher-alg");
	const char *mode = option(opts, prefix, "cipher-mode");
	const char *ivgen = option(opts, prefix, "ivgen-alg");
	const char *ivhash = option(opts, prefix, "ivgen-hash-alg");
	const char *hash = option(opts, prefix, "hash-alg");
	const struct crypt_hash *of_iv;

	p->spec = (struct crypt_spec){.mode = CRYPT_XTS, .ivgen = CRYPT_PLAIN64};
	p->spec.alg = crypt_find_alg("cipher-alg", cipher ? cipher : "aes-256", err);
	if (!p->spec.alg || (mode && !crypt_find_mode("cipher-mode", mode, &p->spec.mode, err)) ||
	    (ivgen && !crypt_find_ivgen("ivgen-alg", ivgen, &p->spec.ivgen, err)))
		return false;
	p->hash = crypt_find_hash("hash-alg", hash ? hash : "sha256", err);
	of_iv = p->hash ? crypt_find_hash("ivgen-hash-alg", ivhash ? ivhash : "sha256", err) : NULL;
	if (!of_iv)
		return false;
	if (p->spec.ivgen == CRYPT_ESSIV)
		p->spec.ivhash = of_iv;
	return crypt_spec_check(&p->spec, err);
}

static bool find_password(struct luks_params *p, const char *id, const char *prefix,
			  const struct objects *objects, struct error **err)
{
	if (id)
		p->password = secret_find(objects, id, &p->password_len, err);
	else
		error_set(err, "Parameter '%skey-secret' is required for cipher", prefix);
	return p->password != NULL;
}

bool luks_params_read(struct luks_params *p, struct opts *opts, const char *prefix,
		      const struct objects *objects, struct error **err)
{
	const char *id = option(opts, prefix, "key-secret");

	*p = (struct luks_params){.iter_ms = ITER_MS};
	if (!read_spec(p, opts, prefix, err) ||
	    !number(opts, prefix, "iter-time", &p->iter_ms, err))
		return false;
	if (!p->iter_ms)
		p->iter_ms = ITER_MS;
	return find_password(p, id, prefix, objects, err);
}

static uint64_t slot_room(size_t key_bytes)
{
	return ALIGN_UP((uint64_t)key_bytes * LUKS_STRIPES, LUKS_ALIGN);
}

uint64_t luks_params_payload(const struct luks_params *p)
{
	return LUKS_ALIGN + LUKS_SLOTS * slot_room(crypt_key_bytes(&p->spec));
}

static bool count_iterations(const struct crypt_hash *hash, size_t out_len, uint64_t ms,
			     uint32_t *out, struct error **err)
{
	uint64_t n = ms > 3600000 ? UINT64_MAX : crypt_pbkdf2_count(hash, out_len, ms);

	*out = n;
	if (n <= LUKS_MAX_ITERATIONS)
		return true;
	error_set(err, "iter-time of %llu ms asks for more iterations than an image may have",
		  (unsigned long long)ms);
	return false;
}

/* A header that is being made, in memory. */
struct made {
	uint8_t *data;
	size_t len;
};

static int made_write(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
	struct made *m = opaque;

	if (!range_inside(offset, bytes, m->len))
		return -EIO;
	memcpy(m->data + offset, buf, bytes);
	return 0;
}

static int made_flush(void *opaque)
{
	return 0;
}

static bool fill_header(struct luks *l, const struct luks_params *p, const struct luks_io *io,
			struct error **err)
{
	uint8_t key[CRYPT_MAX_KEY], uuid[16], buf[LUKS_HEADER];
	uint32_t iterations;
	bool ok = false;

	l->key_bytes = crypt_key_bytes(&l->spec);
	l->payload = luks_params_payload(p);
	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		l->slots[i].offset = LUKS_ALIGN + i * slot_room(l->key_bytes);
	block_create_uuid(uuid);
	for (unsigned i = 0, at = 0; i < 16; i++)
		at += snprintf(l->uuid + at, sizeof(l->uuid) - at, "%s%02x",
			       i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	if (getrandom(key, l->key_bytes, 0) != (ssize_t)l->key_bytes) {
		error_set_errno(err, errno, "Could not get random bytes");
		return false;
	}
	if (count_iterations(l->hash, l->key_bytes, p->iter_ms, &iterations, err) &&
	    luks_set_key(l, key, MAX(iterations / 8, (uint32_t)MIN_ITERATIONS), err)) {
		luks_store(l, buf);
		io->write(io->opaque, 0, buf, sizeof(buf));
		ok = luks_fill_slot(l, 0, io, key, p->password, p->password_len,
				    MAX(iterations, (uint32_t)MIN_ITERATIONS), err);
	}
	explicit_bzero(key, sizeof(key));
	return ok;
}

uint8_t *luks_make(const struct luks_params *p, size_t *len, struct error **err)
{
	struct luks l = {.spec = p->spec, .hash = p->hash};
	struct made m = {.len = LUKS_ALIGN + slot_room(crypt_key_bytes(&p->spec))};
	struct luks_io io = {.write = made_write, .flush = made_flush, .opaque = &m};

	m.data = calloc(1, m.len);
	if (!m.data) {
		error_set_errno(err, ENOMEM, "Could not make a LUKS header");
		return NULL;
	}
	if (!fill_header(&l, p, &io, err)) {
		free(m.data);
		return NULL;
	}
	*len = m.len;
	return m.data;
}

/* Amending */

struct amend {
	struct luks *l;
	const struct luks_io *io;
	const uint8_t *key;
	bool force;
	int64_t slot;	    /* -1: none is named */
	const uint8_t *old; /* or NULL */
	size_t old_len;
};

static unsigned count_active(const struct luks *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		n += l->slots[i].active;
	return n;
}

/* Whether the old password is the slot's. */
static int matches(const struct amend *a, unsigned index)
{
	uint8_t key[CRYPT_MAX_KEY];
	int ret = a->l->slots[index].active
			  ? luks_try_slot(a->l, index, a->io, a->old, a->old_len, key)
			  : 0;

	explicit_bzero(key, sizeof(key));
	return ret;
}

static bool activate(const struct amend *a, const uint8_t *password, size_t len, uint64_t ms,
		     struct error **err)
{
	unsigned index = 0;
	uint32_t iterations;

	if (a->old) {
		error_set(err, "'old-secret' must not be given when activating keyslots");
		return false;
	}
	if (!password) {
		error_set(err, "'new-secret' is required to activate a keyslot");
		return false;
	}
	if (a->slot >= 0)
		index = a->slot;
	else
		while (index < LUKS_SLOTS && a->l->slots[index].active)
			index++;
	if (index == LUKS_SLOTS) {
		error_set(err, "Can't add a keyslot - all keyslots are in use");
		return false;
	}
	if (a->l->slots[index].active && !a->force) {
		error_set(err, "Refusing to overwrite active keyslot %u - please erase it first",
			  index);
		return false;
	}
	return count_iterations(a->l->hash, a->l->key_bytes, ms, &iterations, err) &&
	       luks_fill_slot(a->l, index, a->io, a->key, password, len,
			      MAX(iterations, (uint32_t)MIN_ITERATIONS), err);
}

static bool erase_one(const struct amend *a, struct error **err)
{
	unsigned index = a->slot;
	int ret = a->old ? matches(a, index) : 1;

	if (ret < 0)
		error_set_errno(err, ret, "Could not read LUKS key slot %u", index);
	else if (!a->l->slots[index].active && !a->force)
		error_set(err, "Given keyslot %u is already erased (inactive)", index);
	else if (!ret && !a->force)
		error_set(err,
			  "Given keyslot %u does not hold the given (old) "
			  "password",
			  index);
	else if (count_active(a->l) == 1 && a->l->slots[index].active && !a->force)
		error_set(err,
			  "Attempt to erase the only active keyslot %u which will erase all the "
			  "data in the image irreversibly - refusing operation",
			  index);
	else
		return luks_erase_slot(a->l, index, a->io, err);
	return false;
}

static bool erase_matching(const struct amend *a, struct error **err)
{
	bool found[LUKS_SLOTS] = {0};
	unsigned n = 0;

	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		int ret = matches(a, i);

		if (ret < 0) {
			error_set_errno(err, ret, "Could not read LUKS key slot %u", i);
			return false;
		}
		found[i] = ret;
		n += ret;
	}
	if (!n) {
		error_set(err, "No keyslots match given (old) password for erase operation");
		return false;
	}
	if (n == count_active(a->l) && !a->force) {
		error_set(err,
			  "All the active keyslots match the (old) password that was given and "
			  "erasing them will erase all the data in the image irreversibly - "
			  "refusing operation");
		return false;
	}
	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		if (found[i] && !luks_erase_slot(a->l, i, a->io, err))
			return false;
	return true;
}

bool luks_amend(struct luks *l, const struct luks_io *io, const uint8_t *key, struct opts *opts,
		const char *prefix, bool force, const struct objects *objects, struct error **err)
{
	const char *state = option(opts, prefix, "state");
	const char *new = option(opts, prefix, "new-secret");
	const char *old = option(opts, prefix, "old-secret");
	const uint8_t *password = NULL;
	struct amend a = {.l = l, .io = io, .key = key, .force = force, .slot = -1};
	uint64_t slot = UINT64_MAX, ms = ITER_MS;
	size_t len = 0;

	if (!number(opts, prefix, "keyslot", &slot, err) ||
	    !number(opts, prefix, "iter-time", &ms, err) ||
	    (new && !(password = secret_find(objects, new, &len, err))) ||
	    (old && !(a.old = secret_find(objects, old, &a.old_len, err))))
		return false;
	if (!state) {
		error_set(err, "Parameter '%sstate' is missing", prefix);
		return false;
	}
	if (option(opts, prefix, "keyslot")) {
		if (slot >= LUKS_SLOTS) {
			error_set(err, "Invalid keyslot %llu specified, must be between 0 and %u",
				  (unsigned long long)slot, LUKS_SLOTS - 1u);
			return false;
		}
		a.slot = slot;
	}
	if (!strcmp(state, "active"))
		return activate(&a, password, len, ms ? ms : ITER_MS, err);
	if (strcmp(state, "inactive"))
		error_set(err, "Parameter '%sstate' does not accept value '%s'", prefix, state);
	else if (new)
		error_set(err, "'new-secret' must not be given when erasing keyslots");
	else if (option(opts, prefix, "iter-time"))
		error_set(err, "'iter-time' must not be given when erasing keyslots");
	else if (a.slot >= 0)
		return erase_one(&a, err);
	else if (a.old)
		return erase_matching(&a, err);
	else
		error_set(err, "To erase keyslot(s), either explicit keyslot index or the password "
			       "currently contained in them must be given");
	return false;
}
