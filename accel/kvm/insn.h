/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of the instructions that KVM's emulator is known to stop at, from their bytes (Intel SDM
 * volume 2, appendix A). For reports only. Pure.
 */
#ifndef ACCEL_KVM_INSN_H
#define ACCEL_KVM_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A mnemonic or a few words; NULL when there is nothing to say. */
const char *insn_name(const uint8_t *bytes, size_t len, bool long_mode);

#endif
