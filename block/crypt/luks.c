/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LUKS header's bytes: copied into a struct luks once, each field checked against the format's
 * limits and the room there is. Pure functions, any thread.
 */
#include "block/crypt/luks.h"

#include <string.h>

#include "vmm/core/util.h"

enum {
	OFF_VERSION = 6,
	OFF_CIPHER = 8,
	OFF_MODE = 40,
	OFF_HASH = 72,
	OFF_PAYLOAD = 104,
	OFF_KEY_BYTES = 108,
	OFF_DIGEST = 112,
	OFF_DIGEST_SALT = 132,
	OFF_DIGEST_ITERATIONS = 164,
	OFF_UUID = 168,
};
#define SLOT_ACTIVE   UINT32_C(0x00ac71f3)
#define SLOT_DISABLED UINT32_C(0x0000dead)

static const uint8_t magic[] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

bool luks_probe(const uint8_t *buf, size_t len)
{
	return len >= 8 && !memcmp(buf, magic, sizeof(magic)) && load_be16(buf + OFF_VERSION) == 1;
}

/* A name of 32 bytes, which must end inside. */
static bool take_name(const uint8_t *at, char name[33], struct error **err)
{
	memcpy(name, at, 32);
	name[32] = 0;
	if (strlen(name) < 32)
		return true;
	error_set(err, "A name in the LUKS header has no end");
	return false;
}

static bool take_algorithms(struct luks *l, const uint8_t *buf, struct error **err)
{
	char cipher[33], mode[33], hash[33];

	if (!take_name(buf + OFF_CIPHER, cipher, err) || !take_name(buf + OFF_MODE, mode, err) ||
	    !take_name(buf + OFF_HASH, hash, err))
		return false;
	l->key_bytes = load_be32(buf + OFF_KEY_BYTES);
	if (!l->key_bytes || l->key_bytes > CRYPT_MAX_KEY) {
		error_set(err, "The LUKS header's key has %u bytes", l->key_bytes);
		return false;
	}
	l->hash = crypt_find_hash("hash-alg", hash, err);
	return l->hash && crypt_spec_parse(&l->spec, cipher, mode, l->key_bytes, err);
}

static bool take_slot(struct luks *l, unsigned index, const uint8_t *at, struct error **err)
{
	struct luks_slot *s = &l->slots[index];
	uint32_t state = load_be32(at), stripes = load_be32(at + 44);

	s->active = state == SLOT_ACTIVE;
	s->iterations = load_be32(at + 4);
	memcpy(s->salt, at + 8, LUKS_SALT);
	s->offset = load_be32(at + 40) * UINT64_C(512);
	if (state != SLOT_ACTIVE && state != SLOT_DISABLED)
		error_set(err, "LUKS key slot %u is neither in use nor free", index);
	else if (stripes != LUKS_STRIPES)
		error_set(err, "LUKS key slot %u has %u stripes, not %u", index, stripes,
			  (unsigned)LUKS_STRIPES);
	else if (s->active && (!s->iterations || s->iterations > LUKS_MAX_ITERATIONS))
		error_set(err, "LUKS key slot %u asks for %u iterations", index, s->iterations);
	else
		return true;
	return false;
}

/* No two slots' key material, nor the header, nor the payload overlap. */
static bool check_places(const struct luks *l, uint64_t room, struct error **err)
{
	uint64_t bytes = luks_material(l);

	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		uint64_t at = l->slots[i].offset;

		if (at < LUKS_HEADER || !range_inside(at, bytes, MIN(room, l->payload))) {
			error_set(err, "LUKS key slot %u's key material overlaps something else",
				  i);
			return false;
		}
		for (unsigned k = 0; k < i; k++) {
			if (!ranges_overlap(at, bytes, l->slots[k].offset, bytes))
				continue;
			error_set(err, "LUKS key slots %u and %u overlap", k, i);
			return false;
		}
	}
	return true;
}

bool luks_parse(struct luks *l, const uint8_t *buf, uint64_t room, struct error **err)
{
	*l = (struct luks){0};
	if (memcmp(buf, magic, sizeof(magic))) {
		error_set(err, "Volume is not in LUKS format");
		return false;
	}
	if (load_be16(buf + OFF_VERSION) != 1) {
		error_set(err, "LUKS version %u is not supported", load_be16(buf + OFF_VERSION));
		return false;
	}
	if (!take_algorithms(l, buf, err))
		return false;
	l->payload = load_be32(buf + OFF_PAYLOAD) * UINT64_C(512);
	memcpy(l->digest, buf + OFF_DIGEST, LUKS_DIGEST);
	memcpy(l->digest_salt, buf + OFF_DIGEST_SALT, LUKS_SALT);
	l->digest_iterations = load_be32(buf + OFF_DIGEST_ITERATIONS);
	if (!l->digest_iterations || l->digest_iterations > LUKS_MAX_ITERATIONS) {
		error_set(err, "The LUKS header asks for %u iterations", l->digest_iterations);
		return false;
	}
	memcpy(l->uuid, buf + OFF_UUID, 40);
	for (char *p = l->uuid; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		if (!take_slot(l, i, buf + luks_slot_at(i), err))
			return false;
	return check_places(l, room, err);
}

void luks_store_slot(const struct luks_slot *slot, uint8_t buf[LUKS_SLOT_BYTES])
{
	store_be32(buf, slot->active ? SLOT_ACTIVE : SLOT_DISABLED);
	store_be32(buf + 4, slot->iterations);
	memcpy(buf + 8, slot->salt, LUKS_SALT);
	store_be32(buf + 40, slot->offset / 512);
	store_be32(buf + 44, LUKS_STRIPES);
}

void luks_store(const struct luks *l, uint8_t buf[LUKS_HEADER])
{
	const char *hash = crypt_hash_name(l->hash);

	memset(buf, 0, LUKS_HEADER);
	memcpy(buf, magic, sizeof(magic));
	store_be16(buf + OFF_VERSION, 1);
	crypt_spec_names(&l->spec, (char *)buf + OFF_CIPHER, (char *)buf + OFF_MODE);
	memcpy(buf + OFF_HASH, hash, strlen(hash));
	store_be32(buf + OFF_PAYLOAD, l->payload / 512);
	store_be32(buf + OFF_KEY_BYTES, l->key_bytes);
	memcpy(buf + OFF_DIGEST, l->digest, LUKS_DIGEST);
	memcpy(buf + OFF_DIGEST_SALT, l->digest_salt, LUKS_SALT);
	store_be32(buf + OFF_DIGEST_ITERATIONS, l->digest_iterations);
	memcpy(buf + OFF_UUID, l->uuid, 40);
	for (unsigned i = 0; i < LUKS_SLOTS; i++)
		luks_store_slot(&l->slots[i], buf + luks_slot_at(i));
}
