/* SPDX-License-Identifier: Apache-2.0 */
/* See net_make.h. */
#include "tests/lib/net_make.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct netdev *net_make(struct evloop *loop, const char *text, struct error **err)
{
	/* Of the context these back ends need the loop alone, when they are made. */
	struct net_context context = {.loop = loop};
	struct opts opts = {0};
	struct netdev *nd;

	assert_true(opts_parse(&opts, text, "type", NULL));
	opts_add(&opts, "id", "n0");
	nd = net_new(&context, &opts, err);
	opts_free(&opts);
	return nd;
}

struct netdev *net_must_make(struct evloop *loop, const char *fmt, ...)
{
	struct error *err = NULL;
	struct netdev *nd;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	nd = net_make(loop, text, &err);
	if (!nd)
		fail_msg("%s: %s", text, error_message(err));
	return nd;
}

void net_must_refuse(const char *text, const char *why)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct error *err = NULL;

	assert_null(net_make(loop, text, &err));
	assert_non_null(err);
	if (!strstr(error_message(err), why))
		fail_msg("%s: %s", text, error_message(err));
	error_free(err);
	evloop_free(loop);
}
