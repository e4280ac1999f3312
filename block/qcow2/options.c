/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of an open qcow2 image, with QEMU's names, meanings and defaults: the caches' sizes
 * and how soon they let go of what nobody uses, discards that are passed on, lazy refcounts.
 * overlap-check is in overlap.c. Main thread; the cleaning: the node's loop.
 */
#include "block/qcow2/qcow2.h"

enum { L2_CACHE_MAX = 32 << 20, REFCOUNT_CACHE = 256 << 10, CLEAN_INTERVAL = 600 };

static bool entry_size(struct qcow2 *s, struct opts *opts, struct error **err)
{
	uint64_t size = MIN(s->cluster_size, 4096u);

	if (!opts_get_size(opts, "l2-cache-entry-size", 1, &size, err))
		return false;
	if (!is_pow2(size) || size < 512 || size > s->cluster_size) {
		error_set(err,
			  "L2 cache entry size must be a power of two between 512 and the cluster "
			  "size (%llu)",
			  (unsigned long long)s->cluster_size);
		return false;
	}
	s->l2.slice_bits = __builtin_ctzll(size);
	s->refcounts.slice_bits = MIN(s->cluster_bits, 12u);
	return true;
}

static bool cache_options(struct qcow2 *s, struct opts *opts, struct error **err)
{
	bool both = opts_has(opts, "cache-size"), has_l2 = opts_has(opts, "l2-cache-size");
	bool has_refs = opts_has(opts, "refcount-cache-size");
	uint64_t needed = div_round_up(s->h.size, s->cluster_size) << s->entry_bits, slice;
	uint64_t total = 0, l2 = MIN(needed, (uint64_t)L2_CACHE_MAX), refs = REFCOUNT_CACHE;

	if (!entry_size(s, opts, err) || !opts_get_size(opts, "cache-size", 1, &total, err) ||
	    !opts_get_size(opts, "l2-cache-size", 1, &l2, err) ||
	    !opts_get_size(opts, "refcount-cache-size", 1, &refs, err))
		return false;
	if (both && has_l2 && has_refs) {
		error_set(err, "cache-size, l2-cache-size and refcount-cache-size may not be set "
			       "at the same time");
		return false;
	}
	if (both && ((has_l2 && l2 > total) || (has_refs && refs > total))) {
		error_set(err, "%s may not exceed cache-size",
			  has_l2 ? "l2-cache-size" : "refcount-cache-size");
		return false;
	}
	if (both && has_l2)
		refs = total - l2;
	else if (both)
		l2 = MIN(total > refs ? total - refs : 0, MAX(needed, UINT64_C(1)));
	/* More than the whole image is never used. */
	slice = UINT64_C(1) << s->l2.slice_bits;
	l2 = MIN(l2, ALIGN_UP(needed, slice) + div_round_up(needed, s->cluster_size) * slice);
	refs = MIN(refs, (uint64_t)s->reftable_size << s->cluster_bits);
	if (!qcache_init(&s->l2, s, false, l2) || !qcache_init(&s->refcounts, s, true, refs)) {
		error_set(err, "Could not allocate metadata caches");
		return false;
	}
	return true;
}

static bool discard_options(struct qcow2 *s, struct opts *opts, struct error **err)
{
	static const struct {
		const char *key;
		unsigned bit;
		bool on;
	} keys[] = {
		{"pass-discard-snapshot", 1 << QFREE_SNAPSHOT, true},
		{"pass-discard-other", 1 << QFREE_OTHER, false},
	};
	bool on = !s->node->ignore_discard;

	if (!opts_get_bool(opts, "pass-discard-request", &on, err))
		return false;
	s->pass_discard = on ? 1 << QFREE_REQUEST : 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		on = keys[i].on;
		if (!opts_get_bool(opts, keys[i].key, &on, err))
			return false;
		s->pass_discard |= on ? keys[i].bit : 0;
	}
	return true;
}

bool qcow2_read_options(struct qcow2 *s, struct opts *opts, struct error **err)
{
	bool lazy = s->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
	uint64_t seconds = CLEAN_INTERVAL;

	if (!cache_options(s, opts, err) || !discard_options(s, opts, err) ||
	    !qcow2_overlap_options(s, opts, err) ||
	    !opts_get_u64(opts, "cache-clean-interval", &seconds, err) ||
	    !opts_get_bool(opts, "lazy-refcounts", &lazy, err))
		return false;
	if (seconds > UINT32_MAX) {
		error_set(err, "Cache clean interval too big");
		return false;
	}
	if (lazy && s->h.version < 3) {
		error_set(err, "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
			       "compatibility level");
		return false;
	}
	s->lazy = lazy && !s->node->read_only;
	s->clean_ns = seconds * NSEC_PER_SEC;
	return true;
}

/* What was not used since the last time goes. */
static void clean(void *opaque)
{
	struct qcow2 *s = opaque;

	qcache_clean(&s->l2);
	qcache_clean(&s->refcounts);
	qcow2_clean_arm(s, s->node->loop);
}

void qcow2_clean_arm(struct qcow2 *s, struct evloop *loop)
{
	if (!s->clean_ns)
		return;
	if (!s->clean_timer.fn)
		ev_timer_init(&s->clean_timer, clean, s);
	evloop_timer_arm(loop, &s->clean_timer, evloop_now(loop) + s->clean_ns);
}

void qcow2_clean_cancel(struct qcow2 *s)
{
	if (s->clean_timer.fn)
		evloop_timer_cancel(s->node->loop, &s->clean_timer);
}
