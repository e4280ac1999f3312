/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manual's list of devices, from the devices' own tables. Main thread.
 */
#include "vmm/cli/cli.h"

static void print_property(FILE *out, const struct prop *p)
{
	fprintf(out, "| %s | ", p->name);
	if (p->type == PROP_ENUM)
		for (const char *const *name = p->names; *name; name++)
			fprintf(out, "%s%s", name == p->names ? "" : ", ", *name);
	else
		fputs(prop_type_name(p), out);
	fprintf(out, " | %s | %s |\n", p->def ? p->def : "", p->help ? p->help : "");
}

void cli_print_device_manual(FILE *out, const struct device_desc *const *table)
{
	fputs("\n# vmm's devices\n\nMade from the devices' own tables; `vmm -device NAME,help` "
	      "prints "
	      "the same.\n",
	      out);
	for (; *table; table++) {
		const struct device_desc *d = *table;

		if (d->internal)
			continue;
		fprintf(out, "\n## %s\n\n%s", d->name, d->help ? d->help : "");
		if (d->bus)
			fprintf(out, " (bus: %s)", d->bus);
		fputs("\n\n| property | type | default | |\n| --- | --- | --- | --- |\n", out);
		for (const struct prop_set *set = d->props; set && set->props; set++)
			for (const struct prop *p = set->props; p->type != PROP_END; p++)
				print_property(out, p);
	}
}
