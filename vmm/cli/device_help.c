/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -device help, -device NAME,help, and the manual's list of devices: all from the devices' own
 * tables. Main thread.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/cli/cli.h"
#include "vmm/core/util.h"

void cli_print_devices(FILE *out, const struct device_desc *const *table)
{
	for (; *table; table++) {
		const struct device_desc *d = *table;

		if (d->internal)
			continue;
		fprintf(out, "name \"%s\"", d->name);
		if (d->bus)
			fprintf(out, ", bus %s", d->bus);
		if (d->alias)
			fprintf(out, ", alias \"%s\"", d->alias);
		if (d->help)
			fprintf(out, ", desc \"%s\"", d->help);
		fputc('\n', out);
	}
}

static const struct device_desc *find(const struct device_desc *const *table, const char *name,
				      struct error **err)
{
	const char **names = NULL, *near;
	size_t count = 0;

	for (; *table; table++) {
		const struct device_desc *d = *table;

		if (d->internal)
			continue;
		if (!strcmp(d->name, name) || (d->alias && !strcmp(d->alias, name))) {
			free(names);
			return d;
		}
		names = xrealloc(names, (count + 1) * sizeof(*names));
		names[count++] = d->name;
	}
	near = nearest_name(name, names, count);
	if (near)
		error_set(err, "-device %s,help: unknown device '%s'; did you mean '%s'?", name, name,
			  near);
	else
		error_set(err, "-device %s,help: unknown device '%s' (-device help lists them)", name,
			  name);
	free(names);
	return NULL;
}

static void print_values(FILE *out, const struct prop *p)
{
	for (const char *const *name = p->names; name && *name; name++)
		fprintf(out, "%s%s", name == p->names ? "" : "|", *name);
}

bool cli_print_device(FILE *out, const struct device_desc *const *table, const char *name,
		      struct error **err)
{
	const struct device_desc *d = find(table, name, err);

	if (!d)
		return false;
	fprintf(out, "%s options:\n", d->name);
	for (const struct prop_set *set = d->props; set && set->props; set++) {
		for (const struct prop *p = set->props; p->type != PROP_END; p++) {
			int n = fprintf(out, "  %s=<", p->name);

			if (p->type == PROP_ENUM)
				print_values(out, p);
			else
				fputs(prop_type_name(p), out);
			n += p->type == PROP_ENUM ? 8 : (int)strlen(prop_type_name(p));
			fprintf(out, ">%*s - %s", n < 32 ? 32 - n : 0, "", p->help ? p->help : "");
			if (p->def)
				fprintf(out, " (default: %s)", p->def);
			fputc('\n', out);
		}
	}
	return true;
}

void cli_print_device_manual(FILE *out, const struct device_desc *const *table)
{
	fputs("\n# vmm's devices\n\nMade from the devices' own tables; `vmm -device NAME,help` prints "
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
		for (const struct prop_set *set = d->props; set && set->props; set++) {
			for (const struct prop *p = set->props; p->type != PROP_END; p++) {
				fprintf(out, "| %s | ", p->name);
				if (p->type == PROP_ENUM)
					for (const char *const *n = p->names; *n; n++)
						fprintf(out, "%s%s", n == p->names ? "" : ", ", *n);
				else
					fputs(prop_type_name(p), out);
				fprintf(out, " | %s | %s |\n", p->def ? p->def : "",
					p->help ? p->help : "");
			}
		}
	}
}
