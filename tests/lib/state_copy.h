/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries a device's state from one object to another of the same kind by its table alone, through
 * bytes, as saving and loading do.
 */
#ifndef TESTS_LIB_STATE_COPY_H
#define TESTS_LIB_STATE_COPY_H

#include "vmm/core/state.h"

/* Bytes that were written; buf is large enough or the test fails. */
size_t state_save(const struct state_desc *desc, void *object, uint8_t *buf, size_t room);
/* False with err as post_load says; the test fails if the bytes do not match the table. */
bool state_load(const struct state_desc *desc, void *object, const uint8_t *buf, size_t len,
		struct error **err);

#endif
