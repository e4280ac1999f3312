/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw_cfg's items and registers (QEMU's docs/specs/fw_cfg): selector and data port, DMA.
 *
 *	iobase + 0, 2 bytes   write: selects an item
 *	iobase + 1, 1 byte    read: the item's next byte, 0 beyond its end
 *	iobase + 4, 8 bytes   read: "QEMU CFG"; written in two big-endian halves: where the guest's
 *	                      request lies, which runs with the second half
 *
 * A request is hostile: it is copied once, its memory is translated before anything moves, and all
 * that can go wrong with it sets its error bit.
 *
 * Registers: vCPU threads; the owner is the board.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hw/fw_cfg/fw_cfg.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/io_bus.h"
#include "vmm/core/util.h"
#include "vmm/core/vm.h"

enum {
	REG_SELECT = 0,
	REG_DATA = 1,
	REG_DMA = 4,
	REG_DMA_LOW = 8,

	ID_PORTS = 1 << 0,
	ID_DMA = 1 << 1,

	DMA_REQUEST_SIZE = 16, /* u32 control, u32 length, u64 address; big-endian */
	DMA_ERROR = 1 << 0,
	DMA_READ = 1 << 1,
	DMA_SKIP = 1 << 2,
	DMA_SELECT = 1 << 3,
	DMA_WRITE = 1 << 4,
	DMA_KEY_SHIFT = 16,
	DMA_PIECES = 16, /* memory regions that one transfer may touch */

	DIR_ENTRY_SIZE = 64, /* u32 size, u16 key, u16 reserved, name */
	DIR_ENTRY_NAME = 8,
};

static const uint8_t dma_signature[8] = "QEMU CFG";

struct item {
	uint16_t key;
	char *name; /* files; owned */
	uint8_t *data;
	size_t len;
	bool owned, writable;
	void (*select)(void *opaque);
	void *opaque;
};

struct fw_cfg {
	struct device dev;
	uint32_t iobase;
	struct io_region io;
	pthread_mutex_t lock;
	struct item *items;
	size_t count, capacity;
	uint16_t next_file;
	bool directory_stale;

	uint16_t selected;
	uint32_t offset; /* of the next byte; may lie beyond the end */
	uint64_t dma_address;
};

/* ---- items ---- */

static struct item *find_key(struct fw_cfg *fw, uint16_t key)
{
	for (size_t i = 0; i < fw->count; i++)
		if (fw->items[i].key == key)
			return &fw->items[i];
	return NULL;
}

static struct item *find_name(const struct fw_cfg *fw, const char *name)
{
	for (size_t i = 0; i < fw->count; i++)
		if (fw->items[i].name && !strcmp(fw->items[i].name, name))
			return &fw->items[i];
	return NULL;
}

static void add_item(struct fw_cfg *fw, struct item item)
{
	pthread_mutex_lock(&fw->lock);
	if (fw->count == fw->capacity) {
		fw->capacity = MAX(64, 2 * fw->capacity);
		fw->items = xrealloc(fw->items, fw->capacity * sizeof(*fw->items));
	}
	fw->items[fw->count++] = item;
	fw->directory_stale = true;
	pthread_mutex_unlock(&fw->lock);
}

static void *copy_of(const void *data, size_t len)
{
	void *copy = xmalloc(MAX(len, 1));

	if (len)
		memcpy(copy, data, len);
	return copy;
}

void fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len)
{
	add_item(fw,
		 (struct item){.key = key, .data = copy_of(data, len), .len = len, .owned = true});
}

void fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value)
{
	uint8_t bytes[2];

	store_le16(bytes, value);
	fw_cfg_add_bytes(fw, key, bytes, sizeof(bytes));
}

void fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	fw_cfg_add_bytes(fw, key, bytes, sizeof(bytes));
}

void fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value)
{
	uint8_t bytes[8];

	store_le64(bytes, value);
	fw_cfg_add_bytes(fw, key, bytes, sizeof(bytes));
}

void fw_cfg_add_borrowed(struct fw_cfg *fw, uint16_t key, const void *data, size_t len)
{
	add_item(fw, (struct item){.key = key, .data = (uint8_t *)data, .len = len});
}

bool fw_cfg_add_file(struct fw_cfg *fw, const struct fw_cfg_file *file, struct error **err)
{
	if (strlen(file->name) > FW_CFG_NAME_MAX) {
		error_set(err, "name too long (max. %d char)", FW_CFG_NAME_MAX);
		return false;
	}
	if (find_name(fw, file->name)) {
		error_set(err, "duplicate fw_cfg file name: %s", file->name);
		return false;
	}
	if (fw->next_file == FW_CFG_FILE_FIRST + FW_CFG_FILES_MAX) {
		error_set(err, "too many fw_cfg files (max. %d)", FW_CFG_FILES_MAX);
		return false;
	}
	add_item(fw, (struct item){.key = fw->next_file++,
				   .name = xstrdup(file->name),
				   .data = file->data,
				   .len = file->len,
				   .owned = file->owned,
				   .writable = file->writable,
				   .select = file->select,
				   .opaque = file->opaque});
	return true;
}

void fw_cfg_add_blob(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
	struct fw_cfg_file file = {
		.name = name, .data = copy_of(data, len), .len = len, .owned = true};
	struct error *err = NULL;

	if (!fw_cfg_add_file(fw, &file, &err)) {
		error_report(err);
		free(file.data);
	}
}

void fw_cfg_add_string(struct fw_cfg *fw, const char *name, const char *text)
{
	fw_cfg_add_blob(fw, name, text, strlen(text) + 1);
}

void fw_cfg_add_file_u64(struct fw_cfg *fw, const char *name, uint64_t value)
{
	uint8_t bytes[8];

	store_le64(bytes, value);
	fw_cfg_add_blob(fw, name, bytes, sizeof(bytes));
}

bool fw_cfg_has_file(const struct fw_cfg *fw, const char *name)
{
	return find_name(fw, name);
}

size_t fw_cfg_file_len(const struct fw_cfg *fw, const char *name)
{
	const struct item *item = find_name(fw, name);

	return item ? item->len : 0;
}

void fw_cfg_replace(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
	uint8_t *copy;
	struct item *item;

	if (!find_name(fw, name)) {
		fw_cfg_add_blob(fw, name, data, len);
		return;
	}
	copy = copy_of(data, len);
	pthread_mutex_lock(&fw->lock);
	item = find_name(fw, name);
	if (item->owned)
		free(item->data);
	fw->directory_stale |= item->len != len;
	item->data = copy;
	item->len = len;
	item->owned = true;
	pthread_mutex_unlock(&fw->lock);
}

static int compare_names(const void *a, const void *b)
{
	const struct item *const *left = a, *const *right = b;

	return strcmp((*left)->name, (*right)->name);
}

/* The directory's bytes: a count and the files by name. Lock held. */
static void make_directory(struct fw_cfg *fw)
{
	struct item *directory = find_key(fw, FW_CFG_FILE_DIR);
	struct item **files = xcalloc(fw->count, sizeof(struct item *));
	size_t n = 0;
	uint8_t *p;

	for (size_t i = 0; i < fw->count; i++)
		if (fw->items[i].name)
			files[n++] = &fw->items[i];
	qsort(files, n, sizeof(struct item *), compare_names);

	free(directory->data);
	directory->len = 4 + n * DIR_ENTRY_SIZE;
	directory->data = p = xcalloc(1, directory->len);
	store_be32(p, n);
	p += 4;
	for (size_t i = 0; i < n; i++, p += DIR_ENTRY_SIZE) {
		store_be32(p, files[i]->len);
		store_be16(p + 4, files[i]->key);
		memcpy(p + DIR_ENTRY_NAME, files[i]->name, strlen(files[i]->name));
	}
	free(files);
	fw->directory_stale = false;
}

/* ---- what the guest does ---- */

/* The bytes selected, and how many are left; NULL where there is nothing. Lock held. */
static struct item *current_item(struct fw_cfg *fw, size_t *left)
{
	struct item *item = find_key(fw, fw->selected);

	if (item && item->key == FW_CFG_FILE_DIR && fw->directory_stale)
		make_directory(fw);
	*left = item && fw->offset < item->len ? item->len - fw->offset : 0;
	return item;
}

static void advance(struct fw_cfg *fw, uint32_t n)
{
	fw->offset = n > UINT32_MAX - fw->offset ? UINT32_MAX : fw->offset + n;
}

static void select_item(struct fw_cfg *fw, uint16_t key)
{
	void (*select)(void *opaque) = NULL;
	void *opaque = NULL;
	struct item *item;

	pthread_mutex_lock(&fw->lock);
	fw->selected = key;
	fw->offset = 0;
	item = find_key(fw, key);
	if (item) {
		select = item->select;
		opaque = item->opaque;
	}
	pthread_mutex_unlock(&fw->lock);
	if (select)
		select(opaque);
}

static uint8_t read_byte(struct fw_cfg *fw)
{
	struct item *item;
	uint8_t byte = 0;
	size_t left;

	pthread_mutex_lock(&fw->lock);
	item = current_item(fw, &left);
	if (left)
		byte = item->data[fw->offset];
	advance(fw, 1);
	pthread_mutex_unlock(&fw->lock);
	return byte;
}

/* len bytes to the guest: the item's, then zeroes. Lock held. */
static bool dma_read(struct fw_cfg *fw, uint64_t gpa, uint32_t len)
{
	const struct guest_mem *gm = &fw->dev.vm->mem;
	struct iovec iov[DMA_PIECES];
	size_t left;
	struct item *item = current_item(fw, &left);
	const uint8_t *from = left ? item->data + fw->offset : NULL;
	int n = gm_map(gm, gpa, len, GM_TO_GUEST, iov, DMA_PIECES);

	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		size_t part = MIN(left, iov[i].iov_len);

		if (part) {
			memcpy(iov[i].iov_base, from, part);
			from += part;
			left -= part;
		}
		memset((uint8_t *)iov[i].iov_base + part, 0, iov[i].iov_len - part);
	}
	gm_mark_dirty(gm, gpa, len);
	return true;
}

/* Lock held. */
static bool dma_write(struct fw_cfg *fw, uint64_t gpa, uint32_t len)
{
	size_t left;
	struct item *item = current_item(fw, &left);

	return item && item->writable && len <= left &&
	       gm_read(&fw->dev.vm->mem, gpa, item->data + fw->offset, len);
}

static bool dma_transfer(struct fw_cfg *fw, uint32_t control, uint32_t len, uint64_t gpa)
{
	bool ok = true;

	pthread_mutex_lock(&fw->lock);
	if (control & DMA_READ)
		ok = dma_read(fw, gpa, len);
	else if (control & DMA_WRITE)
		ok = dma_write(fw, gpa, len);
	if (control & (DMA_READ | DMA_WRITE | DMA_SKIP))
		advance(fw, len);
	pthread_mutex_unlock(&fw->lock);
	return ok;
}

static void dma_run(struct fw_cfg *fw, uint64_t request_gpa)
{
	const struct guest_mem *gm = &fw->dev.vm->mem;
	uint8_t request[DMA_REQUEST_SIZE], answer[4];
	uint32_t control;
	bool ok = false;

	if (gm_read(gm, request_gpa, request, sizeof(request))) {
		control = load_be32(request);
		if (control & DMA_SELECT)
			select_item(fw, control >> DMA_KEY_SHIFT);
		ok = dma_transfer(fw, control, load_be32(request + 4), load_be64(request + 8));
	}
	store_be32(answer, ok ? 0 : DMA_ERROR);
	gm_write(gm, request_gpa, answer, sizeof(answer));
}

static uint64_t fw_cfg_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fw_cfg *fw = opaque;

	if (offset >= REG_DMA && range_inside(offset - REG_DMA, size, sizeof(dma_signature)))
		return load_le(&dma_signature[offset - REG_DMA], size);
	if (offset <= REG_DATA && size == 1)
		return read_byte(fw);
	return UINT64_MAX;
}

static void fw_cfg_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *fw = opaque;
	uint64_t request;

	if (offset == REG_SELECT && size == 2) {
		select_item(fw, value);
	} else if (offset == REG_DMA && size == 4) {
		pthread_mutex_lock(&fw->lock);
		fw->dma_address = (uint64_t)be32toh(value) << 32;
		pthread_mutex_unlock(&fw->lock);
	} else if (offset == REG_DMA_LOW && size == 4) {
		pthread_mutex_lock(&fw->lock);
		request = fw->dma_address | be32toh(value);
		fw->dma_address = 0;
		pthread_mutex_unlock(&fw->lock);
		dma_run(fw, request);
	}
}

static const struct io_ops fw_cfg_ops = {
	.read = fw_cfg_read,
	.write = fw_cfg_write,
};

/* ---- the device ---- */

static void fw_cfg_init(struct device *dev)
{
	struct fw_cfg *fw = container_of(dev, struct fw_cfg, dev);

	pthread_mutex_init(&fw->lock, NULL);
	fw->next_file = FW_CFG_FILE_FIRST;
	fw_cfg_add_bytes(fw, FW_CFG_SIGNATURE, "QEMU", 4);
	fw_cfg_add_u32(fw, FW_CFG_ID, ID_PORTS | ID_DMA);
	fw_cfg_add_bytes(fw, FW_CFG_FILE_DIR, NULL, 0);
}

static bool fw_cfg_realize(struct device *dev, struct error **err)
{
	struct fw_cfg *fw = container_of(dev, struct fw_cfg, dev);

	fw->io = (struct io_region){.base = fw->iobase,
				    .size = FW_CFG_PORTS,
				    .ops = &fw_cfg_ops,
				    .opaque = fw,
				    .name = "fw_cfg"};
	return io_bus_add(&dev->vm->pio, &fw->io, err);
}

static void fw_cfg_unrealize(struct device *dev)
{
	struct fw_cfg *fw = container_of(dev, struct fw_cfg, dev);

	io_bus_remove(&dev->vm->pio, &fw->io);
	io_bus_quiesce(&dev->vm->pio);
}

static void fw_cfg_reset(struct device *dev)
{
	struct fw_cfg *fw = container_of(dev, struct fw_cfg, dev);

	pthread_mutex_lock(&fw->lock);
	fw->selected = FW_CFG_SIGNATURE;
	fw->offset = 0;
	fw->dma_address = 0;
	pthread_mutex_unlock(&fw->lock);
}

static void fw_cfg_destroy(struct device *dev)
{
	struct fw_cfg *fw = container_of(dev, struct fw_cfg, dev);

	for (size_t i = 0; i < fw->count; i++) {
		free(fw->items[i].name);
		if (fw->items[i].owned)
			free(fw->items[i].data);
	}
	free(fw->items);
	pthread_mutex_destroy(&fw->lock);
}

static const struct prop fw_cfg_props[] = {
	{.name = "iobase",
	 .type = PROP_U32,
	 .offset = offsetof(struct fw_cfg, iobase),
	 .def = "0x510",
	 .max = 0x10000 - FW_CFG_PORTS,
	 .help = "first port"},
	{.type = PROP_END},
};

/* Keys and offsets are looked up at each access, so that any value is harmless. */
static const struct state_field fw_cfg_fields[] = {
	STATE_FIELD(struct fw_cfg, selected, STATE_U16),
	STATE_FIELD(struct fw_cfg, offset, STATE_U32),
	STATE_FIELD(struct fw_cfg, dma_address, STATE_U64),
	{.type = STATE_END},
};

static const struct state_desc fw_cfg_state = {
	.name = "fw_cfg",
	.version = 1,
	.fields = fw_cfg_fields,
};

const struct device_desc fw_cfg_desc = {
	.name = "fw_cfg_io",
	.help = "firmware configuration ports",
	.size = sizeof(struct fw_cfg),
	.props = (const struct prop_set[]){{.props = fw_cfg_props}, {NULL}},
	.state = &fw_cfg_state,
	.internal = true,
	.init = fw_cfg_init,
	.realize = fw_cfg_realize,
	.reset = fw_cfg_reset,
	.unrealize = fw_cfg_unrealize,
	.destroy = fw_cfg_destroy,
};
