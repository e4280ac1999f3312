/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a request waits inside a node without a thread: it queues a waiter on what it waits for (a
 * byte range, a table being loaded, a buffer) and is run again from the top of its step when that
 * is ready.
 *
 * One thread, the node's loop. A waiter is embedded in the request and on one queue at most.
 */
#ifndef BLOCK_WAIT_H
#define BLOCK_WAIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct waiter {
	struct waiter *next;
	void (*fn)(struct waiter *w);
	int error; /* of what was waited for; the waiter clears it */
};

struct waitq {
	struct waiter *first, **last; /* last is NULL until the first use */
};

static inline void waitq_add(struct waitq *q, struct waiter *w)
{
	w->next = NULL;
	if (!q->first)
		q->last = &q->first;
	*q->last = w;
	q->last = &w->next;
}

/* Moves all of from behind to, marked with error. */
static inline void waitq_move(struct waitq *to, struct waitq *from, int error)
{
	struct waiter *w = from->first;

	from->first = NULL;
	while (w) {
		struct waiter *next = w->next;

		w->error = error;
		waitq_add(to, w);
		w = next;
	}
}

static inline struct waiter *waitq_pop(struct waitq *q)
{
	struct waiter *w = q->first;

	if (w)
		q->first = w->next;
	return w;
}

/* Runs all of q, and what they add to it; never inside itself. */
static inline void waitq_run(struct waitq *q, bool *running)
{
	struct waiter *w;

	if (*running)
		return;
	*running = true;
	while ((w = waitq_pop(q)))
		w->fn(w);
	*running = false;
}

/*
 * Byte ranges in use. Shared ones may overlap one another; an exclusive one overlaps none. Taking
 * a shared range looks at the exclusive ones only, which are few.
 */
struct range {
	struct range *next, **pprev;
	uint64_t start, end;
	struct waitq waiters;
};

struct range_set {
	struct range *shared, *exclusive;
};

static inline struct range *range_find(struct range *list, uint64_t start, uint64_t end)
{
	for (; list; list = list->next)
		if (list->start < end && start < list->end)
			return list;
	return NULL;
}

/* The range in the way of [start, end), or NULL. */
static inline struct range *range_conflict(const struct range_set *set, uint64_t start,
					   uint64_t end, bool exclusive)
{
	struct range *r = range_find(set->exclusive, start, end);

	return r || !exclusive ? r : range_find(set->shared, start, end);
}

static inline void range_take(struct range_set *set, struct range *r, uint64_t start, uint64_t end,
			      bool exclusive)
{
	struct range **list = exclusive ? &set->exclusive : &set->shared;

	r->start = start;
	r->end = end;
	r->waiters.first = NULL;
	r->next = *list;
	r->pprev = list;
	if (r->next)
		r->next->pprev = &r->next;
	*list = r;
}

/* Its waiters go to runq. */
static inline void range_drop(struct range *r, struct waitq *runq)
{
	*r->pprev = r->next;
	if (r->next)
		r->next->pprev = r->pprev;
	waitq_move(runq, &r->waiters, 0);
}

#endif
