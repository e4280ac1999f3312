/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's expansion ROM, from a file: PCI Firmware 3.0, section 5.1; PCI Local Bus 3.0, 6.3.
 *
 * A file named without a directory is looked for where distributions put such ROMs. A card that the
 * guest is to boot from may have one of its own accord, if it is installed.
 *
 * Thread: main; reads any. Owner: struct pci_device.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hw/pci/internal.h"
#include "vmm/core/util.h"

enum {
	ROM_SIZE_MAX = 16 << 20,
	ROM_SIZE_MIN = 2048,

	/* Of an image: its length in units of 512 bytes, a byte that makes its sum 0, where the
	 * data structure is, and there the ids. */
	ROM_UNITS = 2,
	ROM_UNIT = 512,
	ROM_FREE_BYTE = 6,
	ROM_PCIR = 0x18,
	PCIR_VENDOR = 4,
	PCIR_DEVICE = 6,
	PCIR_SIZE = 24,
};

static const char *const rom_dirs[] = {
	"/usr/lib/ipxe/qemu",
	"/usr/share/qemu",
	"/usr/share/ipxe",
};

static uint64_t rom_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct pci_device *dev = opaque;
	uint8_t bytes[8];

	memset(bytes, 0xff, sizeof(bytes));
	if (offset < dev->rom_size)
		memcpy(bytes, dev->rom_data + offset, MIN(size, dev->rom_size - offset));
	return load_le(bytes, size);
}

static const struct io_ops rom_ops = {.read = rom_read};

static bool rom_load(struct pci_device *dev, int fd, const char *name, struct error **err)
{
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0) {
		error_set_errno(err, errno, "romfile '%s'", name);
		return false;
	}
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > ROM_SIZE_MAX) {
		error_set(err, "romfile '%s' must be a file of 1 byte to %u MiB", name,
			  ROM_SIZE_MAX >> 20);
		return false;
	}
	dev->rom_size = st.st_size;
	dev->rom_data = xmalloc(dev->rom_size);
	ret = read_full(fd, dev->rom_data, dev->rom_size);
	if (ret < 0) {
		error_set_errno(err, ret, "romfile '%s'", name);
		free(dev->rom_data);
		dev->rom_data = NULL;
		return false;
	}
	return true;
}

/* -1 with errno. */
static int rom_open(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = errno;

	for (size_t i = 0; fd < 0 && i < ARRAY_SIZE(rom_dirs) && !strchr(name, '/'); i++) {
		char *path = xasprintf("%s/%s", rom_dirs[i], name);

		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		free(path);
	}
	errno = error;
	return fd;
}

/* One ROM serves several devices; firmware runs it only if it names the one it is in. */
static void rom_set_device(struct pci_device *dev)
{
	uint8_t *rom = dev->rom_data, *pcir, *free_byte = rom + ROM_FREE_BYTE;
	uint16_t from, to = dev->info->device_id;
	size_t at;

	if (dev->rom_size < ROM_PCIR + 2 || load_le16(rom) != 0xaa55)
		return;
	at = load_le16(rom + ROM_PCIR);
	if (!range_inside(at, PCIR_SIZE, dev->rom_size) ||
	    !range_inside(at, PCIR_SIZE, (size_t)rom[ROM_UNITS] * ROM_UNIT) ||
	    memcmp(rom + at, "PCIR", 4))
		return;
	pcir = rom + at;
	from = load_le16(pcir + PCIR_DEVICE);
	if (load_le16(pcir + PCIR_VENDOR) != dev->info->vendor_id || from == to)
		return;
	store_le16(pcir + PCIR_DEVICE, to);
	*free_byte += (from & 0xff) + (from >> 8) - (to & 0xff) - (to >> 8);
}

bool pci_rom_init(struct pci_device *dev, struct error **err)
{
	const char *name = dev->romfile ? dev->romfile : dev->info->default_rom;
	uint64_t size = ROM_SIZE_MIN;
	bool ok;
	int fd;

	if (!name || !*name || !dev->rombar)
		return true;
	fd = rom_open(name);
	if (fd < 0 && !dev->romfile)
		return true;
	if (fd < 0) {
		error_set_errno(err, errno, "romfile '%s'", name);
		return false;
	}
	ok = rom_load(dev, fd, name, err);
	close(fd);
	if (!ok)
		return false;
	if (!dev->romfile)
		rom_set_device(dev);
	while (size < dev->rom_size)
		size <<= 1;
	dev->rom.io =
		(struct io_region){.size = size, .ops = &rom_ops, .opaque = dev, .name = "pci-rom"};
	pci_bar_init(dev, PCI_ROM_BAR, PCI_BAR_MEM32, size);
	pci_bar_add_region(dev, PCI_ROM_BAR, 0, &dev->rom);
	return true;
}
