/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small arithmetic and little-endian accessors that every room uses.
 * Pure functions, any thread.
 */
#ifndef VMM_CORE_UTIL_H
#define VMM_CORE_UTIL_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define NSEC_PER_SEC INT64_C(1000000000)
#define NSEC_PER_MSEC INT64_C(1000000)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Powers of two only. */
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + ((__typeof__(x))(a)-1), a)
#define IS_ALIGNED(x, a) (((x) & ((__typeof__(x))(a)-1)) == 0)

static inline bool is_pow2(uint64_t x)
{
	return x && !(x & (x - 1));
}

static inline uint64_t div_round_up(uint64_t n, uint64_t d)
{
	return n / d + (n % d != 0);
}

/* Whether [offset, offset + len) lies inside [0, size), without overflow. */
static inline bool range_inside(uint64_t offset, uint64_t len, uint64_t size)
{
	return offset <= size && len <= size - offset;
}

/* Whether two ranges share a byte; neither may wrap. */
static inline bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return alen && blen && a < b + blen && b < a + alen;
}

/* Unaligned little-endian and big-endian loads and stores. */
static inline uint16_t load_le16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static inline uint32_t load_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static inline uint64_t load_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static inline void store_le16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_le32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_le64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static inline uint16_t load_be16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t load_be32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline uint64_t load_be64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static inline void store_be16(void *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_be32(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store_be64(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

/* A register value of 1, 2, 4 or 8 bytes; other sizes read as 0 and store nothing. */
static inline uint64_t load_le(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)p;
	case 2:
		return load_le16(p);
	case 4:
		return load_le32(p);
	case 8:
		return load_le64(p);
	}
	return 0;
}

static inline void store_le(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		*(uint8_t *)p = v;
		break;
	case 2:
		store_le16(p, v);
		break;
	case 4:
		store_le32(p, v);
		break;
	case 8:
		store_le64(p, v);
		break;
	}
}

/* Memory that start-up cannot do without: these end the process with a message when the host has
 * none left. Never use them for a size that a guest, an image or a client chose. */
void *xmalloc(size_t size);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The whole of n bytes, through short transfers and EINTR. 0 or -errno; a read that meets
 * end-of-file returns -ENODATA. */
int read_full(int fd, void *buf, size_t n);
int write_full(int fd, const void *buf, size_t n);

/* Of count names, the one nearest to word by edit distance, or NULL when none is near enough to
 * be what was meant. For "did you mean" in messages. */
const char *nearest_name(const char *word, const char *const *names, size_t count);

/*
 * Sizes as the command line writes them: decimal or 0x, an optional fraction, an optional suffix
 * B K M G T P E (powers of 1024, either case). A bare number is multiplied by unit.
 * False if s is not wholly a size or does not fit.
 */
bool parse_size(const char *s, uint64_t unit, uint64_t *out);
/* Decimal, 0x or 0 (octal) prefix; the whole string. */
bool parse_u64(const char *s, uint64_t *out);
/* on/off, yes/no, true/false, y/n. */
bool parse_bool(const char *s, bool *out);

#endif
