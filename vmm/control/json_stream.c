/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON values in a stream of hostile bytes; see json_stream.h.
 */
#include "vmm/control/json_stream.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

#define FIRST_ROOM 1024

void json_stream_init(struct json_stream *s)
{
	*s = (struct json_stream){ .max_size = JSON_STREAM_MAX_SIZE };
}

void json_stream_destroy(struct json_stream *s)
{
	size_t max_size = s->max_size;

	free(s->buf);
	*s = (struct json_stream){ .max_size = max_size };
}

static bool append(struct json_stream *s, char byte)
{
	if (s->len == s->room) {
		size_t room = s->room ? s->room * 2 : FIRST_ROOM;
		char *buf = room <= s->max_size ? realloc(s->buf, room) : NULL;

		if (!buf)
			return false;
		s->buf = buf;
		s->room = room;
	}
	s->buf[s->len++] = byte;
	return true;
}

/* Between values. */
static enum json_stream_result begin(struct json_stream *s, char byte)
{
	/* A value that was big gives its memory back. */
	if (s->room > FIRST_ROOM * 64)
		json_stream_destroy(s);
	s->len = 0;
	if (s->skipping) {
		s->skipping = byte != '\n';
		return JSON_STREAM_MORE;
	}
	if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n')
		return JSON_STREAM_MORE;
	if (byte != '{' && byte != '[') {
		s->skipping = true;
		return JSON_STREAM_GARBAGE;
	}
	s->depth = s->tokens = 1;
	return append(s, byte) ? JSON_STREAM_MORE : JSON_STREAM_TOO_BIG;
}

enum json_stream_result json_stream_put(struct json_stream *s, char byte)
{
	if (!s->depth)
		return begin(s, byte);
	if (!append(s, byte))
		return JSON_STREAM_TOO_BIG;
	if (s->in_string) {
		if (s->escaped)
			s->escaped = false;
		else if (byte == '\\')
			s->escaped = true;
		else if (byte == '"')
			s->in_string = false;
		return JSON_STREAM_MORE;
	}
	if (strchr("{[,:", byte) && byte && ++s->tokens > JSON_STREAM_MAX_TOKENS)
		return JSON_STREAM_TOO_BIG;
	switch (byte) {
	case '"':
		s->in_string = true;
		break;
	case '{':
	case '[':
		if (++s->depth > JSON_STREAM_MAX_DEPTH)
			return JSON_STREAM_TOO_DEEP;
		break;
	case '}':
	case ']':
		if (--s->depth == 0)
			return JSON_STREAM_VALUE;
		break;
	}
	return JSON_STREAM_MORE;
}
