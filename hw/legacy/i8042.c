/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyboard and mouse controller at 0x60 and 0x64 (Intel 8042 as in the IBM PS/2 Technical
 * Reference, Keyboard and Auxiliary Device Controller), interrupts 1 and 12.
 *
 * Everything answers at once: a command's reply is in the output buffer before its write is over.
 * Reading the buffer lets the next byte in, the controller's own first, then the keyboard's, then
 * the mouse's; the interrupt goes down and up in between, since the lines are edge-triggered.
 *
 * Threads: ports on vCPU threads, injected events on the main thread, under the device's lock.
 * Owner: the machine.
 */
#include <pthread.h>

#include "hw/legacy/legacy.h"
#include "hw/legacy/ps2.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	STATUS_OBF = 1 << 0,
	STATUS_SYSTEM = 1 << 2,
	STATUS_COMMAND = 1 << 3,
	STATUS_UNLOCKED = 1 << 4,
	STATUS_AUX_OBF = 1 << 5,

	/* The command byte, RAM 0. */
	MODE_KEYBOARD_IRQ = 1 << 0,
	MODE_AUX_IRQ = 1 << 1,
	MODE_SYSTEM = 1 << 2,
	MODE_KEYBOARD_OFF = 1 << 4,
	MODE_AUX_OFF = 1 << 5,
	MODE_TRANSLATE = 1 << 6,

	OUTPUT_NO_RESET = 1 << 0,
	OUTPUT_A20 = 1 << 1,
	OUTPUT_OBF = 1 << 4,
	OUTPUT_AUX_OBF = 1 << 5,
	OUTPUT_PULLED_UP = 0xcc,

	CMD_READ_RAM = 0x20,  /* to 0x3f */
	CMD_WRITE_RAM = 0x60, /* to 0x7f */
	CMD_PASSWORD = 0xa4,
	CMD_AUX_OFF = 0xa7,
	CMD_AUX_ON = 0xa8,
	CMD_TEST_AUX = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_TEST_KEYBOARD = 0xab,
	CMD_KEYBOARD_OFF = 0xad,
	CMD_KEYBOARD_ON = 0xae,
	CMD_READ_INPUT = 0xc0,
	CMD_READ_OUTPUT = 0xd0,
	CMD_WRITE_OUTPUT = 0xd1,
	CMD_LOOP_KEYBOARD = 0xd2,
	CMD_LOOP_AUX = 0xd3,
	CMD_TO_AUX = 0xd4,
	CMD_A20_OFF = 0xdd,
	CMD_A20_ON = 0xdf,
	CMD_READ_TEST = 0xe0,
	CMD_PULSE = 0xf0, /* to 0xff: output bits that are 0 in the low nibble */

	IRQ_KEYBOARD = 1,
	IRQ_AUX = 12,
	REPLIES = 4,
};

struct i8042 {
	struct device dev;
	pthread_mutex_t lock;
	struct io_region data_io, command_io;

	uint8_t ram[32];
	uint8_t output_port;
	uint8_t status; /* OBF, AUX_OBF, SYSTEM, COMMAND */
	uint8_t data;
	uint8_t command; /* whose data byte is awaited, or 0 */
	bool release;	 /* translation saw an F0 */

	/* The controller's own replies. */
	uint8_t reply[REPLIES];
	bool reply_aux[REPLIES];
	uint32_t reply_count;

	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
	bool irq_up[2];
};

static void update_irqs(struct i8042 *c)
{
	bool obf = c->status & STATUS_OBF, aux = c->status & STATUS_AUX_OBF;
	bool up[2] = {obf && !aux && (c->ram[0] & MODE_KEYBOARD_IRQ),
		      obf && aux && (c->ram[0] & MODE_AUX_IRQ)};
	static const uint8_t number[2] = {IRQ_KEYBOARD, IRQ_AUX};

	for (int i = 0; i < 2; i++)
		if (up[i] != c->irq_up[i]) {
			c->irq_up[i] = up[i];
			irq_set(c->dev.vm->gsi[number[i]], up[i]);
		}
}

static void fill(struct i8042 *c, uint8_t byte, bool aux)
{
	c->data = byte;
	c->status &= ~STATUS_AUX_OBF;
	c->status |= STATUS_OBF | (aux ? STATUS_AUX_OBF : 0);
}

static bool fill_from_keyboard(struct i8042 *c)
{
	uint8_t byte;

	while (!(c->ram[0] & MODE_KEYBOARD_OFF) && ps2_get(&c->keyboard.out, &byte)) {
		if ((c->ram[0] & MODE_TRANSLATE) && !ps2_translate(&byte, &c->release))
			continue;
		fill(c, byte, false);
		return true;
	}
	return false;
}

/* Lets the next byte into the output buffer if that is empty. */
static void refill(struct i8042 *c)
{
	uint8_t byte;

	if (c->status & STATUS_OBF) {
		/* still unread */
	} else if (c->reply_count) {
		fill(c, c->reply[0], c->reply_aux[0]);
		c->reply_count--;
		memmove(c->reply, c->reply + 1, c->reply_count);
		memmove(c->reply_aux, c->reply_aux + 1, c->reply_count * sizeof(bool));
	} else if (!fill_from_keyboard(c) && !(c->ram[0] & MODE_AUX_OFF)) {
		ps2_mouse_report(&c->mouse);
		if (ps2_get(&c->mouse.out, &byte))
			fill(c, byte, true);
	}
	update_irqs(c);
}

static void reply(struct i8042 *c, uint8_t byte, bool aux)
{
	if (c->reply_count == REPLIES)
		return; /* a guest that does not read its replies */
	c->reply[c->reply_count] = byte;
	c->reply_aux[c->reply_count++] = aux;
}

static void write_output_port(struct i8042 *c, uint8_t value)
{
	c->output_port = value | OUTPUT_NO_RESET;
	if (!(value & OUTPUT_NO_RESET))
		vm_request_reset(c->dev.vm, CAUSE_GUEST_RESET);
}

static uint8_t read_output_port(const struct i8042 *c)
{
	uint8_t value = c->output_port & ~(OUTPUT_OBF | OUTPUT_AUX_OBF);

	if (c->status & STATUS_OBF)
		value |= c->status & STATUS_AUX_OBF ? OUTPUT_AUX_OBF : OUTPUT_OBF;
	return value;
}

static void write_ram(struct i8042 *c, unsigned at, uint8_t value)
{
	c->ram[at % sizeof(c->ram)] = value;
	if (at)
		return;
	c->status &= ~STATUS_SYSTEM;
	c->status |= value & MODE_SYSTEM ? STATUS_SYSTEM : 0;
}

static void command(struct i8042 *c, uint8_t byte)
{
	c->command = 0;
	if (byte >= CMD_READ_RAM && byte < CMD_READ_RAM + sizeof(c->ram)) {
		reply(c, c->ram[byte - CMD_READ_RAM], false);
		return;
	}
	if (byte >= CMD_WRITE_RAM && byte < CMD_WRITE_RAM + sizeof(c->ram)) {
		c->command = byte;
		return;
	}
	if (byte >= CMD_PULSE) {
		/* Only the reset line is known to hang on anything. */
		if (!(byte & OUTPUT_NO_RESET))
			vm_request_reset(c->dev.vm, CAUSE_GUEST_RESET);
		return;
	}
	switch (byte) {
	case CMD_PASSWORD:
		reply(c, 0xf1, false); /* none is set */
		break;
	case CMD_AUX_OFF:
		c->ram[0] |= MODE_AUX_OFF;
		break;
	case CMD_AUX_ON:
		c->ram[0] &= ~MODE_AUX_OFF;
		break;
	case CMD_TEST_AUX:
	case CMD_TEST_KEYBOARD:
		reply(c, 0, false);
		break;
	case CMD_SELF_TEST:
		c->status |= STATUS_SYSTEM;
		reply(c, 0x55, false);
		break;
	case CMD_KEYBOARD_OFF:
		c->ram[0] |= MODE_KEYBOARD_OFF;
		break;
	case CMD_KEYBOARD_ON:
		c->ram[0] &= ~MODE_KEYBOARD_OFF;
		break;
	case CMD_READ_INPUT:
		reply(c, 0x80, false); /* keyboard not locked */
		break;
	case CMD_READ_OUTPUT:
		reply(c, read_output_port(c), false);
		break;
	case CMD_READ_TEST:
		reply(c, 0, false);
		break;
	case CMD_A20_OFF:
		c->output_port &= ~OUTPUT_A20;
		break;
	case CMD_A20_ON:
		c->output_port |= OUTPUT_A20;
		break;
	case CMD_WRITE_OUTPUT:
	case CMD_LOOP_KEYBOARD:
	case CMD_LOOP_AUX:
	case CMD_TO_AUX:
		c->command = byte;
		break;
	}
}

static void data(struct i8042 *c, uint8_t byte)
{
	uint8_t awaiting = c->command;

	c->command = 0;
	switch (awaiting) {
	case 0:
		c->ram[0] &= ~MODE_KEYBOARD_OFF;
		ps2_keyboard_write(&c->keyboard, byte);
		break;
	case CMD_WRITE_OUTPUT:
		write_output_port(c, byte);
		break;
	case CMD_LOOP_KEYBOARD:
		reply(c, byte, false);
		break;
	case CMD_LOOP_AUX:
		reply(c, byte, true);
		break;
	case CMD_TO_AUX:
		c->ram[0] &= ~MODE_AUX_OFF;
		ps2_mouse_write(&c->mouse, byte);
		break;
	default:
		write_ram(c, awaiting - CMD_WRITE_RAM, byte);
		break;
	}
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *c = opaque;

	pthread_mutex_lock(&c->lock);
	uint8_t value = c->data;
	c->status &= ~(STATUS_OBF | STATUS_AUX_OBF);
	update_irqs(c);
	refill(c);
	pthread_mutex_unlock(&c->lock);
	return value;
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->status &= ~STATUS_COMMAND;
	data(c, value);
	refill(c);
	pthread_mutex_unlock(&c->lock);
}

static uint64_t command_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8042 *c = opaque;

	pthread_mutex_lock(&c->lock);
	uint8_t value = c->status | STATUS_UNLOCKED;
	pthread_mutex_unlock(&c->lock);
	return value;
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *c = opaque;

	pthread_mutex_lock(&c->lock);
	c->status |= STATUS_COMMAND;
	command(c, value);
	refill(c);
	pthread_mutex_unlock(&c->lock);
}

static const struct io_ops data_ops = {.read = data_read, .write = data_write};
static const struct io_ops command_ops = {.read = command_read, .write = command_write};

void ps2_key(struct device *dev, uint8_t code, bool down)
{
	struct i8042 *c = (struct i8042 *)dev;

	pthread_mutex_lock(&c->lock);
	ps2_keyboard_key(&c->keyboard, code, down);
	refill(c);
	pthread_mutex_unlock(&c->lock);
}

void ps2_mouse(struct device *dev, int dx, int dy, int dz, uint8_t buttons)
{
	struct i8042 *c = (struct i8042 *)dev;

	pthread_mutex_lock(&c->lock);
	ps2_mouse_move(&c->mouse, dx, dy, dz, buttons);
	refill(c);
	pthread_mutex_unlock(&c->lock);
}

static void i8042_reset(struct device *dev)
{
	struct i8042 *c = (struct i8042 *)dev;

	pthread_mutex_lock(&c->lock);
	memset(c->ram, 0, sizeof(c->ram));
	/* Translating, as firmware leaves it: kernels that are started without one look first. */
	c->ram[0] = MODE_KEYBOARD_IRQ | MODE_AUX_IRQ | MODE_TRANSLATE;
	c->output_port = OUTPUT_NO_RESET | OUTPUT_A20 | OUTPUT_PULLED_UP;
	c->status = STATUS_COMMAND;
	c->data = c->command = 0;
	c->release = false;
	c->reply_count = 0;
	ps2_keyboard_reset(&c->keyboard);
	ps2_mouse_reset(&c->mouse);
	update_irqs(c);
	pthread_mutex_unlock(&c->lock);
}

static bool i8042_realize(struct device *dev, struct error **err)
{
	struct i8042 *c = (struct i8042 *)dev;

	i8042_reset(dev);
	c->data_io = (struct io_region){.base = 0x60,
					.size = 1,
					.ops = &data_ops,
					.opaque = c,
					.name = "i8042-data",
					.max_access = 1};
	c->command_io = (struct io_region){.base = 0x64,
					   .size = 1,
					   .ops = &command_ops,
					   .opaque = c,
					   .name = "i8042-cmd",
					   .max_access = 1};
	if (!io_bus_add(&dev->vm->pio, &c->data_io, err))
		return false;
	if (!io_bus_add(&dev->vm->pio, &c->command_io, err)) {
		io_bus_remove(&dev->vm->pio, &c->data_io);
		return false;
	}
	return true;
}

static void i8042_unrealize(struct device *dev)
{
	struct i8042 *c = (struct i8042 *)dev;

	io_bus_remove(&dev->vm->pio, &c->data_io);
	io_bus_remove(&dev->vm->pio, &c->command_io);
	io_bus_quiesce(&dev->vm->pio);
}

static void i8042_init(struct device *dev)
{
	pthread_mutex_init(&((struct i8042 *)dev)->lock, NULL);
}

static void i8042_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct i8042 *)dev)->lock);
}

static bool i8042_post_load(void *object, unsigned version, struct error **err)
{
	struct i8042 *c = object;
	uint8_t cmd = c->command;
	bool known = !cmd || (cmd >= CMD_WRITE_RAM && cmd < CMD_WRITE_RAM + sizeof(c->ram)) ||
		     (cmd >= CMD_WRITE_OUTPUT && cmd <= CMD_TO_AUX);

	if (c->reply_count > REPLIES || !known) {
		error_set(err, "i8042: state out of range");
		c->reply_count = c->command = 0;
		return false;
	}
	pthread_mutex_lock(&c->lock);
	refill(c);
	pthread_mutex_unlock(&c->lock);
	return true;
}

static const struct state_desc i8042_state = {
	.name = "i8042",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_BUFFER(struct i8042, ram),
			STATE_FIELD(struct i8042, output_port, STATE_U8),
			STATE_FIELD(struct i8042, status, STATE_U8),
			STATE_FIELD(struct i8042, data, STATE_U8),
			STATE_FIELD(struct i8042, command, STATE_U8),
			STATE_FIELD(struct i8042, release, STATE_BOOL),
			STATE_BUFFER(struct i8042, reply),
			STATE_ARRAY(struct i8042, reply_aux, STATE_BOOL),
			STATE_FIELD(struct i8042, reply_count, STATE_U32),
			{.name = "keyboard",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct i8042, keyboard),
			 .size = sizeof(struct ps2_keyboard),
			 .desc = &ps2_keyboard_state},
			{.name = "mouse",
			 .type = STATE_STRUCT,
			 .offset = offsetof(struct i8042, mouse),
			 .size = sizeof(struct ps2_mouse),
			 .desc = &ps2_mouse_state},
			{0},
		},
	.post_load = i8042_post_load,
};

const struct device_desc i8042_desc = {
	.name = "i8042",
	.help = "keyboard and mouse controller",
	.bus = "isa",
	.size = sizeof(struct i8042),
	.state = &i8042_state,
	.internal = true,
	.init = i8042_init,
	.realize = i8042_realize,
	.reset = i8042_reset,
	.unrealize = i8042_unrealize,
	.destroy = i8042_destroy,
};
