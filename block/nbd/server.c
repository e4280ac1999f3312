/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server: exports, listening sockets, the connections' register; see server.h.
 * Thread: the server's loop.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/bitmap.h"
#include "block/nbd/conn.h"

struct nbd_server *nbd_server_new(struct evloop *loop, const struct nbd_server_config *config)
{
	struct nbd_server *server = xcalloc(1, sizeof(*server));

	server->loop = loop;
	server->config = *config;
	server->listening = true;
	server->status_tail = &server->status;
	ev_work_init(&server->status_work, nbd_run_status, server);
	return server;
}

static bool has_room(const struct nbd_server *server)
{
	return !server->config.max_clients || server->clients < server->config.max_clients;
}

/* At the limit of clients nobody is accepted: who comes waits in the socket's backlog. */
static void update_listening(struct nbd_server *server)
{
	bool listening = has_room(server);

	if (listening == server->listening)
		return;
	server->listening = listening;
	for (struct nbd_listener *l = server->listeners; l; l = l->next)
		evloop_fd_mod(server->loop, &l->ev, listening ? EPOLLIN : 0);
}

static void on_client(void *opaque, uint32_t revents)
{
	struct nbd_listener *l = opaque;
	int fd;

	while (has_room(l->server)) {
		fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			break;
		nbd_server_accept(l->server, fd);
	}
}

int nbd_server_listen(struct nbd_server *server, int fd)
{
	struct nbd_listener *l = xcalloc(1, sizeof(*l));
	int ret;

	l->fd = fd;
	l->server = server;
	ret = evloop_fd_add(server->loop, &l->ev, fd, server->listening ? EPOLLIN : 0, on_client,
			    l);
	if (ret) {
		close(fd);
		free(l);
		return ret;
	}
	l->next = server->listeners;
	server->listeners = l;
	return 0;
}

void nbd_server_accept(struct nbd_server *server, int fd)
{
	server->clients++;
	nbd_conn_new(server, fd);
	update_listening(server);
}

void nbd_conn_left(struct nbd_conn *conn)
{
	conn->server->clients--;
	update_listening(conn->server);
}

void nbd_conn_gone(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	*conn->pprev = conn->next;
	if (conn->next)
		conn->next->pprev = conn->pprev;
	if (server->config.client_left)
		server->config.client_left(server->config.opaque, server->clients,
					   conn->negotiated);
}

unsigned nbd_server_clients(const struct nbd_server *server)
{
	return server->clients;
}

struct nbd_export *nbd_find_export(const struct nbd_server *server, struct nbd_string name)
{
	for (struct nbd_export *e = server->exports; e; e = e->next)
		if (nbd_string_is(name, e->name))
			return e;
	return NULL;
}

static uint16_t export_flags(const struct nbd_server *server, const struct nbd_export_config *c)
{
	uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_CACHE;

	if (c->read_only || block_read_only(c->node))
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	/* All connections share the node: what one flushed is flushed for all. Where only one may
	 * come, a client must not be told to open more. */
	if (server->config.max_clients != 1)
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	return flags;
}

static void free_export(struct nbd_export *e)
{
	for (unsigned i = 0; i < e->context_count; i++)
		free(e->contexts[i].name);
	free(e->name);
	free(e->description);
	free(e);
}

static bool add_context(struct nbd_export *e, char *name, int kind,
			const struct dirty_bitmap *bitmap, struct error **err)
{
	if (e->context_count == NBD_CONTEXTS || strlen(name) > NBD_MAX_STRING) {
		error_set(err, "too many or too long metadata contexts");
		free(name);
		return false;
	}
	e->contexts[e->context_count++] = (struct nbd_context){name, kind, bitmap};
	return true;
}

/* A bitmap of the node, or of what it stands on. */
static bool add_bitmap(struct nbd_export *e, const char *name, struct error **err)
{
	struct block_node *node = e->node;
	struct block_bitmap *bm = NULL;

	while (node && !(bm = block_bitmap_find(node, name)))
		node = node->drv->filter ? node->file : node->backing;
	if (!bm) {
		error_set(err, "Bitmap '%s' is not found", name);
		return false;
	}
	if (bm->enabled && (e->flags & NBD_FLAG_READ_ONLY) && !block_read_only(node)) {
		error_set(err, "Enabled bitmap '%s' incompatible with readonly export", name);
		return false;
	}
	return block_bitmap_load(node, bm, err) &&
	       add_context(e, xasprintf("qemu:dirty-bitmap:%s", name), NBD_BITMAP, &bm->dirty, err);
}

static bool add_contexts(struct nbd_export *e, const struct nbd_export_config *c,
			 struct error **err)
{
	bool ok = add_context(e, xstrdup("base:allocation"), NBD_ALLOCATION, NULL, err);

	if (ok && c->allocation_depth)
		ok = add_context(e, xstrdup("qemu:allocation-depth"), NBD_DEPTH, NULL, err);
	for (const char *const *b = c->bitmaps; ok && b && *b; b++)
		ok = add_bitmap(e, *b, err);
	return ok;
}

bool nbd_server_add(struct nbd_server *server, const struct nbd_export_config *config,
		    struct error **err)
{
	struct nbd_export *e, **end = &server->exports;

	if (strlen(config->name) > NBD_MAX_STRING) {
		error_set(err, "export name is too long");
		return false;
	}
	if (config->description && strlen(config->description) > NBD_MAX_STRING) {
		error_set(err, "export description is too long");
		return false;
	}
	for (; *end; end = &(*end)->next) {
		if (!strcmp((*end)->name, config->name)) {
			error_set(err, "NBD server already has export named '%s'", config->name);
			return false;
		}
	}
	e = xcalloc(1, sizeof(*e));
	e->name = xstrdup(config->name);
	e->description = config->description ? xstrdup(config->description) : NULL;
	e->node = config->node;
	e->flags = export_flags(server, config);
	if (!add_contexts(e, config, err)) {
		free_export(e);
		return false;
	}
	*end = e;
	return true;
}

/* Whether somebody still uses export (NULL: anything). */
static bool in_use(const struct nbd_server *server, const struct nbd_export *export)
{
	for (const struct nbd_conn *c = server->conns; c; c = c->next)
		if (!export || c->export == export)
			return true;
	return false;
}

static void close_conns(struct nbd_server *server, const struct nbd_export *export)
{
	struct nbd_conn *next;

	for (struct nbd_conn *c = server->conns; c; c = next) {
		next = c->next;
		if (c->context_export == export)
			c->context_export = NULL;
		if (export && c->export != export)
			continue;
		/* Held, so that next stays what it is: closing one frees that one at most. */
		nbd_conn_get(c);
		nbd_conn_close(c);
		nbd_conn_put(c);
	}
	while (in_use(server, export))
		evloop_run_once(server->loop, -1);
}

bool nbd_server_remove(struct nbd_server *server, const char *name)
{
	struct nbd_string want = {name, strlen(name)};
	struct nbd_export *e = nbd_find_export(server, want), **p = &server->exports;

	if (!e)
		return false;
	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	close_conns(server, e);
	free_export(e);
	return true;
}

void nbd_server_free(struct nbd_server *server)
{
	if (!server)
		return;
	while (server->listeners) {
		struct nbd_listener *l = server->listeners;

		server->listeners = l->next;
		evloop_fd_del(server->loop, &l->ev);
		close(l->fd);
		free(l);
	}
	server->config.client_left = NULL;
	close_conns(server, NULL);
	while (server->exports) {
		struct nbd_export *e = server->exports;

		server->exports = e->next;
		free_export(e);
	}
	evloop_unpost(server->loop, &server->status_work);
	free(server);
}
