/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that only sends or only receives packets, as fast as it can: a PVH kernel of its own,
 * flat and in one mode, for hosts where no stock kernel runs. `-append send`, or `-append receive`; with
 * `mergeable`, receive buffers are. It drives the first virtio-net function of bus 0 (virtio 1.2,
 * sections 2.7, 4.1, 5.1) as polling drivers do: event indices, no interrupts, never asleep.
 *
 * On the first serial port it says "ready", and then, several times a second, "count PACKETS kicks
 * KICKS", both since the beginning.
 */
#include <stdbool.h>
#include <stdint.h>

enum {
	COM1 = 0x3f8,
	PCI_ADDRESS = 0xcf8,
	PCI_DATA = 0xcfc,

	PCI_COMMAND = 4,
	PCI_COMMAND_MEMORY_MASTER = 6,
	PCI_BAR0 = 0x10,
	PCI_CAPABILITIES = 0x34,
	PCI_CAP_VENDOR = 9,

	VIRTIO_NET_TRANSITIONAL = 0x10001af4,
	VIRTIO_NET_MODERN = 0x10411af4,
	CAP_COMMON = 1,
	CAP_NOTIFY = 2,

	FEATURE_MAC = 1 << 5,
	FEATURE_MERGEABLE = 1 << 15,
	FEATURE_EVENT_INDEX = 1 << 29,
	FEATURE_VERSION_1 = 1 << 0, /* of the upper half */

	DESC_WRITE = 2,
	RING_MAX = 1024, /* of the ring */
	BUFFER = 2048,
	HEADER = 12,
	FRAME = 64,
	BATCH = 32,
	REPORT_CYCLES_SHIFT = 28,
};

/* Where BARs go that lie out of a 32-bit kernel's reach: unused on a q35 machine. */
#define BAR_BASE 0xe0000000u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct common {
	uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
	uint16_t msix_config, num_queues;
	uint8_t status, generation;
	uint16_t queue_select, queue_size, queue_msix_vector, queue_enable, queue_notify_off;
	uint32_t queue_desc[2], queue_driver[2], queue_device[2];
};

struct start_info {
	uint32_t magic, version, flags, modules;
	uint64_t module_list, command_line;
};

static struct desc descs[RING_MAX] __attribute__((aligned(4096)));
static struct {
	volatile uint16_t flags, idx, ring[RING_MAX + 1]; /* behind its end: used_event */
} avail __attribute__((aligned(4096)));
static struct {
	volatile uint16_t flags, idx;
	volatile struct {
		uint32_t id, len;
	} ring[RING_MAX + 1]; /* behind its end: avail_event */
} used __attribute__((aligned(4096)));
static uint8_t buffers[RING_MAX][BUFFER] __attribute__((aligned(4096)));

static bool sending;
static volatile struct common *common;
static volatile uint16_t *doorbell;
static uint16_t size, avail_idx, kicked_idx, used_idx;
static uint32_t count, kicks, reported;

void run(const struct start_info *info);

/* ---- the machine ---- */

static void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static uint32_t time_now(void)
{
	return __builtin_ia32_rdtsc() >> REPORT_CYCLES_SHIFT;
}

static void say(const char *text)
{
	for (; *text; text++)
		outb(COM1, *text);
}

static void say_number(const char *before, uint32_t n)
{
	char digits[11], *p = digits + 10;

	*p = 0;
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	say(before);
	say(p);
}

static void die(const char *why)
{
	say(why);
	say("\r\n");
	for (;;)
		__builtin_ia32_pause();
}

/* ---- PCI ---- */

static uint32_t pci_read(unsigned dev, unsigned at)
{
	outl(PCI_ADDRESS, 0x80000000u | dev << 11 | (at & 0xfc));
	return inl(PCI_DATA) >> at % 4 * 8;
}

static void pci_write(unsigned dev, unsigned at, uint32_t v)
{
	outl(PCI_ADDRESS, 0x80000000u | dev << 11 | at);
	outl(PCI_DATA, v);
}

static unsigned find_card(void)
{
	for (unsigned dev = 0; dev < 32; dev++) {
		uint32_t id = pci_read(dev, 0);

		if (id == VIRTIO_NET_TRANSITIONAL || id == VIRTIO_NET_MODERN)
			return dev;
	}
	die("no virtio-net function");
	return 0;
}

static uint8_t *bar(unsigned dev, unsigned n)
{
	uint32_t low = pci_read(dev, PCI_BAR0 + 4 * n);

	if ((low & 6) == 4 && pci_read(dev, PCI_BAR0 + 4 * n + 4)) {
		low = BAR_BASE + (n << 20);
		pci_write(dev, PCI_BAR0 + 4 * n, low);
		pci_write(dev, PCI_BAR0 + 4 * n + 4, 0);
	}
	return (uint8_t *)(uintptr_t)(low & ~15u);
}

static void open_card(void)
{
	unsigned dev = find_card();
	uint32_t multiplier = 0;
	uint8_t *doorbells = 0;

	pci_write(dev, PCI_COMMAND, PCI_COMMAND_MEMORY_MASTER);
	for (unsigned at = pci_read(dev, PCI_CAPABILITIES) & 0xfc; at;
	     at = pci_read(dev, at + 1) & 0xfc) {
		uint8_t kind = pci_read(dev, at), type = pci_read(dev, at + 3);
		uint32_t offset = pci_read(dev, at + 8);

		if (kind == PCI_CAP_VENDOR && type == CAP_COMMON) {
			common = (void *)(bar(dev, pci_read(dev, at + 4) & 7) + offset);
		} else if (kind == PCI_CAP_VENDOR && type == CAP_NOTIFY) {
			doorbells = bar(dev, pci_read(dev, at + 4) & 7) + offset;
			multiplier = pci_read(dev, at + 16);
		}
	}
	if (!common || !doorbells)
		die("no virtio 1.0 registers");
	common->queue_select = sending;
	doorbell = (uint16_t *)(doorbells + common->queue_notify_off * multiplier);
}

/* ---- virtio ---- */

static void negotiate(uint32_t low)
{
	common->status = 0;
	while (common->status)
		;
	common->status = 1;
	common->status = 1 | 2;
	common->device_feature_select = 0;
	if ((common->device_feature & low) != low)
		die("a feature is missing");
	common->driver_feature_select = 0;
	common->driver_feature = low;
	common->driver_feature_select = 1;
	common->driver_feature = FEATURE_VERSION_1;
	common->status = 1 | 2 | 8;
	if (!(common->status & 8))
		die("the features are refused");
}

static void start_queue(void)
{
	common->msix_config = 0xffff;
	common->queue_select = sending;
	common->queue_size = size;
	common->queue_msix_vector = 0;
	common->queue_desc[0] = (uintptr_t)descs;
	common->queue_driver[0] = (uintptr_t)&avail;
	common->queue_device[0] = (uintptr_t)&used;
	common->queue_desc[1] = common->queue_driver[1] = common->queue_device[1] = 0;
	common->queue_enable = 1;
	common->status = 1 | 2 | 4 | 8;
}

/* 64 bytes with Ethernet's, IPv4's and UDP's headers, to a neighbour. */
static void write_packet(uint8_t *frame)
{
	static const uint8_t head[] = {
		0x52, 0x54, 0, 0, 0, 2,	   0x52, 0x54, 0,  0, 0, 1,    8,  0, /* Ethernet */
		0x45, 0,    0, 50, 0, 0,   0x40, 0,    64, 17, 0x26, 0xb9,    /* IPv4 */
		10,   0,    0, 1,  10, 0,  0,	 2,			      /* from, to */
		0,    9,    0, 9,  0, 30,  0,	 0,			      /* UDP */
	};

	for (unsigned i = 0; i < sizeof(head); i++)
		frame[i] = head[i];
}

static void fill_ring(void)
{
	common->queue_select = sending;
	size = common->queue_size < RING_MAX ? common->queue_size : RING_MAX;
	for (unsigned i = 0; i < size; i++) {
		descs[i].addr = (uintptr_t)buffers[i];
		descs[i].len = sending ? HEADER + FRAME : BUFFER;
		descs[i].flags = sending ? 0 : DESC_WRITE;
		avail.ring[i] = i;
		if (sending)
			write_packet(buffers[i] + HEADER);
	}
	avail_idx = size;
}

/* Shows the device what was added, and rings if it asked for that. */
static void publish(void)
{
	uint16_t from = kicked_idx, avail_event;

	__atomic_store_n(&avail.idx, avail_idx, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	kicked_idx = avail_idx;
	avail_event = used.ring[size].id;
	if ((uint16_t)(avail_idx - avail_event - 1) < (uint16_t)(avail_idx - from)) {
		*doorbell = sending;
		kicks++;
	}
}

/* A buffer that comes back goes round again: with a new number in it, or once it was looked at. */
static void turn_round(uint16_t id, uint32_t len)
{
	volatile uint32_t *payload = (volatile uint32_t *)(buffers[id] + HEADER + 44);

	if (sending)
		*payload = count++;
	else if (len == HEADER + FRAME && buffers[id][HEADER + 23] == 17)
		count++;
	avail.ring[avail_idx++ % size] = id;
}

static unsigned take_used(void)
{
	uint16_t end = __atomic_load_n(&used.idx, __ATOMIC_ACQUIRE);
	unsigned n = 0;

	for (; used_idx != end && n < BATCH; used_idx++, n++)
		turn_round(used.ring[used_idx % size].id, used.ring[used_idx % size].len);
	/* An index that is behind is never reached: no interrupts. */
	avail.ring[size] = used_idx - 1;
	return n;
}

static void report(void)
{
	uint32_t now = time_now();

	if (now == reported)
		return;
	reported = now;
	say_number("count ", count);
	say_number(" kicks ", kicks);
	say("\r\n");
}

static bool says(const char *line, const char *word)
{
	for (; *line; line++) {
		unsigned i = 0;

		while (word[i] && line[i] == word[i])
			i++;
		if (!word[i])
			return true;
	}
	return false;
}

void run(const struct start_info *info)
{
	const char *line = (const char *)info->command_line;

	sending = says(line, "send");
	open_card();
	negotiate(FEATURE_EVENT_INDEX | FEATURE_MAC |
		  (says(line, "mergeable") ? FEATURE_MERGEABLE : 0));
	fill_ring();
	start_queue();
	say("ready\r\n");
	publish();
	for (;;) {
		if (take_used())
			publish();
		else
			__builtin_ia32_pause();
		report();
	}
}
