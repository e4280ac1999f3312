/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GnuTLS's functions, found when credentials are made: the library brings eight others with it,
 * which every start of the program would wait for.
 */
#ifndef VMM_CORE_TLS_CALLS_H
#define VMM_CORE_TLS_CALLS_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>

#include "vmm/core/error.h"

#define TLS_CALLS(X)                                                                               \
	X(bye)                                                                                     \
	X(certificate_allocate_credentials)                                                        \
	X(certificate_free_credentials)                                                            \
	X(certificate_server_set_request)                                                          \
	X(certificate_set_known_dh_params)                                                         \
	X(certificate_set_x509_crl_file)                                                           \
	X(certificate_set_x509_key_file2)                                                          \
	X(certificate_set_x509_system_trust)                                                       \
	X(certificate_set_x509_trust_file)                                                         \
	X(certificate_verification_status_print)                                                   \
	X(credentials_set)                                                                         \
	X(deinit)                                                                                  \
	X(error_is_fatal)                                                                          \
	X(free)                                                                                    \
	X(handshake)                                                                               \
	X(init)                                                                                    \
	X(priority_deinit)                                                                         \
	X(priority_init)                                                                           \
	X(priority_set_direct)                                                                     \
	X(psk_allocate_client_credentials)                                                         \
	X(psk_allocate_server_credentials)                                                         \
	X(psk_free_client_credentials)                                                             \
	X(psk_free_server_credentials)                                                             \
	X(psk_set_client_credentials)                                                              \
	X(psk_set_server_credentials_file)                                                         \
	X(psk_set_server_known_dh_params)                                                          \
	X(record_get_direction)                                                                    \
	X(record_recv)                                                                             \
	X(record_send)                                                                             \
	X(server_name_set)                                                                         \
	X(session_get_verify_cert_status)                                                          \
	X(session_set_verify_cert2)                                                                \
	X(strerror)                                                                                \
	X(transport_set_int2)

struct tls_calls {
#define TLS_CALL(name) __typeof__(gnutls_##name) *name;
	TLS_CALLS(TLS_CALL)
#undef TLS_CALL
};

/* Main thread. The library stays loaded. */
bool tls_calls_load(struct tls_calls *calls, struct error **err);

#endif
