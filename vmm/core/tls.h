/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS through GnuTLS: credentials, which -object tls-creds-x509 and tls-creds-psk make, and
 * sessions on a socket that does not block. Without GnuTLS the objects are refused, so that no
 * session is ever made.
 *
 * Folders are laid out as QEMU's: ca-cert.pem, ca-crl.pem, server-cert.pem, server-key.pem,
 * client-cert.pem, client-key.pem; keys.psk.
 *
 * Credentials are the main thread's and are only read once made; a session is its user's thread's.
 */
#ifndef VMM_CORE_TLS_H
#define VMM_CORE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vmm/core/error.h"
#include "vmm/core/objects.h"

struct tls_creds;
struct tls_session;

extern const struct object_type tls_creds_x509_type, tls_creds_psk_type;

/* The object id, for one end; NULL with err if there is none or it is for the other end. */
const struct tls_creds *tls_creds_find(const struct objects *objects, const char *id, bool server,
				       struct error **err);
/* For a client that was given none: whom the host trusts, and no certificate of its own. */
struct tls_creds *tls_creds_system(struct error **err);
void tls_creds_free(struct tls_creds *creds); /* that one; NULL is allowed */
/* Whether a client must know the name that the server's certificate is to carry. */
bool tls_creds_need_hostname(const struct tls_creds *creds);

/* fd is borrowed and does not block. hostname: what the server's certificate is to say. */
struct tls_session *tls_session_new(const struct tls_creds *creds, int fd, const char *hostname,
				    struct error **err);
void tls_session_free(struct tls_session *tls);
/* 0: both ends are who they should be; -EAGAIN: go on when the socket is ready; or -EPROTO, with
 * err. */
int tls_handshake(struct tls_session *tls, struct error **err);
/* What the handshake waits for: true to write, false to read. */
bool tls_wants_write(const struct tls_session *tls);
/* Bytes, 0 at the peer's end, -EAGAIN, or -errno. Received bytes may lie ready in the session while
 * the socket is silent: read until -EAGAIN. A send that met -EAGAIN is repeated as it was. */
ssize_t tls_recv(struct tls_session *tls, void *buf, size_t bytes);
ssize_t tls_send(struct tls_session *tls, const void *buf, size_t bytes);
/* Tells the peer that nothing more comes; does not wait. */
void tls_bye(struct tls_session *tls);

#endif
