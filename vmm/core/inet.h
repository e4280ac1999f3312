/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet's checksum (RFC 1071), for those who finish what a guest or a network left to them.
 * Pure functions, any thread.
 */
#ifndef VMM_CORE_INET_H
#define VMM_CORE_INET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The complement of the sum, in memory's order of bytes, as it is stored: memcpy() it. sum: of what
 * stands before, in the same order, folded or not; 0: nothing does.
 */
uint16_t inet_checksum(const void *data, size_t len, uint64_t sum);

/*
 * What CHECKSUM_PARTIAL and NEEDS_CSUM mean: the sum from start to the end, where the field holds
 * that of the pseudo header already, goes to start + offset. False if the field lies outside, and
 * nothing is written. UDP's 0 means that there is none: it becomes 0xffff.
 */
bool inet_finish_checksum(uint8_t *frame, size_t len, size_t start, size_t offset);

#endif
