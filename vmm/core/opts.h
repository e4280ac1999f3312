/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option groups as the command line writes them ("virtio-blk-pci,drive=d0,addr=5"), or the same as a
 * JSON object: an ordered list of key and value, plain data.
 *
 * Syntax (QEMU's): items are separated by commas, a doubled comma is a comma in a value, "key" alone
 * is "key=on", "nokey" alone is "key=off" where the reader asks for key as a boolean. The first item
 * without '=' is the value of implied_key when that is given. JSON objects are flattened with dots
 * ("file.filename", "l.0").
 *
 * Readers take what they know; opts_check_used() then refuses the rest by name. A repeated key's
 * last value counts, except for opts_next_all().
 */
#ifndef VMM_CORE_OPTS_H
#define VMM_CORE_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

struct opt {
	char *key, *value;
	bool used;
	bool bare; /* stood without "=": value is "on" */
};

struct opts {
	struct opt *items;
	size_t count;
};

/* False for an empty key and the like; JSON when text begins with '{'. */
bool opts_parse(struct opts *opts, const char *text, const char *implied_key, struct error **err);
struct json_t;
bool opts_from_json(struct opts *opts, const struct json_t *object, struct error **err);
void opts_free(struct opts *opts);
void opts_add(struct opts *opts, const char *key, const char *value);
/* Copies the items that begin with prefix ("file."), without it, and marks them used. */
void opts_sub(struct opts *opts, const char *prefix, struct opts *sub);

/* The value, or NULL; marks it used. */
const char *opts_get(struct opts *opts, const char *key);
/* The same without marking. */
const char *opts_peek(const struct opts *opts, const char *key);
bool opts_has(const struct opts *opts, const char *key);
/* All values of a repeatable key in order: start with *pos = 0; NULL at the end. */
const char *opts_next_all(struct opts *opts, const char *key, size_t *pos);

/* Typed: leave *out alone and return true if the key is absent; false with err if malformed. */
bool opts_get_bool(struct opts *opts, const char *key, bool *out, struct error **err);
bool opts_get_u64(struct opts *opts, const char *key, uint64_t *out, struct error **err);
bool opts_get_size(struct opts *opts, const char *key, uint64_t unit, uint64_t *out,
		   struct error **err);
/* names: NULL-terminated; *out is the index. */
bool opts_get_enum(struct opts *opts, const char *key, const char *const *names, int *out,
		   struct error **err);

/* False, naming the first key nobody took (and the nearest of known, when known is not NULL). */
bool opts_check_used(const struct opts *opts, const char *const *known, size_t known_count,
		     struct error **err);

#endif
