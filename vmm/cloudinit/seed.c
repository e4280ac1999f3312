/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes into a NoCloud seed: the user's files, and meta-data where they gave none. Main thread.
 */
#include "vmm/cloudinit/seed.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "vmm/cloudinit/iso_image.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

#define MAX_FILE (16 * MiB)

static bool read_whole(int fd, struct seed_text *text, int *error)
{
	size_t room = 4096;
	ssize_t n;

	*text = (struct seed_text){ .bytes = xmalloc(room + 1) };
	while ((n = read(fd, text->bytes + text->len, room - text->len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			*error = errno;
			return false;
		}
		text->len += n;
		if (text->len > MAX_FILE) {
			*error = EFBIG;
			return false;
		}
		if (text->len == room) {
			room *= 2;
			text->bytes = xrealloc(text->bytes, room + 1);
		}
	}
	text->bytes[text->len] = '\0'; /* so that it can be searched */
	return true;
}

/* path NULL leaves text empty. */
static bool read_file(const char *key, const char *path, struct seed_text *text, struct error **err)
{
	int fd, error = 0;
	bool ok;

	if (!path)
		return true;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ok = fd >= 0 && read_whole(fd, text, &error);
	if (!ok)
		error_set_errno(err, fd < 0 ? errno : error, "cannot read %s '%s'", key, path);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* FNV-1a, 64 bits: the id is to differ when the content does, against nobody's will. */
static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return (h ^ 0xff) * UINT64_C(0x100000001b3); /* ends the part */
}

/* RFC 1123: letters, digits, hyphens inside labels of at most 63. */
static bool is_hostname(const char *name)
{
	size_t label = 0, total = strlen(name);

	if (!total || total > 253)
		return false;
	for (const char *p = name; *p; p++) {
		if (*p == '.') {
			if (!label || p[-1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)*p) && (*p != '-' || !label))
			return false;
		if (++label > 63)
			return false;
	}
	return label && name[total - 1] != '-';
}

struct seed_text seed_meta_data(const struct seed_text *user, const struct seed_text *network,
				const char *keys, const char *name)
{
	uint64_t id = UINT64_C(0xcbf29ce484222325);
	struct seed_text text;
	char *host;

	id = hash(id, user->bytes, user->len);
	id = hash(id, network->bytes, network->len);
	id = hash(id, keys ? keys : "", keys ? strlen(keys) : 0);
	id = hash(id, name ? name : "", name ? strlen(name) : 0);
	host = name && is_hostname(name) ? xasprintf("local-hostname: \"%s\"\n", name)
					 : xstrdup("");
	text.bytes = xasprintf("instance-id: vmm-%016" PRIx64 "\n%s", id, host);
	text.len = strlen(text.bytes);
	free(host);
	return text;
}

static void append(struct seed_text *text, const char *bytes, size_t len)
{
	text->bytes = xrealloc(text->bytes, text->len + len + 1);
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
	text->bytes[text->len] = '\0';
}

static bool has_key(const struct seed_text *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *p = text->bytes; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, key, len))
			return true;
	}
	return false;
}

/* One key as an item of a YAML list; '...' quotes all but itself, which is doubled. */
static void append_key(struct seed_text *meta, const char *line, size_t len)
{
	append(meta, "  - '", 5);
	for (size_t i = 0; i < len; i++)
		append(meta, line[i] == '\'' ? "''" : &line[i], line[i] == '\'' ? 2 : 1);
	append(meta, "'\n", 2);
}

bool seed_add_keys(struct seed_text *meta, const char *keys, struct error **err)
{
	size_t count = 0;

	if (meta->len && meta->bytes[0] == '{') {
		error_set(err, "ssh-key cannot be added to meta-data in JSON: use YAML");
		return false;
	}
	if (meta->len && has_key(meta, "public-keys:")) {
		error_set(err, "meta-data has public-keys already: ssh-key cannot add to them");
		return false;
	}
	if (meta->len && meta->bytes[meta->len - 1] != '\n')
		append(meta, "\n", 1);
	append(meta, "public-keys:\n", 13);
	while (*keys) {
		size_t len = strcspn(keys, "\r\n"), next = len + strspn(keys + len, "\r\n");

		if (len && keys[0] != '#') {
			for (size_t i = 0; i < len; i++) {
				if (iscntrl((unsigned char)keys[i]) && keys[i] != '\t') {
					error_set(err, "ssh-key is not a file of public keys");
					return false;
				}
			}
			append_key(meta, keys, len);
			count++;
		}
		keys += next;
	}
	if (!count)
		error_set(err, "ssh-key has no key in it");
	return count > 0;
}

/* cloud-init knows user-data by its beginning and passes over what it does not know. */
static void warn_unknown(const struct seed_text *user, const char *path)
{
	static const char *const begins[] = { "#", "Content-Type:", "MIME-Version:", "\x1f\x8b" };

	for (size_t i = 0; i < ARRAY_SIZE(begins); i++)
		if (!strncasecmp(user->bytes, begins[i], strlen(begins[i])))
			return;
	if (user->len)
		log_warn("-cloud-init: '%s' begins neither with #cloud-config nor with #!: "
			 "cloud-init will pass over it",
			 path);
}

struct contents {
	struct seed_text user, meta, network, keys;
};

static bool collect(const struct seed_options *o, struct contents *c, struct error **err)
{
	if (!read_file("user-data", o->user_data, &c->user, err) ||
	    !read_file("meta-data", o->meta_data, &c->meta, err) ||
	    !read_file("network-config", o->network_config, &c->network, err) ||
	    !read_file("ssh-key", o->ssh_key, &c->keys, err))
		return false;
	warn_unknown(&c->user, o->user_data);
	if (c->keys.len && strlen(c->keys.bytes) != c->keys.len) {
		error_set(err, "ssh-key is not a file of public keys");
		return false;
	}
	if (!o->meta_data)
		c->meta = seed_meta_data(&c->user, &c->network, c->keys.bytes, o->name);
	return !o->ssh_key || seed_add_keys(&c->meta, c->keys.bytes, err);
}

int seed_build(const struct seed_options *options, struct error **err)
{
	struct contents c = { 0 };
	int fd = -1;

	if (collect(options, &c, err)) {
		struct iso_file files[3] = {
			{ "user-data", c.user.bytes, c.user.len },
			{ "meta-data", c.meta.bytes, c.meta.len },
			{ "network-config", c.network.bytes, c.network.len },
		};

		fd = iso_image_build("cidata", files, options->network_config ? 3 : 2, err);
	}
	free(c.user.bytes);
	free(c.meta.bytes);
	free(c.network.bytes);
	free(c.keys.bytes);
	return fd;
}
