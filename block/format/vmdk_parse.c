/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK's sparse headers and descriptor texts. Pure; any thread.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/format/vmdk.h"

bool vmdk_parse_sparse(struct vmdk_sparse *h, const uint8_t *buf, uint64_t file_size,
		       struct error **err)
{
	uint64_t text_sectors = load_le64(buf + 36), per_table;

	*h = (struct vmdk_sparse){
		.version = load_le32(buf + 4),
		.flags = load_le32(buf + 8),
		.capacity = load_le64(buf + 12),
		.grain = load_le64(buf + 20),
		.text_offset = load_le64(buf + 28),
		.gtes = load_le32(buf + 44),
		.rgd = load_le64(buf + 48),
		.gd = load_le64(buf + 56),
		.overhead = load_le64(buf + 64),
	};
	if (memcmp(buf, "KDMV", 4)) {
		error_set(err, "Image is not in VMDK format");
		return false;
	}
	if (h->version < 1 || h->version > 3) {
		error_set(err, "Unsupported VMDK version %u", h->version);
		return false;
	}
	if ((h->flags & VMDK_FLAG_NEWLINES) && memcmp(buf + 73, "\n \r\n", 4)) {
		error_set(err, "The image was damaged by a transfer as text");
		return false;
	}
	if ((h->flags & VMDK_FLAG_COMPRESSED) && load_le16(buf + 77) != 1) {
		error_set(err, "Unsupported VMDK compression %u", load_le16(buf + 77));
		return false;
	}
	if (!is_pow2(h->grain) || h->grain > 64 * MiB / 512) {
		error_set(err, "Invalid granularity, image may be corrupt");
		return false;
	}
	if (!h->gtes || h->gtes > 512 || !is_pow2(h->gtes)) {
		error_set(err, "L2 table size too big");
		return false;
	}
	per_table = h->gtes * h->grain;
	h->tables = div_round_up(h->capacity, per_table);
	if (h->capacity > INT64_MAX / 512 || h->tables > VMDK_MAX_GD / 4) {
		error_set(err, "L1 size too big");
		return false;
	}
	if (h->text_offset && text_sectors) {
		uint64_t bytes = MIN(text_sectors, (uint64_t)VMDK_MAX_TEXT / 512) * 512;

		if (h->text_offset > file_size / 512 ||
		    !range_inside(h->text_offset * 512, bytes, file_size)) {
			error_set(err, "The image's descriptor lies outside of the file");
			return false;
		}
		h->text_bytes = bytes;
	}
	h->text_offset *= 512;
	return true;
}

bool vmdk_plain_name(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

void vmdk_text_free(struct vmdk_text *t)
{
	for (unsigned i = 0; i < t->count; i++)
		free(t->extents[i].name);
	free(t->extents);
	free(t->parent);
	*t = (struct vmdk_text){0};
}

/* The quoted string at s, or NULL. Allocated. */
static char *quoted(const char *s)
{
	const char *end = *s == '"' ? strchr(s + 1, '"') : NULL;

	return end ? xstrndup(s + 1, end - s - 1) : NULL;
}

/* RW 4192256 SPARSE "name"; RW 63 FLAT "name" 0; RW 100 ZERO */
static bool parse_extent(struct vmdk_text *t, const char *line, struct error **err)
{
	static const struct {
		const char *name;
		enum vmdk_kind kind;
	} kinds[] = {{"FLAT", VMDK_FLAT},
		     {"VMFS", VMDK_FLAT},
		     {"SPARSE", VMDK_SPARSE},
		     {"ZERO", VMDK_ZERO}};
	struct vmdk_extent e = {.kind = VMDK_ZERO + 1}, *grown;
	unsigned long long sectors, offset = 0;
	char access[12], kind[16];
	const char *rest;
	int used = 0;

	if (sscanf(line, "%11s %llu %15s %n", access, &sectors, kind, &used) < 3 || !used) {
		error_set(err, "Invalid extent line: %.60s", line);
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kind, kinds[i].name))
			e.kind = kinds[i].kind;
	if (e.kind > VMDK_ZERO) {
		error_set(err, "Unsupported extent type '%s'", kind);
		return false;
	}
	e.sectors = sectors;
	rest = line + used;
	if (e.kind != VMDK_ZERO) {
		e.name = quoted(rest);
		if (e.name && e.kind == VMDK_FLAT &&
		    sscanf(rest + strlen(e.name) + 2, "%llu", &offset) < 1)
			offset = 0;
		if (!e.name) {
			error_set(err, "Invalid extent line: %.60s", line);
			return false;
		}
	}
	e.offset = offset;
	if (!sectors || sectors > INT64_MAX / 512 || offset > INT64_MAX / 512 - sectors ||
	    t->count == VMDK_MAX_EXTENTS) {
		error_set(err, "Invalid extent line: %.60s", line);
		free(e.name);
		return false;
	}
	grown = realloc(t->extents, (t->count + 1) * sizeof(*grown));
	if (!grown) {
		error_set_errno(err, ENOMEM, "Could not read the descriptor");
		free(e.name);
		return false;
	}
	t->extents = grown;
	t->extents[t->count++] = e;
	return true;
}

static bool parse_line(struct vmdk_text *t, const char *line, size_t at, struct error **err)
{
	char *text;

	if (!strncmp(line, "CID=", 4)) {
		t->cid = strtoul(line + 4, NULL, 16);
		t->cid_digits = strspn(line + 4, "0123456789abcdefABCDEF");
		t->cid_at = t->cid_digits >= 1 && t->cid_digits <= 8 ? at + 4 : 0;
	} else if (!strncmp(line, "parentCID=", 10)) {
		t->parent_cid = strtoul(line + 10, NULL, 16);
	} else if (!strncmp(line, "createType=", 11)) {
		text = quoted(line + 11);
		snprintf(t->type, sizeof(t->type), "%s", text ? text : "");
		free(text);
	} else if (!strncmp(line, "parentFileNameHint=", 19)) {
		free(t->parent);
		t->parent = quoted(line + 19);
	} else if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) ||
		   !strncmp(line, "NOACCESS ", 9)) {
		return parse_extent(t, line, err);
	}
	return true;
}

bool vmdk_parse_text(struct vmdk_text *t, const char *text, size_t len, struct error **err)
{
	*t = (struct vmdk_text){.parent_cid = VMDK_NO_PARENT};
	len = strnlen(text, len);
	for (size_t at = 0; at < len;) {
		size_t n = 0, skip = 0;
		char line[2048];

		while (at + n < len && text[at + n] != '\n')
			n++;
		while (skip < n && isspace((unsigned char)text[at + skip]))
			skip++;
		snprintf(line, sizeof(line), "%.*s", (int)(n - skip), text + at + skip);
		if (!parse_line(t, line, at + skip, err)) {
			vmdk_text_free(t);
			return false;
		}
		at += n + 1;
	}
	return true;
}
