/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mouse behind the controller (ps2.h): commands, packets of three or four bytes, and the sample
 * rate sequences that turn it into a wheel or a five-button mouse.
 * Thread and lock: the caller's. Owner: the controller.
 */
#include "hw/legacy/ps2.h"
#include "vmm/core/util.h"

enum {
	CMD_SCALE1 = 0xe6,
	CMD_SCALE2 = 0xe7,
	CMD_RESOLUTION = 0xe8,
	CMD_STATUS = 0xe9,
	CMD_STREAM = 0xea,
	CMD_READ = 0xeb,
	CMD_WRAP_OFF = 0xec,
	CMD_WRAP = 0xee,
	CMD_REMOTE = 0xf0,
	CMD_ID = 0xf2,
	CMD_RATE = 0xf3,
	CMD_ENABLE = 0xf4,
	CMD_DISABLE = 0xf5,
	CMD_DEFAULTS = 0xf6,
	CMD_RESEND = 0xfe,
	CMD_RESET = 0xff,

	REPLY_TEST_PASSED = 0xaa,
	REPLY_ACK = 0xfa,
	REPLY_ERROR = 0xfc,

	ID_WHEEL = 3,
	ID_BUTTONS = 4,

	PACKET_ALWAYS = 1 << 3,
	PACKET_X_SIGN = 1 << 4,
	PACKET_Y_SIGN = 1 << 5,

	MOTION_LIMIT = 1 << 20, /* what piles up while nobody reads */
};

static void put(struct ps2_mouse *m, uint8_t byte)
{
	struct ps2_queue *q = &m->out;

	if (q->count < PS2_QUEUE)
		q->data[(q->start + q->count++) % PS2_QUEUE] = byte;
}

static int clamp(int value, int low, int high)
{
	return value < low ? low : value > high ? high : value;
}

static void put_packet(struct ps2_mouse *m)
{
	int dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255);

	m->dx -= dx;
	m->dy -= dy;
	m->sent_buttons = m->buttons;
	put(m, PACKET_ALWAYS | (m->buttons & 7) | (dx < 0 ? PACKET_X_SIGN : 0) |
		       (dy < 0 ? PACKET_Y_SIGN : 0));
	put(m, (uint8_t)dx);
	put(m, (uint8_t)dy);
	if (!m->id)
		return;
	int low = m->id == ID_WHEEL ? -127 : -8, high = m->id == ID_WHEEL ? 127 : 7;
	int dz = clamp(m->dz, low, high);
	m->dz -= dz;
	put(m, m->id == ID_WHEEL ? (uint8_t)dz : (dz & 0x0f) | (m->buttons & 0x18) << 1);
}

void ps2_mouse_report(struct ps2_mouse *m)
{
	bool news = m->dx || m->dy || (m->id && m->dz) || m->buttons != m->sent_buttons;

	/* One packet at a time: motion adds up while the guest is slow. */
	if (news && m->reporting && !m->remote && !m->wrap && !m->command && !m->out.count)
		put_packet(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, uint8_t buttons)
{
	if (!m->reporting && !m->remote)
		return;
	m->dx = clamp(m->dx + clamp(dx, -MOTION_LIMIT, MOTION_LIMIT), -MOTION_LIMIT, MOTION_LIMIT);
	m->dy = clamp(m->dy + clamp(dy, -MOTION_LIMIT, MOTION_LIMIT), -MOTION_LIMIT, MOTION_LIMIT);
	m->dz = clamp(m->dz + clamp(dz, -MOTION_LIMIT, MOTION_LIMIT), -MOTION_LIMIT, MOTION_LIMIT);
	m->buttons = buttons & 0x1f;
	ps2_mouse_report(m);
}

static void defaults(struct ps2_mouse *m)
{
	m->rate = 100;
	m->resolution = 2;
	m->reporting = m->remote = m->wrap = m->scale2 = false;
	m->dx = m->dy = m->dz = 0;
	m->command = 0;
	m->out.start = m->out.count = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	memset(m, 0, sizeof(*m));
	defaults(m);
}

static void argument(struct ps2_mouse *m, uint8_t command, uint8_t byte)
{
	if (command == CMD_RESOLUTION) {
		m->resolution = byte & 3;
	} else {
		m->rate = byte;
		if (m->rates[0] == 200 && m->rates[1] == 100 && byte == 80)
			m->id = ID_WHEEL;
		else if (m->rates[0] == 200 && m->rates[1] == 200 && byte == 80 &&
			 m->id == ID_WHEEL)
			m->id = ID_BUTTONS;
		m->rates[0] = m->rates[1];
		m->rates[1] = byte;
	}
	put(m, REPLY_ACK);
}

static void put_status(struct ps2_mouse *m)
{
	uint8_t b = m->buttons;

	/* The status has left and right the other way round. */
	put(m, (m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) | (m->scale2 ? 0x10 : 0) |
		       (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1);
	put(m, m->resolution);
	put(m, m->rate);
}

static void command(struct ps2_mouse *m, uint8_t byte)
{
	switch (byte) {
	case CMD_SCALE1:
	case CMD_SCALE2:
		m->scale2 = byte == CMD_SCALE2;
		break;
	case CMD_RESOLUTION:
	case CMD_RATE:
		m->command = byte;
		break;
	case CMD_STATUS:
		put(m, REPLY_ACK);
		put_status(m);
		return;
	case CMD_STREAM:
	case CMD_REMOTE:
		m->remote = byte == CMD_REMOTE;
		break;
	case CMD_READ:
		put(m, REPLY_ACK);
		put_packet(m);
		return;
	case CMD_WRAP:
	case CMD_WRAP_OFF:
		m->wrap = byte == CMD_WRAP;
		break;
	case CMD_ID:
		put(m, REPLY_ACK);
		put(m, m->id);
		return;
	case CMD_ENABLE:
	case CMD_DISABLE:
		m->reporting = byte == CMD_ENABLE;
		break;
	case CMD_DEFAULTS:
		defaults(m);
		break;
	case CMD_RESEND:
		put(m, m->out.last);
		return;
	case CMD_RESET:
		m->id = 0;
		m->rates[0] = m->rates[1] = 0;
		defaults(m);
		put(m, REPLY_ACK);
		put(m, REPLY_TEST_PASSED);
		put(m, m->id);
		return;
	default:
		put(m, REPLY_ERROR);
		return;
	}
	put(m, REPLY_ACK);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
	uint8_t awaiting = m->command;

	m->command = 0;
	/* A host's byte ends whatever packet was on its way. */
	m->out.start = m->out.count = 0;
	if (m->wrap && byte != CMD_WRAP_OFF && byte != CMD_RESET)
		put(m, byte);
	else if (awaiting)
		argument(m, awaiting, byte);
	else
		command(m, byte);
}
