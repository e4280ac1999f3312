/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line editor; see readline.h. Sequences of ECMA-48 terminals: ESC [ A and ESC [ B are the arrows
 * up and down, ESC [ K erases to the end of the line.
 */
#include "vmm/control/readline.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum { CTRL_C = 3, CTRL_H = 8, CTRL_U = 21, CTRL_W = 23, ESCAPE = 27, DELETE = 127 };

void readline_init(struct readline *r, const char *prompt,
		   void (*show)(void *opaque, const char *text, size_t len),
		   void (*done)(void *opaque, const char *line), void *opaque)
{
	*r = (struct readline){
		.prompt = prompt, .show = show, .done = done, .opaque = opaque, .at = -1
	};
}

void readline_destroy(struct readline *r)
{
	for (size_t i = 0; i < READLINE_HISTORY; i++)
		free(r->history[i]);
	memset(r->history, 0, sizeof(r->history));
}

static void show(struct readline *r, const char *text)
{
	r->show(r->opaque, text, strlen(text));
}

void readline_show(struct readline *r)
{
	show(r, "\r");
	show(r, r->prompt);
	r->show(r->opaque, r->line, r->len);
	show(r, "\033[K");
}

static void remember(struct readline *r)
{
	if (!r->len || (r->history[0] && !strcmp(r->history[0], r->line)))
		return;
	free(r->history[READLINE_HISTORY - 1]);
	memmove(r->history + 1, r->history, sizeof(r->history) - sizeof(r->history[0]));
	r->history[0] = xstrdup(r->line);
}

static void finish(struct readline *r)
{
	char line[READLINE_MAX];

	r->line[r->len] = '\0';
	remember(r);
	memcpy(line, r->line, r->len + 1);
	r->len = 0;
	r->at = -1;
	show(r, "\r\n");
	r->done(r->opaque, line);
}

static void erase(struct readline *r, size_t count)
{
	for (; count && r->len; count--) {
		/* The rest of a character of several bytes goes with it. */
		while (r->len > 1 && (r->line[r->len - 1] & 0xc0) == 0x80)
			r->len--;
		r->len--;
		show(r, "\b \b");
	}
}

static void erase_word(struct readline *r)
{
	while (r->len && r->line[r->len - 1] == ' ')
		erase(r, 1);
	while (r->len && r->line[r->len - 1] != ' ')
		erase(r, 1);
}

static void recall(struct readline *r, int at)
{
	if (at < -1 || at >= READLINE_HISTORY || (at >= 0 && !r->history[at]))
		return;
	r->at = at;
	r->len = at < 0 ? 0 : strlen(r->history[at]);
	memcpy(r->line, at < 0 ? "" : r->history[at], r->len);
	readline_show(r);
}

/* Whether the byte belonged to an escape sequence. */
static bool put_escape(struct readline *r, uint8_t byte)
{
	if (byte == ESCAPE) {
		r->escape = 1;
		return true;
	}
	if (!r->escape)
		return false;
	if (r->escape == 1) {
		r->escape = byte == '[' || byte == 'O' ? 2 : 0;
		return true;
	}
	if (byte >= 0x40) { /* a final byte */
		r->escape = 0;
		if (byte == 'A')
			recall(r, r->at + 1);
		else if (byte == 'B')
			recall(r, r->at - 1);
	}
	return true;
}

void readline_put(struct readline *r, uint8_t byte)
{
	bool after_cr = r->after_cr;
	char c = byte;

	r->after_cr = byte == '\r';
	if (put_escape(r, byte))
		return;
	switch (byte) {
	case '\n':
		if (after_cr)
			return;
		__attribute__((fallthrough));
	case '\r':
		finish(r);
		break;
	case CTRL_H:
	case DELETE:
		erase(r, 1);
		break;
	case CTRL_U:
		erase(r, r->len);
		break;
	case CTRL_W:
		erase_word(r);
		break;
	case CTRL_C:
		r->len = 0;
		r->at = -1;
		show(r, "\r\n");
		readline_show(r);
		break;
	default:
		if (byte < 0x20 || r->len + 1 >= sizeof(r->line))
			return;
		r->line[r->len++] = c;
		r->show(r->opaque, &c, 1);
	}
}
