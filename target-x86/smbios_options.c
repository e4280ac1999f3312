/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -smbios type=N,key=value... and -smbios file=FILE into struct smbios_options. A type given
 * several times adds up, the last value of a key counts.
 * Main thread; the board owns the options.
 */
#include "target-x86/smbios_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/core/prop.h"
#include "vmm/core/util.h"

/* Nothing sensible is larger; it keeps a wrong file name from filling memory. */
#define MAX_FILE (1 * MiB)

static const struct {
	uint8_t type;
	const char *key;
	enum smbios_string string;
} string_keys[] = {
	{0, "vendor", T0_VENDOR},
	{0, "version", T0_VERSION},
	{0, "date", T0_DATE},
	{1, "manufacturer", T1_MANUFACTURER},
	{1, "product", T1_PRODUCT},
	{1, "version", T1_VERSION},
	{1, "serial", T1_SERIAL},
	{1, "sku", T1_SKU},
	{1, "family", T1_FAMILY},
	{2, "manufacturer", T2_MANUFACTURER},
	{2, "product", T2_PRODUCT},
	{2, "version", T2_VERSION},
	{2, "serial", T2_SERIAL},
	{2, "asset", T2_ASSET},
	{2, "location", T2_LOCATION},
	{3, "manufacturer", T3_MANUFACTURER},
	{3, "version", T3_VERSION},
	{3, "serial", T3_SERIAL},
	{3, "asset", T3_ASSET},
	{3, "sku", T3_SKU},
	{4, "sock_pfx", T4_SOCK_PFX},
	{4, "manufacturer", T4_MANUFACTURER},
	{4, "version", T4_VERSION},
	{4, "serial", T4_SERIAL},
	{4, "asset", T4_ASSET},
	{4, "part", T4_PART},
	{17, "loc_pfx", T17_LOC_PFX},
	{17, "bank", T17_BANK},
	{17, "manufacturer", T17_MANUFACTURER},
	{17, "serial", T17_SERIAL},
	{17, "asset", T17_ASSET},
	{17, "part", T17_PART},
};

/* The keys that are not strings, for "did you mean". */
static const struct {
	uint8_t type;
	const char *key;
} other_keys[] = {
	{0, "release"},	     {0, "uefi"},   {1, "uuid"},  {4, "max-speed"}, {4, "current-speed"},
	{4, "processor-id"}, {11, "value"}, {11, "path"}, {17, "speed"},
};

struct smbios_options *smbios_options_new(void)
{
	return xcalloc(1, sizeof(struct smbios_options));
}

void smbios_options_free(struct smbios_options *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < SMBIOS_STRINGS; i++)
		free(o->strings[i]);
	for (size_t i = 0; i < o->oem_count; i++)
		free(o->oem[i]);
	free(o->oem);
	free(o->blob);
	free(o);
}

/* The whole file, and a final zero that *len does not count. */
static char *read_file(const char *path, size_t *len, struct error **err)
{
	struct stat st;
	char *buf = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		error_set_errno(err, errno, "cannot open '%s'", path);
		return NULL;
	}
	if (fstat(fd, &st) < 0) {
		error_set_errno(err, errno, "cannot stat '%s'", path);
	} else if (!S_ISREG(st.st_mode) || st.st_size > (off_t)MAX_FILE) {
		error_set(err, "'%s' is not a regular file of at most 1 MiB", path);
	} else {
		*len = (size_t)st.st_size;
		buf = xcalloc(1, *len + 1);
		int ret = read_full(fd, buf, *len);
		if (ret < 0) {
			error_set_errno(err, ret, "cannot read '%s'", path);
			free(buf);
			buf = NULL;
		}
	}
	close(fd);
	return buf;
}

size_t smbios_structure_len(const uint8_t *p, size_t len)
{
	if (len < 4 || p[1] < 4 || p[1] > len)
		return 0;
	/* Strings end with an empty one; without any there are two zeros as well. */
	for (size_t end = p[1]; end + 2 <= len; end++)
		if (!p[end] && !p[end + 1])
			return end + 2;
	return 0;
}

static bool add_file(struct smbios_options *o, const char *path, struct error **err)
{
	size_t len = 0;
	char *buf = read_file(path, &len, err);
	if (!buf)
		return false;
	for (size_t at = 0, n; at < len || !len; at += n) {
		n = smbios_structure_len((uint8_t *)buf + at, len - at);
		if (!n) {
			error_set(err, "'%s' is not made of whole SMBIOS structures (byte %zu)",
				  path, at);
			free(buf);
			return false;
		}
		o->blob_types[(uint8_t)buf[at]] = true;
	}
	o->blob = xrealloc(o->blob, o->blob_len + len);
	memcpy(o->blob + o->blob_len, buf, len);
	o->blob_len += len;
	free(buf);
	return true;
}

static bool add_oem(struct smbios_options *o, const char *text, struct error **err)
{
	if (!*text) {
		error_set(err, "an OEM string cannot be empty");
		return false;
	}
	if (o->oem_count == SMBIOS_MAX_STRINGS) {
		error_set(err, "there can be at most %d OEM strings", SMBIOS_MAX_STRINGS);
		return false;
	}
	o->oem = xrealloc(o->oem, (o->oem_count + 1) * sizeof(*o->oem));
	o->oem[o->oem_count++] = xstrdup(text);
	return true;
}

/* In the order in which they stand, values and files alike. */
static bool parse_oem(struct smbios_options *o, struct opts *opts, struct error **err)
{
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *item = &opts->items[i];
		bool value = !strcmp(item->key, "value"), path = !strcmp(item->key, "path");
		if (!value && !path)
			continue;
		item->used = true;
		if (value) {
			if (!add_oem(o, item->value, err))
				return false;
			continue;
		}
		size_t len;
		char *text = read_file(item->value, &len, err);
		if (!text)
			return false;
		bool ok = strlen(text) == len;
		if (!ok)
			error_set(err, "'%s' contains a zero byte", item->value);
		ok = ok && add_oem(o, text, err);
		free(text);
		if (!ok)
			return false;
	}
	return true;
}

static bool parse_release(struct smbios_options *o, const char *s, struct error **err)
{
	unsigned major, minor;
	int end = -1;
	if (sscanf(s, "%3u.%3u%n", &major, &minor, &end) < 2 || s[end] || major > 255 ||
	    minor > 255) {
		error_set(err, "release=%s: expected MAJOR.MINOR, each at most 255", s);
		return false;
	}
	o->release_major = (uint8_t)major;
	o->release_minor = (uint8_t)minor;
	return true;
}

static bool get_speed(struct opts *opts, const char *key, uint16_t *out, struct error **err)
{
	uint64_t n = *out;
	if (!opts_get_u64(opts, key, &n, err))
		return false;
	if (n > UINT16_MAX) {
		error_set(err, "%s=%llu: at most 65535", key, (unsigned long long)n);
		return false;
	}
	*out = (uint16_t)n;
	return true;
}

static bool parse_others(struct smbios_options *o, unsigned type, struct opts *opts,
			 struct error **err)
{
	const char *s;
	switch (type) {
	case 0:
		o->type0 = true;
		if ((s = opts_get(opts, "release")) && !parse_release(o, s, err))
			return false;
		return opts_get_bool(opts, "uefi", &o->uefi, err);
	case 1:
		if (!(s = opts_get(opts, "uuid")))
			return true;
		o->uuid_set = parse_uuid(s, o->uuid);
		if (!o->uuid_set)
			error_set(err, "uuid=%s: not a UUID", s);
		return o->uuid_set;
	case 2:
		o->type2 = true;
		return true;
	case 4:
		o->processor_id_set = o->processor_id_set || opts_has(opts, "processor-id");
		return get_speed(opts, "max-speed", &o->max_speed, err) &&
		       get_speed(opts, "current-speed", &o->current_speed, err) &&
		       opts_get_u64(opts, "processor-id", &o->processor_id, err);
	case 11:
		return parse_oem(o, opts, err);
	case 17:
		return get_speed(opts, "speed", &o->memory_speed, err);
	}
	return true;
}

static bool parse_strings(struct smbios_options *o, unsigned type, struct opts *opts)
{
	bool known = type == 11;
	for (size_t i = 0; i < ARRAY_SIZE(string_keys); i++) {
		if (string_keys[i].type != type)
			continue;
		known = true;
		const char *s = opts_get(opts, string_keys[i].key);
		if (!s)
			continue;
		free(o->strings[string_keys[i].string]);
		o->strings[string_keys[i].string] = xstrdup(s);
	}
	return known;
}

static size_t known_keys(unsigned type, const char **known)
{
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(string_keys); i++)
		if (string_keys[i].type == type)
			known[n++] = string_keys[i].key;
	for (size_t i = 0; i < ARRAY_SIZE(other_keys); i++)
		if (other_keys[i].type == type)
			known[n++] = other_keys[i].key;
	return n;
}

bool smbios_options_add(struct smbios_options *o, struct opts *opts, struct error **err)
{
	const char *known[ARRAY_SIZE(string_keys) + ARRAY_SIZE(other_keys)];
	const char *file = opts_get(opts, "file");
	uint64_t type;
	if (file) {
		if (opts_has(opts, "type")) {
			error_set(err, "file= and type= exclude each other");
			return false;
		}
		return opts_check_used(opts, NULL, 0, err) && add_file(o, file, err);
	}
	if (!opts_has(opts, "type")) {
		error_set(err, "type= or file= is missing");
		return false;
	}
	if (!opts_get_u64(opts, "type", &type, err))
		return false;
	if (type > 255 || !parse_strings(o, (unsigned)type, opts)) {
		error_set(err, "type=%llu: only 0, 1, 2, 3, 4, 11 and 17 can be set",
			  (unsigned long long)type);
		return false;
	}
	return parse_others(o, (unsigned)type, opts, err) &&
	       opts_check_used(opts, known, known_keys((unsigned)type, known), err);
}
