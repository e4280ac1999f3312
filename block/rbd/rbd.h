/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ceph RBD: names, and librbd's functions. For block/rbd/ and block/open.c.
 *
 * librbd is loaded when the first disk wants it: a program that has none is neither larger nor
 * slower to start.
 */
#ifndef BLOCK_RBD_RBD_H
#define BLOCK_RBD_RBD_H

#include "config.h"

#include <stdbool.h>
#include <stddef.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

/* name.c: "rbd:[POOL/[NAMESPACE/]IMAGE][@SNAPSHOT][:KEY=VALUE]...", with \ before special
 * characters, as the driver's options. Keys but id and conf become "keyvalue.N.key" and
 * "keyvalue.N.value". Pure. */
bool rbd_parse_filename(const char *name, struct opts *opts, struct error **err);
/* Key and secret are given as base64. Allocated. */
char *rbd_base64(const void *data, size_t len);

#ifdef CONFIG_RBD
#include <rados/librados.h>
#include <rbd/librbd.h>

#define RADOS_CALLS(F)                                                                             \
	F(rados_create)                                                                            \
	F(rados_conf_read_file)                                                                    \
	F(rados_conf_set)                                                                          \
	F(rados_connect)                                                                           \
	F(rados_shutdown)                                                                          \
	F(rados_ioctx_create)                                                                      \
	F(rados_ioctx_set_namespace)                                                               \
	F(rados_ioctx_destroy)

#define RBD_CALLS(F)                                                                               \
	F(rbd_open)                                                                                \
	F(rbd_open_read_only)                                                                      \
	F(rbd_close)                                                                               \
	F(rbd_stat)                                                                                \
	F(rbd_resize)                                                                              \
	F(rbd_create)                                                                              \
	F(rbd_aio_create_completion)                                                               \
	F(rbd_aio_get_return_value)                                                                \
	F(rbd_aio_release)                                                                         \
	F(rbd_aio_readv)                                                                           \
	F(rbd_aio_writev)                                                                          \
	F(rbd_aio_flush)                                                                           \
	F(rbd_aio_discard)                                                                         \
	F(rbd_aio_write_zeroes)

#define RBD_MEMBER(name) __typeof__(&name) name;
struct rbd_calls {
	RADOS_CALLS(RBD_MEMBER)
	RBD_CALLS(RBD_MEMBER)
};

/* lib.c: false if the library is not there. It stays loaded. */
bool rbd_load(struct rbd_calls *calls, struct error **err);
#endif

#endif
