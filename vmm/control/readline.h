/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Editing of one line at a time: what terminals send in, what they are to show out. Characters,
 * backspace, Ctrl-U, Ctrl-W, Ctrl-C, and earlier lines by the arrow keys.
 *
 * Pure but for the two callbacks; any one thread.
 */
#ifndef VMM_CONTROL_READLINE_H
#define VMM_CONTROL_READLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define READLINE_MAX	 1024
#define READLINE_HISTORY 16

struct readline {
	char line[READLINE_MAX];
	size_t len;
	char *history[READLINE_HISTORY]; /* newest first; owned */
	int at;				 /* in history; -1: the new line */
	unsigned escape;		 /* bytes of an escape sequence seen */
	bool after_cr;			 /* a line feed that follows belongs to it */
	const char *prompt;
	void (*show)(void *opaque, const char *text, size_t len);
	void (*done)(void *opaque, const char *line);
	void *opaque;
};

void readline_init(struct readline *r, const char *prompt,
		   void (*show)(void *opaque, const char *text, size_t len),
		   void (*done)(void *opaque, const char *line), void *opaque);
void readline_destroy(struct readline *r);
/* Shows prompt and what of the line there is: at the start, after other text. */
void readline_show(struct readline *r);
void readline_put(struct readline *r, uint8_t byte);

#endif
