/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume identifier of an ISO 9660 image (ECMA-119 8.4). Image bytes are not trusted: 72 of
 * them are copied, nothing is followed. Any thread.
 */
#include "vmm/cli/iso.h"

#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define LABEL_OFFSET 40
#define LABEL_LENGTH 32

bool iso_volume_label(const uint8_t *descriptor, char label[ISO_LABEL_SIZE])
{
	size_t len = LABEL_LENGTH;

	/* Type 1, standard identifier, version 1. */
	if (descriptor[0] != 1 || memcmp(descriptor + 1, "CD001", 5) || descriptor[6] != 1)
		return false;
	memcpy(label, descriptor + LABEL_OFFSET, LABEL_LENGTH);
	while (len && (label[len - 1] == ' ' || label[len - 1] == '\0'))
		len--;
	label[len] = '\0';
	return true;
}

bool iso_is_cidata(const char *path)
{
	uint8_t descriptor[ISO_PRIMARY_SIZE];
	char label[ISO_LABEL_SIZE];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return false; /* whoever opens it as a disk says why */
	n = pread(fd, descriptor, sizeof(descriptor), ISO_PRIMARY_OFFSET);
	close(fd);
	return n == sizeof(descriptor) && iso_volume_label(descriptor, label) &&
	       !strcasecmp(label, "cidata");
}
