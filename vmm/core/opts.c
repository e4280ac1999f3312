/* SPDX-License-Identifier: Apache-2.0 */
/* Option groups, from text and from JSON; see opts.h. */
#include "vmm/core/opts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/core/util.h"

static void append(struct opts *opts, char *key, char *value, bool bare)
{
	opts->items = xrealloc(opts->items, (opts->count + 1) * sizeof(*opts->items));
	opts->items[opts->count++] = (struct opt){ .key = key, .value = value, .bare = bare };
}

void opts_add(struct opts *opts, const char *key, const char *value)
{
	append(opts, xstrdup(key), xstrdup(value), false);
}

void opts_free(struct opts *opts)
{
	for (size_t i = 0; i < opts->count; i++) {
		free(opts->items[i].key);
		free(opts->items[i].value);
	}
	free(opts->items);
	*opts = (struct opts){ 0 };
}

/* One item up to a lone comma, with doubled commas undone; *text moves behind it. */
static char *next_item(const char **text)
{
	const char *p = *text;
	char *item = xmalloc(strlen(p) + 1), *q = item;

	while (*p) {
		if (*p == ',' && *++p != ',')
			break;
		*q++ = *p++;
	}
	*q = '\0';
	*text = p;
	return item;
}

static bool parse_json_text(struct opts *opts, const char *text, struct error **err)
{
	json_error_t where;
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &where);
	bool ok;

	if (!object) {
		error_set(err, "invalid JSON at character %d: %s", where.position, where.text);
		return false;
	}
	ok = opts_from_json(opts, object, err);
	json_decref(object);
	return ok;
}

bool opts_parse(struct opts *opts, const char *text, const char *implied_key, struct error **err)
{
	*opts = (struct opts){ 0 };
	if (text[0] == '{')
		return parse_json_text(opts, text, err);

	for (bool first = true; *text; first = false) {
		char *item = next_item(&text), *equals = strchr(item, '=');

		if (!equals && first && implied_key) {
			append(opts, xstrdup(implied_key), item, false);
			continue;
		}
		if (equals == item || !*item) {
			error_set(err, "an option's name is missing before '%s'",
				  *item ? item : text);
			free(item);
			opts_free(opts);
			return false;
		}
		if (equals)
			append(opts, xstrndup(item, equals - item), xstrdup(equals + 1), false);
		else
			append(opts, xstrdup(item), xstrdup("on"), true);
		free(item);
	}
	return true;
}

static bool add_json(struct opts *opts, const char *key, const json_t *value, unsigned depth,
		     struct error **err)
{
	const char *name;
	json_t *member;
	size_t i;
	bool ok = true;

	if (depth > 32) {
		error_set(err, "JSON is nested too deep");
		return false;
	}
	switch (json_typeof(value)) {
	case JSON_STRING:
		if (strlen(json_string_value(value)) != json_string_length(value)) {
			error_set(err, "'%s' has a NUL character", key);
			return false;
		}
		opts_add(opts, key, json_string_value(value));
		break;
	case JSON_INTEGER:
		append(opts, xstrdup(key), xasprintf("%lld", (long long)json_integer_value(value)),
		       false);
		break;
	case JSON_REAL:
		append(opts, xstrdup(key), xasprintf("%.17g", json_real_value(value)), false);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		opts_add(opts, key, json_is_true(value) ? "on" : "off");
		break;
	case JSON_NULL:
		opts_add(opts, key, "");
		break;
	case JSON_OBJECT:
		json_object_foreach ((json_t *)value, name, member) {
			char *path = *key ? xasprintf("%s.%s", key, name) : xstrdup(name);

			ok = add_json(opts, path, member, depth + 1, err);
			free(path);
			if (!ok)
				break;
		}
		break;
	case JSON_ARRAY:
		json_array_foreach (value, i, member) {
			char *path = xasprintf("%s.%zu", key, i);

			ok = add_json(opts, path, member, depth + 1, err);
			free(path);
			if (!ok)
				break;
		}
		break;
	}
	return ok;
}

bool opts_from_json(struct opts *opts, const struct json_t *object, struct error **err)
{
	*opts = (struct opts){ 0 };
	if (!json_is_object(object)) {
		error_set(err, "a JSON object is expected");
		return false;
	}
	if (!add_json(opts, "", object, 0, err)) {
		opts_free(opts);
		return false;
	}
	return true;
}

void opts_sub(struct opts *opts, const char *prefix, struct opts *sub)
{
	size_t len = strlen(prefix);

	*sub = (struct opts){ 0 };
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *o = &opts->items[i];

		if (strncmp(o->key, prefix, len))
			continue;
		o->used = true;
		append(sub, xstrdup(o->key + len), xstrdup(o->value), o->bare);
	}
}

/* The last item of that key; all of them count as used. */
static struct opt *find(struct opts *opts, const char *key)
{
	struct opt *found = NULL;

	for (size_t i = 0; i < opts->count; i++) {
		if (!strcmp(opts->items[i].key, key)) {
			found = &opts->items[i];
			found->used = true;
		}
	}
	return found;
}

const char *opts_get(struct opts *opts, const char *key)
{
	struct opt *o = find(opts, key);

	return o ? o->value : NULL;
}

const char *opts_peek(const struct opts *opts, const char *key)
{
	for (size_t i = opts->count; i-- > 0;)
		if (!strcmp(opts->items[i].key, key))
			return opts->items[i].value;
	return NULL;
}

bool opts_has(const struct opts *opts, const char *key)
{
	return opts_peek(opts, key) != NULL;
}

const char *opts_next_all(struct opts *opts, const char *key, size_t *pos)
{
	while (*pos < opts->count) {
		struct opt *o = &opts->items[(*pos)++];

		if (!strcmp(o->key, key)) {
			o->used = true;
			return o->value;
		}
	}
	return NULL;
}

bool opts_get_bool(struct opts *opts, const char *key, bool *out, struct error **err)
{
	struct opt *o = find(opts, key);

	/* "nowait" alone is the old way to write "wait=off". */
	for (size_t i = 0; i < opts->count; i++) {
		struct opt *no = &opts->items[i];

		if (no->bare && !strncmp(no->key, "no", 2) && !strcmp(no->key + 2, key)) {
			no->used = true;
			if (!o || no > o) {
				*out = false;
				return true;
			}
		}
	}
	if (!o)
		return true;
	if (!parse_bool(o->value, out)) {
		error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
		return false;
	}
	return true;
}

bool opts_get_u64(struct opts *opts, const char *key, uint64_t *out, struct error **err)
{
	const char *value = opts_get(opts, key);

	if (value && !parse_u64(value, out)) {
		error_set(err, "Parameter '%s' expects a number", key);
		return false;
	}
	return true;
}

bool opts_get_size(struct opts *opts, const char *key, uint64_t unit, uint64_t *out,
		   struct error **err)
{
	const char *value = opts_get(opts, key);

	if (value && !parse_size(value, unit, out)) {
		error_set(err, "Parameter '%s' expects a size such as 512M or 4G, not '%s'", key,
			  value);
		return false;
	}
	return true;
}

bool opts_get_enum(struct opts *opts, const char *key, const char *const *names, int *out,
		   struct error **err)
{
	const char *value = opts_get(opts, key);
	size_t count = 0;
	const char *nearest;

	if (!value)
		return true;
	for (; names[count]; count++) {
		if (!strcmp(names[count], value)) {
			*out = count;
			return true;
		}
	}
	nearest = nearest_name(value, names, count);
	error_set(err, "Parameter '%s' does not accept value '%s'%s%s%s", key, value,
		  nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
	return false;
}

bool opts_check_used(const struct opts *opts, const char *const *known, size_t known_count,
		     struct error **err)
{
	for (size_t i = 0; i < opts->count; i++) {
		const char *nearest;

		if (opts->items[i].used)
			continue;
		nearest = nearest_name(opts->items[i].key, known, known_count);
		error_set(err, "Invalid parameter '%s'%s%s%s", opts->items[i].key,
			  nearest ? " (did you mean '" : "", nearest ? nearest : "",
			  nearest ? "'?)" : "");
		return false;
	}
	return true;
}
