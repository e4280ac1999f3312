/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New image files: raw, and empty qcow2 images. An image that somebody uses is not overwritten: its
 * locks are asked before anything is cut off. Main thread; synchronous.
 *
 * Layout of a new qcow2 image, in clusters: header, refcount table, refcount blocks, L1 table.
 */
#include "block/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/crypt/luks.h"
#include "block/file.h"
#include "block/qcow2/qcow2.h"

const struct block_create_option block_raw_create_options[] = {
	{"size", "size", NULL, "Virtual disk size"},
	{"preallocation", "str", NULL, "Preallocation mode (allowed values: off, falloc, full)"},
	{0},
};

const struct block_create_option block_qcow2_create_options[] = {
	{"backing_file", "str", NULL, "File name of a base image", true},
	{"backing_fmt", "str", NULL, "Image format of the base image", true},
	{"cluster_size", "size", NULL, "qcow2 cluster size"},
	{"compat", "str", NULL, "Compatibility level (v2 [0.10] or v3 [1.1])", true},
	{"compression_type", "str", NULL, "Compression method of clusters: zlib or zstd"},
	{"data_file", "str", NULL, "File name of an external data file", true},
	{"data_file_raw", "bool (on/off)", NULL,
	 "The external data file must stay valid as a raw image", true},
	{"encrypt.format", "str", NULL, "Encrypt the image, format choices: 'luks'"},
	{"encrypt.key-secret", "str", NULL, "ID of secret providing LUKS passphrase"},
	{"encrypt.cipher-alg", "str", NULL, "Name of encryption cipher algorithm"},
	{"encrypt.cipher-mode", "str", NULL, "Name of encryption cipher mode"},
	{"encrypt.ivgen-alg", "str", NULL, "Name of IV generator algorithm"},
	{"encrypt.ivgen-hash-alg", "str", NULL, "Name of IV generator hash algorithm"},
	{"encrypt.hash-alg", "str", NULL, "Name of encryption hash algorithm"},
	{"encrypt.iter-time", "num", NULL, "Time to spend in PBKDF in milliseconds", true},
	{"encrypt.keyslot", "num", NULL, "Select a single keyslot to modify explicitly", true, true},
	{"encrypt.new-secret", "str", NULL, "New secret to set in the matching keyslots", true,
	 true},
	{"encrypt.old-secret", "str", NULL, "Select all keyslots that match this password", true,
	 true},
	{"encrypt.state", "str", NULL,
	 "Select new state of affected keyslots (active/inactive)", true, true},
	{"extended_l2", "bool (on/off)", NULL, "Extended L2 tables: 32 subclusters in a cluster"},
	{"lazy_refcounts", "bool (on/off)", NULL, "Postpone refcount updates", true},
	{"preallocation", "str", NULL,
	 "Preallocation mode (allowed values: off, metadata, falloc, full)"},
	{"refcount_bits", "num", NULL, "Width of a reference count entry in bits", true},
	{"size", "size", NULL, "Virtual disk size", true},
	{0},
};

static int open_locked(const char *filename, int flags, struct error **err)
{
	int fd = open(filename, O_RDWR | O_CLOEXEC | flags, 0644);

	if (fd < 0) {
		error_set_errno(err, errno, "Could not create '%s'", filename);
		return -1;
	}
	if (!file_lock(fd, filename, FILE_PERM_WRITE | FILE_PERM_RESIZE,
		       FILE_PERM_CONSISTENT_READ | FILE_PERM_WRITE | FILE_PERM_RESIZE, err)) {
		close(fd);
		return -1;
	}
	return fd;
}

int block_create_file(const char *filename, struct error **err)
{
	int fd = open_locked(filename, O_CREAT, err);

	if (fd >= 0 && ftruncate(fd, 0) < 0) {
		error_set_errno(err, errno, "Could not create '%s'", filename);
		close(fd);
		return -1;
	}
	return fd;
}

int block_create_again(const char *filename, struct error **err)
{
	return open_locked(filename, 0, err);
}

bool block_create_end(const char *filename, int fd, int ret, struct error **err)
{
	close(fd);
	if (ret) {
		error_set_errno(err, ret, "Could not write '%s'", filename);
		unlink(filename);
	}
	return !ret;
}

int block_create_write(int fd, uint64_t offset, const void *buf, size_t bytes)
{
	return lseek(fd, offset, SEEK_SET) < 0 ? -errno : write_full(fd, buf, bytes);
}

int block_create_fill(int fd, uint64_t offset, uint8_t byte, uint64_t bytes)
{
	uint8_t buf[65536];
	int ret = lseek(fd, offset, SEEK_SET) < 0 ? -errno : 0;

	memset(buf, byte, MIN(bytes, sizeof(buf)));
	for (uint64_t n; bytes && !ret; bytes -= n) {
		n = MIN(bytes, sizeof(buf));
		ret = write_full(fd, buf, n);
	}
	return ret;
}

void block_create_uuid(uint8_t uuid[16])
{
	if (getrandom(uuid, 16, 0) != 16)
		memset(uuid, 0x5a, 16);
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

static int reserve(int fd, uint64_t size, enum block_prealloc prealloc)
{
	char zero[65536] = {0};
	int ret;

	if (ftruncate(fd, size) < 0)
		return -errno;
	if (prealloc == PREALLOC_FALLOC && size)
		return -posix_fallocate(fd, 0, size);
	if (prealloc != PREALLOC_FULL)
		return 0;
	for (uint64_t at = 0; at < size; at += sizeof(zero)) {
		ret = write_full(fd, zero, MIN(sizeof(zero), size - at));
		if (ret)
			return ret;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

bool block_create_raw(const char *filename, const struct block_create *c, struct error **err)
{
	int fd, ret;

	if (c->size > INT64_MAX - 511) {
		error_set(err, "Image size is too large");
		return false;
	}
	fd = block_create_file(filename, err);
	if (fd < 0)
		return false;
	ret = reserve(fd, ALIGN_UP(c->size, 512), c->prealloc);
	close(fd);
	if (ret) {
		error_set_errno(err, ret, "Could not resize file");
		unlink(filename);
	}
	return !ret;
}

struct layout {
	unsigned cluster_bits, order;
	uint64_t l1_entries, l1_clusters, blocks, table_clusters, clusters;
	uint64_t crypt, crypt_clusters; /* bytes of the LUKS header, or 0 */
};

static bool plan(struct layout *l, const struct block_create *c, struct error **err)
{
	unsigned bits = c->refcount_bits ? c->refcount_bits : 16, l1_bits;
	uint64_t per_block, before;

	l->cluster_bits = c->cluster_bits ? c->cluster_bits : 16;
	if (l->cluster_bits < QCOW2_MIN_CLUSTER_BITS || l->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
		error_set(err, "Cluster size must be a power of two between 512 and 2048k");
		return false;
	}
	if (!is_pow2(bits) || bits > 64) {
		error_set(err, "Refcount width must be a power of two and may not exceed 64 bits");
		return false;
	}
	if (c->v2 && bits != 16) {
		error_set(err,
			  "Different refcount widths than 16 bits require compatibility level 1.1 "
			  "or above (use version=v3 or greater)");
		return false;
	}
	if (c->v2 && c->lazy_refcounts) {
		error_set(err,
			  "Lazy refcounts only supported with compatibility level 1.1 and above "
			  "(use version=v3 or greater)");
		return false;
	}
	if (c->v2 && c->zstd) {
		error_set(err,
			  "Non-zlib compression type is only supported with compatibility level "
			  "1.1 and above (use version=v3 or greater)");
		return false;
	}
	if (c->v2 && c->data_file) {
		error_set(err,
			  "External data files are only supported with compatibility level 1.1 "
			  "and above (use version=v3 or greater)");
		return false;
	}
	if (c->raw_data && !c->data_file) {
		error_set(err, "data-file-raw requires data-file");
		return false;
	}
	if (c->raw_data && c->backing) {
		error_set(err, "Backing file and data-file-raw cannot be used at the same time");
		return false;
	}
	if (c->extended_l2 && c->v2) {
		error_set(err,
			  "Extended L2 entries are only supported with compatibility level 1.1 and "
			  "above (use version=v3 or greater)");
		return false;
	}
	if (c->extended_l2 && l->cluster_bits < 14) {
		error_set(err, "Extended L2 entries are only supported with cluster sizes of at "
			       "least 16384 bytes");
		return false;
	}
	if (c->backing && c->prealloc == PREALLOC_FULL && c->extended_l2) {
		error_set(err, "Unsupported preallocation mode 'full' with a backing file");
		return false;
	}
	if (c->backing && c->prealloc && !c->extended_l2) {
		error_set(err,
			  "Backing file and preallocation can only be used at the same time if "
			  "extended_l2 is enabled");
		return false;
	}
	if (c->luks && c->raw_data) {
		error_set(err, "data_file_raw and encryption cannot be used at the same time");
		return false;
	}
	l->order = __builtin_ctz(bits);
	l->crypt_clusters = div_round_up(l->crypt, UINT64_C(1) << l->cluster_bits);
	l1_bits = 2 * l->cluster_bits - (c->extended_l2 ? 4 : 3);
	l->l1_entries = div_round_up(c->size, UINT64_C(1) << l1_bits);
	if (c->size > INT64_MAX - 511 || l->l1_entries * 8 > QCOW2_MAX_L1_BYTES) {
		error_set(err, "Image size is too large for a cluster size of %u",
			  1u << l->cluster_bits);
		return false;
	}
	l->l1_clusters = div_round_up(l->l1_entries * 8, UINT64_C(1) << l->cluster_bits);
	per_block = UINT64_C(1) << (l->cluster_bits + 3 - l->order);
	l->blocks = l->table_clusters = 1;
	do {
		before = l->blocks + l->table_clusters;
		l->clusters = 1 + l->table_clusters + l->blocks + l->l1_clusters +
			      l->crypt_clusters;
		l->blocks = div_round_up(l->clusters, per_block);
		l->table_clusters = div_round_up(l->blocks * 8, UINT64_C(1) << l->cluster_bits);
	} while (before != l->blocks + l->table_clusters);
	return true;
}

static uint64_t crypt_offset(const struct layout *l)
{
	return (l->clusters - l->crypt_clusters) << l->cluster_bits;
}

static size_t put_extension(uint8_t *buf, size_t at, uint32_t type, const void *data, size_t len)
{
	store_be32(buf + at, type);
	store_be32(buf + at + 4, len);
	memcpy(buf + at + 8, data, len);
	return at + 8 + ALIGN_UP(len, 8);
}

/* What the bits mean, for programs that do not know them. */
static size_t put_feature_names(uint8_t *buf, size_t at)
{
	static const struct {
		uint8_t kind, bit;
		const char *name;
	} names[] = {
		{0, 0, "dirty bit"},
		{0, 1, "corrupt bit"},
		{0, 2, "external data file"},
		{0, 3, "compression type"},
		{0, 4, "extended L2 entries"},
		{1, 0, "lazy refcounts"},
		{2, 0, "bitmaps"},
		{2, 1, "raw external data"},
	};
	uint8_t table[ARRAY_SIZE(names) * 48] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		table[i * 48] = names[i].kind;
		table[i * 48 + 1] = names[i].bit;
		memcpy(&table[i * 48 + 2], names[i].name, strlen(names[i].name));
	}
	return put_extension(buf, at, QCOW2_EXT_FEATURES, table, sizeof(table));
}

static bool put_header(uint8_t *buf, const struct layout *l, const struct block_create *c,
		       struct error **err)
{
	uint64_t cluster = UINT64_C(1) << l->cluster_bits;
	size_t at = c->v2 ? QCOW2_V2_HEADER : QCOW2_V3_HEADER + 8;
	size_t name = c->backing ? strlen(c->backing) : 0;
	size_t format = c->backing_format ? ALIGN_UP(strlen(c->backing_format), 8) + 8 : 0;
	size_t data = c->data_file ? ALIGN_UP(strlen(c->data_file), 8) + 8 : 0;
	size_t crypt = c->luks ? 8 + 16 : 0;

	format += crypt;
	if (data > 1023 + 8 || at + format + data + 8 > cluster) {
		error_set(err, "Data file name too long for the image's header");
		return false;
	}
	format += data;
	if (name > 1023 || at + format + 8 + name > cluster) {
		error_set(err, "Backing file name too long for the image's header");
		return false;
	}
	store_be32(buf, QCOW2_MAGIC);
	store_be32(buf + 4, c->v2 ? 2 : 3);
	store_be32(buf + 20, l->cluster_bits);
	store_be64(buf + QCOW2_OFF_SIZE, ALIGN_UP(c->size, 512));
	store_be32(buf + QCOW2_OFF_CRYPT_METHOD, c->luks ? QCOW2_CRYPT_LUKS : QCOW2_CRYPT_NONE);
	store_be32(buf + QCOW2_OFF_L1_SIZE, l->l1_entries);
	store_be64(buf + QCOW2_OFF_L1, (1 + l->table_clusters + l->blocks) << l->cluster_bits);
	store_be64(buf + QCOW2_OFF_REFTABLE, cluster);
	store_be32(buf + QCOW2_OFF_REFTABLE_CLUSTERS, l->table_clusters);
	if (!c->v2) {
		store_be64(buf + QCOW2_OFF_INCOMPATIBLE,
			   (c->zstd ? QCOW2_INCOMPAT_COMPRESSION : 0) |
				   (c->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0) |
				   (c->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0));
		store_be64(buf + QCOW2_OFF_AUTOCLEAR, c->raw_data ? QCOW2_AUTOCLEAR_RAW_DATA : 0);
		store_be64(buf + QCOW2_OFF_COMPATIBLE,
			   c->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
		store_be32(buf + 96, l->order);
		store_be32(buf + 100, QCOW2_V3_HEADER + 8);
		buf[QCOW2_V3_HEADER] = c->zstd ? QCOW2_ZSTD : QCOW2_ZLIB;
	}
	if (c->backing_format)
		at = put_extension(buf, at, (uint32_t)QCOW2_EXT_BACKING_FORMAT, c->backing_format,
				   strlen(c->backing_format));
	if (c->data_file)
		at = put_extension(buf, at, QCOW2_EXT_DATA_FILE, c->data_file,
				   strlen(c->data_file));
	if (c->luks) {
		uint8_t place[16];

		store_be64(place, crypt_offset(l));
		store_be64(place + 8, l->crypt);
		at = put_extension(buf, at, QCOW2_EXT_CRYPTO, place, sizeof(place));
	}
	if (!c->v2 && at + 8 + 8 * 48 + 8 + name <= cluster)
		at = put_feature_names(buf, at);
	at += 8; /* the end of extensions is zeroes */
	if (name) {
		store_be64(buf + 8, at);
		store_be32(buf + 16, name);
		memcpy(buf + at, c->backing, name);
	}
	return true;
}

/* The image is there and empty; now its clusters. */
static bool preallocate(const char *filename, const struct block_create *c, struct error **err)
{
	const uint32_t flags = BLOCK_OPEN_RDWR | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_BLOCKDEV;
	struct opts opts = {0};
	const struct block_names names = {.objects = c->objects};
	struct evloop *loop = evloop_new(NULL, err);
	struct block_node *node = NULL;
	int ret;

	if (!loop)
		return false;
	opts_add(&opts, "driver", "qcow2");
	opts_add(&opts, "file.driver", "file");
	opts_add(&opts, "file.filename", filename);
	if (c->luks)
		opts_add(&opts, "encrypt.key-secret", opts_get(c->opts, "encrypt.key-secret"));
	node = block_open_tool(loop, &opts, flags, &names, err);
	opts_free(&opts);
	ret = node ? qcow2_preallocate(node, 0, c->prealloc ? c->prealloc : PREALLOC_METADATA) : 0;
	block_unref(node);
	evloop_free(loop);
	if (ret)
		error_set_errno(err, ret, "Could not preallocate '%s'", filename);
	return node && !ret;
}

static bool create_data_file(const struct block_create *c, struct error **err)
{
	struct block_create raw = {.size = c->size,
				   .prealloc = c->prealloc == PREALLOC_METADATA ? PREALLOC_OFF
										: c->prealloc};

	return !c->data_file || block_create_raw(c->data_file, &raw, err);
}

/* What stands at the file's beginning; the L1 table behind it is zeroes. NULL with err. */
static uint8_t *make_metadata(const struct layout *l, const struct block_create *c, size_t bytes,
			      struct error **err)
{
	uint64_t cluster = UINT64_C(1) << l->cluster_bits;
	uint64_t per_block = UINT64_C(1) << (l->cluster_bits + 3 - l->order);
	uint8_t *buf = calloc(1, bytes);

	if (!buf) {
		error_set_errno(err, ENOMEM, "Could not make the image's metadata");
		return NULL;
	}
	if (!put_header(buf, l, c, err)) {
		free(buf);
		return NULL;
	}
	for (uint64_t i = 0; i < l->blocks; i++)
		store_be64(buf + cluster + i * 8, (1 + l->table_clusters + i) << l->cluster_bits);
	for (uint64_t i = 0; i < l->clusters; i++)
		refcount_set(buf + ((1 + l->table_clusters + i / per_block) << l->cluster_bits),
			     l->order, i % per_block, 1);
	return buf;
}

static bool write_image(const char *filename, const struct layout *l, const struct block_create *c,
			const uint8_t *luks, size_t luks_len, struct error **err)
{
	size_t bytes = (1 + l->table_clusters + l->blocks) << l->cluster_bits;
	uint8_t *buf = make_metadata(l, c, bytes, err);
	int fd = buf ? block_create_file(filename, err) : -1, ret = 0;

	if (fd >= 0) {
		if (ftruncate(fd, l->clusters << l->cluster_bits) < 0)
			ret = -errno;
		if (!ret)
			ret = write_full(fd, buf, bytes);
		if (!ret && luks)
			ret = block_create_write(fd, crypt_offset(l), luks, luks_len);
	}
	free(buf);
	return fd >= 0 && block_create_end(filename, fd, ret, err);
}

bool block_create_qcow2(const char *filename, const struct block_create *c, struct error **err)
{
	struct layout l = {0};
	struct luks_params p;
	uint8_t *luks = NULL;
	size_t luks_len = 0;
	bool ok;

	if (c->luks && !luks_params_read(&p, c->opts, "encrypt.", c->objects, err))
		return false;
	if (c->luks)
		l.crypt = luks_params_payload(&p);
	if (!plan(&l, c, err))
		return false;
	if (c->luks && !(luks = luks_make(&p, &luks_len, err)))
		return false;
	ok = create_data_file(c, err) && write_image(filename, &l, c, luks, luks_len, err);
	free(luks);
	/* A raw data file may be written by others: no cluster of it is to read as zero by itself.
	 */
	return ok && ((!c->prealloc && !c->raw_data) || preallocate(filename, c, err));
}
