/* SPDX-License-Identifier: Apache-2.0 */
/* Properties: text into typed fields and back; see prop.h. */
#include "vmm/core/prop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/core/util.h"

static void *field(const struct prop *p, const struct prop_set *set, const void *object)
{
	return (char *)object + set->base + p->offset;
}

const char *prop_type_name(const struct prop *prop)
{
	static const char *const names[] = {
		[PROP_BOOL] = "bool",	      [PROP_TRISTATE] = "OnOffAuto",
		[PROP_U8] = "uint8",	      [PROP_U16] = "uint16",
		[PROP_U32] = "uint32",	      [PROP_U64] = "uint64",
		[PROP_I32] = "int32",	      [PROP_SIZE] = "size",
		[PROP_STRING] = "str",	      [PROP_ENUM] = "enum",
		[PROP_MAC] = "str",	      [PROP_UUID] = "str",
		[PROP_PCI_ADDR] = "int32",    [PROP_PCI_HOST] = "str",
		[PROP_DRIVE] = "str",	      [PROP_CHARDEV] = "str",
		[PROP_NETDEV] = "str",	      [PROP_IOTHREAD] = "link<iothread>",
		[PROP_BACKEND] = "link",
	};
	return names[prop->type];
}

const struct prop *prop_find(const struct prop_set *sets, const char *name,
			     const struct prop_set **set)
{
	for (; sets && sets->props; sets++) {
		for (const struct prop *p = sets->props; p->type != PROP_END; p++) {
			if (!strcmp(p->name, name)) {
				if (set)
					*set = sets;
				return p;
			}
		}
	}
	return NULL;
}

static bool refuse(const struct prop *p, const char *value, const char *expected,
		   struct error **err)
{
	error_set(err, "Parameter '%s' expects %s, not '%s'", p->name, expected, value);
	return false;
}

static bool assign_unsigned(const struct prop *p, void *to, const char *value, unsigned width,
			    struct error **err)
{
	uint64_t limit = width == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * width)) - 1;
	uint64_t max = p->max ? p->max : limit, v;

	/* Sizes such as discard_granularity=64k are written so for plain integers as well. */
	if (p->type == PROP_SIZE || p->type == PROP_U32 || p->type == PROP_U64) {
		if (!parse_size(value, 1, &v) && !parse_u64(value, &v))
			return refuse(p, value, "a number", err);
	} else if (!parse_u64(value, &v)) {
		return refuse(p, value, "a number", err);
	}
	if (v < p->min || v > max) {
		error_set(err, "Property '%s' is %s: it takes values from %" PRIu64 " to %" PRIu64,
			  p->name, value, p->min, max);
		return false;
	}
	switch (width) {
	case 1:
		*(uint8_t *)to = v;
		break;
	case 2:
		*(uint16_t *)to = v;
		break;
	case 4:
		*(uint32_t *)to = v;
		break;
	default:
		*(uint64_t *)to = v;
	}
	return true;
}

static bool parse_mac(const char *s, uint8_t mac[6])
{
	unsigned b[6];
	char end;

	if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != 6 &&
	    sscanf(s, "%2x-%2x-%2x-%2x-%2x-%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != 6)
		return false;
	for (int i = 0; i < 6; i++)
		mac[i] = b[i];
	return true;
}

bool parse_uuid(const char *s, uint8_t uuid[16])
{
	uint8_t out[16];

	if (strlen(s) != 36)
		return false;
	for (int i = 0, at = 0; i < 16; i++) {
		unsigned b;
		char digits[3];

		if (at == 8 || at == 13 || at == 18 || at == 23)
			if (s[at++] != '-')
				return false;
		memcpy(digits, s + at, 2);
		digits[2] = '\0';
		if (strspn(digits, "0123456789abcdefABCDEF") != 2)
			return false;
		sscanf(digits, "%x", &b);
		out[i] = b;
		at += 2;
	}
	memcpy(uuid, out, 16);
	return true;
}

/* "slot" or "slot.function", hexadecimal. */
static bool parse_pci_addr(const char *s, int32_t *devfn)
{
	unsigned slot, function = 0;
	int used = 0;

	if (sscanf(s, "%x.%x%n", &slot, &function, &used) != 2 || s[used]) {
		used = 0;
		function = 0;
		if (sscanf(s, "%x%n", &slot, &used) != 1 || s[used])
			return false;
	}
	if (slot > 31 || function > 7)
		return false;
	*devfn = slot << 3 | function;
	return true;
}

static bool assign(const struct prop *p, void *to, const char *value,
		   const struct prop_resolver *resolver, struct error **err)
{
	void *found;
	bool on;

	switch (p->type) {
	case PROP_BOOL:
		if (!parse_bool(value, &on))
			return refuse(p, value, "'on' or 'off'", err);
		*(bool *)to = on;
		return true;
	case PROP_TRISTATE:
		if (!strcmp(value, "auto"))
			*(enum prop_tristate *)to = TRISTATE_AUTO;
		else if (parse_bool(value, &on))
			*(enum prop_tristate *)to = on ? TRISTATE_ON : TRISTATE_OFF;
		else
			return refuse(p, value, "'on', 'off' or 'auto'", err);
		return true;
	case PROP_U8:
		return assign_unsigned(p, to, value, 1, err);
	case PROP_U16:
		return assign_unsigned(p, to, value, 2, err);
	case PROP_U32:
		return assign_unsigned(p, to, value, 4, err);
	case PROP_U64:
	case PROP_SIZE:
		return assign_unsigned(p, to, value, 8, err);
	case PROP_I32: {
		char *end;
		long v = strtol(value, &end, 0);

		if (end == value || *end || v < INT32_MIN || v > INT32_MAX)
			return refuse(p, value, "a number", err);
		*(int32_t *)to = v;
		return true;
	}
	case PROP_STRING:
	case PROP_PCI_HOST:
		free(*(char **)to);
		*(char **)to = xstrdup(value);
		return true;
	case PROP_ENUM:
		for (int i = 0; p->names[i]; i++) {
			if (!strcmp(p->names[i], value)) {
				*(int *)to = i;
				return true;
			}
		}
		error_set(err, "Parameter '%s' does not accept value '%s'", p->name, value);
		return false;
	case PROP_MAC:
		return parse_mac(value, to) ||
		       refuse(p, value, "an Ethernet address such as 52:54:00:12:34:56", err);
	case PROP_UUID:
		if (!strcmp(value, "auto")) {
			uint8_t *u = to;

			/* RFC 4122 section 4.4 */
			if (getrandom(u, 16, 0) != 16) {
				error_set(err, "the host has no random numbers");
				return false;
			}
			u[6] = (u[6] & 0x0f) | 0x40;
			u[8] = (u[8] & 0x3f) | 0x80;
			return true;
		}
		return parse_uuid(value, to) || refuse(p, value, "a UUID", err);
	case PROP_PCI_ADDR:
		return parse_pci_addr(value, to) ||
		       refuse(p, value, "a PCI address such as 5 or 1f.3", err);
	case PROP_DRIVE:
	case PROP_CHARDEV:
	case PROP_NETDEV:
	case PROP_IOTHREAD:
	case PROP_BACKEND:
		found = resolver && resolver->resolve ?
				resolver->resolve(resolver->opaque, p, value, err) : NULL;
		if (!found) {
			error_set(err, "Property '%s' can't find value '%s'", p->name, value);
			return false;
		}
		*(void **)to = found;
		return true;
	case PROP_END:
		break;
	}
	return false;
}

bool prop_assign(const struct prop_set *sets, void *object, const char *name, const char *value,
		 const struct prop_resolver *resolver, struct error **err)
{
	const struct prop_set *set;
	const struct prop *p = prop_find(sets, name, &set);

	if (!p) {
		const char *names[256], *nearest;
		size_t count = 0;

		for (const struct prop_set *s = sets; s && s->props; s++)
			for (const struct prop *q = s->props;
			     q->type != PROP_END && count < ARRAY_SIZE(names); q++)
				names[count++] = q->name;
		nearest = nearest_name(name, names, count);
		error_set(err, "Property '%s' not found%s%s%s", name,
			  nearest ? " (did you mean '" : "", nearest ? nearest : "",
			  nearest ? "'?)" : "");
		return false;
	}
	return assign(p, field(p, set, object), value, resolver, err);
}

void prop_set_defaults(const struct prop_set *sets, void *object)
{
	for (; sets && sets->props; sets++) {
		for (const struct prop *p = sets->props; p->type != PROP_END; p++) {
			if (p->type == PROP_PCI_ADDR && !p->def)
				*(int32_t *)field(p, sets, object) = -1;
			if (p->def)
				assign(p, field(p, sets, object), p->def, NULL, NULL);
		}
	}
}

char *prop_to_text(const struct prop *p, const struct prop_set *set, const void *object)
{
	static const char *const tristate[] = { "auto", "on", "off" };
	const void *from = field(p, set, object);
	const uint8_t *b = from;
	int32_t devfn;

	switch (p->type) {
	case PROP_BOOL:
		return xstrdup(*(const bool *)from ? "on" : "off");
	case PROP_TRISTATE:
		return xstrdup(tristate[*(const enum prop_tristate *)from]);
	case PROP_U8:
		return xasprintf("%u", *(const uint8_t *)from);
	case PROP_U16:
		return xasprintf("%u", *(const uint16_t *)from);
	case PROP_U32:
		return xasprintf("%u", *(const uint32_t *)from);
	case PROP_U64:
	case PROP_SIZE:
		return xasprintf("%" PRIu64, *(const uint64_t *)from);
	case PROP_I32:
		return xasprintf("%d", *(const int32_t *)from);
	case PROP_STRING:
	case PROP_PCI_HOST:
		return *(char *const *)from ? xstrdup(*(char *const *)from) : NULL;
	case PROP_ENUM:
		return xstrdup(p->names[*(const int *)from]);
	case PROP_MAC:
		return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4],
				 b[5]);
	case PROP_UUID:
		return xasprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
				 "%02x%02x%02x%02x%02x%02x",
				 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10],
				 b[11], b[12], b[13], b[14], b[15]);
	case PROP_PCI_ADDR:
		devfn = *(const int32_t *)from;
		return devfn < 0 ? NULL : xasprintf("%02x.%x", devfn >> 3, devfn & 7);
	default:
		return NULL;
	}
}

void prop_release(const struct prop_set *sets, void *object)
{
	for (; sets && sets->props; sets++) {
		for (const struct prop *p = sets->props; p->type != PROP_END; p++) {
			if (p->type == PROP_STRING || p->type == PROP_PCI_HOST) {
				char **s = field(p, sets, object);

				free(*s);
				*s = NULL;
			}
		}
	}
}
