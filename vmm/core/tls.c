/* SPDX-License-Identifier: Apache-2.0 */
/* TLS credentials and sessions; see tls.h. */
#include "vmm/core/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "vmm/core/secret.h"
#include "vmm/core/util.h"

#ifdef CONFIG_GNUTLS
#include "vmm/core/tls_calls.h"

struct tls_creds {
	struct tls_calls lib;
	bool server, psk, verify_peer;
	char *dir, *priority, *username;
	gnutls_certificate_credentials_t cert;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_psk_client_credentials_t psk_client;
};

struct tls_session {
	const struct tls_creds *creds;
	gnutls_session_t session;
	char *hostname;
	gnutls_typed_vdata_st want[2]; /* of the peer; GnuTLS keeps the pointer */
};

static void creds_free(void *object)
{
	struct tls_creds *c = object;

	if (c->cert)
		c->lib.certificate_free_credentials(c->cert);
	if (c->psk_server)
		c->lib.psk_free_server_credentials(c->psk_server);
	if (c->psk_client)
		c->lib.psk_free_client_credentials(c->psk_client);
	free(c->dir);
	free(c->priority);
	free(c->username);
	free(c);
}

/* What both kinds have; their priority strings differ. */
static struct tls_creds *creds_new(struct opts *opts, const char *priority, struct error **err)
{
	static const char *const endpoints[] = {"client", "server", NULL};
	const char *dir = opts_get(opts, "dir"), *given = opts_get(opts, "priority");
	struct tls_creds *c = xcalloc(1, sizeof(*c));
	gnutls_priority_t parsed;
	const char *where;
	int endpoint = 0, ret;

	c->verify_peer = true;
	if (!opts_get_enum(opts, "endpoint", endpoints, &endpoint, err) ||
	    !opts_get_bool(opts, "verify-peer", &c->verify_peer, err))
		goto fail;
	if (!dir || !*dir) {
		error_set(err, "Missing 'dir' property value");
		goto fail;
	}
	c->server = endpoint;
	c->dir = xstrdup(dir);
	c->priority = xasprintf("%s%s", given ? given : "NORMAL", priority);
	if (!tls_calls_load(&c->lib, err))
		goto fail;
	ret = c->lib.priority_init(&parsed, c->priority, &where);
	if (ret < 0) {
		error_set(err, "Unable to set TLS session priority %s: %s", c->priority,
			  c->lib.strerror(ret));
		goto fail;
	}
	c->lib.priority_deinit(parsed);
	return c;
fail:
	creds_free(c);
	return NULL;
}

static char *path_in(const struct tls_creds *c, const char *name)
{
	return xasprintf("%s/%s", c->dir, name);
}

/* Whether it is there; *path is set either way. A file that must be there and is not is an error.
 */
static bool have_file(const struct tls_creds *c, const char *name, bool must, char **path,
		      struct error **err)
{
	*path = path_in(c, name);
	if (!access(*path, R_OK))
		return true;
	if (must || errno != ENOENT)
		error_set_errno(err, errno, "Unable to access credentials %s", *path);
	return false;
}

static bool load_trust(struct tls_creds *c, struct error **err)
{
	struct error *why = NULL;
	char *path;
	int ret = 0;

	/* A server that asks for no certificates does without. */
	if (have_file(c, "ca-cert.pem", !c->server || c->verify_peer, &path, &why)) {
		ret = c->lib.certificate_set_x509_trust_file(c->cert, path, GNUTLS_X509_FMT_PEM);
		if (ret < 0)
			error_set(&why, "Cannot load CA certificate '%s': %s", path,
				  c->lib.strerror(ret));
	}
	free(path);
	path = NULL;
	if (!why && have_file(c, "ca-crl.pem", false, &path, &why)) {
		ret = c->lib.certificate_set_x509_crl_file(c->cert, path, GNUTLS_X509_FMT_PEM);
		if (ret < 0)
			error_set(&why, "Cannot load CRL '%s': %s", path, c->lib.strerror(ret));
	}
	free(path);
	if (why)
		error_propagate(err, why);
	return !why;
}

/* password: of the key's file, or NULL. */
static bool load_own(struct tls_creds *c, const char *password, struct error **err)
{
	char *cert = NULL, *key = NULL;
	struct error *why = NULL;
	int ret;

	if (have_file(c, c->server ? "server-cert.pem" : "client-cert.pem", c->server, &cert,
		      &why) &&
	    have_file(c, c->server ? "server-key.pem" : "client-key.pem", true, &key, &why)) {
		ret = c->lib.certificate_set_x509_key_file2(c->cert, cert, key, GNUTLS_X509_FMT_PEM,
							    password, 0);
		if (ret < 0)
			error_set(&why, "Cannot load certificate '%s' & key '%s': %s", cert, key,
				  c->lib.strerror(ret));
	}
	free(cert);
	free(key);
	if (why)
		error_propagate(err, why);
	return !why;
}

/* The key's file may be encrypted, with a secret's bytes. */
static bool load_key(struct tls_creds *c, const struct objects *objects, const char *secret,
		     struct error **err)
{
	const uint8_t *bytes;
	char *password;
	size_t len;
	bool ok;

	if (!secret)
		return load_own(c, NULL, err);
	bytes = secret_find(objects, secret, &len, err);
	if (!bytes)
		return false;
	password = xstrndup((const char *)bytes, len);
	ok = load_own(c, password, err);
	secret_free(password, len);
	return ok;
}

static void *x509_create(const struct objects *objects, const char *id, struct opts *opts,
			 struct error **err)
{
	struct tls_creds *c = creds_new(opts, "", err);
	int ret;

	if (!c)
		return NULL;
	ret = c->lib.certificate_allocate_credentials(&c->cert);
	if (ret < 0) {
		error_set(err, "Cannot allocate credentials: %s", c->lib.strerror(ret));
		goto fail;
	}
	if (!load_trust(c, err) || !load_key(c, objects, opts_get(opts, "passwordid"), err))
		goto fail;
	if (c->server)
		c->lib.certificate_set_known_dh_params(c->cert, GNUTLS_SEC_PARAM_MEDIUM);
	return c;
fail:
	creds_free(c);
	return NULL;
}

/* The hexadecimal key behind "username:" in keys.psk. */
static bool find_key(const char *path, const char *username, char **key, struct error **err)
{
	size_t len = strlen(username), room = 0;
	FILE *f = fopen(path, "re");
	char *line = NULL;
	ssize_t n;

	if (!f) {
		error_set_errno(err, errno, "Unable to access credentials %s", path);
		return false;
	}
	while ((n = getline(&line, &room, f)) > 0) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strncmp(line, username, len) && line[len] == ':')
			break;
	}
	fclose(f);
	if (n > 0)
		*key = xstrdup(line + len + 1);
	else
		error_set(err, "Username '%s' not found in '%s'", username, path);
	free(line);
	return n > 0;
}

static bool load_psk_client(struct tls_creds *c, const char *path, struct error **err)
{
	gnutls_datum_t datum;
	char *key = NULL;
	int ret;

	if (!find_key(path, c->username, &key, err))
		return false;
	datum = (gnutls_datum_t){(unsigned char *)key, strlen(key)};
	ret = c->lib.psk_allocate_client_credentials(&c->psk_client);
	if (!ret)
		ret = c->lib.psk_set_client_credentials(c->psk_client, c->username, &datum,
							GNUTLS_PSK_KEY_HEX);
	free(key);
	if (ret < 0)
		error_set(err, "Failed to set client credentials: %s", c->lib.strerror(ret));
	return ret >= 0;
}

static bool load_psk_server(struct tls_creds *c, const char *path, struct error **err)
{
	int ret = c->lib.psk_allocate_server_credentials(&c->psk_server);

	if (!ret)
		ret = c->lib.psk_set_server_credentials_file(c->psk_server, path);
	if (ret < 0) {
		error_set(err, "Failed to set server credentials: %s", c->lib.strerror(ret));
		return false;
	}
	c->lib.psk_set_server_known_dh_params(c->psk_server, GNUTLS_SEC_PARAM_MEDIUM);
	return true;
}

static void *psk_create(const struct objects *objects, const char *id, struct opts *opts,
			struct error **err)
{
	struct tls_creds *c = creds_new(opts, ":+ECDHE-PSK:+DHE-PSK:+PSK", err);
	const char *username = opts_get(opts, "username");
	char *path;
	bool ok = false;

	if (!c)
		return NULL;
	c->psk = true;
	if (c->server && username) {
		error_set(err, "username should not be set when endpoint=server");
		goto fail;
	}
	c->username = xstrdup(username ? username : "qemu");
	if (have_file(c, "keys.psk", true, &path, err))
		ok = c->server ? load_psk_server(c, path, err) : load_psk_client(c, path, err);
	free(path);
	if (ok)
		return c;
fail:
	creds_free(c);
	return NULL;
}

static const struct tls_creds *find(const struct objects *objects, const char *id)
{
	const struct tls_creds *c = objects_find(objects, &tls_creds_x509_type, id);

	return c ? c : objects_find(objects, &tls_creds_psk_type, id);
}

const struct tls_creds *tls_creds_find(const struct objects *objects, const char *id, bool server,
				       struct error **err)
{
	const struct tls_creds *c = find(objects, id);

	if (!c) {
		error_set(err, "No TLS credentials with id '%s'", id);
		return NULL;
	}
	if (c->server != server) {
		error_set(err, "Expecting TLS credentials with a %s endpoint",
			  server ? "server" : "client");
		return NULL;
	}
	return c;
}

struct tls_creds *tls_creds_system(struct error **err)
{
	struct tls_creds *c = xcalloc(1, sizeof(*c));
	int ret;

	if (!tls_calls_load(&c->lib, err)) {
		creds_free(c);
		return NULL;
	}
	ret = c->lib.certificate_allocate_credentials(&c->cert);
	c->verify_peer = true;
	c->priority = xstrdup("NORMAL");
	if (ret >= 0)
		ret = c->lib.certificate_set_x509_system_trust(c->cert);
	if (ret >= 0)
		return c;
	error_set(err, "Cannot load the system's certificate authorities: %s",
		  c->lib.strerror(ret));
	creds_free(c);
	return NULL;
}

void tls_creds_free(struct tls_creds *creds)
{
	if (creds)
		creds_free(creds);
}

bool tls_creds_need_hostname(const struct tls_creds *creds)
{
	return !creds->server && !creds->psk && creds->verify_peer;
}

/* Who the peer must be is said before the handshake, which then checks it. */
static void expect_peer(struct tls_session *tls)
{
	const struct tls_creds *c = tls->creds;
	gnutls_typed_vdata_st *want = tls->want;

	if (c->psk)
		return;
	if (c->server)
		tls->creds->lib.certificate_server_set_request(
			tls->session, c->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
	if (!c->verify_peer)
		return;
	want[0] = (gnutls_typed_vdata_st){
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)(c->server ? GNUTLS_KP_TLS_WWW_CLIENT
						    : GNUTLS_KP_TLS_WWW_SERVER)};
	want[1] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME,
					  .data = (unsigned char *)tls->hostname};
	tls->creds->lib.session_set_verify_cert2(tls->session, want, tls->hostname ? 2 : 1, 0);
}

static int set_credentials(struct tls_session *tls)
{
	const struct tls_creds *c = tls->creds;

	if (!c->psk)
		return tls->creds->lib.credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE,
						       c->cert);
	return tls->creds->lib.credentials_set(tls->session, GNUTLS_CRD_PSK,
					       c->server ? (void *)c->psk_server
							 : (void *)c->psk_client);
}

struct tls_session *tls_session_new(const struct tls_creds *creds, int fd, const char *hostname,
				    struct error **err)
{
	struct tls_session *tls;
	const char *where;
	int ret;

	if (tls_creds_need_hostname(creds) && !hostname) {
		error_set(err, "No hostname for certificate validation");
		return NULL;
	}
	tls = xcalloc(1, sizeof(*tls));
	tls->creds = creds;
	tls->hostname = hostname && !creds->server ? xstrdup(hostname) : NULL;
	ret = creds->lib.init(&tls->session, (creds->server ? GNUTLS_SERVER : GNUTLS_CLIENT) |
						     GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (ret >= 0)
		ret = creds->lib.priority_set_direct(tls->session, creds->priority, &where);
	if (ret >= 0)
		ret = set_credentials(tls);
	if (ret < 0) {
		error_set(err, "Cannot start TLS: %s", creds->lib.strerror(ret));
		tls_session_free(tls);
		return NULL;
	}
	if (tls->hostname && !creds->psk)
		creds->lib.server_name_set(tls->session, GNUTLS_NAME_DNS, tls->hostname,
					   strlen(tls->hostname));
	expect_peer(tls);
	creds->lib.transport_set_int2(tls->session, fd, fd);
	return tls;
}

void tls_session_free(struct tls_session *tls)
{
	if (!tls)
		return;
	if (tls->session)
		tls->creds->lib.deinit(tls->session);
	free(tls->hostname);
	free(tls);
}

static void verification_error(struct tls_session *tls, struct error **err)
{
	unsigned status = tls->creds->lib.session_get_verify_cert_status(tls->session);
	gnutls_datum_t text = {0};

	if (tls->creds->lib.certificate_verification_status_print(status, GNUTLS_CRT_X509, &text,
								  0) < 0)
		text.data = NULL;
	/* Sentences, each with a space behind it. */
	while (text.data && text.size && strchr(" .\n", text.data[text.size - 1]))
		text.data[--text.size] = 0;
	error_set(err, "TLS handshake failed: the peer's certificate: %s",
		  text.data ? (char *)text.data : "not trusted");
	(*tls->creds->lib.free)(text.data);
}

int tls_handshake(struct tls_session *tls, struct error **err)
{
	int ret;

	do
		ret = tls->creds->lib.handshake(tls->session);
	while (ret < 0 && ret != GNUTLS_E_AGAIN && !tls->creds->lib.error_is_fatal(ret));
	if (!ret)
		return 0;
	if (ret == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (ret == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
		verification_error(tls, err);
	else
		error_set(err, "TLS handshake failed: %s", tls->creds->lib.strerror(ret));
	return -EPROTO;
}

bool tls_wants_write(const struct tls_session *tls)
{
	return tls->creds->lib.record_get_direction(tls->session);
}

/* A peer that asks for a new handshake in a running session gets none. */
static ssize_t result(ssize_t ret)
{
	if (ret >= 0)
		return ret;
	return ret == GNUTLS_E_AGAIN ? -EAGAIN : -EIO;
}

ssize_t tls_recv(struct tls_session *tls, void *buf, size_t bytes)
{
	ssize_t ret;

	do
		ret = tls->creds->lib.record_recv(tls->session, buf, bytes);
	while (ret == GNUTLS_E_INTERRUPTED);
	return result(ret);
}

ssize_t tls_send(struct tls_session *tls, const void *buf, size_t bytes)
{
	ssize_t ret;

	do
		ret = tls->creds->lib.record_send(tls->session, buf, bytes);
	while (ret == GNUTLS_E_INTERRUPTED);
	return result(ret);
}

void tls_bye(struct tls_session *tls)
{
	tls->creds->lib.bye(tls->session, GNUTLS_SHUT_WR);
}

#else

static void *refuse(const struct objects *objects, const char *id, struct opts *opts,
		    struct error **err)
{
	error_set(err, "TLS is not supported by this build (GnuTLS was missing)");
	return NULL;
}

static void *x509_create(const struct objects *objects, const char *id, struct opts *opts,
			 struct error **err)
{
	return refuse(objects, id, opts, err);
}

static void *psk_create(const struct objects *objects, const char *id, struct opts *opts,
			struct error **err)
{
	return refuse(objects, id, opts, err);
}

/* There are no credentials, and so no sessions either. */
static void creds_free(void *object)
{
}

const struct tls_creds *tls_creds_find(const struct objects *objects, const char *id, bool server,
				       struct error **err)
{
	error_set(err, "No TLS credentials with id '%s'", id);
	return NULL;
}

struct tls_creds *tls_creds_system(struct error **err)
{
	return refuse(NULL, NULL, NULL, err);
}

void tls_creds_free(struct tls_creds *creds)
{
}

bool tls_creds_need_hostname(const struct tls_creds *creds)
{
	return false;
}

struct tls_session *tls_session_new(const struct tls_creds *creds, int fd, const char *hostname,
				    struct error **err)
{
	return refuse(NULL, NULL, NULL, err);
}

void tls_session_free(struct tls_session *tls)
{
}

int tls_handshake(struct tls_session *tls, struct error **err)
{
	return -EPROTO;
}

bool tls_wants_write(const struct tls_session *tls)
{
	return false;
}

ssize_t tls_recv(struct tls_session *tls, void *buf, size_t bytes)
{
	return -EIO;
}

ssize_t tls_send(struct tls_session *tls, const void *buf, size_t bytes)
{
	return -EIO;
}

void tls_bye(struct tls_session *tls)
{
}
#endif

const struct object_type tls_creds_x509_type = {
	.name = "tls-creds-x509",
	.create = x509_create,
	.free = creds_free,
};

const struct object_type tls_creds_psk_type = {
	.name = "tls-creds-psk",
	.create = psk_create,
	.free = creds_free,
};
