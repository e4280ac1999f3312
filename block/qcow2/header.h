/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 header (QEMU's docs/interop/qcow2.txt, "Header" and "Header extensions").
 * Pure functions on bytes that nobody trusts; any thread.
 */
#ifndef BLOCK_QCOW2_HEADER_H
#define BLOCK_QCOW2_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/core/error.h"

#define QCOW2_MAGIC 0x514649fbu

enum {
	QCOW2_MIN_CLUSTER_BITS = 9,
	QCOW2_MAX_CLUSTER_BITS = 21,
	QCOW2_MAX_L1_BYTES = 32 << 20,
	QCOW2_MAX_REFTABLE_BYTES = 8 << 20,
	QCOW2_MAX_SNAPSHOTS = 65536,
	QCOW2_MAX_CRYPT_BYTES = 32 << 20,
	QCOW2_V2_HEADER = 72,
	QCOW2_V3_HEADER = 104,
};

/* Byte offsets of what is rewritten in place. */
enum {
	QCOW2_OFF_SIZE = 24,
	QCOW2_OFF_CRYPT_METHOD = 32,
	QCOW2_OFF_L1_SIZE = 36,
	QCOW2_OFF_L1 = 40,
	QCOW2_OFF_REFTABLE = 48,
	QCOW2_OFF_REFTABLE_CLUSTERS = 56,
	QCOW2_OFF_SNAPSHOTS = 60,
	QCOW2_OFF_SNAPSHOT_TABLE = 64,
	QCOW2_OFF_INCOMPATIBLE = 72,
	QCOW2_OFF_COMPATIBLE = 80,
	QCOW2_OFF_AUTOCLEAR = 88,
};

enum {
	QCOW2_INCOMPAT_DIRTY = 1 << 0,
	QCOW2_INCOMPAT_CORRUPT = 1 << 1,
	QCOW2_INCOMPAT_DATA_FILE = 1 << 2,
	QCOW2_INCOMPAT_COMPRESSION = 1 << 3,
	QCOW2_INCOMPAT_EXTL2 = 1 << 4,
	QCOW2_COMPAT_LAZY_REFCOUNTS = 1 << 0,
	QCOW2_AUTOCLEAR_BITMAPS = 1 << 0,
	QCOW2_AUTOCLEAR_RAW_DATA = 1 << 1,
};

enum { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };
enum { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };

enum {
	QCOW2_EXT_END = 0,
	QCOW2_EXT_BACKING_FORMAT = (int)0xe2792aca,
	QCOW2_EXT_FEATURES = 0x6803f857,
	QCOW2_EXT_BITMAPS = 0x23852875,
	QCOW2_EXT_CRYPTO = 0x0537be77,
	QCOW2_EXT_DATA_FILE = 0x44415441,
};

struct qcow2_header {
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_len;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size; /* entries */
	uint64_t l1_offset;
	uint64_t reftable_offset;
	uint32_t reftable_clusters;
	uint32_t snapshots;
	uint64_t snapshots_offset;
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order;
	uint32_t header_length;
	uint8_t compression;
};

/* Of the first bytes of the file (QCOW2_V3_HEADER or more; fewer is an error). Checks every field
 * against the format's limits and the file's size. */
bool qcow2_header_parse(struct qcow2_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
			struct error **err);

struct qcow2_extensions {
	char backing_format[64]; /* "" if none */
	/* Where the bitmaps' extension has its data, in the first cluster (0: there is none). */
	uint32_t bitmaps_offset, bitmaps_len;
	uint32_t data_offset, data_len; /* the data file's name, in the first cluster; or 0 */
	uint64_t crypt_offset, crypt_bytes; /* the LUKS header; or 0 */
	uint32_t features_offset, features_len; /* the table of names, in the first cluster */
};
/* first: the whole first cluster, or what the file has of it. */
/* file_size: as for the header. */
bool qcow2_extensions_parse(struct qcow2_extensions *x, const struct qcow2_header *h,
			    const uint8_t *first, size_t len, uint64_t file_size,
			    struct error **err);

/* Refuses what this driver cannot do, by the feature's name. */
bool qcow2_features_check(const struct qcow2_header *h, const struct qcow2_extensions *x,
			  const uint8_t *first, struct error **err);

#endif
