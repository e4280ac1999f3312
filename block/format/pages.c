/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of mapped images in memory, page by page, and the commit that writes them back in order
 * (mapped.h tells why that order). Bounded: MAPPED_PAGES pages, of which half may be dirty before
 * a commit is started.
 *
 * Thread: the node's loop. A page belongs to the cache; steps borrow it until they end.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/mapped.h"

struct block_req *mapped_file_req(struct mapped *m, void *ctx,
				  void (*done)(struct block_req *req, int ret))
{
	struct block_req *req = malloc(block_req_size(m->file));

	if (req) {
		req->node = m->file;
		req->flags = 0;
		req->done = done;
		req->ctx = ctx;
	}
	return req;
}

static void file_io(struct block_req *req, enum block_op op, uint64_t offset, struct iovec *iov,
		    void *buf, uint64_t bytes)
{
	req->op = op;
	req->offset = offset;
	req->bytes = bytes;
	req->iov = iov;
	req->iovcnt = iov != NULL;
	if (iov)
		*iov = (struct iovec){buf, bytes};
	block_submit(req);
}

static struct mapped_page **bucket(struct mapped *m, uint64_t offset)
{
	return &m->hash[offset / MAPPED_PAGE % MAPPED_HASH];
}

static void unchain(struct mapped *m, struct mapped_page *page)
{
	if (page->older)
		page->older->newer = page->newer;
	else
		m->oldest = page->newer;
	if (page->newer)
		page->newer->older = page->older;
	else
		m->newest = page->older;
}

static void chain_newest(struct mapped *m, struct mapped_page *page)
{
	page->older = m->newest;
	page->newer = NULL;
	if (m->newest)
		m->newest->newer = page;
	else
		m->oldest = page;
	m->newest = page;
}

static void drop(struct mapped *m, struct mapped_page *page)
{
	struct mapped_page **p = bucket(m, page->offset);

	while (*p != page)
		p = &(*p)->hash_next;
	*p = page->hash_next;
	unchain(m, page);
	m->pages--;
	free(page->req);
	free(page);
}

static struct mapped_page *lookup(struct mapped *m, uint64_t offset)
{
	struct mapped_page *page = *bucket(m, offset);

	while (page && page->offset != offset)
		page = page->hash_next;
	return page;
}

/* Makes room for one more. The newest pages may be in the hands of the step that asks. */
static bool make_room(struct mapped *m)
{
	unsigned left = m->pages;

	if (left < MAPPED_PAGES)
		return true;
	for (struct mapped_page *p = m->oldest; p && left > 8; p = p->newer, left--) {
		if (p->ready && !p->dirty && !p->writing) {
			drop(m, p);
			return true;
		}
	}
	return false;
}

static void page_loaded(struct block_req *req, int ret)
{
	struct mapped_page *page = req->ctx;
	struct mapped *m = page->m;

	block_idle(m->node);
	waitq_move(&m->runq, &page->waiters, ret);
	waitq_move(&m->runq, &m->crowded, 0);
	if (ret)
		drop(m, page);
	else
		page->ready = true;
	mapped_run_waiters(m);
}

int mapped_page(struct mapped *m, uint64_t offset, struct waiter *w, struct mapped_page **out)
{
	uint64_t start = ALIGN_DOWN(offset, MAPPED_PAGE);
	struct mapped_page *page = lookup(m, start), **p;

	if (page) {
		if (!page->ready) {
			waitq_add(&page->waiters, w);
			return -EAGAIN;
		}
		unchain(m, page);
		chain_newest(m, page);
		*out = page;
		return 0;
	}
	if (m->dirty_pages > MAPPED_PAGES / 2) {
		mapped_commit(m, w);
		return -EAGAIN;
	}
	if (!make_room(m)) {
		waitq_add(&m->crowded, w);
		return -EAGAIN;
	}
	page = calloc(1, sizeof(*page));
	if (!page)
		return -ENOMEM;
	page->req = mapped_file_req(m, page, page_loaded);
	if (!page->req) {
		free(page);
		return -ENOMEM;
	}
	page->m = m;
	page->offset = start;
	p = bucket(m, start);
	page->hash_next = *p;
	*p = page;
	chain_newest(m, page);
	m->pages++;
	waitq_add(&page->waiters, w);
	block_busy(m->node);
	file_io(page->req, BLOCK_READ, start, &page->iov, page->data, MAPPED_PAGE);
	return -EAGAIN;
}

void mapped_dirty(struct mapped *m, struct mapped_page *page, uint64_t offset, bool first)
{
	uint8_t bit = 1 << ((offset - page->offset) / 512);

	if (!page->dirty)
		m->dirty_pages++;
	page->dirty |= bit;
	if (first)
		page->first |= bit;
}

void mapped_replace(struct mapped *m, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
	for (uint64_t at = offset; at < offset + bytes;) {
		uint64_t start = ALIGN_DOWN(at, MAPPED_PAGE);
		uint64_t n = MIN(start + MAPPED_PAGE, offset + bytes) - at;
		struct mapped_page *page = lookup(m, start);

		if (page && page->ready && data)
			memcpy(page->data + (at - start), data + (at - offset), n);
		at += n;
	}
}

bool mapped_is_dirty(const struct mapped *m)
{
	return m->dirty_pages || m->tail_dirty;
}

/* Committing */

static void next_phase(struct mapped *m);

static void write_ended(struct mapped *m, int ret)
{
	if (ret && !m->commit_error)
		m->commit_error = ret;
	if (!--m->writes)
		next_phase(m);
}

static void page_written(struct block_req *req, int ret)
{
	struct mapped_page *page = req->ctx;
	struct mapped *m = page->m;

	block_idle(m->node);
	if (ret) {
		if (!page->dirty)
			m->dirty_pages++;
		page->dirty |= page->writing;
		if (m->phase == PHASE_FIRST)
			page->first |= page->writing;
	}
	page->writing = 0;
	waitq_move(&m->runq, &m->crowded, 0);
	write_ended(m, ret);
	mapped_run_waiters(m);
}

static void tail_written(struct block_req *req, int ret)
{
	struct mapped *m = req->ctx;

	block_idle(m->node);
	if (ret)
		m->tail_dirty = true;
	write_ended(m, ret);
	mapped_run_waiters(m);
}

/* Writes the span of those sectors: what lies between them is unchanged, and metadata as well or
 * not written by anybody while we are frozen, unless it is a unit's data; so only neighbours go
 * together. The rest stays dirty for another round of this phase. */
static void write_page(struct mapped *m, struct mapped_page *page, uint8_t which)
{
	unsigned from = __builtin_ctz(which), to = from;
	uint8_t mask;

	while (to < MAPPED_SECTORS && (which & (1u << to)))
		to++;
	mask = (uint8_t)((1u << to) - (1u << from));
	page->writing = mask;
	page->dirty &= ~mask;
	page->first &= ~mask;
	if (!page->dirty)
		m->dirty_pages--;
	page->req->done = page_written;
	m->writes++;
	block_busy(m->node);
	file_io(page->req, BLOCK_WRITE, page->offset + from * 512, &page->iov,
		page->data + from * 512, (to - from) * 512);
}

/* Starts what this phase still has to write. */
static void write_pages(struct mapped *m)
{
	m->writes++;
	if (m->phase == PHASE_FIRST && m->tail_dirty && !m->commit_error) {
		m->tail_dirty = false;
		m->writes++;
		block_busy(m->node);
		file_io(m->tail_req, BLOCK_WRITE, m->end, &m->tail_iov, m->tail, 512);
	}
	for (struct mapped_page *p = m->oldest; p && !m->commit_error; p = p->newer) {
		uint8_t which = m->phase == PHASE_FIRST ? p->first : p->dirty;

		if (which)
			write_page(m, p, which);
	}
	m->writes--;
}

static bool phase_has_work(struct mapped *m)
{
	if (m->phase == PHASE_FIRST && m->tail_dirty)
		return true;
	for (struct mapped_page *p = m->oldest; p; p = p->newer)
		if (m->phase == PHASE_FIRST ? p->first : p->dirty)
			return true;
	return false;
}

static void sync_done(struct block_req *req, int ret)
{
	struct mapped *m = req->ctx;

	block_idle(m->node);
	if (ret && !m->commit_error)
		m->commit_error = ret;
	next_phase(m);
	mapped_run_waiters(m);
}

static void sync_file(struct mapped *m)
{
	block_busy(m->node);
	file_io(m->commit_req, BLOCK_FLUSH, 0, NULL, NULL, 0);
}

static void start_commit(struct mapped *m)
{
	waitq_move(&m->commit_now, &m->commit_next, 0);
	m->commit_error = 0;
	m->phase = PHASE_SYNC;
	m->frozen = mapped_is_dirty(m);
	sync_file(m);
}

static void end_commit(struct mapped *m)
{
	m->phase = PHASE_IDLE;
	m->frozen = false;
	waitq_move(&m->runq, &m->commit_now, m->commit_error);
	waitq_move(&m->runq, &m->thawed, 0);
	waitq_move(&m->runq, &m->crowded, 0);
	if (m->commit_next.first)
		start_commit(m);
}

static void next_phase(struct mapped *m)
{
	if (m->commit_error) {
		end_commit(m);
		return;
	}
	switch (m->phase) {
	case PHASE_SYNC:
		if (!m->frozen) {
			end_commit(m);
			return;
		}
		m->phase = PHASE_FIRST;
		if (!phase_has_work(m)) {
			m->phase = PHASE_REST;
		}
		write_pages(m);
		if (!m->writes)
			next_phase(m);
		return;
	case PHASE_FIRST:
		if (phase_has_work(m)) {
			write_pages(m);
			return;
		}
		m->phase = PHASE_SYNC_FIRST;
		sync_file(m);
		return;
	case PHASE_SYNC_FIRST:
		m->phase = PHASE_REST;
		write_pages(m);
		if (!m->writes)
			next_phase(m);
		return;
	case PHASE_REST:
		if (phase_has_work(m)) {
			write_pages(m);
			return;
		}
		m->phase = PHASE_LAST;
		sync_file(m);
		return;
	default:
		end_commit(m);
	}
}

void mapped_commit(struct mapped *m, struct waiter *w)
{
	waitq_add(&m->commit_next, w);
	if (!m->commit_req)
		m->commit_req = mapped_file_req(m, m, sync_done);
	if (m->tail && !m->tail_req)
		m->tail_req = mapped_file_req(m, m, tail_written);
	if (!m->commit_req || (m->tail && !m->tail_req)) {
		waitq_move(&m->runq, &m->commit_next, -ENOMEM);
		return;
	}
	if (m->phase == PHASE_IDLE)
		start_commit(m);
}

void mapped_pages_free(struct mapped *m)
{
	while (m->oldest)
		drop(m, m->oldest);
	free(m->commit_req);
	free(m->tail_req);
	m->commit_req = m->tail_req = NULL;
}
