/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of ways to encrypt; see cipher.h. Pure functions, any thread.
 */
#include "block/crypt/cipher.h"

#include <stdio.h>
#include <string.h>

#include "vmm/core/util.h"

static const char *const mode_names[] = {"cbc", "xts", "ecb", "ctr"};
static const char *const ivgen_names[] = {"plain", "plain64", "essiv"};

const char *crypt_mode_name(enum crypt_mode mode)
{
	return mode_names[mode];
}

const char *crypt_ivgen_name(enum crypt_ivgen ivgen)
{
	return ivgen_names[ivgen];
}

static bool wrong(const char *key, const char *name, struct error **err)
{
	error_set(err, "Parameter '%s' does not accept value '%.40s'", key, name);
	return false;
}

static bool find_name(const char *const *names, size_t count, const char *name, unsigned *out)
{
	for (size_t i = 0; i < count; i++) {
		if (!strcmp(names[i], name)) {
			*out = i;
			return true;
		}
	}
	return false;
}

bool crypt_find_mode(const char *key, const char *name, enum crypt_mode *mode, struct error **err)
{
	unsigned i;

	if (!find_name(mode_names, ARRAY_SIZE(mode_names), name, &i))
		return wrong(key, name, err);
	*mode = i;
	return true;
}

bool crypt_find_ivgen(const char *key, const char *name, enum crypt_ivgen *ivgen,
		      struct error **err)
{
	unsigned i;

	if (!find_name(ivgen_names, ARRAY_SIZE(ivgen_names), name, &i))
		return wrong(key, name, err);
	*ivgen = i;
	return true;
}

/* "xts-plain64", "cbc-essiv:sha256". */
static bool parse_mode(struct crypt_spec *spec, const char *text, struct error **err)
{
	char mode[33] = "", *ivgen, *hash;

	memcpy(mode, text, MIN(strlen(text), sizeof(mode) - 1));
	ivgen = strchr(mode, '-');
	if (ivgen)
		*ivgen++ = 0;
	hash = ivgen ? strchr(ivgen, ':') : NULL;
	if (hash)
		*hash++ = 0;
	spec->ivgen = CRYPT_PLAIN64;
	spec->ivhash = NULL;
	if (!ivgen && strcmp(mode, "ecb")) {
		error_set(err, "The LUKS header's cipher mode '%.32s' names no IV generator", mode);
		return false;
	}
	if (!crypt_find_mode("cipher-mode", mode, &spec->mode, err) ||
	    (ivgen && !crypt_find_ivgen("ivgen-alg", ivgen, &spec->ivgen, err)))
		return false;
	if (spec->ivgen == CRYPT_ESSIV && !hash) {
		error_set(err, "The LUKS header's cipher mode names no hash for essiv");
		return false;
	}
	if (spec->ivgen == CRYPT_ESSIV)
		spec->ivhash = crypt_find_hash("ivgen-hash-alg", hash, err);
	return spec->ivgen != CRYPT_ESSIV || spec->ivhash;
}

bool crypt_spec_parse(struct crypt_spec *spec, const char *cipher, const char *mode,
		      size_t key_bytes, struct error **err)
{
	return parse_mode(spec, mode, err) && crypt_spec_set_alg(spec, cipher, key_bytes, err) &&
	       crypt_spec_check(spec, err);
}

void crypt_spec_names(const struct crypt_spec *spec, char *cipher, char *mode)
{
	const char *name = crypt_alg_name(spec->alg);

	memset(cipher, 0, 32);
	memset(mode, 0, 32);
	memcpy(cipher, name, strcspn(name, "-"));
	snprintf(mode, 32, "%s-%s%s%s", mode_names[spec->mode], ivgen_names[spec->ivgen],
		 spec->ivhash ? ":" : "", spec->ivhash ? crypt_hash_name(spec->ivhash) : "");
}
