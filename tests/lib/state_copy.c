/* SPDX-License-Identifier: Apache-2.0 */
/* State by its table: see state_copy.h. */
#include "tests/lib/state_copy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct stream {
	uint8_t *out;
	const uint8_t *in;
	size_t at, size;
	struct error **err;
	bool ok;
};

static void transfer(struct stream *s, void *p, size_t n)
{
	assert_true(n <= s->size - s->at);
	if (s->out)
		memcpy(s->out + s->at, p, n);
	else
		memcpy(p, s->in + s->at, n);
	s->at += n;
}

static size_t width(const struct state_field *f)
{
	switch (f->type) {
	case STATE_BOOL:
	case STATE_U8:
		return 1;
	case STATE_U16:
		return 2;
	case STATE_U32:
		return 4;
	case STATE_U64:
	case STATE_I64:
		return 8;
	default:
		return f->size;
	}
}

static void walk(struct stream *s, const struct state_desc *desc, char *object)
{
	if (s->out && desc->pre_save)
		desc->pre_save(object);
	for (const struct state_field *f = desc->fields; f->type != STATE_END && s->ok; f++) {
		size_t count = f->count ? f->count : 1;
		char *p = object + f->offset;

		if (f->count_offset) {
			uint32_t n;

			memcpy(&n, object + f->count_offset, sizeof(n));
			assert_true(n <= count);
			count = n;
		}
		if (f->type == STATE_PTR)
			p = *(char **)p;
		for (size_t i = 0; i < count && s->ok; i++, p += width(f)) {
			if (f->desc)
				walk(s, f->desc, p);
			else
				transfer(s, p, width(f));
		}
	}
	if (s->in && s->ok && desc->post_load)
		s->ok = desc->post_load(object, desc->version, s->err);
}

size_t state_save(const struct state_desc *desc, void *object, uint8_t *buf, size_t room)
{
	struct stream s = {.out = buf, .size = room, .ok = true};

	walk(&s, desc, object);
	return s.at;
}

bool state_load(const struct state_desc *desc, void *object, const uint8_t *buf, size_t len,
		struct error **err)
{
	struct stream s = {.in = buf, .size = len, .err = err, .ok = true};

	walk(&s, desc, object);
	if (s.ok)
		assert_int_equal(s.at, len);
	return s.ok;
}
