/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The definition blocks' AML, without table headers. For hw/acpi/tables.c only.
 */
#ifndef HW_ACPI_DSDT_H
#define HW_ACPI_DSDT_H

#include <stddef.h>
#include <stdint.h>

struct acpi_config;
struct aml;

void acpi_dsdt(struct aml *a, const struct acpi_config *c);
/* Returns where the 4 bytes lie that become the generation ID page's address. */
size_t acpi_vmgenid_ssdt(struct aml *a);
/* The MADT's entry for one processor, which is its _MAT too; returns its length. */
size_t acpi_madt_cpu(uint8_t out[16], uint32_t uid, uint32_t apic_id);

#endif
