/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: making, references, moving between loops, and what consumers may ask.
 *
 * Thread: the node's loop, or any while nobody runs it; references are the main thread's.
 * A node owns its children (file, backing): they are in no other node's tree, so that a tree is on
 * one loop and shares nothing with another.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/filter/throttle.h"
#include "vmm/core/log.h"

struct block_node *block_node_new(const struct block_driver *drv, struct evloop *loop)
{
	struct block_node *node = xcalloc(1, sizeof(*node));

	node->drv = drv;
	node->loop = loop;
	node->opaque = drv->node_size ? xcalloc(1, drv->node_size) : NULL;
	node->refs = 1;
	node->writeback = true;
	node->limits = (struct block_limits){
		.request_alignment = 1,
		.max_iov = 1024,
		.max_transfer = GiB,
		.discard_alignment = 1,
		.max_discard = INT64_MAX,
		.max_write_zeroes = INT64_MAX,
		.physical_block = 512,
	};
	block_deferred_init(node);
	block_init_req_bytes(node);
	return node;
}

void block_init_req_bytes(struct block_node *node)
{
	size_t child = 0;

	if (node->file)
		child = node->file->req_bytes;
	if (node->backing)
		child = MAX(child, node->backing->req_bytes);
	if (node->data)
		child = MAX(child, node->data->req_bytes);
	for (unsigned i = 0; i < node->extent_count; i++)
		child = MAX(child, node->extents[i]->req_bytes);
	node->req_bytes = ALIGN_UP(sizeof(struct block_req) +
					   ALIGN_UP(node->drv->req_size, BLOCK_REQ_ALIGN) + child,
				   BLOCK_REQ_ALIGN);
}

void block_node_free(struct block_node *node)
{
	block_bitmaps_free(node);
	free(node->opaque);
	free(node->extents);
	free(node->name);
	free(node->filename);
	free(node->backing_name);
	free(node->backing_format);
	free(node->key_secret);
	free(node);
}

struct block_node *block_filter_above(const struct block_driver *drv, struct block_node *node)
{
	struct block_node *top = block_node_new(drv, node->loop);

	top->file = node;
	node->owned = true;
	top->implicit = true;
	top->filename = xstrdup(block_filename(node));
	top->name = node->name ? xstrdup(node->name) : NULL;
	top->read_only = node->read_only;
	block_init_req_bytes(top);
	return top;
}

void block_set_watch(struct block_node *node, struct block_watch *watch)
{
	if (!node)
		return;
	node->watch = watch;
	block_set_watch(node->file, watch);
	block_set_watch(node->backing, watch);
	block_set_watch(node->data, watch);
	for (unsigned i = 0; i < node->extent_count; i++)
		block_set_watch(node->extents[i], watch);
}

void block_ref(struct block_node *node)
{
	node->refs++;
}

static void detach_tree(struct block_node *node)
{
	if (!node)
		return;
	if (node->gate)
		throttle_stop(node->gate);
	if (node->drv->detach)
		node->drv->detach(node);
	detach_tree(node->file);
	detach_tree(node->backing);
	detach_tree(node->data);
	for (unsigned i = 0; i < node->extent_count; i++)
		detach_tree(node->extents[i]);
}

static void attach_tree(struct block_node *node, struct evloop *loop)
{
	if (!node)
		return;
	attach_tree(node->file, loop);
	attach_tree(node->backing, loop);
	attach_tree(node->data, loop);
	for (unsigned i = 0; i < node->extent_count; i++)
		attach_tree(node->extents[i], loop);
	node->loop = loop;
	if (node->drv->attach)
		node->drv->attach(node, loop);
}

void block_set_loop(struct block_node *node, struct evloop *loop)
{
	if (node->loop == loop)
		return;
	block_drain(node);
	detach_tree(node);
	attach_tree(node, loop);
}

/* On the private loop. A child that somebody else still holds goes back to home. */
static void close_tree(struct block_node *node, struct evloop *home)
{
	if (!node)
		return;
	if (--node->refs) {
		node->owned = false;
		block_set_loop(node, home);
		return;
	}
	throttle_gate_close(node);
	if (node->drv->close)
		node->drv->close(node);
	if (node->drv->detach)
		node->drv->detach(node);
	close_tree(node->file, home);
	close_tree(node->backing, home);
	close_tree(node->data, home);
	for (unsigned i = 0; i < node->extent_count; i++)
		close_tree(node->extents[i], home);
	block_node_free(node);
}

void block_unref(struct block_node *node)
{
	struct evloop *private, *home;

	if (!node)
		return;
	if (node->refs > 1) {
		node->refs--;
		return;
	}
	/* Closing waits for I/O: a loop of its own keeps everybody else's callbacks out. */
	home = node->loop;
	private = evloop_new(NULL, NULL);
	if (private)
		block_set_loop(node, private);
	else
		block_drain(node);
	if (node->written) {
		int ret = block_flush(node);

		if (ret)
			log_error("could not flush '%s': %s", block_filename(node), strerror(-ret));
	}
	close_tree(node, home);
	evloop_free(private);
}

/* For open.c: a node whose open failed, still on the private loop. */
void block_abandon(struct block_node *node, struct evloop *home)
{
	close_tree(node, home);
}

size_t block_req_size(const struct block_node *node)
{
	return node->req_bytes;
}

uint64_t block_length(const struct block_node *node)
{
	return node->length;
}

bool block_read_only(const struct block_node *node)
{
	return node->read_only;
}

bool block_encrypted(const struct block_node *node)
{
	while (node->drv->filter && node->file)
		node = node->file;
	return node->key_secret != NULL;
}

const struct block_limits *block_limits(const struct block_node *node)
{
	return &node->limits;
}

const char *block_name(const struct block_node *node)
{
	return node->name ? node->name : "";
}

const char *block_format(const struct block_node *node)
{
	while (node->implicit)
		node = node->file;
	return node->drv->name;
}

const char *block_filename(const struct block_node *node)
{
	return node->filename ? node->filename : "";
}

struct notifier_list *block_resize_notifiers(struct block_node *node)
{
	return &node->resized;
}

void block_set_writeback(struct block_node *node, bool writeback)
{
	node->writeback = writeback;
}

bool block_writeback(const struct block_node *node)
{
	return node->writeback;
}

enum block_on_error block_error_action(enum block_on_error policy, int ret)
{
	if (policy == BLOCK_ERR_ENOSPC)
		return ret == -ENOSPC ? BLOCK_ERR_STOP : BLOCK_ERR_REPORT;
	return policy;
}
