/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets; see secret.h. Main thread.
 */
#include "vmm/core/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "vmm/core/util.h"

#ifdef CONFIG_NETTLE
#include <nettle/aes.h>
#include <nettle/cbc.h>
#endif

struct secret {
	uint8_t *data;
	size_t len;
};

void secret_free(void *p, size_t len)
{
	if (p)
		explicit_bzero(p, len);
	free(p);
}

const uint8_t *secret_find(const struct objects *objects, const char *id, size_t *len,
			   struct error **err)
{
	const struct secret *s = objects_find(objects, &secret_type, id);

	if (!s) {
		error_set(err, "No secret with id '%s'", id);
		return NULL;
	}
	*len = s->len;
	return s->data;
}

static int digit(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool secret_base64(uint8_t *buf, size_t *len)
{
	uint32_t bits = 0;
	size_t digits = 0, padding = 0, out = 0;
	unsigned have = 0; /* bits that are not yet a byte */

	for (size_t i = 0; i < *len; i++) {
		int d = digit(buf[i]);

		if (buf[i] == '\n' || buf[i] == '\r')
			continue;
		if (buf[i] == '=') {
			padding++;
			continue;
		}
		if (d < 0 || padding)
			return false;
		bits = bits << 6 | d;
		have += 6;
		digits++;
		if (have >= 8) {
			have -= 8;
			buf[out++] = bits >> have;
		}
	}
	*len = out;
	return padding < 3 && (digits + padding) % 4 == 0;
}

/* The whole file, in a buffer of its own. */
static uint8_t *read_file(const char *name, size_t *len, struct error **err)
{
	size_t room = 4096, used = 0;
	uint8_t *buf = xmalloc(room), *more;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0 && used < SECRET_MAX_BYTES) {
		if (used == room) {
			more = xmalloc(room * 2);
			memcpy(more, buf, used);
			secret_free(buf, used);
			buf = more;
			room *= 2;
		}
		n = read(fd, buf + used, room - used);
		if (n < 0 && errno == EINTR)
			n = 1;
		else
			used += MAX(n, 0);
	}
	if (n) {
		error_set_errno(err, n < 0 ? errno : EFBIG, "Unable to read %s", name);
		secret_free(buf, used);
		buf = NULL;
	}
	if (fd >= 0)
		close(fd);
	*len = used;
	return buf;
}

static uint8_t *given(struct opts *opts, size_t *len, struct error **err)
{
	const char *data = opts_get(opts, "data"), *file = opts_get(opts, "file");
	uint8_t *buf;

	if (data && file) {
		error_set(err, "'file' and 'data' are mutually exclusive");
		return NULL;
	}
	if (file)
		return read_file(file, len, err);
	if (!data) {
		error_set(err, "Either 'file' or 'data' must be provided");
		return NULL;
	}
	*len = strlen(data);
	buf = xmalloc(*len + 1);
	memcpy(buf, data, *len);
	return buf;
}

/* Decrypts in place with the key of another secret; *len is what remains. */
static bool decrypt(const struct objects *objects, const char *keyid, const char *iv64,
		    uint8_t *data, size_t *len, struct error **err)
{
	uint8_t iv[64] = {0};
	size_t key_len, iv_len = iv64 ? MIN(strlen(iv64), sizeof(iv)) : 0;
	const uint8_t *key = secret_find(objects, keyid, &key_len, err);
	unsigned padding;

	if (!key)
		return false;
	if (key_len != 32) {
		error_set(err, "Key should be 32 bytes in length");
		return false;
	}
	if (!iv64) {
		error_set(err, "IV is required to decrypt secret");
		return false;
	}
	memcpy(iv, iv64, iv_len);
	if (!secret_base64(iv, &iv_len) || iv_len != 16) {
		error_set(err, "IV should be 16 bytes in length, as base64");
		return false;
	}
	if (!*len || *len % 16) {
		error_set(err, "An encrypted secret is a multiple of 16 bytes long");
		return false;
	}
#ifdef CONFIG_NETTLE
	struct CBC_CTX(struct aes256_ctx, AES_BLOCK_SIZE) aes;

	aes256_set_decrypt_key(&aes.ctx, key);
	CBC_SET_IV(&aes, iv);
	CBC_DECRYPT(&aes, aes256_decrypt, *len, data, data);
	explicit_bzero(&aes, sizeof(aes));
#else
	error_set(err, "'keyid' needs nettle, which this program was built without");
	return false;
#endif
	padding = data[*len - 1];
	if (!padding || padding > 16) {
		error_set(err, "Incorrect number of padding bytes (%u) found on decrypted data",
			  padding);
		return false;
	}
	*len -= padding;
	return true;
}

/* What the options said is not to lie about in them. */
static void wipe(struct opts *opts)
{
	for (size_t i = 0; i < opts->count; i++)
		if (!strcmp(opts->items[i].key, "data"))
			explicit_bzero(opts->items[i].value, strlen(opts->items[i].value));
}

static void *create(const struct objects *objects, const char *id, struct opts *opts,
		    struct error **err)
{
	static const char *const formats[] = {"raw", "base64", NULL};
	const char *keyid = opts_get(opts, "keyid"), *iv = opts_get(opts, "iv");
	struct secret *s;
	int format = 0;
	size_t len = 0, all;
	uint8_t *data;

	if (!opts_get_enum(opts, "format", formats, &format, err))
		return NULL;
	data = given(opts, &len, err);
	if (!data)
		return NULL;
	wipe(opts);
	all = len;
	if (format && !secret_base64(data, &len)) {
		error_set(err, "Secret '%s' is not base64", id);
		secret_free(data, all);
		return NULL;
	}
	if (keyid && !decrypt(objects, keyid, iv, data, &len, err)) {
		secret_free(data, all);
		return NULL;
	}
	explicit_bzero(data + len, all - len);
	s = xcalloc(1, sizeof(*s));
	s->data = data;
	s->len = len;
	return s;
}

static void destroy(void *object)
{
	struct secret *s = object;

	secret_free(s->data, s->len);
	free(s);
}

const struct object_type secret_type = {"secret", create, destroy};
