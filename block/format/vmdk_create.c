/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New VMDK images: a descriptor, in the sparse file or beside its extents. Main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"
#include "block/format/vmdk.h"

enum { GRAIN = 128, GTES = 512, TABLE_SECTORS = GTES * 4 / 512, TEXT_SECTORS = 20 };
#define SPLIT (UINT64_C(2) << 30)

enum { MONO_SPARSE, MONO_FLAT, SPLIT_SPARSE, SPLIT_FLAT, STREAM };
static const char *const subformats[] = {"monolithicSparse",	 "monolithicFlat",
					 "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
					 "streamOptimized",	 NULL};

const struct block_create_option vmdk_create_options[] = {
	{"size", "size", NULL, "Virtual disk size"},
	{"adapter_type", "str", NULL,
	 "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"},
	{"backing_file", "str", NULL, "File name of a base image"},
	{"backing_fmt", "str", NULL, "Must be 'vmdk' if present"},
	{"compat6", "bool (on/off)", "off", "VMDK version 6 image"},
	{"hwversion", "str", "undefined", "VMDK hardware version"},
	{"toolsversion", "str", NULL, "VMware guest tools version"},
	{"subformat", "str", NULL,
	 "monolithicSparse (default), monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat or "
	 "streamOptimized"},
	{"zeroed_grain", "bool (on/off)", NULL, "Grains can be marked as zero"},
	{0},
};

struct making {
	const struct block_create *c;
	uint64_t size;
	int subformat;
	bool zeroed;
	const char *adapter, *hwversion, *toolsversion;
	uint32_t parent_cid;
	char *text; /* the descriptor, growing */
};

static void add(struct making *k, const char *more)
{
	char *text = xasprintf("%s%s", k->text ? k->text : "", more);

	free(k->text);
	k->text = text;
}

static bool parse_options(struct making *k, struct error **err)
{
	static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};
	struct opts *opts = k->c->opts;
	bool compat6 = false;
	int adapter = 0;

	if (!opts_get_enum(opts, "subformat", subformats, &k->subformat, err) ||
	    !opts_get_enum(opts, "adapter_type", adapters, &adapter, err) ||
	    !opts_get_bool(opts, "compat6", &compat6, err) ||
	    !opts_get_bool(opts, "zeroed_grain", &k->zeroed, err))
		return false;
	k->adapter = adapters[adapter];
	k->hwversion = opts_get(opts, "hwversion");
	if (k->hwversion && !strcmp(k->hwversion, "undefined"))
		k->hwversion = NULL;
	k->toolsversion = opts_get(opts, "toolsversion");
	if (compat6 && k->hwversion) {
		error_set(err, "compat6 cannot be enabled with hwversion set");
		return false;
	}
	if (!k->hwversion)
		k->hwversion = compat6 ? "6" : adapter == 3 ? "3" : "4";
	if (strchr(k->hwversion, '"') || strchr(k->hwversion, '\n') ||
	    (k->toolsversion && (strchr(k->toolsversion, '"') || strchr(k->toolsversion, '\n')))) {
		error_set(err, "A version must not contain quotes");
		return false;
	}
	if (k->c->backing && k->subformat != MONO_SPARSE) {
		error_set(err, "Only monolithicSparse images can have a backing file here");
		return false;
	}
	if (k->c->backing && (strchr(k->c->backing, '"') || strchr(k->c->backing, '\n'))) {
		error_set(err, "The name of a VMDK image's backing file must not contain quotes");
		return false;
	}
	if (k->c->backing_format && strcmp(k->c->backing_format, "vmdk")) {
		error_set(err, "backing_file must be a vmdk image");
		return false;
	}
	if (!k->size && k->subformat != MONO_SPARSE && k->subformat != STREAM) {
		error_set(err, "A VMDK image of several files cannot be empty");
		return false;
	}
	if (k->size > (UINT64_C(1) << 32) * 512 - TiB / 4 && k->subformat != MONO_FLAT &&
	    k->subformat != SPLIT_FLAT && k->subformat != SPLIT_SPARSE) {
		error_set(err, "The size is too large for one sparse VMDK file");
		return false;
	}
	return true;
}

/* The parent's content ID, which is to be ours. */
static bool read_parent(struct making *k, const char *filename, struct error **err)
{
	char *path = block_backing_path(filename, k->c->backing), buf[VMDK_MAX_TEXT];
	struct vmdk_sparse h;
	struct vmdk_text t;
	uint8_t head[VMDK_HEADER];
	FILE *f = fopen(path, "re");
	size_t n = 0;
	bool ok = false;

	if (!f) {
		error_set_errno(err, errno, "Could not open '%s'", path);
		goto out;
	}
	if (fread(head, 1, sizeof(head), f) == sizeof(head)) {
		if (vmdk_parse_sparse(&h, head, INT64_MAX, NULL) && h.text_bytes)
			n = fseeko(f, h.text_offset, SEEK_SET) ? 0 : fread(buf, 1, h.text_bytes, f);
		else if (!memcmp(head, "# Disk", 6))
			n = fseeko(f, 0, SEEK_SET) ? 0 : fread(buf, 1, sizeof(buf), f);
	}
	fclose(f);
	ok = n && vmdk_parse_text(&t, buf, n, err);
	if (ok) {
		k->parent_cid = t.cid;
		vmdk_text_free(&t);
	} else if (!n) {
		error_set(err, "Invalid backing file '%s': it is not a vmdk image", path);
	}
out:
	free(path);
	return ok;
}

/* Header and tables; the text goes to sector 1 if there is one. */
static int put_sparse(int fd, const struct making *k, uint64_t size, const char *text)
{
	uint64_t sectors = ALIGN_UP(div_round_up(size, 512), GRAIN);
	uint64_t tables = div_round_up(sectors, (uint64_t)GRAIN * GTES);
	uint64_t gd_sectors = div_round_up(tables * 4, 512), rgd = 1 + TEXT_SECTORS, gd, overhead;
	bool stream = k->subformat == STREAM;
	uint8_t h[VMDK_HEADER] = {0};
	int ret;

	gd = rgd + gd_sectors + tables * TABLE_SECTORS;
	overhead = ALIGN_UP(gd + gd_sectors + tables * TABLE_SECTORS, GRAIN);
	memcpy(h, "KDMV", 4);
	store_le32(h + 4, stream ? 3 : k->zeroed ? 2 : 1);
	store_le32(h + 8, VMDK_FLAG_NEWLINES | VMDK_FLAG_RGD |
				  (stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : 0) |
				  (k->zeroed ? VMDK_FLAG_ZERO_GRAIN : 0));
	store_le64(h + 12, div_round_up(size, 512));
	store_le64(h + 20, GRAIN);
	store_le64(h + 28, 1);
	store_le64(h + 36, TEXT_SECTORS);
	store_le32(h + 44, GTES);
	store_le64(h + 48, rgd);
	store_le64(h + 56, gd);
	store_le64(h + 64, overhead);
	memcpy(h + 73, "\n \r\n", 4);
	store_le16(h + 77, stream);
	if (ftruncate(fd, overhead * 512) < 0)
		return -errno;
	ret = block_create_write(fd, 0, h, sizeof(h));
	if (!ret && text)
		ret = block_create_write(fd, 512, text, strlen(text));
	for (int copy = 0; copy < 2; copy++) {
		uint64_t at = copy ? gd : rgd;

		for (uint64_t i = 0; i < tables && !ret;) {
			uint8_t entries[512];
			size_t n = 0;

			for (; n < sizeof(entries) / 4 && i + n < tables; n++)
				store_le32(entries + n * 4,
					   at + gd_sectors + (i + n) * TABLE_SECTORS);
			ret = block_create_write(fd, at * 512 + i * 4, entries, n * 4);
			i += n;
		}
	}
	return ret;
}

/* One extent's file, and its line. */
static bool make_extent(struct making *k, const char *filename, unsigned number, uint64_t bytes,
			struct error **err)
{
	const char *slash = strrchr(filename, '/'), *base = slash ? slash + 1 : filename;
	const char *dot = strrchr(base, '.');
	int stem = dot ? dot - base : (int)strlen(base), fd, ret;
	bool flat = k->subformat == MONO_FLAT || k->subformat == SPLIT_FLAT, ok;
	char *name, *path, *line;

	if (!dot)
		dot = "";
	if (k->subformat == MONO_FLAT)
		name = xasprintf("%.*s-flat%s", stem, base, dot);
	else
		name = xasprintf("%.*s-%c%03u%s", stem, base, flat ? 'f' : 's', number, dot);
	path = xasprintf("%.*s%s", (int)(base - filename), filename, name);
	line = xasprintf(flat ? "RW %llu FLAT \"%s\" 0\n" : "RW %llu SPARSE \"%s\"\n",
			 (unsigned long long)div_round_up(bytes, 512), name);
	add(k, line);
	fd = block_create_file(path, err);
	ok = fd >= 0;
	if (ok) {
		if (flat)
			ret = ftruncate(fd, ALIGN_UP(bytes, 512)) < 0 ? -errno : 0;
		else
			ret = put_sparse(fd, k, bytes, NULL);
		ok = block_create_end(path, fd, ret, err);
	}
	free(name);
	free(path);
	free(line);
	return ok;
}

static void begin_text(struct making *k)
{
	uint8_t id[16];
	char *head;

	block_create_uuid(id);
	head = xasprintf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\n"
			 "createType=\"%s\"\n",
			 load_le32(id) & 0x7fffffff, k->parent_cid, subformats[k->subformat]);
	add(k, head);
	free(head);
	if (k->c->backing) {
		head = xasprintf("parentFileNameHint=\"%s\"\n", k->c->backing);
		add(k, head);
		free(head);
	}
	add(k, "\n# Extents\n");
}

static void end_text(struct making *k)
{
	unsigned heads = strcmp(k->adapter, "ide") ? 255 : 16;
	char *tail = xasprintf("\n# Disk data base\n#DDB\n\n"
			       "ddb.virtualHWVersion = \"%s\"\n"
			       "ddb.geometry.cylinders = \"%llu\"\n"
			       "ddb.geometry.heads = \"%u\"\n"
			       "ddb.geometry.sectors = \"63\"\n"
			       "ddb.adapterType = \"%s\"\n"
			       "ddb.toolsVersion = \"%s\"\n",
			       k->hwversion,
			       (unsigned long long)(k->size / (UINT64_C(63) * heads * 512)), heads,
			       k->adapter, k->toolsversion ? k->toolsversion : "2147483647");

	add(k, tail);
	free(tail);
}

static bool make(struct making *k, const char *filename, struct error **err)
{
	bool split = k->subformat == SPLIT_SPARSE || k->subformat == SPLIT_FLAT;
	bool alone = k->subformat == MONO_SPARSE || k->subformat == STREAM;
	const char *slash = strrchr(filename, '/'), *base = slash ? slash + 1 : filename;
	unsigned number = 1;
	int fd, ret;

	if (strpbrk(base, "\"\n")) {
		error_set(err, "The name of a VMDK image must not contain quotes");
		return false;
	}
	begin_text(k);
	if (alone) {
		char *line = xasprintf("RW %llu SPARSE \"%s\"\n", (unsigned long long)k->size / 512,
				       base);

		add(k, line);
		free(line);
	}
	for (uint64_t at = 0; !alone && at < k->size; at += split ? SPLIT : k->size) {
		if (!make_extent(k, filename, number++, split ? MIN(SPLIT, k->size - at) : k->size,
				 err))
			return false;
	}
	end_text(k);
	if (alone && strlen(k->text) > TEXT_SECTORS * 512) {
		error_set(err, "The image's descriptor becomes too long");
		return false;
	}
	fd = block_create_file(filename, err);
	if (fd < 0)
		return false;
	ret = alone ? put_sparse(fd, k, k->size, k->text)
		    : block_create_write(fd, 0, k->text, strlen(k->text));
	return block_create_end(filename, fd, ret, err);
}

bool vmdk_create(const char *filename, const struct block_create *c, struct error **err)
{
	struct making k = {.c = c, .size = ALIGN_UP(c->size, 512), .parent_cid = VMDK_NO_PARENT};
	bool ok = parse_options(&k, err) && (!c->backing || read_parent(&k, filename, err)) &&
		  make(&k, filename, err);

	free(k.text);
	return ok;
}
