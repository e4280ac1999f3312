/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums; see inet.h. Any thread. */
#include "vmm/core/inet.h"

#include "vmm/core/util.h"

/* Eight bytes at a time: the sum's order of bytes is memory's, and so is the result's. */
uint16_t inet_checksum(const void *data, size_t len, uint64_t sum)
{
	const uint8_t *p = data;
	uint64_t word;
	uint16_t half = 0;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&word, p, 8);
		sum += word;
		sum += sum < word;
	}
	word = 0;
	memcpy(&word, p, len);
	sum += word;
	sum += sum < word;
	for (int i = 0; i < 4; i++) {
		uint32_t add = half + (uint16_t)(sum >> (16 * i));

		half = add + (add >> 16);
	}
	return ~half;
}

bool inet_finish_checksum(uint8_t *frame, size_t len, size_t start, size_t offset)
{
	uint16_t sum;

	if (!range_inside(start + offset, sizeof(sum), len))
		return false;
	sum = inet_checksum(frame + start, len - start, 0);
	sum = sum ? sum : 0xffff;
	memcpy(frame + start + offset, &sum, sizeof(sum));
	return true;
}
