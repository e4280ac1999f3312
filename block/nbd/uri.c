/* SPDX-License-Identifier: Apache-2.0 */
/* NBD servers as file names; see uri.h. Pure. */
#include "block/nbd/uri.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/nbd/proto.h"
#include "vmm/core/util.h"

static const struct {
	const char *name;
	bool local, tls;
} schemes[] = {
	{"nbd://", false, false},     {"nbds://", false, true},	    {"nbd+tcp://", false, false},
	{"nbds+tcp://", false, true}, {"nbd+unix://", true, false}, {"nbds+unix://", true, true},
};

bool nbd_is_filename(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (!strncmp(name, schemes[i].name, strlen(schemes[i].name)))
			return true;
	return !strncmp(name, "nbd:", 4);
}

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* The n characters at text with %XX as bytes; NULL if there is a broken or a zero one. */
static char *decode(const char *text, size_t n)
{
	char *out = xmalloc(n + 1), *to = out;

	for (size_t i = 0; i < n; i++) {
		if (text[i] != '%') {
			*to++ = text[i];
			continue;
		}
		if (n - i < 3 || !isxdigit((unsigned char)text[i + 1]) ||
		    !isxdigit((unsigned char)text[i + 2]) ||
		    !(*to = hex(text[i + 1]) * 16 + hex(text[i + 2]))) {
			free(out);
			return NULL;
		}
		to++;
		i += 2;
	}
	*to = 0;
	return out;
}

static bool add_decoded(struct opts *opts, const char *key, const char *text, size_t n,
			struct error **err)
{
	char *value = decode(text, n);

	if (value)
		opts_add(opts, key, value);
	else
		error_set(err, "'%.*s' is not well encoded", (int)MIN(n, (size_t)100), text);
	free(value);
	return value;
}

/* "host", "host:port", "[::1]:port", "" */
static bool parse_host(const char *text, size_t n, struct opts *opts, struct error **err)
{
	const char *end = text + n, *host = text, *host_end, *port;
	char number[8];
	uint64_t value;

	if (n && *text == '[') {
		host = text + 1;
		host_end = memchr(text, ']', n);
		port = host_end ? host_end + 1 : NULL;
	} else {
		host_end = memchr(text, ':', n);
		host_end = host_end ? host_end : end;
		port = host_end;
	}
	if (!port || (port < end && *port != ':')) {
		error_set(err, "'%.*s' is not a host and port", (int)MIN(n, (size_t)100), text);
		return false;
	}
	snprintf(number, sizeof(number), "%d", NBD_DEFAULT_PORT);
	if (end - port > 1) {
		snprintf(number, sizeof(number), "%.*s", (int)MIN(end - port - 1, 7), port + 1);
		if (!parse_u64(number, &value) || value > 65535) {
			error_set(err, "'%.*s' is not a port", (int)MIN(end - port - 1, 100),
				  port + 1);
			return false;
		}
	}
	opts_add(opts, "server.type", "inet");
	opts_add(opts, "server.port", number);
	if (host == host_end) {
		opts_add(opts, "server.host", "localhost");
		return true;
	}
	return add_decoded(opts, "server.host", host, host_end - host, err);
}

/* "a=b&c=d"; "socket" is for a unix one and is needed there. */
static bool parse_query(const char *text, bool local, bool tls, struct opts *opts,
			struct error **err)
{
	bool has_socket = false;

	while (*text) {
		size_t n = strcspn(text, "&;"), name = strcspn(text, "=&;");
		const char *value = text + MIN(name + 1, n);
		size_t len = text + n - value;

		if (local && name == 6 && !strncmp(text, "socket", 6)) {
			has_socket = len;
			if (!add_decoded(opts, "server.path", value, len, err))
				return false;
		} else if (tls && name == 12 && !strncmp(text, "tls-hostname", 12)) {
			if (!add_decoded(opts, "tls-hostname", value, len, err))
				return false;
		} else if (n) {
			error_set(err, "Unknown parameter '%.*s' in an NBD URI",
				  (int)MIN(name, (size_t)100), text);
			return false;
		}
		text += n + (text[n] != 0);
	}
	if (local && !has_socket) {
		error_set(err, "an NBD URI of a unix socket needs '?socket=PATH'");
		return false;
	}
	return true;
}

static bool parse_uri(const char *text, bool local, bool tls, struct opts *opts, struct error **err)
{
	size_t authority = strcspn(text, "/?#"), path;
	const char *at = text + authority, *user = memchr(text, '@', authority);

	if (user) {
		error_set(err, "a user's name in an NBD URI is not supported; tls-creds-psk has "
			       "'username'");
		return false;
	}
	if (local ? authority != 0 : !parse_host(text, authority, opts, err)) {
		if (local)
			error_set(err, "an NBD URI of a unix socket has no host");
		return false;
	}
	if (local)
		opts_add(opts, "server.type", "unix");
	at += *at == '/';
	path = strcspn(at, "?#");
	if (path && !add_decoded(opts, "export", at, path, err))
		return false;
	at += path;
	if (*at == '#') {
		error_set(err, "an NBD URI has no fragment");
		return false;
	}
	if (tls)
		opts_add(opts, "tls", "on");
	return parse_query(at + (*at == '?'), local, tls, opts, err);
}

/* What follows "nbd:". */
static bool parse_old(const char *text, struct opts *opts, struct error **err)
{
	static const char mark[] = ":exportname=";
	const char *export = strstr(text, mark);
	size_t n = export ? (size_t)(export - text) : strlen(text);
	char *path;

	if (export && export[sizeof(mark) - 1])
		opts_add(opts, "export", export + sizeof(mark) - 1);
	if (strncmp(text, "unix:", 5)) {
		if (!memchr(text, ':', n)) {
			error_set(err, "No host and port in 'nbd:%.100s'", text);
			return false;
		}
		return parse_host(text, n, opts, err);
	}
	if (n == 5) {
		error_set(err, "No path in 'nbd:%.100s'", text);
		return false;
	}
	path = xstrndup(text + 5, n - 5); /* no encoding here */
	opts_add(opts, "server.type", "unix");
	opts_add(opts, "server.path", path);
	free(path);
	return true;
}

bool nbd_parse_filename(const char *name, struct opts *opts, struct error **err)
{
	opts_add(opts, "driver", "nbd");
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		size_t n = strlen(schemes[i].name);

		if (!strncmp(name, schemes[i].name, n))
			return parse_uri(name + n, schemes[i].local, schemes[i].tls, opts, err);
	}
	return parse_old(name + strlen("nbd:"), opts, err);
}

/* Whatever could end a part of a URI is written as %XX. */
static char *encode(const char *text, const char *also)
{
	char *out = xmalloc(3 * strlen(text) + 1), *to = out;

	for (; *text; text++) {
		if (isalnum((unsigned char)*text) || strchr("-._~", *text) || strchr(also, *text))
			*to++ = *text;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*text);
	}
	*to = 0;
	return out;
}

char *nbd_make_uri(bool tls, const char *path, const char *host, const char *port,
		   const char *export)
{
	char *name = encode(export, "/:@!$'()*,"), *socket = path ? encode(path, "/:@,") : NULL,
	     *uri;
	const char *s = tls ? "s" : "";
	bool v6 = !path && strchr(host, ':');

	if (path)
		uri = xasprintf("nbd%s+unix:///%s?socket=%s", s, name, socket);
	else
		uri = xasprintf("nbd%s://%s%s%s:%s%s%s", s, v6 ? "[" : "", host, v6 ? "]" : "",
				port, *name ? "/" : "", name);
	free(name);
	free(socket);
	return uri;
}
