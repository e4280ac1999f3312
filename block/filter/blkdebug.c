/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blkdebug: fails requests by rules, for tests and for those who write them; QEMU's driver of that
 * name as its docs/devel/blkdebug.txt describes it to users.
 *
 * A rule waits for an event that the format above reports (block/driver.h, enum block_event) while
 * the machine is in the rule's state. inject-error then fails the next requests of its kind, one if
 * it says once, until an event brings other rules; set-state changes the state. The event "none"
 * happens when the disk is opened. Rules are options, or stand in a config file:
 *
 *   [inject-error]
 *   event = "write_aio"
 *   errno = "28"
 *
 * immediately chooses between failing inside of submit and later; here a request is never done
 * inside of submit, and so both are the same.
 *
 * Breakpoints (blkdebug.h) hold the request that follows an event: the format tells of the event
 * right before that. Its tag stays with it until it is resumed, or somebody drains.
 *
 * Thread: the node's loop; opening: main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/filter/blkdebug.h"
#include "block/filter/filter.h"

enum { MAX_RULES = 1000, MAX_ERRNO = 4095, ANY_STATE = 0, FIRST_STATE = 1 };

/* The kinds of requests, in the order of their names. */
enum { ON_READ, ON_WRITE, ON_WRITE_ZEROES, ON_DISCARD, ON_FLUSH, ON_STATUS, ON_KINDS };
static const char *const kind_names[] = {
	"read", "write", "write-zeroes", "discard", "flush", "block-status", NULL};

static const char *const event_names[] = {
	[BLOCK_EV_NONE] = "none",
	[BLOCK_EV_L1_UPDATE] = "l1_update",
	[BLOCK_EV_L2_LOAD] = "l2_load",
	[BLOCK_EV_L2_UPDATE] = "l2_update",
	[BLOCK_EV_L2_ALLOC_COW_READ] = "l2_alloc.cow_read",
	[BLOCK_EV_L2_ALLOC_WRITE] = "l2_alloc.write",
	[BLOCK_EV_READ_AIO] = "read_aio",
	[BLOCK_EV_READ_BACKING_AIO] = "read_backing_aio",
	[BLOCK_EV_READ_COMPRESSED] = "read_compressed",
	[BLOCK_EV_WRITE_AIO] = "write_aio",
	[BLOCK_EV_WRITE_COMPRESSED] = "write_compressed",
	[BLOCK_EV_COW_READ] = "cow_read",
	[BLOCK_EV_COW_WRITE] = "cow_write",
	[BLOCK_EV_REFTABLE_LOAD] = "reftable_load",
	[BLOCK_EV_REFTABLE_UPDATE] = "reftable_update",
	[BLOCK_EV_REFBLOCK_LOAD] = "refblock_load",
	[BLOCK_EV_REFBLOCK_UPDATE] = "refblock_update",
	[BLOCK_EV_REFBLOCK_ALLOC] = "refblock_alloc",
	[BLOCK_EV_REFBLOCK_ALLOC_WRITE] = "refblock_alloc.write",
	[BLOCK_EV_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc.write_table",
	[BLOCK_EV_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc.switch_table",
	[BLOCK_EV_CLUSTER_ALLOC] = "cluster_alloc",
	[BLOCK_EV_CLUSTER_FREE] = "cluster_free",
	[BLOCK_EV_FLUSH_TO_OS] = "flush_to_os",
	[BLOCK_EV_FLUSH_TO_DISK] = "flush_to_disk",
	[BLOCK_EV_PWRITEV] = "pwritev",
	[BLOCK_EV_PWRITEV_ZERO] = "pwritev_zero",
	[BLOCK_EV_PWRITEV_DONE] = "pwritev_done",
	NULL,
};

struct rule {
	int event;
	uint64_t state; /* ANY_STATE, or the one that it is for */
	bool injects;
	uint64_t new_state;
	/* inject-error: */
	int error;
	bool once, active, spent;
	int kind;	/* -1: all but block-status */
	int64_t offset; /* bytes; -1: any */
};

/* Waits for its event, or until it is resumed with the request that it holds. */
struct breakpoint {
	char *tag;
	int event;
	struct block_req *req; /* held; NULL: none yet */
	bool ended;	       /* it is only to be completed, with ret */
	int ret;
	struct breakpoint *next;
};

struct blkdebug {
	uint64_t state;
	struct rule *rules;
	unsigned count;
	struct breakpoint *breaks;
	struct breakpoint *due; /* its event has come: it holds the next request */
	blkdebug_report *report;
	void *opaque;
};

static bool add_rule(struct blkdebug *s, struct opts *opts, bool injects, struct error **err)
{
	struct rule r = {.injects = injects, .kind = -1, .offset = -1};
	uint64_t error = EIO, sector = UINT64_MAX;
	bool immediately;

	if (!opts_has(opts, "event")) {
		error_set(err, "Parameter 'event' is missing");
		return false;
	}
	if (!opts_get_enum(opts, "event", event_names, &r.event, err) ||
	    !opts_get_u64(opts, "state", &r.state, err))
		return false;
	if (!injects) {
		if (!opts_get_u64(opts, "new_state", &r.new_state, err))
			return false;
	} else if (!opts_get_u64(opts, "errno", &error, err) ||
		   !opts_get_u64(opts, "sector", &sector, err) ||
		   !opts_get_bool(opts, "once", &r.once, err) ||
		   !opts_get_bool(opts, "immediately", &immediately, err) ||
		   !opts_get_enum(opts, "iotype", kind_names, &r.kind, err)) {
		return false;
	}
	if (error > MAX_ERRNO) {
		error_set(err, "Parameter 'errno' expects a number up to %d", MAX_ERRNO);
		return false;
	}
	if (sector != UINT64_MAX && sector > INT64_MAX / 512) {
		error_set(err, "Parameter 'sector' is too large");
		return false;
	}
	if (!opts_check_used(opts, NULL, 0, err))
		return false;
	if (s->count == MAX_RULES) {
		error_set(err, "More than %d rules", MAX_RULES);
		return false;
	}
	r.error = error;
	if (sector != UINT64_MAX)
		r.offset = sector * 512;
	s->rules = xrealloc(s->rules, (s->count + 1) * sizeof(r));
	s->rules[s->count++] = r;
	return true;
}

/* inject-error.0.event=... and so on, as JSON's arrays are flattened. */
static bool rules_of_options(struct blkdebug *s, struct opts *opts, bool injects,
			     struct error **err)
{
	for (unsigned i = 0;; i++) {
		char *prefix = xasprintf("%s.%u.", injects ? "inject-error" : "set-state", i);
		struct opts sub;
		size_t n;
		bool ok;

		opts_sub(opts, prefix, &sub);
		n = sub.count;
		ok = !n || add_rule(s, &sub, injects, err);
		opts_free(&sub);
		free(prefix);
		if (!ok || !n)
			return ok;
	}
}

/* key = "value": the value in place, or NULL. */
static char *split_line(char *line)
{
	char *eq = strchr(line, '='), *end, *value;

	if (!eq)
		return NULL;
	for (end = eq; end > line && strchr(" \t", end[-1]); end--)
		;
	*end = 0;
	value = eq + 1 + strspn(eq + 1, " \t");
	if (*value != '"' || !(end = strrchr(value + 1, '"')) || end[1 + strspn(end + 1, " \t")])
		return NULL;
	*end = 0;
	return value + 1;
}

static bool end_section(struct blkdebug *s, struct opts *opts, int section, struct error **err)
{
	bool ok = section < 0 || add_rule(s, opts, section == 0, err);

	opts_free(opts);
	*opts = (struct opts){0};
	return ok;
}

static bool rules_of_file(struct blkdebug *s, const char *name, struct error **err)
{
	FILE *in = fopen(name, "re");
	int section = -1, number = 0;
	struct opts opts = {0};
	char *line = NULL;
	size_t room = 0;
	ssize_t n;
	bool ok = true;

	if (!in) {
		error_set_errno(err, errno, "Could not read blkdebug config file");
		return false;
	}
	while (ok && (n = getline(&line, &room, in)) >= 0) {
		char *text = line + strspn(line, " \t"), *value;

		number++;
		while (n && strchr("\r\n\t ", line[n - 1]))
			line[--n] = 0;
		if (!*text || *text == '#')
			continue;
		if (*text == '[') {
			ok = end_section(s, &opts, section, err);
			section = !strcmp(text, "[inject-error]") ? 0
				  : !strcmp(text, "[set-state]")  ? 1
								  : -1;
			value = section < 0 ? NULL : text;
		} else if ((value = section < 0 ? NULL : split_line(text))) {
			opts_add(&opts, text, value);
		}
		if (ok && !value) {
			error_set(err, "Could not parse blkdebug config file, line %d", number);
			ok = false;
		}
	}
	ok = end_section(s, &opts, ok ? section : -1, err) && ok;
	free(line);
	fclose(in);
	return ok;
}

/* Rules that injected before make room for the ones that inject now. */
static void happened(struct block_node *node, enum block_event event)
{
	struct blkdebug *s = node->opaque;
	uint64_t state = s->state;
	bool injects = false;

	for (unsigned i = 0; i < s->count; i++) {
		struct rule *r = &s->rules[i];

		if (r->event != (int)event || (r->state != ANY_STATE && r->state != s->state))
			continue;
		if (!r->injects) {
			state = r->new_state;
			continue;
		}
		for (unsigned k = 0; k < s->count && !injects; k++)
			s->rules[k].active = false;
		injects = true;
		r->active = !r->spent;
	}
	s->state = state;
	for (struct breakpoint *b = s->breaks; b && !s->due; b = b->next)
		if (!b->req && b->event == (int)event)
			s->due = b;
}

/* A breakpoint that is due takes the request. */
static bool hold(struct blkdebug *s, struct block_req *req, bool ended, int ret)
{
	struct breakpoint *b = s->due;

	if (!b)
		return false;
	s->due = NULL;
	b->req = req;
	b->ended = ended;
	b->ret = ret;
	if (s->report)
		s->report(s->opaque, b->tag, false);
	return true;
}

/* The error that a request is to end with, or 0. */
static int check(struct blkdebug *s, int kind, uint64_t offset, uint64_t bytes)
{
	/* Of several rules the latest counts. */
	for (unsigned i = s->count; i-- > 0;) {
		struct rule *r = &s->rules[i];

		if (!r->active || (r->kind < 0 ? kind == ON_STATUS : r->kind != kind))
			continue;
		if (r->offset >= 0 && !(bytes && (uint64_t)r->offset >= offset &&
					(uint64_t)r->offset - offset < bytes))
			continue;
		if (r->once) {
			r->active = false;
			r->spent = true;
		}
		return -r->error;
	}
	return 0;
}

static void written(struct block_req *child, int ret)
{
	struct block_req *req = child->ctx;

	happened(req->node, BLOCK_EV_PWRITEV_DONE);
	if (!hold(req->node->opaque, req, true, ret))
		block_complete(req, ret);
}

static void go_on(struct block_node *node, struct block_req *req);

static void blkdebug_submit(struct block_node *node, struct block_req *req)
{
	if (req->act == BLOCK_WRITE)
		happened(node, BLOCK_EV_PWRITEV);
	else if (req->act == BLOCK_WRITE_ZEROES)
		happened(node, BLOCK_EV_PWRITEV_ZERO);
	else if (req->act == BLOCK_FLUSH)
		happened(node, BLOCK_EV_FLUSH_TO_DISK);
	if (!hold(node->opaque, req, false, 0))
		go_on(node, req);
}

static void go_on(struct block_node *node, struct block_req *req)
{
	static const uint8_t kinds[] = {
		[BLOCK_READ] = ON_READ,
		[BLOCK_WRITE] = ON_WRITE,
		[BLOCK_FLUSH] = ON_FLUSH,
		[BLOCK_DISCARD] = ON_DISCARD,
		[BLOCK_WRITE_ZEROES] = ON_WRITE_ZEROES,
	};
	struct blkdebug *s = node->opaque;
	int ret;

	ret = check(s, kinds[req->act], req->offset, req->bytes);
	if (ret)
		block_complete(req, ret);
	else if (req->act == BLOCK_WRITE || req->act == BLOCK_WRITE_ZEROES)
		block_filter_submit(req, written, req);
	else
		block_filter_pass(req, 0);
}

/* Breakpoints */

static void free_breakpoint(struct blkdebug *s, struct breakpoint **at)
{
	struct breakpoint *b = *at;

	*at = b->next;
	if (s->due == b)
		s->due = NULL;
	free(b->tag);
	free(b);
}

/* Its request goes on, and the breakpoint is gone. */
static void resume(struct block_node *node, struct breakpoint **at)
{
	struct blkdebug *s = node->opaque;
	struct breakpoint b = **at;

	if (s->report)
		s->report(s->opaque, b.tag, true);
	free_breakpoint(s, at);
	if (b.ended)
		block_complete(b.req, b.ret);
	else
		go_on(node, b.req);
}

static struct block_node *find_node(struct block_node *node)
{
	while (node && node->drv != &block_blkdebug)
		node = node->file;
	return node;
}

int blkdebug_break(struct block_node *node, const char *event, const char *tag,
		   blkdebug_report *report, void *opaque)
{
	struct breakpoint *b, **at;
	struct blkdebug *s;
	int i = 0;

	node = find_node(node);
	if (!node)
		return -ENOTSUP;
	while (event_names[i] && strcmp(event_names[i], event))
		i++;
	if (!event_names[i])
		return -ENOENT;
	s = node->opaque;
	s->report = report;
	s->opaque = opaque;
	for (at = &s->breaks; *at; at = &(*at)->next)
		;
	b = xcalloc(1, sizeof(*b));
	b->tag = xstrdup(tag);
	b->event = i;
	*at = b;
	return 0;
}

int blkdebug_resume(struct block_node *node, const char *tag)
{
	struct blkdebug *s;

	node = find_node(node);
	if (!node)
		return -ENOTSUP;
	s = node->opaque;
	for (struct breakpoint **at = &s->breaks; *at; at = &(*at)->next) {
		if (!(*at)->req || strcmp((*at)->tag, tag))
			continue;
		resume(node, at);
		return 0;
	}
	return -ENOENT;
}

int blkdebug_remove_break(struct block_node *node, const char *tag)
{
	struct blkdebug *s;
	int ret = -ENOENT;

	node = find_node(node);
	if (!node)
		return -ENOTSUP;
	s = node->opaque;
	for (struct breakpoint **at = &s->breaks; *at;) {
		if ((*at)->req || strcmp((*at)->tag, tag)) {
			at = &(*at)->next;
			continue;
		}
		free_breakpoint(s, at);
		ret = 0;
	}
	while (!blkdebug_resume(node, tag))
		;
	return ret;
}

bool blkdebug_is_suspended(struct block_node *node, const char *tag)
{
	const struct blkdebug *s;

	node = find_node(node);
	s = node ? node->opaque : NULL;
	for (const struct breakpoint *b = s ? s->breaks : NULL; b; b = b->next)
		if (b->req && !strcmp(b->tag, tag))
			return true;
	return false;
}

static void hurry(struct block_node *node)
{
	struct blkdebug *s = node->opaque;
	struct breakpoint **at = &s->breaks;

	while (*at) {
		if (!(*at)->req) {
			at = &(*at)->next;
			continue;
		}
		/* What goes on may bring about anything, so from the first on. */
		resume(node, at);
		at = &s->breaks;
	}
}

static bool blkdebug_open(struct block_node *node, const struct block_open *how, struct opts *opts,
			  struct error **err)
{
	struct blkdebug *s = node->opaque;
	const char *config = opts_get(opts, "config");

	s->state = FIRST_STATE;
	block_filter_init(node);
	if ((config && *config && !rules_of_file(s, config, err)) ||
	    !rules_of_options(s, opts, true, err) || !rules_of_options(s, opts, false, err))
		return false;
	happened(node, BLOCK_EV_NONE);
	return true;
}

static void blkdebug_close(struct block_node *node)
{
	struct blkdebug *s = node->opaque;

	free(s->rules);
	s->rules = NULL;
	while (s->breaks)
		free_breakpoint(s, &s->breaks);
}

static int blkdebug_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			   struct block_extent *out)
{
	int ret = check(node->opaque, ON_STATUS, offset, bytes);

	return ret ? ret : block_filter_status(node, offset, bytes, out);
}

const struct block_driver block_blkdebug = {
	.name = "blkdebug",
	.child = "image",
	.node_size = sizeof(struct blkdebug),
	.filter = true,
	.compresses = true,
	.open = blkdebug_open,
	.close = blkdebug_close,
	.submit = blkdebug_submit,
	.hurry = hurry,
	.event = happened,
	.truncate = block_filter_truncate,
	.status = blkdebug_status,
};
