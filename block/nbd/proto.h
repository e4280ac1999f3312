/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD protocol, fixed newstyle (doc/proto.md of the reference implementation), as the server
 * reads and writes it. Pure functions on bytes: every length a client sends is checked here. All
 * numbers on the wire are big-endian.
 */
#ifndef BLOCK_NBD_PROTO_H
#define BLOCK_NBD_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_MAGIC	 UINT64_C(0x4e42444d41474943) /* NBDMAGIC */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454F5054) /* IHAVEOPT */
#define NBD_REPLY_MAGIC	 UINT64_C(0x0003e889045565a9)

enum {
	NBD_REQUEST_MAGIC = 0x25609513,
	NBD_SIMPLE_MAGIC = 0x67446698,
	NBD_CHUNK_MAGIC = 0x668e33ef,
};

enum { NBD_DEFAULT_PORT = 10809, NBD_MAX_STRING = 4096 };

/* Handshake flags, the server's and the client's. */
enum { NBD_FLAG_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_NO_ZEROES = 1 << 1 };

/* Transmission flags. */
enum {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_opt {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERROR UINT32_C(0x80000000)
enum {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP   (NBD_REP_ERROR | 1)
#define NBD_REP_ERR_POLICY  (NBD_REP_ERROR | 2)
#define NBD_REP_ERR_INVALID (NBD_REP_ERROR | 3)
#define NBD_REP_ERR_TLS	    (NBD_REP_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN (NBD_REP_ERROR | 6)
#define NBD_REP_ERR_TOO_BIG (NBD_REP_ERROR | 9)

enum { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

enum nbd_cmd {
	NBD_CMD_READ,
	NBD_CMD_WRITE,
	NBD_CMD_DISC,
	NBD_CMD_FLUSH,
	NBD_CMD_TRIM,
	NBD_CMD_CACHE,
	NBD_CMD_WRITE_ZEROES,
	NBD_CMD_BLOCK_STATUS,
};

enum {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

/* Structured replies. */
enum { NBD_REPLY_DONE = 1 << 0 };
enum {
	NBD_REPLY_NONE = 0,
	NBD_REPLY_OFFSET_DATA = 1,
	NBD_REPLY_OFFSET_HOLE = 2,
	NBD_REPLY_BLOCK_STATUS = 5,
	NBD_REPLY_ERROR = 0x8001,
};

/* base:allocation */
enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };
/* qemu:dirty-bitmap:NAME */
enum { NBD_STATE_DIRTY = 1 << 0 };

/* What goes over the wire at once. */
enum {
	NBD_HELLO_BYTES = 18,
	NBD_OPTION_BYTES = 16,
	NBD_OPTION_REPLY_BYTES = 20,
	NBD_REQUEST_BYTES = 28,
	NBD_SIMPLE_BYTES = 16,
	NBD_CHUNK_BYTES = 20,
	/* In one request's or option's data. Options are names; clients see the other as the
	 * largest block size. */
	NBD_MAX_OPTION = 64 << 10,
	NBD_MAX_PAYLOAD = 32 << 20,
};

struct nbd_option {
	uint32_t code, length;
};
/* False: not an option at all. */
bool nbd_parse_option(const uint8_t buf[NBD_OPTION_BYTES], struct nbd_option *out);

/* A string on the wire; no terminator. */
struct nbd_string {
	const char *text;
	uint32_t length;
};
bool nbd_string_is(struct nbd_string s, const char *text);

/* INFO and GO. */
struct nbd_info_query {
	struct nbd_string name;
	bool wants_name, wants_description, wants_block_size;
};
bool nbd_parse_info(const uint8_t *data, size_t length, struct nbd_info_query *out);

/* LIST_META_CONTEXT and SET_META_CONTEXT; the queries are validated whole. */
struct nbd_meta_query {
	struct nbd_string name;
	uint32_t count;
	const uint8_t *next, *end;
};
bool nbd_parse_meta(const uint8_t *data, size_t length, struct nbd_meta_query *out);
bool nbd_next_meta(struct nbd_meta_query *q, struct nbd_string *query);
/* Whether a query is for the context called name. In a list "base:" and "qemu:dirty-bitmap:" ask
 * for all below. */
bool nbd_meta_matches(struct nbd_string query, const char *name, bool list);

struct nbd_request {
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t length;
};
/* False: not a request at all. */
bool nbd_parse_request(const uint8_t buf[NBD_REQUEST_BYTES], struct nbd_request *out);

/* What was agreed on, as far as requests depend on it. */
struct nbd_agreed {
	uint64_t size;
	uint16_t flags; /* transmission flags */
	bool structured;
	bool contexts; /* at least one */
};
/* 0, or the errno to answer with. DISC is the caller's. */
int nbd_check_request(const struct nbd_request *r, const struct nbd_agreed *a);
/* Whether as many bytes as r->length follow the header. */
static inline bool nbd_has_payload(const struct nbd_request *r)
{
	return r->type == NBD_CMD_WRITE;
}

/* Of an errno, negative or not, the number on the wire. */
uint32_t nbd_error_number(int err);

void nbd_put_hello(uint8_t buf[NBD_HELLO_BYTES], uint16_t flags);
void nbd_put_option_reply(uint8_t buf[NBD_OPTION_REPLY_BYTES], uint32_t option, uint32_t type,
			  uint32_t length);
void nbd_put_simple(uint8_t buf[NBD_SIMPLE_BYTES], uint32_t error, uint64_t cookie);
void nbd_put_chunk(uint8_t buf[NBD_CHUNK_BYTES], uint16_t flags, uint16_t type, uint64_t cookie,
		   uint32_t length);

#endif
