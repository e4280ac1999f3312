/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz targets of image formats: opens hostile bytes as an image, and uses it. */
#ifndef TESTS_LIB_IMAGE_FUZZ_H
#define TESTS_LIB_IMAGE_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Reads, and where the format can be written writes, all over the disk. Opens no other file. */
void image_fuzz(const char *driver, const uint8_t *data, size_t size);

#endif
