/* SPDX-License-Identifier: Apache-2.0 */
/* Ceph images as file names; see rbd.h. Pure. */
#include "block/rbd/rbd.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

/* The text up to the next one of ends that no \ stands before, which *text moves behind; unescaped.
 * *end: the character it was, or 0. */
static char *next_part(const char **text, const char *ends, char *end)
{
	char *out = xmalloc(strlen(*text) + 1), *to = out;
	const char *p = *text;

	while (*p && !strchr(ends, *p)) {
		if (*p == '\\' && p[1])
			p++;
		*to++ = *p++;
	}
	*to = 0;
	*end = *p;
	*text = *p ? p + 1 : p;
	return out;
}

/* Adds it under key, and frees it. */
static bool take(struct opts *opts, const char *key, char *value, struct error **err)
{
	bool ok = *value;

	if (ok)
		opts_add(opts, key, value);
	else
		error_set(err, "rbd: the %s's name is empty", key);
	free(value);
	return ok;
}

/* [POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT] */
static bool parse_image(const char **text, char *end, struct opts *opts, struct error **err)
{
	char *parts[3];
	unsigned n = 0;
	bool ok = true;

	do {
		parts[n] = next_part(text, n < 2 ? "/@:" : "@:", end);
		n++;
	} while (*end == '/');
	if (n == 1) {
		error_set(err, "rbd: pool and image are needed: rbd:POOL/IMAGE");
		free(parts[0]);
		return false;
	}
	ok = take(opts, "pool", parts[0], err);
	if (n == 3 && *parts[1] && ok)
		opts_add(opts, "namespace", parts[1]);
	if (n == 3)
		free(parts[1]);
	if (ok)
		ok = take(opts, "image", parts[n - 1], err);
	else
		free(parts[n - 1]);
	return ok && (*end != '@' || take(opts, "snapshot", next_part(text, ":", end), err));
}

static bool parse_pair(const char **text, char *end, unsigned *pairs, struct opts *opts,
		       struct error **err)
{
	char *key = next_part(text, "=:", end), *value = NULL;
	bool ok = *end == '=';

	if (!ok)
		error_set(err, "rbd: conf option '%s' has no value", key);
	else
		value = next_part(text, ":", end);
	if (ok && !strcmp(key, "conf")) {
		opts_add(opts, "conf", value);
	} else if (ok && !strcmp(key, "id")) {
		opts_add(opts, "user", value);
	} else if (ok) {
		char *name = xasprintf("keyvalue.%u.key", *pairs);

		opts_add(opts, name, key);
		free(name);
		name = xasprintf("keyvalue.%u.value", (*pairs)++);
		opts_add(opts, name, value);
		free(name);
	}
	free(key);
	free(value);
	return ok;
}

bool rbd_parse_filename(const char *name, struct opts *opts, struct error **err)
{
	unsigned pairs = 0;
	char end;

	opts_add(opts, "driver", "rbd");
	if (!parse_image(&name, &end, opts, err))
		return false;
	while (end == ':')
		if (!parse_pair(&name, &end, &pairs, opts, err))
			return false;
	return true;
}

char *rbd_base64(const void *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = xmalloc((len + 2) / 3 * 4 + 1), *to = out;
	const uint8_t *in = data;

	for (size_t i = 0; i < len; i += 3, to += 4) {
		uint32_t v = in[i] << 16 | (i + 1 < len ? in[i + 1] << 8 : 0) |
			     (i + 2 < len ? in[i + 2] : 0);

		to[0] = digits[v >> 18];
		to[1] = digits[v >> 12 & 63];
		to[2] = i + 1 < len ? digits[v >> 6 & 63] : '=';
		to[3] = i + 2 < len ? digits[v & 63] : '=';
	}
	*to = 0;
	return out;
}
