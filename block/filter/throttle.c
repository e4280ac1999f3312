/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Throttling: requests wait until the group's buckets (bucket.h) let them start.
 *
 * A member is a node in a group: one of the throttle driver, or a drive's top node, which then has
 * a gate before its driver, and can get and lose it while it works. Members with waiting requests
 * stand in a ring, one for each direction; the first has the turn, gives one request, and goes to
 * the end. Whoever has the turn when the buckets are full arms a timer on its own loop: it is the
 * direction's holder, and nobody else asks the buckets until the timer ran. A request that another
 * member's thread lets go is put on its member's list, and the member's loop is told by a post.
 *
 * Thread: each member's functions run on its node's loop. The group, its ring and all members'
 * queues are under the group's lock; children are submitted without it. Groups come and go on the
 * main thread.
 */
#include "block/filter/throttle.h"

#include <pthread.h>
#include <stdlib.h>

#include "block/filter/bucket.h"
#include "block/filter/filter.h"

struct throttle_member;

struct throttle_group {
	struct throttle_groups *groups;
	struct throttle_group *next;
	char *name;
	unsigned users; /* nodes, an object */

	pthread_mutex_t lock;
	struct throttle throttle;
	struct turn {
		struct throttle_member *first, **last;
		struct throttle_member *holder;
	} turns[THROTTLE_DIRS];
};

struct throttle_groups {
	struct throttle_group *first;
};

/* Requests by their next, which nobody else uses before they are done. */
struct queue {
	struct block_req *first, **last;
};

struct lane {
	struct throttle_member *owner;
	struct queue queue;
	struct throttle_member *next; /* in the turn's ring while the queue has something */
	struct ev_timer timer;
	bool arm;
	int64_t deadline;
};

struct throttle_member {
	struct block_node *node;
	struct throttle_group *group;
	bool gate; /* -drive's: before node's own driver, and discards take no part */
	struct lane lanes[THROTTLE_DIRS];
	struct queue granted;
	struct ev_work wake;
};

static void queue_init(struct queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static void queue_add(struct queue *q, struct block_req *w)
{
	w->next = NULL;
	*q->last = w;
	q->last = &w->next;
}

static struct block_req *queue_pop(struct queue *q)
{
	struct block_req *w = q->first;

	if (w && !(q->first = w->next))
		q->last = &q->first;
	return w;
}

/* Groups */

static struct throttle_group *find_group(struct throttle_groups *groups, const char *name)
{
	for (struct throttle_group *g = groups ? groups->first : NULL; g; g = g->next)
		if (!strcmp(g->name, name))
			return g;
	return NULL;
}

static struct throttle_group *get_group(struct throttle_groups *groups, const char *name)
{
	struct throttle_group *g = find_group(groups, name);

	if (!g) {
		g = xcalloc(1, sizeof(*g));
		g->groups = groups;
		g->name = xstrdup(name);
		pthread_mutex_init(&g->lock, NULL);
		for (int dir = 0; dir < THROTTLE_DIRS; dir++)
			g->turns[dir].last = &g->turns[dir].first;
		g->next = groups->first;
		groups->first = g;
	}
	g->users++;
	return g;
}

void throttle_group_put(struct throttle_group *g)
{
	struct throttle_group **p;

	if (!g || --g->users)
		return;
	for (p = &g->groups->first; *p != g; p = &(*p)->next)
		;
	*p = g->next;
	pthread_mutex_destroy(&g->lock);
	free(g->name);
	free(g);
}

struct throttle_groups *throttle_groups_new(void)
{
	return xcalloc(1, sizeof(struct throttle_groups));
}

void throttle_groups_free(struct throttle_groups *groups)
{
	while (groups && groups->first)
		throttle_group_put(groups->first); /* an object's is the last use */
	free(groups);
}

/* The ring, under the lock */

static void ring_add(struct throttle_group *g, enum throttle_dir dir, struct throttle_member *m)
{
	m->lanes[dir].next = NULL;
	*g->turns[dir].last = m;
	g->turns[dir].last = &m->lanes[dir].next;
}

static void ring_remove(struct throttle_group *g, enum throttle_dir dir, struct throttle_member *m)
{
	struct throttle_member **p = &g->turns[dir].first;

	while (*p != m)
		p = &(*p)->lanes[dir].next;
	*p = m->lanes[dir].next;
	if (!*p)
		g->turns[dir].last = p;
}

static void grant_one(struct throttle_group *g, enum throttle_dir dir, struct throttle_member *m)
{
	struct block_req *w = queue_pop(&m->lanes[dir].queue);

	throttle_account(&g->throttle, dir, w->bytes);
	queue_add(&m->granted, w);
}

/* self's thread is here and calls go_on(self) afterwards; others are told. */
static void tell(struct throttle_member *m, const struct throttle_member *self)
{
	if (m != self)
		evloop_post(m->node->loop, &m->wake);
}

/* Lets go what may, until the buckets are full or nobody waits. */
static void grant(struct throttle_group *g, enum throttle_dir dir, struct throttle_member *self,
		  int64_t now)
{
	struct turn *turn = &g->turns[dir];
	struct throttle_member *m;

	while (!turn->holder && (m = turn->first)) {
		int64_t ns = throttle_wait(&g->throttle, dir, now);

		if (ns) {
			turn->holder = m;
			m->lanes[dir].deadline = now + ns;
			m->lanes[dir].arm = true;
		} else {
			ring_remove(g, dir, m);
			grant_one(g, dir, m);
			if (m->lanes[dir].queue.first)
				ring_add(g, dir, m);
		}
		tell(m, self);
	}
}

/* Requests, on the member's loop */

static void let_go(struct throttle_member *m, struct block_req *req)
{
	struct block_node *node = m->node;

	if (!m->gate) {
		block_filter_pass(req, 0);
		return;
	}
	node->submitting++;
	node->drv->submit(node, req);
	node->submitting--;
}

/* What the group decided for this member. */
static void go_on(struct throttle_member *m)
{
	struct throttle_group *g = m->group;
	struct block_req *w;

	pthread_mutex_lock(&g->lock);
	for (int dir = 0; dir < THROTTLE_DIRS; dir++) {
		struct lane *lane = &m->lanes[dir];

		if (lane->arm)
			evloop_timer_arm(m->node->loop, &lane->timer, lane->deadline);
		lane->arm = false;
	}
	w = m->granted.first;
	queue_init(&m->granted);
	pthread_mutex_unlock(&g->lock);
	while (w) {
		struct block_req *next = w->next;

		let_go(m, w);
		w = next;
	}
}

static void woken(void *opaque)
{
	go_on(opaque);
}

static void timer_ran(void *opaque)
{
	struct lane *lane = opaque;
	struct throttle_member *m = lane->owner;
	struct throttle_group *g = m->group;
	enum throttle_dir dir = lane - m->lanes;

	pthread_mutex_lock(&g->lock);
	if (g->turns[dir].holder == m) {
		g->turns[dir].holder = NULL;
		grant(g, dir, m, evloop_now(m->node->loop));
	}
	pthread_mutex_unlock(&g->lock);
	go_on(m);
}

void throttle_take(struct throttle_member *m, struct block_req *req)
{
	struct throttle_group *g = m->group;
	enum throttle_dir dir = req->act == BLOCK_READ ? THROTTLE_READ : THROTTLE_WRITE;
	bool first;

	if (req->act == BLOCK_FLUSH || (req->act == BLOCK_DISCARD && m->gate)) {
		let_go(m, req);
		return;
	}
	pthread_mutex_lock(&g->lock);
	first = !m->lanes[dir].queue.first;
	queue_add(&m->lanes[dir].queue, req);
	if (first)
		ring_add(g, dir, m);
	grant(g, dir, m, evloop_now(m->node->loop));
	pthread_mutex_unlock(&g->lock);
	go_on(m);
}

static void throttle_submit(struct block_node *node, struct block_req *req)
{
	throttle_take(node->opaque, req);
}

/* Somebody waits for everything to end: what is here goes at once, and is accounted. */
void throttle_hurry(struct throttle_member *m)
{
	struct throttle_group *g = m->group;

	pthread_mutex_lock(&g->lock);
	for (int dir = 0; dir < THROTTLE_DIRS; dir++) {
		if (!m->lanes[dir].queue.first)
			continue;
		ring_remove(g, dir, m);
		while (m->lanes[dir].queue.first)
			grant_one(g, dir, m);
		if (g->turns[dir].holder == m)
			g->turns[dir].holder = NULL;
		m->lanes[dir].arm = false;
		grant(g, dir, m, evloop_now(m->node->loop));
	}
	pthread_mutex_unlock(&g->lock);
	go_on(m);
}

/* Nothing waits; timers and posts that came to nothing may be left. */
void throttle_stop(struct throttle_member *m)
{
	if (!m->group)
		return;
	for (int dir = 0; dir < THROTTLE_DIRS; dir++)
		evloop_timer_cancel(m->node->loop, &m->lanes[dir].timer);
	evloop_unpost(m->node->loop, &m->wake);
}

static void init_member(struct throttle_member *m, struct block_node *node,
			struct throttle_group *group)
{
	m->node = node;
	m->group = group;
	queue_init(&m->granted);
	ev_work_init(&m->wake, woken, m);
	for (int dir = 0; dir < THROTTLE_DIRS; dir++) {
		m->lanes[dir].owner = m;
		queue_init(&m->lanes[dir].queue);
		ev_timer_init(&m->lanes[dir].timer, timer_ran, &m->lanes[dir]);
	}
}

static void filter_hurry(struct block_node *node)
{
	throttle_hurry(node->opaque);
}

static void filter_detach(struct block_node *node)
{
	throttle_stop(node->opaque);
}

static bool throttle_open(struct block_node *node, const struct block_open *how, struct opts *opts,
			  struct error **err)
{
	struct throttle_groups *groups = how->names ? how->names->throttles : NULL;
	const char *name = opts_get(opts, "throttle-group");

	if (!name) {
		error_set(err, "Parameter 'throttle-group' is missing");
		return false;
	}
	if (!find_group(groups, name)) {
		error_set(err, "Throttle group '%s' does not exist", name);
		return false;
	}
	block_filter_init(node);
	init_member(node->opaque, node, get_group(groups, name));
	return true;
}

static void throttle_close(struct block_node *node)
{
	struct throttle_member *m = node->opaque;

	throttle_stop(m);
	throttle_group_put(m->group);
	m->group = NULL;
}

const struct block_driver block_throttle = {
	.name = "throttle",
	.node_size = sizeof(struct throttle_member),
	.filter = true,
	.compresses = true,
	.fast_zeroes = true,
	.open = throttle_open,
	.close = throttle_close,
	.submit = throttle_submit,
	.hurry = filter_hurry,
	.detach = filter_detach,
	.truncate = block_filter_truncate,
	.status = block_filter_status,
};

/* -drive and -object */

/* New limits; whoever waits is judged by them. */
static void set_limits(struct throttle_group *g, const struct throttle_limits *limits)
{
	pthread_mutex_lock(&g->lock);
	throttle_set(&g->throttle, limits);
	for (int dir = 0; dir < THROTTLE_DIRS; dir++) {
		struct throttle_member *m = g->turns[dir].holder;

		if (m) {
			g->turns[dir].holder = NULL;
			grant(g, dir, NULL, evloop_now(m->node->loop));
		}
	}
	pthread_mutex_unlock(&g->lock);
}

bool throttle_groups_add(struct throttle_groups *groups, const char *name, struct opts *opts,
			 struct error **err)
{
	struct throttle_limits limits;
	bool any;

	if (!throttle_read_limits(opts, false, &limits, &any, err))
		return false;
	if (find_group(groups, name)) {
		error_set(err, "Throttle group '%s' exists already", name);
		return false;
	}
	set_limits(get_group(groups, name), &limits);
	return true;
}

bool throttle_drive_options(struct throttle_groups *groups, const char *id, struct opts *opts,
			    struct throttle_group **group, struct error **err)
{
	struct throttle_limits limits;
	const char *name;
	bool any;

	*group = NULL;
	if (!throttle_read_limits(opts, true, &limits, &any, err))
		return false;
	if (opts_has(opts, "group") && opts_has(opts, "throttling.group")) {
		error_set(err, "'group' and 'throttling.group' are the same: give one of them");
		return false;
	}
	name = opts_get(opts, opts_has(opts, "group") ? "group" : "throttling.group");
	if (!name && !any)
		return true;
	*group = get_group(groups, name ? name : id);
	if (any)
		set_limits(*group, &limits);
	return true;
}

void throttle_gate_open(struct block_node *node, struct throttle_group *group)
{
	struct throttle_member *m = xcalloc(1, sizeof(*m));

	group->users++;
	init_member(m, node, group);
	m->gate = true;
	node->gate = m;
}

void throttle_gate_close(struct block_node *node)
{
	struct throttle_member *m = node->gate;

	if (!m)
		return;
	throttle_hurry(m);
	throttle_stop(m);
	node->gate = NULL;
	throttle_group_put(m->group);
	free(m);
}

/* While it works */

struct change {
	struct block_node *node;
	struct throttle_group *group; /* NULL: none from now on */
};

/* On the node's loop, while the main thread waits. */
static void change_gate(void *opaque)
{
	struct change *c = opaque;
	struct throttle_member *m = c->node->gate;

	if (m && m->group == c->group)
		return;
	throttle_gate_close(c->node);
	if (c->group)
		throttle_gate_open(c->node, c->group);
}

bool throttle_change(struct throttle_groups *groups, struct block_node *node, const char *id,
		     struct opts *opts, struct error **err)
{
	struct throttle_group *before = node->gate ? node->gate->group : NULL;
	struct throttle_limits limits;
	struct change change = {.node = node};
	const char *name = opts_get(opts, "group");
	bool any = false;

	if (!throttle_read_limits(opts, true, &limits, &any, err) ||
	    !opts_check_used(opts, NULL, 0, err))
		return false;
	any = false;
	for (int i = 0; i < THROTTLE_KINDS; i++)
		any |= limits.of[i].avg;
	if (any && before && !name) {
		set_limits(before, &limits);
		return true;
	}
	if (any) {
		change.group = get_group(groups, name ? name : id);
		set_limits(change.group, &limits);
	}
	evloop_call(node->loop, change_gate, &change);
	throttle_group_put(change.group);
	return true;
}

void throttle_describe(struct block_node *node,
		       void (*put)(void *opaque, const char *key, uint64_t value), void *opaque)
{
	struct throttle_group *g = node->gate ? node->gate->group : NULL;
	struct throttle_limits limits = {0};

	if (g) {
		pthread_mutex_lock(&g->lock);
		limits = g->throttle.limits;
		pthread_mutex_unlock(&g->lock);
	}
	throttle_list_limits(&limits, put, opaque);
}

const char *throttle_group_of(const struct block_node *node)
{
	return node->gate ? node->gate->group->name : NULL;
}
