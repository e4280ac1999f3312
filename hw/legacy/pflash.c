/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parallel flash with the Intel command set (Intel StrataFlash J3 data sheet; JEDEC JESD68 CFI),
 * one byte wide, as UEFI firmware keeps its code and its variables in.
 *
 * The bytes live in memory that the board may show to the CPUs as a read-only slot while the chip
 * is in read-array mode; any write then exits and is a command. What the guest programs or erases
 * is written to the drive behind by the main loop, sector by sector, with a flush at the end.
 *
 * Clearing the status register leaves 0 in it and returns to read-array mode: that is how OVMF
 * tells this flash from RAM and ROM.
 *
 * Threads: registers on vCPU threads under the device's lock; the drive on the main loop, never
 * with the lock held. Owner: the machine.
 */
#include "hw/legacy/pflash.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "hw/legacy/legacy.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	CMD_READ_ARRAY = 0xff,
	CMD_READ_ID = 0x90,
	CMD_READ_CFI = 0x98,
	CMD_READ_STATUS = 0x70,
	CMD_CLEAR_STATUS = 0x50,
	CMD_PROGRAM = 0x40,
	CMD_PROGRAM_ALT = 0x10,
	CMD_ERASE = 0x20,
	CMD_LOCK = 0x60,
	CMD_BUFFER = 0xe8,
	CMD_CONFIRM = 0xd0,

	STATUS_READY = 1 << 7,
	STATUS_ERASE_ERROR = 1 << 5,
	STATUS_PROGRAM_ERROR = 1 << 4,
	STATUS_SEQUENCE_ERROR = STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR,

	ID_MANUFACTURER = 0x89,
	ID_DEVICE = 0x18,

	MAX_SIZE = 64 << 20,
};

enum read_mode { READ_ARRAY, READ_STATUS, READ_ID, READ_CFI };

/* What the next write is. */
enum step {
	STEP_COMMAND,
	STEP_PROGRAM,	   /* the byte */
	STEP_ERASE,	   /* the confirmation */
	STEP_LOCK,	   /* which lock operation */
	STEP_BUFFER_COUNT, /* bytes - 1 */
	STEP_BUFFER_DATA,
	STEP_BUFFER_CONFIRM,
	STEP_LAST = STEP_BUFFER_CONFIRM,
};

/* Registers, with the lock held. */

static void set_mode(struct pflash *p, enum read_mode mode)
{
	bool was_array = p->mode == READ_ARRAY, is_array = mode == READ_ARRAY;

	p->mode = mode;
	if (was_array == is_array)
		return;
	if (p->mode_fn)
		p->mode_fn(&p->dev, is_array, p->mode_opaque);
	/* The end of a burst of commands is when to write out what they did. */
	if (is_array && !p->read_only)
		evloop_post(p->dev.vm->loop, &p->write_work);
}

/* Flash can only clear bits without an erase. */
static void program(struct pflash *p, uint64_t at, uint8_t value)
{
	if (p->read_only) {
		p->status |= STATUS_PROGRAM_ERROR;
		return;
	}
	p->memory[at] &= value;
	p->dirty[at / p->sector_length] = true;
}

static void erase(struct pflash *p, uint64_t at)
{
	if (p->read_only) {
		p->status |= STATUS_ERASE_ERROR;
		return;
	}
	memset(p->memory + at / p->sector_length * p->sector_length, 0xff, p->sector_length);
	p->dirty[at / p->sector_length] = true;
}

static void command(struct pflash *p, uint64_t at, uint8_t value)
{
	switch (value) {
	case CMD_READ_ARRAY:
	case 0x00: /* old drivers and QEMU's: the same */
	case 0xf0: /* the other command set's reset, in probes */
		set_mode(p, READ_ARRAY);
		return;
	case CMD_CLEAR_STATUS:
		p->status = 0;
		set_mode(p, READ_ARRAY);
		return;
	case CMD_READ_ID:
		set_mode(p, READ_ID);
		return;
	case CMD_READ_CFI:
		set_mode(p, READ_CFI);
		return;
	case CMD_READ_STATUS:
		break;
	case CMD_PROGRAM:
	case CMD_PROGRAM_ALT:
		p->step = STEP_PROGRAM;
		break;
	case CMD_ERASE:
		p->step = STEP_ERASE;
		break;
	case CMD_LOCK:
		p->step = STEP_LOCK;
		break;
	case CMD_BUFFER:
		p->status |= STATUS_READY; /* the buffer is free */
		p->step = STEP_BUFFER_COUNT;
		break;
	default:
		log_guest_error(&p->limit, "%s: unknown flash command 0x%02x",
				device_label(&p->dev), value);
		set_mode(p, READ_ARRAY);
		return;
	}
	set_mode(p, READ_STATUS);
}

static void buffer_data(struct pflash *p, uint64_t at, uint8_t value)
{
	if (p->buffer_fill == 0) {
		p->buffer_at = at & ~(uint64_t)(PFLASH_BUFFER_SIZE - 1);
		memset(p->buffer, 0xff, sizeof(p->buffer));
	}
	if (at - p->buffer_at < PFLASH_BUFFER_SIZE)
		p->buffer[at - p->buffer_at] = value;
	else
		p->status |= STATUS_SEQUENCE_ERROR;
	if (++p->buffer_fill == p->buffer_len)
		p->step = STEP_BUFFER_CONFIRM;
}

static void write_byte(struct pflash *p, uint64_t at, uint8_t value)
{
	enum step step = p->step;

	p->step = STEP_COMMAND;
	switch (step) {
	case STEP_COMMAND:
		command(p, at, value);
		return;
	case STEP_PROGRAM:
		program(p, at, value);
		break;
	case STEP_ERASE:
		if (value == CMD_CONFIRM)
			erase(p, at);
		else
			p->status |= STATUS_SEQUENCE_ERROR;
		break;
	case STEP_LOCK:
		break; /* no block is ever locked: all operations succeed */
	case STEP_BUFFER_COUNT:
		p->buffer_fill = 0;
		p->buffer_len = value + 1;
		if (p->buffer_len > PFLASH_BUFFER_SIZE)
			p->status |= STATUS_SEQUENCE_ERROR;
		else
			p->step = STEP_BUFFER_DATA;
		break;
	case STEP_BUFFER_DATA:
		p->step = STEP_BUFFER_DATA;
		buffer_data(p, at, value);
		return;
	case STEP_BUFFER_CONFIRM:
		if (value != CMD_CONFIRM)
			p->status |= STATUS_SEQUENCE_ERROR;
		else
			for (unsigned i = 0; i < PFLASH_BUFFER_SIZE && p->buffer_at + i < p->size;
			     i++)
				if (p->buffer[i] != 0xff)
					program(p, p->buffer_at + i, p->buffer[i]);
		break;
	}
	p->status |= STATUS_READY;
}

static uint8_t read_byte(const struct pflash *p, uint64_t at)
{
	switch (p->mode) {
	case READ_STATUS:
		return p->status;
	case READ_ID:
		switch (at & 0xff) {
		case 0:
			return ID_MANUFACTURER;
		case 1:
			return ID_DEVICE;
		}
		return 0;
	case READ_CFI:
		return (at & 0xff) < PFLASH_CFI_SIZE ? p->cfi[at & 0xff] : 0;
	}
	return p->memory[at];
}

static uint64_t pflash_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pflash *p = opaque;
	uint64_t value = 0;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)read_byte(p, offset + i) << (8 * i);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void pflash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pflash *p = opaque;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++)
		write_byte(p, offset + i, (uint8_t)(value >> (8 * i)));
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops pflash_ops = {.read = pflash_read, .write = pflash_write};

/* The tables that CMD_READ_CFI shows. */
static void fill_cfi(struct pflash *p)
{
	static const uint8_t fixed[] = {
		[0x10] = 'Q',
		[0x11] = 'R',
		[0x12] = 'Y',
		[0x13] = 0x01, /* Intel's command set */
		[0x15] = 0x31, /* its own table */
		[0x1b] = 0x45,
		[0x1c] = 0x55, /* Vcc 4.5 to 5.5 V */
		[0x1f] = 0x07,
		[0x20] = 0x07,
		[0x21] = 0x0a, /* typical times: 2^n us, us, ms */
		[0x23] = 0x04,
		[0x24] = 0x04,
		[0x25] = 0x04, /* at most 2^n times that */
		[0x2a] = PFLASH_BUFFER_SHIFT,
		[0x2c] = 1, /* erase regions */
		[0x31] = 'P',
		[0x32] = 'R',
		[0x33] = 'I',
		[0x34] = '1',
		[0x35] = '0',
	};
	_Static_assert(sizeof(fixed) == PFLASH_CFI_SIZE,
		       "the table ends with the extended version");

	memcpy(p->cfi, fixed, sizeof(fixed));
	uint8_t shift = 0;
	while (shift < 31 && (UINT64_C(1) << shift) < p->size)
		shift++;
	p->cfi[0x27] = shift;
	store_le16(p->cfi + 0x2d, (uint16_t)(pflash_sectors(p) - 1));
	store_le16(p->cfi + 0x2f, (uint16_t)(p->sector_length >> 8));
}

/* What the board asks. */

void pflash_place_below(struct device *dev, uint64_t end)
{
	((struct pflash *)dev)->end = end;
}

uint64_t pflash_base(const struct device *dev)
{
	return ((const struct pflash *)dev)->base;
}

uint64_t pflash_size(const struct device *dev)
{
	return ((const struct pflash *)dev)->size;
}

uint8_t *pflash_memory(const struct device *dev)
{
	return ((const struct pflash *)dev)->memory;
}

bool pflash_array_mode(const struct device *dev)
{
	return ((const struct pflash *)dev)->mode == READ_ARRAY;
}

void pflash_set_mode_callback(struct device *dev,
			      void (*fn)(struct device *dev, bool array, void *opaque),
			      void *opaque)
{
	struct pflash *p = (struct pflash *)dev;

	pthread_mutex_lock(&p->lock);
	p->mode_fn = fn;
	p->mode_opaque = opaque;
	pthread_mutex_unlock(&p->lock);
}

/* Life. */

static void pflash_reset(struct device *dev)
{
	struct pflash *p = (struct pflash *)dev;

	pthread_mutex_lock(&p->lock);
	p->step = STEP_COMMAND;
	p->status = STATUS_READY;
	set_mode(p, READ_ARRAY);
	pthread_mutex_unlock(&p->lock);
}

static bool check(const struct pflash *p, struct error **err)
{
	if (!p->drive || !p->drive->node) {
		error_set(err, "flash needs a drive with an image");
		return false;
	}
	if (p->drive->taken_by) {
		error_set(err, "drive '%s' is in use by '%s'", p->drive->id, p->drive->taken_by);
		return false;
	}
	uint64_t size = block_length(p->drive->node);
	if (!is_pow2(p->sector_length) || p->sector_length < 512 || p->sector_length > MiB ||
	    !size || size % p->sector_length || size > MAX_SIZE ||
	    (p->end ? p->end - size : p->base) % p->sector_length) {
		error_set(err,
			  "a flash image must have a multiple of %llu bytes, at most 64 MiB, "
			  "and drive '%s' has %llu",
			  (unsigned long long)p->sector_length, p->drive->id,
			  (unsigned long long)size);
		return false;
	}
	return true;
}

static void release(struct pflash *p)
{
	if (p->memory)
		munmap(p->memory, p->size);
	p->memory = NULL;
	pflash_drive_release(p);
	p->drive->taken_by = NULL;
}

static bool pflash_realize(struct device *dev, struct error **err)
{
	struct pflash *p = (struct pflash *)dev;
	int ret;

	if (!check(p, err))
		return false;
	p->size = block_length(p->drive->node);
	if (p->end)
		p->base = p->end - p->size;
	p->read_only = block_read_only(p->drive->node);
	void *memory = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
	if (memory == MAP_FAILED) {
		error_set_errno(err, errno, "memory for flash");
		return false;
	}
	p->memory = memory;
	p->drive->taken_by = device_label(dev);
	block_set_loop(p->drive->node, dev->vm->loop);
	pflash_drive_init(p);
	p->limit = LOG_RATELIMIT;
	fill_cfi(p);
	ret = block_pread(p->drive->node, 0, p->memory, p->size);
	if (ret < 0) {
		error_set_errno(err, ret, "reading flash from drive '%s'", p->drive->id);
		release(p);
		return false;
	}
	p->mode = READ_ARRAY;
	p->status = STATUS_READY;
	p->io = (struct io_region){.base = p->base,
				   .size = p->size,
				   .ops = &pflash_ops,
				   .opaque = p,
				   .name = p->name ? p->name : "pflash"};
	if (!io_bus_add(&dev->vm->mmio, &p->io, err)) {
		release(p);
		return false;
	}
	return true;
}

static void pflash_unrealize(struct device *dev)
{
	struct pflash *p = (struct pflash *)dev;

	io_bus_remove(&dev->vm->mmio, &p->io);
	io_bus_quiesce(&dev->vm->mmio);
	p->stopped_on_error = true; /* completions start nothing more */
	pflash_drive_write_all(p);
	release(p);
}

static void pflash_init(struct device *dev)
{
	pthread_mutex_init(&((struct pflash *)dev)->lock, NULL);
}

static void pflash_destroy(struct device *dev)
{
	pthread_mutex_destroy(&((struct pflash *)dev)->lock);
}

/* The contents travel with the drive. */
static void pre_save(void *object)
{
	struct pflash *p = object;
	bool stopped = p->stopped_on_error;

	p->stopped_on_error = true;
	pflash_drive_write_all(p);
	p->stopped_on_error = stopped;
}

static bool post_load(void *object, unsigned version, struct error **err)
{
	struct pflash *p = object;
	int ret;

	if (p->mode > READ_CFI || p->step > STEP_LAST || p->buffer_at >= p->size ||
	    p->buffer_len > PFLASH_BUFFER_SIZE || p->buffer_fill > p->buffer_len) {
		error_set(err, "flash: state out of range");
		p->mode = READ_ARRAY;
		p->step = STEP_COMMAND;
		return false;
	}
	ret = block_pread(p->drive->node, 0, p->memory, p->size);
	if (ret < 0) {
		error_set_errno(err, ret, "reading flash from drive '%s'", p->drive->id);
		return false;
	}
	if (p->mode_fn && p->mode != READ_ARRAY)
		p->mode_fn(&p->dev, false, p->mode_opaque);
	return true;
}

static const struct prop pflash_props[] = {
	{.name = "drive",
	 .type = PROP_DRIVE,
	 .offset = offsetof(struct pflash, drive),
	 .help = "what the flash holds"},
	{.name = "base",
	 .type = PROP_U64,
	 .offset = offsetof(struct pflash, base),
	 .help = "guest physical address"},
	{.name = "sector-length",
	 .type = PROP_U64,
	 .offset = offsetof(struct pflash, sector_length),
	 .def = "4096",
	 .help = "bytes that one erase covers"},
	{.name = "name",
	 .type = PROP_STRING,
	 .offset = offsetof(struct pflash, name),
	 .help = "for messages"},
	{0},
};

static const struct state_desc pflash_state = {
	.name = "pflash",
	.version = 1,
	.fields =
		(const struct state_field[]){
			STATE_FIELD(struct pflash, mode, STATE_U8),
			STATE_FIELD(struct pflash, step, STATE_U8),
			STATE_FIELD(struct pflash, status, STATE_U8),
			STATE_BUFFER(struct pflash, buffer),
			STATE_FIELD(struct pflash, buffer_at, STATE_U64),
			STATE_FIELD(struct pflash, buffer_len, STATE_U32),
			STATE_FIELD(struct pflash, buffer_fill, STATE_U32),
			{0},
		},
	.pre_save = pre_save,
	.post_load = post_load,
};

const struct device_desc pflash_desc = {
	.name = "cfi.pflash01",
	.help = "parallel flash of the firmware",
	.size = sizeof(struct pflash),
	.props = (const struct prop_set[]){{pflash_props, 0}, {0}},
	.state = &pflash_state,
	.internal = true,
	.init = pflash_init,
	.realize = pflash_realize,
	.reset = pflash_reset,
	.unrealize = pflash_unrealize,
	.destroy = pflash_destroy,
};
