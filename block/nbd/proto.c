/* SPDX-License-Identifier: Apache-2.0 */
/* NBD's messages; see proto.h. Pure functions, any thread. */
#include "block/nbd/proto.h"

#include <errno.h>
#include <string.h>

#include "vmm/core/util.h"

bool nbd_parse_option(const uint8_t buf[NBD_OPTION_BYTES], struct nbd_option *out)
{
	out->code = load_be32(buf + 8);
	out->length = load_be32(buf + 12);
	return load_be64(buf) == NBD_OPTION_MAGIC;
}

bool nbd_string_is(struct nbd_string s, const char *text)
{
	return s.length == strlen(text) && !memcmp(s.text, text, s.length);
}

/* Takes a counted string from *at; what is left of it afterwards is [*at, end). */
static bool take_string(const uint8_t **at, const uint8_t *end, struct nbd_string *out)
{
	uint32_t length;

	if (end - *at < 4)
		return false;
	length = load_be32(*at);
	if (length > NBD_MAX_STRING || length > (size_t)(end - *at - 4))
		return false;
	*out = (struct nbd_string){(const char *)*at + 4, length};
	*at += 4 + length;
	return true;
}

bool nbd_parse_info(const uint8_t *data, size_t length, struct nbd_info_query *out)
{
	const uint8_t *at = data, *end = data + length;

	*out = (struct nbd_info_query){0};
	if (!take_string(&at, end, &out->name) || end - at < 2 || end - at != 2 + 2 * load_be16(at))
		return false;
	for (at += 2; at < end; at += 2) {
		switch (load_be16(at)) {
		case NBD_INFO_NAME:
			out->wants_name = true;
			break;
		case NBD_INFO_DESCRIPTION:
			out->wants_description = true;
			break;
		case NBD_INFO_BLOCK_SIZE:
			out->wants_block_size = true;
			break;
		}
	}
	return true;
}

bool nbd_parse_meta(const uint8_t *data, size_t length, struct nbd_meta_query *out)
{
	const uint8_t *at = data, *end = data + length;
	struct nbd_string query;
	uint32_t count;

	*out = (struct nbd_meta_query){0};
	if (!take_string(&at, end, &out->name) || end - at < 4)
		return false;
	count = load_be32(at);
	at += 4;
	out->count = count;
	out->next = at;
	out->end = end;
	/* Each takes 4 bytes at least: the count bounds nothing, the data does. */
	while (count--)
		if (!take_string(&at, end, &query))
			return false;
	return at == end;
}

bool nbd_next_meta(struct nbd_meta_query *q, struct nbd_string *query)
{
	return take_string(&q->next, q->end, query);
}

bool nbd_meta_matches(struct nbd_string query, const char *name, bool list)
{
	if (nbd_string_is(query, name))
		return true;
	return list && query.length && query.text[query.length - 1] == ':' &&
	       query.length < strlen(name) && !memcmp(query.text, name, query.length);
}

bool nbd_parse_request(const uint8_t buf[NBD_REQUEST_BYTES], struct nbd_request *out)
{
	out->flags = load_be16(buf + 4);
	out->type = load_be16(buf + 6);
	out->cookie = load_be64(buf + 8);
	out->offset = load_be64(buf + 16);
	out->length = load_be32(buf + 24);
	return load_be32(buf) == NBD_REQUEST_MAGIC;
}

/* What a command may carry, of what was agreed on. */
static uint16_t allowed_flags(const struct nbd_request *r, const struct nbd_agreed *a)
{
	uint16_t fua = a->flags & NBD_FLAG_SEND_FUA ? NBD_CMD_FLAG_FUA : 0;

	switch (r->type) {
	case NBD_CMD_READ:
		return fua | (a->flags & NBD_FLAG_SEND_DF ? NBD_CMD_FLAG_DF : 0);
	case NBD_CMD_WRITE_ZEROES:
		return fua | NBD_CMD_FLAG_NO_HOLE |
		       (a->flags & NBD_FLAG_SEND_FAST_ZERO ? NBD_CMD_FLAG_FAST_ZERO : 0);
	case NBD_CMD_BLOCK_STATUS:
		return fua | NBD_CMD_FLAG_REQ_ONE;
	default:
		return fua;
	}
}

static bool is_write(const struct nbd_request *r)
{
	return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_TRIM ||
	       r->type == NBD_CMD_WRITE_ZEROES;
}

/* The transmission flag that a command needs; 0: none. */
static uint16_t needs(uint16_t type)
{
	switch (type) {
	case NBD_CMD_FLUSH:
		return NBD_FLAG_SEND_FLUSH;
	case NBD_CMD_TRIM:
		return NBD_FLAG_SEND_TRIM;
	case NBD_CMD_CACHE:
		return NBD_FLAG_SEND_CACHE;
	case NBD_CMD_WRITE_ZEROES:
		return NBD_FLAG_SEND_WRITE_ZEROES;
	default:
		return 0;
	}
}

int nbd_check_request(const struct nbd_request *r, const struct nbd_agreed *a)
{
	if (r->type > NBD_CMD_BLOCK_STATUS || r->type == NBD_CMD_DISC)
		return EINVAL;
	if (is_write(r) && (a->flags & NBD_FLAG_READ_ONLY))
		return EPERM;
	if ((needs(r->type) & ~a->flags) || (r->flags & ~allowed_flags(r, a)))
		return EINVAL;
	if (r->type == NBD_CMD_FLUSH)
		return r->offset || r->length ? EINVAL : 0;
	if (r->type == NBD_CMD_BLOCK_STATUS && (!a->structured || !a->contexts || !r->length))
		return EINVAL;
	if ((r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE || r->type == NBD_CMD_CACHE) &&
	    r->length > NBD_MAX_PAYLOAD)
		return EINVAL;
	if (!range_inside(r->offset, r->length, a->size))
		return is_write(r) ? ENOSPC : EINVAL;
	return 0;
}

uint32_t nbd_error_number(int err)
{
	switch (err < 0 ? -err : err) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
	case EACCES:
		return 1;
	case ENOMEM:
		return 12;
	case EINVAL:
		return 22;
	case ENOSPC:
	case EFBIG:
	case EDQUOT:
		return 28;
	case EOVERFLOW:
		return 75;
	case EOPNOTSUPP:
		return 95;
	case ESHUTDOWN:
		return 108;
	default:
		return 5; /* EIO */
	}
}

void nbd_put_hello(uint8_t buf[NBD_HELLO_BYTES], uint16_t flags)
{
	store_be64(buf, NBD_MAGIC);
	store_be64(buf + 8, NBD_OPTION_MAGIC);
	store_be16(buf + 16, flags);
}

void nbd_put_option_reply(uint8_t buf[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
			  uint32_t length)
{
	store_be64(buf, NBD_REPLY_MAGIC);
	store_be32(buf + 8, option);
	store_be32(buf + 12, type);
	store_be32(buf + 16, length);
}

void nbd_put_simple(uint8_t buf[NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie)
{
	store_be32(buf, NBD_SIMPLE_MAGIC);
	store_be32(buf + 4, error);
	store_be64(buf + 8, cookie);
}

void nbd_put_chunk(uint8_t buf[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type, uint64_t cookie,
		   uint32_t length)
{
	store_be32(buf, NBD_CHUNK_MAGIC);
	store_be16(buf + 4, flags);
	store_be16(buf + 6, type);
	store_be64(buf + 8, cookie);
	store_be32(buf + 16, length);
}
