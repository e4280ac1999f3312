/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -cpu MODEL[,+feature][,-feature][,feature=on|off][,property=value] into struct cpu_options.
 * Whatever the order, "+feature" counts after "feature=on|off", and "-feature" last of all.
 * Main thread; plain data.
 */
#include "target-x86/cpu_internal.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

enum property_kind { P_BOOL, P_TRISTATE, P_INT, P_LEVEL, P_VENDOR, P_MODEL_ID };

static const struct property {
	const char *name;
	enum property_kind kind;
	size_t offset;
	uint64_t min, max; /* P_INT */
} properties[] = {
	{"vendor", P_VENDOR, 0, 0, 0},
	{"model-id", P_MODEL_ID, 0, 0, 0},
	{"family", P_INT, offsetof(struct cpu_options, family), 0, 0xff + 0xf},
	{"model", P_INT, offsetof(struct cpu_options, model_number), 0, 0xff},
	{"stepping", P_INT, offsetof(struct cpu_options, stepping), 0, 0xf},
	{"phys-bits", P_INT, offsetof(struct cpu_options, phys_bits), 32, 52},
	{"host-phys-bits-limit", P_INT, offsetof(struct cpu_options, host_phys_bits_limit), 0, 52},
	{"level", P_LEVEL, offsetof(struct cpu_options, level), 1, 0xff},
	{"xlevel", P_LEVEL, offsetof(struct cpu_options, xlevel), 0x80000000, 0x800000ff},
	{"kvm", P_BOOL, offsetof(struct cpu_options, kvm), 0, 0},
	{"check", P_BOOL, offsetof(struct cpu_options, check), 0, 0},
	{"enforce", P_BOOL, offsetof(struct cpu_options, enforce), 0, 0},
	{"migratable", P_BOOL, offsetof(struct cpu_options, migratable), 0, 0},
	{"host-cache-info", P_BOOL, offsetof(struct cpu_options, host_cache_info), 0, 0},
	{"l3-cache", P_BOOL, offsetof(struct cpu_options, l3_cache), 0, 0},
	{"pmu", P_TRISTATE, offsetof(struct cpu_options, pmu), 0, 0},
	{"host-phys-bits", P_TRISTATE, offsetof(struct cpu_options, host_phys_bits), 0, 0},
};

static bool assign_number(struct cpu_options *o, const struct property *p, const char *value,
			  struct error **err)
{
	uint64_t n;
	if (!parse_u64(value, &n) || n < p->min || n > p->max) {
		error_set(err, "%s=%s: expected a number from %llu to %llu", p->name, value,
			  (unsigned long long)p->min, (unsigned long long)p->max);
		return false;
	}
	if (p->kind == P_LEVEL)
		*(int64_t *)((char *)o + p->offset) = (int64_t)n;
	else
		*(int *)((char *)o + p->offset) = (int)n;
	return true;
}

static bool assign_property(struct cpu_options *o, const struct property *p, const char *value,
			    struct error **err)
{
	bool on;
	switch (p->kind) {
	case P_BOOL:
	case P_TRISTATE:
		if (!parse_bool(value, &on)) {
			error_set(err, "%s=%s: expected on or off", p->name, value);
			return false;
		}
		if (p->kind == P_BOOL)
			*(bool *)((char *)o + p->offset) = on;
		else
			*(int *)((char *)o + p->offset) = on;
		return true;
	case P_INT:
	case P_LEVEL:
		return assign_number(o, p, value, err);
	case P_VENDOR:
		if (strlen(value) != sizeof(o->vendor) - 1) {
			error_set(err, "vendor=%s: a vendor has 12 characters", value);
			return false;
		}
		memcpy(o->vendor, value, sizeof(o->vendor));
		return true;
	case P_MODEL_ID:
		if (strlen(value) >= sizeof(o->model_id)) {
			error_set(err, "model-id has at most 48 characters");
			return false;
		}
		strcpy(o->model_id, value);
		o->model_id_set = true;
		return true;
	}
	return false;
}

static const struct property *find_property(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(properties); i++)
		if (cpu_name_equal(name, properties[i].name))
			return &properties[i];
	return NULL;
}

static void unknown_name(const char *name, struct error **err)
{
	const char *known[CPU_WORDS * 32 + ARRAY_SIZE(properties)];
	size_t count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(properties); i++)
		known[count++] = properties[i].name;
	for (int w = 0; w < CPU_WORDS; w++)
		for (int bit = 0; bit < 32; bit++)
			if (cpu_words[w].names[bit])
				known[count++] = cpu_words[w].names[bit];
	const char *near = nearest_name(name, known, count);
	if (near)
		error_set(err, "unknown CPU feature or property '%s' (did you mean '%s'?)", name,
			  near);
	else
		error_set(err, "unknown CPU feature or property '%s'", name);
}

/* Three rounds of features, applied one after the other. */
struct rounds {
	uint32_t on[CPU_WORDS], off[CPU_WORDS]; /* feature=on, =off: the last one counts */
	uint32_t plus[CPU_WORDS], minus[CPU_WORDS];
};

static void merge(uint32_t *to, uint32_t *other, const uint32_t *mask)
{
	for (int w = 0; w < CPU_WORDS; w++) {
		to[w] |= mask[w];
		other[w] &= ~mask[w];
	}
}

static bool parse_item(struct cpu_options *o, struct rounds *r, const char *key, const char *value,
		       struct error **err)
{
	uint32_t mask[CPU_WORDS];
	if (*key == '+' || *key == '-') {
		if (!cpu_feature_find(key + 1, mask)) {
			/* +kvm, -pmu: properties that are switches may be written so too. */
			const struct property *p = find_property(key + 1);
			if (p && (p->kind == P_BOOL || p->kind == P_TRISTATE))
				return assign_property(o, p, *key == '+' ? "on" : "off", err);
			unknown_name(key + 1, err);
			return false;
		}
		for (int w = 0; w < CPU_WORDS; w++)
			(*key == '+' ? r->plus : r->minus)[w] |= mask[w];
		return true;
	}
	const struct property *p = find_property(key);
	if (p)
		return assign_property(o, p, value, err);
	if (!cpu_feature_find(key, mask)) {
		unknown_name(key, err);
		return false;
	}
	bool on;
	if (!parse_bool(value, &on)) {
		error_set(err, "%s=%s: expected on or off", key, value);
		return false;
	}
	merge(on ? r->on : r->off, on ? r->off : r->on, mask);
	return true;
}

static bool find_model(struct cpu_options *o, const char *name, struct error **err)
{
	const char *known[8];
	size_t count = 0;
	for (size_t i = 0; i < cpu_model_count; i++) {
		if (!strcmp(cpu_models[i].name, name)) {
			o->model = &cpu_models[i];
			return true;
		}
		if (count < ARRAY_SIZE(known))
			known[count++] = cpu_models[i].name;
	}
	const char *near = nearest_name(name, known, count);
	if (near)
		error_set(err, "unable to find CPU model '%s' (did you mean '%s'?)", name, near);
	else
		error_set(err, "unable to find CPU model '%s' (-cpu help lists them)", name);
	return false;
}

bool cpu_options_parse(struct cpu_options *o, const char *text, struct error **err)
{
	*o = (struct cpu_options){
		.kvm = true,
		.check = true,
		.migratable = true,
		.l3_cache = true,
		.pmu = -1,
		.host_phys_bits = -1,
		.family = -1,
		.model_number = -1,
		.stepping = -1,
		.phys_bits = -1,
		.host_phys_bits_limit = -1,
		.level = -1,
		.xlevel = -1,
	};
	struct rounds r = {0};
	char *copy = xstrdup(text ? text : CPU_DEFAULT_MODEL);
	char *rest = copy, *model = strsep(&rest, ",");
	bool ok = find_model(o, model, err);
	for (char *item; ok && (item = strsep(&rest, ","));) {
		char *value = strchr(item, '=');
		if (value)
			*value++ = '\0';
		if (!*item) {
			error_set(err, "empty item in the list of features");
			ok = false;
		} else if (value && (*item == '+' || *item == '-')) {
			error_set(err, "'%s' takes no value", item);
			ok = false;
		} else {
			ok = parse_item(o, &r, item, value ? value : "on", err);
		}
	}
	free(copy);
	memcpy(o->on, r.on, sizeof(o->on));
	memcpy(o->off, r.off, sizeof(o->off));
	merge(o->on, o->off, r.plus);
	merge(o->off, o->on, r.minus);
	return ok;
}
