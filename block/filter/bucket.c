/* SPDX-License-Identifier: Apache-2.0 */
/* Leaky buckets and their options; see bucket.h. Any thread, under the owner's lock. */
#include "block/filter/bucket.h"

#include <stdlib.h>
#include <string.h>

#include "block/throttle.h"
#include "vmm/core/util.h"

/* No rate or burst is higher, so that no product below overflows. */
#define VALUE_MAX UINT64_C(1000000000000000)

static const char *const names[THROTTLE_KINDS] = {
	"bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
};
static const char *const short_names[THROTTLE_KINDS] = {
	"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr",
};
static const char *const suffixes[] = {"", "-max", "-max-length"};
static const char *const short_suffixes[] = {"", "_max", "_max_length"};

/* A value under either of two spellings, which are freed. */
static bool read_value(struct opts *opts, char *a, char *b, uint64_t *out, bool *any,
		       struct error **err)
{
	bool has_a = opts_has(opts, a), has_b = opts_has(opts, b), ok = false;

	if (has_a && has_b)
		error_set(err, "'%s' and '%s' are the same: give one of them", a, b);
	else
		ok = opts_get_u64(opts, has_a ? a : b, out, err);
	*any |= has_a || has_b;
	free(a);
	free(b);
	return ok;
}

static bool read_limit(struct opts *opts, bool drive, enum throttle_kind kind,
		       struct throttle_limit *l, bool *any, struct error **err)
{
	uint64_t *const out[] = {&l->avg, &l->max, &l->length};

	l->length = 1;
	for (size_t i = 0; i < ARRAY_SIZE(out); i++) {
		char *a = xasprintf("%s%s%s", drive ? "throttling." : "limits.", names[kind],
				    suffixes[i]);
		char *b = drive ? xasprintf("%s%s", short_names[kind], short_suffixes[i])
				: xasprintf("x-%s%s", names[kind], suffixes[i]);

		if (!read_value(opts, a, b, out[i], any, err))
			return false;
	}
	return true;
}

static bool check_limit(const struct throttle_limit *l, const char *name, struct error **err)
{
	if (l->avg > VALUE_MAX || l->max > VALUE_MAX)
		error_set(err, "%s: at most %llu", name, (unsigned long long)VALUE_MAX);
	else if (!l->length)
		error_set(err, "%s: the length of a burst cannot be 0", name);
	else if (l->length > 1 && !l->max)
		error_set(err, "%s: a burst has a length but no rate", name);
	else if (l->max && l->length > VALUE_MAX / l->max)
		error_set(err, "%s: the burst is too long for its rate", name);
	else if (l->max && !l->avg)
		error_set(err, "%s: a burst's rate needs a rate beside it", name);
	else if (l->max && l->max < l->avg)
		error_set(err, "%s: a burst cannot be slower than the rate beside it", name);
	else
		return true;
	return false;
}

static bool check_limits(const struct throttle_limits *l, struct error **err)
{
	static const enum throttle_kind totals[] = {THROTTLE_BPS_TOTAL, THROTTLE_IOPS_TOTAL};

	for (size_t i = 0; i < ARRAY_SIZE(totals); i++) {
		const struct throttle_limit *t = &l->of[totals[i]];

		if ((t[0].avg && (t[1].avg || t[2].avg)) || (t[0].max && (t[1].max || t[2].max))) {
			error_set(err, "%s: a limit of both directions excludes those of one",
				  names[totals[i]]);
			return false;
		}
	}
	if (l->iops_size && !l->of[THROTTLE_IOPS_TOTAL].avg && !l->of[THROTTLE_IOPS_READ].avg &&
	    !l->of[THROTTLE_IOPS_WRITE].avg) {
		error_set(err, "iops-size: needs a limit of requests");
		return false;
	}
	for (int i = 0; i < THROTTLE_KINDS; i++)
		if (!check_limit(&l->of[i], names[i], err))
			return false;
	return true;
}

bool throttle_read_limits(struct opts *opts, bool drive, struct throttle_limits *out, bool *any,
			  struct error **err)
{
	*out = (struct throttle_limits){0};
	*any = false;
	for (int i = 0; i < THROTTLE_KINDS; i++)
		if (!read_limit(opts, drive, i, &out->of[i], any, err))
			return false;
	return read_value(opts, xstrdup(drive ? "throttling.iops-size" : "limits.iops-size"),
			  xstrdup(drive ? "iops_size" : "x-iops-size"), &out->iops_size, any,
			  err) &&
	       check_limits(out, err);
}

static void list_more(const struct throttle_limit *l, const char *name,
		      void (*put)(void *opaque, const char *key, uint64_t value), void *opaque)
{
	char *max = xasprintf("%s_max", name), *length = xasprintf("%s_max_length", name);

	if (l->max) {
		put(opaque, max, l->max);
		put(opaque, length, l->length);
	}
	free(max);
	free(length);
}

void throttle_list_limits(const struct throttle_limits *limits,
			  void (*put)(void *opaque, const char *key, uint64_t value), void *opaque)
{
	for (int i = 0; i < THROTTLE_KINDS; i++)
		put(opaque, short_names[i], limits->of[i].avg);
	for (int i = 0; i < THROTTLE_KINDS; i++)
		list_more(&limits->of[i], short_names[i], put, opaque);
	if (limits->iops_size)
		put(opaque, "iops_size", limits->iops_size);
}

bool throttle_asked(const struct opts *opts)
{
	for (size_t i = 0; i < opts->count; i++) {
		const char *key = opts->items[i].key;

		if (!strncmp(key, "throttling.", 11) || !strcmp(key, "group") ||
		    !strncmp(key, "bps", 3) || !strncmp(key, "iops", 4))
			return true;
	}
	return false;
}

void throttle_set(struct throttle *t, const struct throttle_limits *limits)
{
	*t = (struct throttle){.limits = *limits};
}

static void leak_one(unsigned __int128 *level, uint64_t rate, uint64_t ns)
{
	unsigned __int128 out = (unsigned __int128)rate * ns;

	*level = *level > out ? *level - out : 0;
}

static void leak(struct throttle *t, int64_t now)
{
	int64_t ns = now - t->leaked;

	/* Another thread may have read the clock later and come here first. */
	if (ns <= 0)
		return;
	t->leaked = now;
	for (int i = 0; i < THROTTLE_KINDS; i++) {
		leak_one(&t->of[i].level, t->limits.of[i].avg, ns);
		leak_one(&t->of[i].burst, t->limits.of[i].max, ns);
	}
}

/* Until the level is down to size. */
static int64_t wait_for(unsigned __int128 level, unsigned __int128 size, uint64_t rate)
{
	unsigned __int128 ns;

	if (level <= size)
		return 0;
	ns = (level - size + rate - 1) / rate;
	return ns < 3600 * NSEC_PER_SEC ? ns : 3600 * NSEC_PER_SEC; /* then it is asked again */
}

static int64_t wait_one(const struct throttle_limit *l, const struct throttle_bucket *b)
{
	unsigned __int128 second = NSEC_PER_SEC;
	int64_t ns;

	if (!l->avg)
		return 0;
	ns = wait_for(b->level, l->max ? l->max * l->length * second : l->avg * second / 10,
		      l->avg);
	if (!ns && l->length > 1)
		ns = wait_for(b->burst, l->max * second / 10, l->max);
	return ns;
}

/* The four buckets that a request in one direction fills. */
static const enum throttle_kind kinds[THROTTLE_DIRS][4] = {
	{THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_IOPS_TOTAL, THROTTLE_IOPS_READ},
	{THROTTLE_BPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_IOPS_TOTAL, THROTTLE_IOPS_WRITE},
};

int64_t throttle_wait(struct throttle *t, enum throttle_dir dir, int64_t now)
{
	int64_t ns = 0;

	leak(t, now);
	for (size_t i = 0; i < ARRAY_SIZE(kinds[dir]); i++) {
		enum throttle_kind k = kinds[dir][i];

		ns = MAX(ns, wait_one(&t->limits.of[k], &t->of[k]));
	}
	return ns;
}

void throttle_account(struct throttle *t, enum throttle_dir dir, uint64_t bytes)
{
	uint64_t size = t->limits.iops_size;
	unsigned __int128 second = NSEC_PER_SEC;
	unsigned __int128 request = size && bytes > size ? bytes * second / size : second;

	for (size_t i = 0; i < ARRAY_SIZE(kinds[dir]); i++) {
		enum throttle_kind k = kinds[dir][i];
		unsigned __int128 more = k < THROTTLE_IOPS_TOTAL ? bytes * second : request;

		t->of[k].level += more;
		if (t->limits.of[k].length > 1)
			t->of[k].burst += more;
	}
}
