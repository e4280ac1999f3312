/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer's input as a row of little-endian numbers. Behind its end there are zeroes. */
#ifndef TESTS_LIB_FUZZ_INPUT_H
#define TESTS_LIB_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct fuzz_input {
	const uint8_t *data;
	size_t left;
};

/* size is at most 8. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size && in->left; i++, in->data++, in->left--)
		value |= (uint64_t)*in->data << (8 * i);
	return value;
}

#endif
