/* SPDX-License-Identifier: Apache-2.0 */
/* A recording disk in memory; see block_memdisk.h. */
#include "tests/lib/block_memdisk.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/create.h"

struct mem_req {
	uint32_t id;
	int ret;
};

static struct memdisk *disk_of(struct block_node *node)
{
	return *(struct memdisk **)node->opaque;
}

static struct mem_event *add_event(struct memdisk *m, enum mem_event_type type, uint32_t id)
{
	if (m->count == m->room) {
		m->room = m->room ? m->room * 2 : 1024;
		m->events = xrealloc(m->events, m->room * sizeof(*m->events));
	}
	m->events[m->count] = (struct mem_event){
		.type = type, .id = id, .at = m->clock ? (*m->clock)++ : m->count};
	return &m->events[m->count++];
}

void memdisk_mark(struct memdisk *m, uint32_t id)
{
	add_event(m, MEM_MARK, id);
}

static void mem_submit(struct block_node *node, struct block_req *req)
{
	struct memdisk *m = disk_of(node);
	struct mem_req *r = block_ctx(req);

	m->ops++;
	r->ret = 0;
	r->id = m->next_id++;
	if (m->fail_at && (m->fail_on ? m->ops >= m->fail_at : m->ops == m->fail_at))
		r->ret = m->fail_with;
	else if (req->act != BLOCK_FLUSH && !range_inside(req->offset, req->bytes, m->size))
		r->ret = req->act == BLOCK_READ ? 0 : -ENOSPC;
	if (!r->ret && m->record && req->act == BLOCK_FLUSH)
		add_event(m, MEM_FLUSH, r->id);
	if (!r->ret && m->record && req->act != BLOCK_READ && req->act != BLOCK_FLUSH) {
		struct mem_event *e = add_event(m, MEM_WRITE, r->id);

		e->offset = req->offset;
		e->bytes = req->bytes;
		e->data = xmalloc(req->bytes);
		if (req->act == BLOCK_WRITE)
			iov_to_buf(req->iov, req->iovcnt, req->iov_skip, e->data, req->bytes);
		else
			memset(e->data, req->act == BLOCK_DISCARD ? 0xee : 0, req->bytes);
	}
	if (m->pending_count == ARRAY_SIZE(m->pending)) {
		block_complete(req, -EBUSY);
		return;
	}
	m->pending[m->pending_count++] = req;
	evloop_post(node->loop, &m->pump);
}

static void carry_out(struct memdisk *m, struct block_req *req)
{
	struct mem_req *r = block_ctx(req);
	uint64_t inside = req->offset < m->size ? MIN(req->bytes, m->size - req->offset) : 0;

	switch (req->act) {
	case BLOCK_READ:
		m->reads++;
		iov_from_buf(req->iov, req->iovcnt, req->iov_skip, m->data + req->offset, inside);
		block_iov_zero(req->iov, req->iovcnt, req->iov_skip + inside, req->bytes - inside);
		return;
	case BLOCK_FLUSH:
		m->flushes++;
		if (m->record)
			add_event(m, MEM_FLUSH_DONE, r->id);
		return;
	case BLOCK_WRITE:
		m->writes++;
		iov_to_buf(req->iov, req->iovcnt, req->iov_skip, m->data + req->offset, req->bytes);
		break;
	case BLOCK_WRITE_ZEROES:
		m->writes++;
		memset(m->data + req->offset, 0, req->bytes);
		break;
	case BLOCK_DISCARD:
		m->discards++;
		memset(m->data + req->offset, 0xee, req->bytes);
		break;
	}
	if (m->record)
		add_event(m, MEM_WRITE_DONE, r->id);
}

/* One request in a turn, any of them. */
static void pump(void *opaque)
{
	struct memdisk *m = opaque;
	struct block_req *req;
	struct mem_req *r;
	unsigned i;

	if (!m->pending_count)
		return;
	i = rand_r(&m->seed) % m->pending_count;
	req = m->pending[i];
	m->pending[i] = m->pending[--m->pending_count];
	r = block_ctx(req);
	if (m->pending_count)
		evloop_post(req->node->loop, &m->pump);
	if (m->holds && m->holds(req) && m->held_count < ARRAY_SIZE(m->held)) {
		if (req->act == BLOCK_READ)
			carry_out(m, req);
		m->held[m->held_count++] = req;
		return;
	}
	if (!r->ret)
		carry_out(m, req);
	block_complete(req, r->ret);
}

void memdisk_release(struct memdisk *m)
{
	m->holds = NULL;
	while (m->held_count) {
		struct block_req *req = m->held[--m->held_count];

		if (req->act != BLOCK_READ)
			carry_out(m, req);
		block_complete(req, 0);
	}
}

static void mem_detach(struct block_node *node)
{
	evloop_unpost(node->loop, &disk_of(node)->pump);
}

static int mem_truncate(struct block_node *node, uint64_t bytes, struct error **err)
{
	if (bytes > disk_of(node)->size) {
		error_set(err, "No room");
		return -ENOSPC;
	}
	block_set_length(node, bytes);
	return 0;
}

/* All its room is there. */
static int mem_preallocate(struct block_node *node, uint64_t from, enum block_prealloc mode)
{
	return 0;
}

static const struct block_driver memdisk_driver = {
	.name = "memdisk",
	.node_size = sizeof(struct memdisk *),
	.req_size = sizeof(struct mem_req),
	.protocol = true,
	.submit = mem_submit,
	.detach = mem_detach,
	.truncate = mem_truncate,
	.preallocate = mem_preallocate,
};

struct memdisk *memdisk_new(struct evloop *loop, const void *image, uint64_t length, uint64_t size)
{
	struct memdisk *m = xcalloc(1, sizeof(*m));

	m->size = MAX(size, length);
	m->data = xcalloc(1, m->size);
	if (image)
		memcpy(m->data, image, length);
	m->seed = 1;
	m->fail_with = -EIO;
	ev_work_init(&m->pump, pump, m);
	m->node = block_node_new(&memdisk_driver, loop);
	m->node->length = ALIGN_UP(length, 512);
	m->node->zero_past_end = true;
	m->node->filename = xstrdup("memdisk");
	*(struct memdisk **)m->node->opaque = m;
	return m;
}

void memdisk_again(struct memdisk *m, const void *image, uint64_t length)
{
	m->node->written = false;
	m->node->length = ALIGN_UP(length, 512);
	memcpy(m->data, image, length);
	memset(m->data + length, 0, m->size - length);
	m->seed = 1;
	m->record = false;
	m->ops = m->fail_at = m->reads = m->writes = m->flushes = m->discards = 0;
}

void memdisk_free(struct memdisk *m)
{
	if (!m)
		return;
	m->node->written = false;
	block_unref(m->node);
	for (size_t i = 0; i < m->count; i++)
		free(m->events[i].data);
	free(m->events);
	free(m->data);
	free(m);
}

struct found {
	struct memdisk *file, *backing;
};

static struct block_node *find(void *opaque, const char *name)
{
	struct found *f = opaque;

	return !strcmp(name, "file") ? f->file->node : f->backing ? f->backing->node : NULL;
}

struct block_node *memdisk_open(struct memdisk *m, const char *driver, struct memdisk *backing,
				uint32_t flags, struct error **err)
{
	struct found found = {m, backing};
	struct block_names names = {.find = find, .opaque = &found, .objects = m->objects};
	struct block_open how = {.flags = flags | BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP,
				 .names = &names,
				 .loop = m->node->loop,
				 .home = m->node->loop};
	struct opts opts = {0};
	struct block_node *node;

	opts_add(&opts, "driver", driver);
	opts_add(&opts, "file", "file");
	if (backing)
		opts_add(&opts, "backing", "backing");
	if (m->objects)
		opts_add(&opts, strcmp(driver, "luks") ? "encrypt.key-secret" : "key-secret", "s");
	node = block_open_node(&how, &opts, err);
	opts_free(&opts);
	return node;
}

uint8_t *memdisk_make_qcow2(const struct block_create *c, uint64_t *length)
{
	char path[] = "/tmp/vmm-test-XXXXXX";
	int fd = mkstemp(path);
	uint8_t *data = NULL;
	off_t end;

	if (fd < 0)
		return NULL;
	if (block_create_qcow2(path, c, NULL)) {
		end = lseek(fd, 0, SEEK_END);
		data = xmalloc(end);
		lseek(fd, 0, SEEK_SET);
		*length = end;
		if (read_full(fd, data, end)) {
			free(data);
			data = NULL;
		}
	}
	close(fd);
	unlink(path);
	return data;
}
