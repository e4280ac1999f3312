/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyboard behind the controller (ps2.h): commands and the three scan code sets.
 * Thread and lock: the caller's. Owner: the controller.
 */
#include "hw/legacy/legacy.h"
#include "hw/legacy/ps2.h"
#include "vmm/core/util.h"

enum {
	CMD_LEDS = 0xed,
	CMD_ECHO = 0xee,
	CMD_SCAN_SET = 0xf0,
	CMD_ID = 0xf2,
	CMD_TYPEMATIC = 0xf3,
	CMD_ENABLE = 0xf4,
	CMD_DISABLE = 0xf5,
	CMD_DEFAULTS = 0xf6,
	CMD_SET3_FIRST = 0xf7, /* F7..FA: for all keys, FB..FD: for the one named next */
	CMD_SET3_KEY = 0xfb,
	CMD_SET3_LAST = 0xfd,
	CMD_RESEND = 0xfe,
	CMD_RESET = 0xff,

	REPLY_OVERRUN = 0x00,
	REPLY_TEST_PASSED = 0xaa,
	REPLY_ACK = 0xfa,
	REPLY_RESEND = 0xfe,

	RELEASE = 0xf0,
	PREFIX_E0 = 0xe0,
	TYPEMATIC_DEFAULT = 0x2b,

	KEY_F7 = 0x41,
	KEY_SYSRQ = 0x54,
	KEY_PAUSE = PS2_KEY_E0 | 0x46,

	/* Room that keys leave to replies. */
	REPLY_ROOM = 8,
};

/* Set 2 to set 1, as the controller translates; what is not in it stays as it is. */
static const uint8_t set2_to_set1[0x85] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
	0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
	0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
	0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
	0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
	0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
	0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
	0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
	0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, 0x80, 0x81, 0x82, 0x41, 0x54,
};

/* Set 1 make codes to set 3; 0: no such key. */
static const uint8_t set3_plain[0x59] = {
	[0x01] = 0x08, [0x02] = 0x16, [0x03] = 0x1e, [0x04] = 0x26, [0x05] = 0x25, [0x06] = 0x2e,
	[0x07] = 0x36, [0x08] = 0x3d, [0x09] = 0x3e, [0x0a] = 0x46, [0x0b] = 0x45, [0x0c] = 0x4e,
	[0x0d] = 0x55, [0x0e] = 0x66, [0x0f] = 0x0d, [0x10] = 0x15, [0x11] = 0x1d, [0x12] = 0x24,
	[0x13] = 0x2d, [0x14] = 0x2c, [0x15] = 0x35, [0x16] = 0x3c, [0x17] = 0x43, [0x18] = 0x44,
	[0x19] = 0x4d, [0x1a] = 0x54, [0x1b] = 0x5b, [0x1c] = 0x5a, [0x1d] = 0x11, [0x1e] = 0x1c,
	[0x1f] = 0x1b, [0x20] = 0x23, [0x21] = 0x2b, [0x22] = 0x34, [0x23] = 0x33, [0x24] = 0x3b,
	[0x25] = 0x42, [0x26] = 0x4b, [0x27] = 0x4c, [0x28] = 0x52, [0x29] = 0x0e, [0x2a] = 0x12,
	[0x2b] = 0x5c, [0x2c] = 0x1a, [0x2d] = 0x22, [0x2e] = 0x21, [0x2f] = 0x2a, [0x30] = 0x32,
	[0x31] = 0x31, [0x32] = 0x3a, [0x33] = 0x41, [0x34] = 0x49, [0x35] = 0x4a, [0x36] = 0x59,
	[0x37] = 0x7e, [0x38] = 0x19, [0x39] = 0x29, [0x3a] = 0x14, [0x3b] = 0x07, [0x3c] = 0x0f,
	[0x3d] = 0x17, [0x3e] = 0x1f, [0x3f] = 0x27, [0x40] = 0x2f, [0x41] = 0x37, [0x42] = 0x3f,
	[0x43] = 0x47, [0x44] = 0x4f, [0x45] = 0x76, [0x46] = 0x5f, [0x47] = 0x6c, [0x48] = 0x75,
	[0x49] = 0x7d, [0x4a] = 0x84, [0x4b] = 0x6b, [0x4c] = 0x73, [0x4d] = 0x74, [0x4e] = 0x7c,
	[0x4f] = 0x69, [0x50] = 0x72, [0x51] = 0x7a, [0x52] = 0x70, [0x53] = 0x71, [0x54] = 0x57,
	[0x56] = 0x13, [0x57] = 0x56, [0x58] = 0x5e,
};
static const uint8_t set3_e0[0x5e] = {
	[0x1c] = 0x79, [0x1d] = 0x58, [0x35] = 0x77, [0x37] = 0x57, [0x38] = 0x39,
	[0x46] = 0x62, [0x47] = 0x6e, [0x48] = 0x63, [0x49] = 0x6f, [0x4b] = 0x61,
	[0x4d] = 0x6a, [0x4f] = 0x65, [0x50] = 0x60, [0x51] = 0x6d, [0x52] = 0x67,
	[0x53] = 0x64, [0x5b] = 0x8b, [0x5c] = 0x8c, [0x5d] = 0x8d,
};

static uint32_t room(const struct ps2_queue *q)
{
	return PS2_QUEUE - q->count;
}

static void put(struct ps2_queue *q, uint8_t byte)
{
	if (room(q))
		q->data[(q->start + q->count++) % PS2_QUEUE] = byte;
}

bool ps2_get(struct ps2_queue *q, uint8_t *byte)
{
	if (!q->count)
		return false;
	*byte = q->last = q->data[q->start];
	q->start = (q->start + 1) % PS2_QUEUE;
	q->count--;
	return true;
}

bool ps2_translate(uint8_t *byte, bool *release)
{
	if (*byte == RELEASE) {
		*release = true;
		return false;
	}
	if (*byte < sizeof(set2_to_set1))
		*byte = set2_to_set1[*byte];
	if (*release)
		*byte |= 0x80;
	*release = false;
	return true;
}

static uint8_t set1_to_set2(uint8_t make)
{
	if (make == KEY_F7)
		return 0x83;
	if (make == KEY_SYSRQ)
		return 0x84;
	for (unsigned i = 1; i < 0x80; i++)
		if (set2_to_set1[i] == make)
			return i;
	return 0;
}

static void defaults(struct ps2_keyboard *k, bool scanning)
{
	k->command = 0;
	k->set = 2;
	k->typematic = TYPEMATIC_DEFAULT;
	k->scanning = scanning;
	k->out.start = k->out.count = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	memset(k, 0, sizeof(*k));
	defaults(k, true);
}

static void argument(struct ps2_keyboard *k, uint8_t command, uint8_t byte)
{
	switch (command) {
	case CMD_LEDS:
		k->leds = byte & 7;
		break;
	case CMD_TYPEMATIC:
		k->typematic = byte & 0x7f;
		break;
	case CMD_SCAN_SET:
		if (byte > 3) {
			put(&k->out, REPLY_RESEND);
			return;
		}
		put(&k->out, REPLY_ACK);
		if (byte)
			k->set = byte;
		else
			put(&k->out, k->set);
		return;
	}
	put(&k->out, REPLY_ACK);
}

static void command(struct ps2_keyboard *k, uint8_t byte)
{
	switch (byte) {
	case CMD_ECHO:
		put(&k->out, CMD_ECHO);
		return;
	case CMD_RESEND:
		put(&k->out, k->out.last);
		return;
	case CMD_LEDS:
	case CMD_SCAN_SET:
	case CMD_TYPEMATIC:
		k->command = byte;
		break;
	case CMD_ID:
		put(&k->out, REPLY_ACK);
		put(&k->out, 0xab);
		put(&k->out, 0x83);
		return;
	case CMD_ENABLE:
		k->out.start = k->out.count = 0;
		k->scanning = true;
		break;
	case CMD_DISABLE:
		defaults(k, false);
		break;
	case CMD_DEFAULTS:
		defaults(k, k->scanning);
		break;
	case CMD_RESET:
		k->leds = 0;
		defaults(k, true);
		put(&k->out, REPLY_ACK);
		put(&k->out, REPLY_TEST_PASSED);
		return;
	default:
		/* Which keys of set 3 repeat or tell their release: all do here. */
		if (byte >= CMD_SET3_FIRST && byte <= CMD_SET3_LAST) {
			k->command = byte >= CMD_SET3_KEY ? byte : 0;
			break;
		}
		put(&k->out, REPLY_RESEND);
		return;
	}
	put(&k->out, REPLY_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
	uint8_t awaiting = k->command;

	k->command = 0;
	/* A command in an argument's place is a new command. */
	if (awaiting && byte < CMD_LEDS)
		argument(k, awaiting, byte);
	else
		command(k, byte);
}

static void put_key(struct ps2_keyboard *k, bool e0, uint8_t make, bool down)
{
	if (!make)
		return;
	if (e0)
		put(&k->out, PREFIX_E0);
	if (k->set == 1) {
		put(&k->out, down ? make : make | 0x80);
		return;
	}
	if (!down)
		put(&k->out, RELEASE);
	put(&k->out, make);
}

/* It has no release of its own: pressing sends both. */
static void put_pause(struct ps2_keyboard *k)
{
	static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
	static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};

	for (size_t i = 0; k->set == 1 && i < sizeof(set1); i++)
		put(&k->out, set1[i]);
	for (size_t i = 0; k->set == 2 && i < sizeof(set2); i++)
		put(&k->out, set2[i]);
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t code, bool down)
{
	bool e0 = code & PS2_KEY_E0;
	uint8_t make = code & 0x7f;

	if (!k->scanning)
		return;
	if (room(&k->out) < 2 * REPLY_ROOM) {
		if (room(&k->out) > REPLY_ROOM)
			put(&k->out, k->set == 1 ? 0xff : REPLY_OVERRUN);
		return;
	}
	if (k->set == 3) {
		const uint8_t *table = e0 ? set3_e0 : set3_plain;
		size_t size = e0 ? sizeof(set3_e0) : sizeof(set3_plain);

		put_key(k, false, make < size ? table[make] : 0, down);
	} else if (code == KEY_PAUSE) {
		if (down)
			put_pause(k);
	} else {
		put_key(k, e0, k->set == 1 ? make : set1_to_set2(make), down);
	}
}

static bool queue_post_load(void *object, unsigned version, struct error **err)
{
	struct ps2_queue *q = object;

	if (q->start < PS2_QUEUE && q->count <= PS2_QUEUE)
		return true;
	q->start = q->count = 0;
	error_set(err, "ps2: queue out of range");
	return false;
}

static const struct state_desc queue_state = {
	.name = "ps2-queue",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_BUFFER(struct ps2_queue, data),
			STATE_FIELD(struct ps2_queue, start, STATE_U32),
			STATE_FIELD(struct ps2_queue, count, STATE_U32),
			STATE_FIELD(struct ps2_queue, last, STATE_U8),
			{0},
		},
	.post_load = queue_post_load,
};

const struct state_desc ps2_keyboard_state = {
	.name = "ps2-keyboard",
	.version = 1,
	.fields =
		(const struct state_field[]){
			{.name = "out",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct ps2_keyboard, out),
			 .size = sizeof(struct ps2_queue),
			 .desc = &queue_state},
			STATE_FIELD(struct ps2_keyboard, command, STATE_U8),
			STATE_FIELD(struct ps2_keyboard, leds, STATE_U8),
			STATE_FIELD(struct ps2_keyboard, typematic, STATE_U8),
			STATE_FIELD(struct ps2_keyboard, set, STATE_U8),
			STATE_FIELD(struct ps2_keyboard, scanning, STATE_BOOL),
			{0},
		},
};

/* The mouse's queue is of the same kind. */
const struct state_desc ps2_mouse_state = {
	.name = "ps2-mouse",
	.version = 1,
	.fields =
		(const struct state_field[]){
			{.name = "out",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct ps2_mouse, out),
			 .size = sizeof(struct ps2_queue),
			 .desc = &queue_state},
			STATE_FIELD(struct ps2_mouse, command, STATE_U8),
			STATE_FIELD(struct ps2_mouse, id, STATE_U8),
			STATE_FIELD(struct ps2_mouse, rate, STATE_U8),
			STATE_FIELD(struct ps2_mouse, resolution, STATE_U8),
			STATE_BUFFER(struct ps2_mouse, rates),
			STATE_FIELD(struct ps2_mouse, buttons, STATE_U8),
			STATE_FIELD(struct ps2_mouse, sent_buttons, STATE_U8),
			STATE_FIELD(struct ps2_mouse, reporting, STATE_BOOL),
			STATE_FIELD(struct ps2_mouse, remote, STATE_BOOL),
			STATE_FIELD(struct ps2_mouse, wrap, STATE_BOOL),
			STATE_FIELD(struct ps2_mouse, scale2, STATE_BOOL),
			STATE_FIELD(struct ps2_mouse, dx, STATE_U32),
			STATE_FIELD(struct ps2_mouse, dy, STATE_U32),
			STATE_FIELD(struct ps2_mouse, dz, STATE_U32),
			{0},
		},
};
