/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PS/2 keyboard and mouse as the controller's serial lines see them: bytes in, bytes out (IBM PS/2
 * Technical Reference, Keyboards and Auxiliary Device; the wheel as Microsoft's IntelliMouse).
 *
 * No lock and no thread of their own: the controller calls under its lock.
 */
#ifndef HW_LEGACY_PS2_H
#define HW_LEGACY_PS2_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/state.h"

enum { PS2_QUEUE = 32 };

struct ps2_queue {
	uint8_t data[PS2_QUEUE];
	uint32_t start, count;
	uint8_t last; /* what FE (resend) asks for */
};

struct ps2_keyboard {
	struct ps2_queue out;
	uint8_t command; /* whose argument is awaited, or 0 */
	uint8_t leds, typematic, set;
	bool scanning;
};

struct ps2_mouse {
	struct ps2_queue out;
	uint8_t command;
	uint8_t id; /* 0, 3 with a wheel, 4 with five buttons */
	uint8_t rate, resolution;
	uint8_t rates[2]; /* the two sample rates before, which unlock the ids */
	uint8_t buttons, sent_buttons;
	bool reporting, remote, wrap, scale2;
	int32_t dx, dy, dz;
};

void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
/* As ps2_key() in legacy.h. */
void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t code, bool down);

void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint8_t buttons);
/* Makes a packet of what moved since the last one, if there is room for it. */
void ps2_mouse_report(struct ps2_mouse *m);

/* False if the queue is empty. */
bool ps2_get(struct ps2_queue *q, uint8_t *byte);

/* What a controller with translation makes of set 2 codes: *release remembers an F0. False if the
 * byte only changed that. */
bool ps2_translate(uint8_t *byte, bool *release);

extern const struct state_desc ps2_keyboard_state, ps2_mouse_state;

#endif
