/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking what the foreign formats have in common: every entry of the table leads into the file,
 * and no two of them, nor a table, to the same place. What leads out of the file can be repaired:
 * its unit is not there any more, as QEMU does it.
 *
 * Memory: 16 bytes for each run of units that lie side by side, and a bound on those.
 * Main thread, on the caller's loop.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/format/mapped.h"

enum { MAX_SPANS = 1 << 24 };

void mapped_check_say(const struct mapped_check *c, const char *fmt, ...)
{
	char line[200];
	va_list ap;

	if (!c->out || !c->out->message)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->out->message(c->out->opaque, line);
}

void mapped_check_found(struct mapped_check *c, bool repaired, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	mapped_check_say(c, "%s %s", repaired ? "Repairing" : "ERROR", what);
	if (repaired)
		c->r->corruptions_fixed++;
	else
		c->r->corruptions++;
}

int mapped_check_span(struct mapped_check *c, uint64_t start, uint64_t bytes)
{
	struct mapped_span *last = c->count ? &c->spans[c->count - 1] : NULL, *more;

	if (last && last->start + last->bytes == start) {
		last->bytes += bytes;
		return 0;
	}
	if (c->count == MAX_SPANS)
		return -EFBIG;
	if (c->count == c->room) {
		c->room = MAX(2 * c->room, (size_t)64);
		more = realloc(c->spans, c->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		c->spans = more;
	}
	c->spans[c->count++] = (struct mapped_span){start, bytes};
	return 0;
}

struct page_wait {
	struct waiter waiter;
	bool woken;
};

static void page_wake(struct waiter *w)
{
	container_of(w, struct page_wait, waiter)->woken = true;
}

static int wait_for(struct mapped *m, struct page_wait *wait)
{
	while (!wait->woken)
		evloop_run_once(m->node->loop, -1);
	wait->woken = false;
	return wait->waiter.error;
}

static int find_page(struct mapped *m, uint64_t at, struct mapped_page **page)
{
	struct page_wait wait = {.waiter.fn = page_wake};
	int ret;

	while ((ret = mapped_page(m, at, &wait.waiter, page)) == -EAGAIN) {
		mapped_run_waiters(m);
		ret = wait_for(m, &wait);
		if (ret)
			break;
	}
	return ret;
}

static int commit(struct mapped *m)
{
	struct page_wait wait = {.waiter.fn = page_wake};

	mapped_commit(m, &wait.waiter);
	mapped_run_waiters(m);
	return wait_for(m, &wait);
}

/* One unit; *skip is how many are known to be like it. */
static int check_unit(struct mapped_check *c, uint64_t unit, uint64_t *skip)
{
	struct mapped *m = c->m;
	struct mapped_run run = {.start = unit * m->unit, .size = m->unit};
	uint64_t at, bytes = m->unit;
	struct mapped_page *page;
	int ret = m->ops->entry_at(m, unit, &at);

	*skip = 1;
	if (ret || !at) {
		/* All of a table that is not there, or leads nowhere. */
		*skip = c->table_units ? c->table_units - unit % c->table_units : 1;
		if (ret)
			mapped_check_found(c, false, "table of cluster %llu is outside image",
					   (unsigned long long)unit);
		return 0;
	}
	ret = find_page(m, at, &page);
	if (ret)
		return ret;
	if (m->ops->decode(m, unit, mapped_at(page, at), &run)) {
		mapped_check_found(c, c->repair, "cluster %llu is outside image",
				   (unsigned long long)unit);
		if (c->repair) {
			memset(mapped_at(page, at), 0, m->entry_bytes);
			mapped_dirty(m, page, at, false);
		}
		return 0;
	}
	if (run.type != MAPPED_DATA && run.type != MAPPED_PACKED)
		return 0;
	c->r->allocated_clusters++;
	c->r->compressed_clusters += run.type == MAPPED_PACKED;
	if (c->next && run.host != c->next)
		c->r->fragmented_clusters++;
	c->next = run.host + bytes;
	c->r->image_end = MAX(c->r->image_end, run.host + bytes);
	/* Packed units lie as close as they like. */
	return run.type == MAPPED_DATA ? mapped_check_span(c, run.host, bytes) : 0;
}

static int compare_spans(const void *a, const void *b)
{
	const struct mapped_span *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

uint64_t mapped_check_overlaps(struct mapped_check *c)
{
	uint64_t end = 0, covered = 0;

	if (c->count)
		qsort(c->spans, c->count, sizeof(*c->spans), compare_spans);
	for (size_t i = 0; i < c->count; i++) {
		const struct mapped_span *x = &c->spans[i];
		uint64_t stop = x->start + x->bytes;

		if (x->start < end) {
			mapped_check_say(c, "ERROR: offset 0x%llx is used twice",
					 (unsigned long long)x->start);
			c->r->corruptions++;
		}
		if (stop > end)
			covered += stop - MAX(end, x->start);
		end = MAX(end, stop);
	}
	return covered;
}

int mapped_check_units(struct mapped_check *c)
{
	uint64_t units = div_round_up(c->m->node->length, c->m->unit), skip;
	int ret = 0;

	block_drain(c->m->node);
	c->r->total_clusters = units;
	for (uint64_t i = 0; i < units && !ret; i += skip)
		ret = check_unit(c, i, &skip);
	if (!ret && mapped_is_dirty(c->m))
		ret = commit(c->m);
	return ret;
}

void mapped_check_end(struct mapped_check *c)
{
	free(c->spans);
	c->spans = NULL;
}

int mapped_check(struct block_node *node, uint64_t table_units, struct block_check *result,
		 const struct block_check_out *out, uint64_t *allocated)
{
	struct mapped_check c = {
		.m = node->opaque, .r = result, .out = out, .table_units = table_units};
	int ret = mapped_check_units(&c);

	if (!ret)
		mapped_check_overlaps(&c);
	mapped_check_end(&c);
	/* These formats' tools tell of errors alone. */
	if (allocated)
		*allocated = result->allocated_clusters;
	*result = (struct block_check){.corruptions = result->corruptions};
	return ret;
}

void mapped_info(struct block_node *node, struct block_info *info)
{
	const struct mapped *m = node->opaque;

	info->cluster_size = m->unit;
}
