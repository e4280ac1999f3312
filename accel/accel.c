/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines there are. Any thread; nothing here changes.
 */
#include <string.h>

#include "accel/accel.h"
#include "accel/kvm/kvm.h"

const struct accel_desc *const accel_table[] = { &kvm_accel_desc, NULL };

const struct accel_desc *accel_find(const char *name)
{
	for (const struct accel_desc *const *d = accel_table; *d; d++)
		if (!strcmp((*d)->name, name))
			return *d;
	return NULL;
}

void accel_help(FILE *out)
{
	fputs("Accelerators that this program has:\n", out);
	for (const struct accel_desc *const *d = accel_table; *d; d++)
		fprintf(out, "%-8s %s\n", (*d)->name, (*d)->help);
}
