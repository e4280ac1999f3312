/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board's memory as CPUs see it: RAM, firmware, and the range from 640 KiB to 1 MiB whose
 * pieces firmware turns between ROM and RAM (Intel 3 Series chipset datasheet, PAM0..PAM6 and
 * SMRAM). There is no SMM: SMRAM is RAM while it is open and VGA's otherwise.
 *
 * Main thread at set-up; shadow_lock guards what the chipset changes from vCPU threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hw/legacy/legacy.h"
#include "target-x86/q35_internal.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* Firmware's last 128 KiB are what the range below 1 MiB shows after reset. */
#define ISA_BIOS_SIZE UINT64_C(0x20000)

static bool map(struct q35 *b, uint64_t gpa, uint64_t size, uint8_t *hva, uint32_t flags,
		struct error **err)
{
	int r = size ? b->accel->ops->mem_map(b->accel, gpa, size, hva, flags) : 0;

	if (r < 0)
		error_set_errno(err, r, "cannot map %llu MiB of guest memory at 0x%llx",
				(unsigned long long)(size / MiB), (unsigned long long)gpa);
	return r == 0;
}

static bool add_ram(struct q35 *b, uint64_t gpa, uint64_t size, uint8_t *hva, struct error **err)
{
	struct mem_region region = {.gpa = gpa,
				    .size = size,
				    .hva = hva,
				    .fd = b->config.ram->share ? b->config.ram->fd : -1,
				    .fd_offset = hva - b->ram};

	return !size || guest_mem_add(&b->vm->mem, &region, err);
}

/* As QEMU's q35: guests and scripts know the split. */
static void split_ram(struct q35 *b)
{
	uint64_t size = b->config.ram->size;
	uint64_t low = size >= Q35_ECAM_BASE ? UINT64_C(0x80000000) : size;

	b->ram_below_4g = low;
	b->ram_above_4g = size - low;
}

static bool check_size(const struct q35 *b, struct error **err)
{
	unsigned long long mib = b->config.ram->size / MiB;

	if (b->ram_below_4g < Q35_SHADOW_END) {
		error_set(err, "-m: this machine has at least 1 MiB of memory");
		return false;
	}
	if (q35_pci64_base(b) >= q35_pci64_end(b)) {
		error_set(err, "-m %lluM: more than the CPU's %u address bits reach", mib,
			  cpu_type_phys_bits(b->cpu_type));
		return false;
	}
	return true;
}

bool q35_memory_init(struct q35 *b, struct error **err)
{
	split_ram(b);
	if (!check_size(b, err))
		return false;
	b->ram = b->config.ram->hva;
	return add_ram(b, 0, b->ram_below_4g, b->ram, err) &&
	       add_ram(b, Q35_4G, b->ram_above_4g, b->ram + b->ram_below_4g, err) &&
	       map(b, 0, Q35_LOW_RAM_END, b->ram, 0, err) &&
	       map(b, Q35_SHADOW_END, b->ram_below_4g - Q35_SHADOW_END, b->ram + Q35_SHADOW_END, 0,
		   err) &&
	       map(b, Q35_4G, b->ram_above_4g, b->ram + b->ram_below_4g, 0, err);
}

void q35_memory_destroy(struct q35 *b)
{
	if (b->bios)
		munmap(b->bios, b->bios_size);
}

uint64_t q35_pci64_base(const struct q35 *b)
{
	return ALIGN_UP(Q35_4G + b->ram_above_4g, GiB);
}

uint64_t q35_pci64_end(const struct q35 *b)
{
	uint64_t end = UINT64_C(1) << cpu_type_phys_bits(b->cpu_type);

	/* AMD's IOMMU keeps 12 GiB below 1 TiB for itself (HyperTransport). */
	if (end == TiB && q35_pci64_base(b) < UINT64_C(0xfd00000000))
		end = UINT64_C(0xfd00000000);
	return end;
}

/* Firmware */

static const char *const bios_places[] = {
	"/usr/share/seabios/bios-256k.bin",
	"/usr/share/qemu/bios-256k.bin",
	"/usr/share/qemu-kvm/bios-256k.bin",
	"/usr/share/seabios/bios.bin",
};

static const char *default_bios(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(bios_places); i++)
		if (access(bios_places[i], R_OK) == 0)
			return bios_places[i];
	return NULL;
}

bool q35_firmware_load(struct q35 *b, struct error **err)
{
	const char *path = b->config.bios ? b->config.bios : default_bios();
	struct stat st;
	int fd;

	if (!path) {
		error_set(err, "no firmware: install the package 'seabios', or name a file with "
			       "-bios or a kernel with -kernel");
		return false;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0) {
		error_set_errno(err, errno, "-bios %s", path);
		goto fail;
	}
	if (!S_ISREG(st.st_mode) || st.st_size < 64 * (off_t)KiB || st.st_size > 16 * (off_t)MiB ||
	    st.st_size % 65536) {
		error_set(err,
			  "-bios %s: not a firmware image (its size must be a multiple of 64 "
			  "KiB, from 64 KiB to 16 MiB)",
			  path);
		goto fail;
	}
	b->bios_size = st.st_size;
	b->bios = mmap(NULL, b->bios_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (b->bios == MAP_FAILED) {
		b->bios = NULL;
		error_set_errno(err, errno, "-bios %s", path);
		goto fail;
	}
	close(fd);
	return map(b, Q35_4G - b->bios_size, b->bios_size, b->bios, ACCEL_MEM_READONLY, err);
fail:
	if (fd >= 0)
		close(fd);
	return false;
}

/* The last bytes below 4 GiB, whoever holds them: what ROM shows below 1 MiB. */
static uint8_t *firmware_top(struct q35 *b, uint64_t from_end)
{
	if (b->bios)
		return from_end <= b->bios_size ? b->bios + b->bios_size - from_end : NULL;
	if (b->pflash[0] && from_end <= pflash_size(b->pflash[0]))
		return pflash_memory(b->pflash[0]) + pflash_size(b->pflash[0]) - from_end;
	return NULL;
}

/* What a piece is made of; false when nothing answers there. */
static bool piece_backing(struct q35 *b, unsigned piece, struct q35_slot *slot)
{
	uint64_t gpa = Q35_SHADOW_BASE + piece * Q35_SHADOW_PIECE_SIZE;

	*slot = (struct q35_slot){.gpa = gpa, .size = Q35_SHADOW_PIECE_SIZE};
	switch (b->shadow[piece]) {
	case SHADOW_RAM:
		slot->hva = b->ram + gpa;
		return true;
	case SHADOW_RAM_READ:
		slot->hva = b->ram + gpa;
		slot->flags = ACCEL_MEM_READONLY;
		return true;
	case SHADOW_ROM:
		slot->flags = ACCEL_MEM_READONLY;
		slot->hva = gpa >= Q35_SHADOW_END - ISA_BIOS_SIZE
				    ? firmware_top(b, Q35_SHADOW_END - gpa)
				    : NULL;
		return slot->hva != NULL;
	}
	return false;
}

static bool same_slot(const struct q35_slot *a, const struct q35_slot *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->hva == b->hva && a->flags == b->flags;
}

/* The slots that the pieces and SMRAM ask for now, neighbours joined. */
static unsigned wanted_slots(struct q35 *b, struct q35_slot out[Q35_SHADOW_PIECES + 1])
{
	unsigned n = 0;

	if (b->smram_open)
		out[n++] = (struct q35_slot){.gpa = Q35_LOW_RAM_END,
					     .size = Q35_VGA_SIZE,
					     .hva = b->ram + Q35_LOW_RAM_END};
	for (unsigned i = 0; i < Q35_SHADOW_PIECES; i++) {
		struct q35_slot s, *last = n ? &out[n - 1] : NULL;

		if (!piece_backing(b, i, &s))
			continue;
		if (last && last->gpa + last->size == s.gpa && last->hva + last->size == s.hva &&
		    last->flags == s.flags)
			last->size += s.size;
		else
			out[n++] = s;
	}
	return n;
}

static bool has_slot(const struct q35_slot *slots, unsigned count, const struct q35_slot *wanted)
{
	for (unsigned i = 0; i < count; i++)
		if (same_slot(&slots[i], wanted))
			return true;
	return false;
}

/* shadow_lock held. */
static void update_shadow(struct q35 *b)
{
	struct q35_slot wanted[Q35_SHADOW_PIECES + 1];
	unsigned count = wanted_slots(b, wanted);
	const struct accel_ops *ops = b->accel->ops;

	for (unsigned i = 0; i < b->shadow_slot_count; i++)
		if (!has_slot(wanted, count, &b->shadow_slots[i]))
			ops->mem_unmap(b->accel, b->shadow_slots[i].gpa, b->shadow_slots[i].size);
	for (unsigned i = 0; i < count; i++) {
		int r;

		if (has_slot(b->shadow_slots, b->shadow_slot_count, &wanted[i]))
			continue;
		r = ops->mem_map(b->accel, wanted[i].gpa, wanted[i].size, wanted[i].hva,
				 wanted[i].flags);
		if (r < 0)
			log_error("memory at 0x%llx: %s", (unsigned long long)wanted[i].gpa,
				  strerror(-r));
	}
	memcpy(b->shadow_slots, wanted, count * sizeof(*wanted));
	b->shadow_slot_count = count;
}

void q35_memory_set_shadow(struct q35 *b, const enum q35_shadow shadow[Q35_SHADOW_PIECES])
{
	pthread_mutex_lock(&b->shadow_lock);
	memcpy(b->shadow, shadow, sizeof(b->shadow));
	update_shadow(b);
	pthread_mutex_unlock(&b->shadow_lock);
}

void q35_memory_set_smram(struct q35 *b, bool open)
{
	pthread_mutex_lock(&b->shadow_lock);
	b->smram_open = open;
	update_shadow(b);
	pthread_mutex_unlock(&b->shadow_lock);
}

void q35_memory_pflash_mode(struct device *dev, bool array, void *opaque)
{
	struct q35 *b = opaque;
	const struct accel_ops *ops = b->accel->ops;
	unsigned i = dev == b->pflash[0] ? 0 : 1;
	int r = 0;

	pthread_mutex_lock(&b->shadow_lock);
	if (array != b->pflash_mapped[i]) {
		if (array)
			r = ops->mem_map(b->accel, pflash_base(dev), pflash_size(dev),
					 pflash_memory(dev), ACCEL_MEM_READONLY);
		else
			r = ops->mem_unmap(b->accel, pflash_base(dev), pflash_size(dev));
		if (r < 0)
			log_error("flash: %s", strerror(-r));
		b->pflash_mapped[i] = array;
	}
	pthread_mutex_unlock(&b->shadow_lock);
}
