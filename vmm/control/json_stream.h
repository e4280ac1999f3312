/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a stream of bytes into JSON values (RFC 8259): one ends where its brackets close, whatever
 * lies between it and the next. What is inside is for a real parser; here only its extent, its size
 * and its depth count, so that a client can neither fill the memory nor the stack.
 *
 * Any one thread.
 */
#ifndef VMM_CONTROL_JSON_STREAM_H
#define VMM_CONTROL_JSON_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_STREAM_MAX_SIZE   (64u << 20) /* bytes of one value */
#define JSON_STREAM_MAX_DEPTH  1024
#define JSON_STREAM_MAX_TOKENS (1u << 18) /* a parser's objects are bigger than their text */

struct json_stream {
	char *buf;
	size_t len, room;
	size_t max_size;
	unsigned depth, tokens;
	bool in_string, escaped;
	bool skipping; /* to the end of a line that was no value */
};

enum json_stream_result {
	JSON_STREAM_MORE,    /* goes on with the next byte */
	JSON_STREAM_VALUE,   /* buf holds len bytes: an object or array; cleared by the next call */
	JSON_STREAM_GARBAGE, /* not the beginning of one: the rest of the line is skipped */
	JSON_STREAM_TOO_BIG, /* or too many parts */
	JSON_STREAM_TOO_DEEP,
};

void json_stream_init(struct json_stream *s);
void json_stream_destroy(struct json_stream *s);
enum json_stream_result json_stream_put(struct json_stream *s, char byte);

#endif
