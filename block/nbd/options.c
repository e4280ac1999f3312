/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake: what a client and the server agree on, option by option; doc/proto.md, "Fixed
 * newstyle negotiation". Thread: the server's loop.
 */
#include "block/nbd/conn.h"

static void reply(struct nbd_conn *c, uint32_t type, const void *data, size_t bytes)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES];

	nbd_put_option_reply(head, c->option.code, type, bytes);
	nbd_conn_write(c, head, sizeof(head));
	nbd_conn_write(c, data, bytes);
}

static void refuse(struct nbd_conn *c, uint32_t type, const char *why)
{
	reply(c, type, why, strlen(why));
}

static void ack(struct nbd_conn *c)
{
	reply(c, NBD_REP_ACK, "", 0);
}

void nbd_start(struct nbd_conn *c)
{
	uint8_t hello[NBD_HELLO_BYTES];

	nbd_put_hello(hello, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	nbd_conn_write(c, hello, sizeof(hello));
}

void nbd_on_flags(struct nbd_conn *c, const uint8_t *data)
{
	uint32_t flags = load_be32(data);

	c->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
	c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	c->stage = NBD_STAGE_OPTION;
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		nbd_conn_close(c);
}

void nbd_on_option(struct nbd_conn *c, const uint8_t *data)
{
	/* A client of the first newstyle may only name its export. */
	if (!nbd_parse_option(data, &c->option) ||
	    (!c->fixed && c->option.code != NBD_OPT_EXPORT_NAME) ||
	    c->option.length > NBD_MAX_PAYLOAD) {
		nbd_conn_close(c);
		return;
	}
	c->stage = NBD_STAGE_OPTION_DATA;
	if (c->option.length <= NBD_MAX_OPTION)
		return;
	if (c->option.code == NBD_OPT_EXPORT_NAME) {
		nbd_conn_close(c);
		return;
	}
	c->skip = c->option.length;
	c->stage = NBD_STAGE_SKIP;
	c->after_skip = NBD_STAGE_OPTION;
	refuse(c, NBD_REP_ERR_TOO_BIG, "the option is too long");
}

static uint16_t flags_of(const struct nbd_conn *c, const struct nbd_export *e)
{
	return e->flags | (c->structured ? NBD_FLAG_SEND_DF : 0);
}

/* From here on e is served. */
static bool serve(struct nbd_conn *c, struct nbd_export *e)
{
	c->export = e;
	c->agreed = (struct nbd_agreed){
		.size = block_length(e->node),
		.flags = flags_of(c, e),
		.structured = c->structured,
	};
	if (c->context_export != e)
		c->contexts = 0;
	c->agreed.contexts = c->contexts;
	return nbd_serve(c);
}

static void on_export_name(struct nbd_conn *c, struct nbd_string name)
{
	struct nbd_export *e = nbd_find_export(c->server, name);
	uint8_t answer[10 + 124] = {0};

	/* There is no way to say no. */
	if (!e || !serve(c, e)) {
		nbd_conn_close(c);
		return;
	}
	store_be64(answer, c->agreed.size);
	store_be16(answer + 8, c->agreed.flags);
	nbd_conn_write(c, answer, c->no_zeroes ? 10 : sizeof(answer));
}

static void on_list(struct nbd_conn *c)
{
	if (c->option.length) {
		refuse(c, NBD_REP_ERR_INVALID, "the option takes no data");
		return;
	}
	for (const struct nbd_export *e = c->server->exports; e; e = e->next) {
		size_t name = strlen(e->name), text = e->description ? strlen(e->description) : 0;
		uint8_t head[NBD_OPTION_REPLY_BYTES + 4];

		nbd_put_option_reply(head, c->option.code, NBD_REP_SERVER, 4 + name + text);
		store_be32(head + NBD_OPTION_REPLY_BYTES, name);
		nbd_conn_write(c, head, sizeof(head));
		nbd_conn_write(c, e->name, name);
		nbd_conn_write(c, e->description, text);
	}
	ack(c);
}

static void info_text(struct nbd_conn *c, uint16_t type, const char *text)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES + 2];

	nbd_put_option_reply(head, c->option.code, NBD_REP_INFO, 2 + strlen(text));
	store_be16(head + NBD_OPTION_REPLY_BYTES, type);
	nbd_conn_write(c, head, sizeof(head));
	nbd_conn_write(c, text, strlen(text));
}

static void on_info(struct nbd_conn *c, const uint8_t *data)
{
	struct nbd_info_query q;
	struct nbd_export *e;
	uint8_t info[14];

	if (!nbd_parse_info(data, c->option.length, &q)) {
		refuse(c, NBD_REP_ERR_INVALID, "the option's data is malformed");
		return;
	}
	e = nbd_find_export(c->server, q.name);
	if (!e) {
		refuse(c, NBD_REP_ERR_UNKNOWN, "export not present");
		return;
	}
	if (q.wants_name)
		info_text(c, NBD_INFO_NAME, e->name);
	if (e->description)
		info_text(c, NBD_INFO_DESCRIPTION, e->description);
	store_be16(info, NBD_INFO_BLOCK_SIZE);
	store_be32(info + 2, 1); /* the node takes care of what is not aligned */
	store_be32(info + 6, 4096);
	store_be32(info + 10, NBD_MAX_PAYLOAD);
	reply(c, NBD_REP_INFO, info, 14);
	store_be16(info, NBD_INFO_EXPORT);
	store_be64(info + 2, block_length(e->node));
	store_be16(info + 10, flags_of(c, e));
	reply(c, NBD_REP_INFO, info, 12);
	if (c->option.code == NBD_OPT_GO && !serve(c, e)) {
		nbd_conn_close(c);
		return;
	}
	ack(c);
}

/* The contexts of e that a query asks for, as bits. */
static unsigned asked_contexts(const struct nbd_export *e, struct nbd_string query, bool list)
{
	unsigned found = 0;

	for (unsigned i = 0; i < e->context_count; i++)
		if (nbd_meta_matches(query, e->contexts[i].name, list))
			found |= 1u << i;
	return found;
}

static void on_meta_context(struct nbd_conn *c, const uint8_t *data)
{
	bool list = c->option.code == NBD_OPT_LIST_META_CONTEXT;
	const struct nbd_export *e;
	struct nbd_meta_query q;
	struct nbd_string query;
	unsigned found = 0;

	if (!list) {
		c->contexts = 0;
		c->context_export = NULL;
	}
	if (!c->structured || !nbd_parse_meta(data, c->option.length, &q)) {
		refuse(c, NBD_REP_ERR_INVALID,
		       c->structured ? "the option's data is malformed"
				     : "structured replies were not negotiated");
		return;
	}
	e = nbd_find_export(c->server, q.name);
	if (!e) {
		refuse(c, NBD_REP_ERR_UNKNOWN, "export not present");
		return;
	}
	if (list && !q.count)
		found = (1u << e->context_count) - 1;
	for (uint32_t i = 0; i < q.count && nbd_next_meta(&q, &query); i++)
		found |= asked_contexts(e, query, list);
	for (unsigned i = 0; i < e->context_count; i++) {
		uint8_t head[NBD_OPTION_REPLY_BYTES + 4];
		size_t length = strlen(e->contexts[i].name);

		if (!(found & 1u << i))
			continue;
		nbd_put_option_reply(head, c->option.code, NBD_REP_META_CONTEXT, 4 + length);
		store_be32(head + NBD_OPTION_REPLY_BYTES, list ? 0 : i);
		nbd_conn_write(c, head, sizeof(head));
		nbd_conn_write(c, e->contexts[i].name, length);
	}
	if (!list) {
		c->contexts = found;
		c->context_export = e;
	}
	ack(c);
}

/* Options that have no data. */
static void on_bare(struct nbd_conn *c)
{
	if (c->option.length) {
		refuse(c, NBD_REP_ERR_INVALID, "the option takes no data");
	} else if (c->option.code == NBD_OPT_STRUCTURED_REPLY) {
		if (c->structured) {
			refuse(c, NBD_REP_ERR_INVALID, "structured replies were agreed on before");
			return;
		}
		c->structured = true;
		ack(c);
	} else if (!c->server->config.tls) {
		refuse(c, NBD_REP_ERR_POLICY, "TLS is not configured");
	} else if (c->tls) {
		refuse(c, NBD_REP_ERR_INVALID, "TLS is in use");
	} else {
		c->starttls = true;
		ack(c);
	}
}

void nbd_on_option_data(struct nbd_conn *c, const uint8_t *data)
{
	c->stage = NBD_STAGE_OPTION;
	if (c->server->config.tls && !c->tls && c->option.code != NBD_OPT_STARTTLS &&
	    c->option.code != NBD_OPT_ABORT) {
		if (c->option.code == NBD_OPT_EXPORT_NAME)
			nbd_conn_close(c);
		else
			refuse(c, NBD_REP_ERR_TLS, "TLS is required");
		return;
	}
	switch (c->option.code) {
	case NBD_OPT_EXPORT_NAME:
		on_export_name(c, (struct nbd_string){(const char *)data, c->option.length});
		break;
	case NBD_OPT_ABORT:
		ack(c);
		c->stage = NBD_STAGE_LAST;
		break;
	case NBD_OPT_LIST:
		on_list(c);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		on_info(c, data);
		break;
	case NBD_OPT_STARTTLS:
	case NBD_OPT_STRUCTURED_REPLY:
		on_bare(c);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		on_meta_context(c, data);
		break;
	default:
		refuse(c, NBD_REP_ERR_UNSUP, "unknown option");
	}
}
