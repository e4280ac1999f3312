/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libnbd's functions, found when a disk or a listing wants them: the library brings seven others
 * with it, which every start of the program would wait for.
 */
#ifndef BLOCK_NBD_CALLS_H
#define BLOCK_NBD_CALLS_H

#include <libnbd.h>
#include <stdbool.h>

#include "vmm/core/error.h"

#define NBD_CALLS(X)                                                                               \
	X(create)                                                                                  \
	X(close)                                                                                   \
	X(get_errno)                                                                               \
	X(get_error)                                                                               \
	X(set_export_name)                                                                         \
	X(set_full_info)                                                                           \
	X(set_opt_mode)                                                                            \
	X(add_meta_context)                                                                        \
	X(get_size)                                                                                \
	X(get_block_size)                                                                          \
	X(is_read_only)                                                                            \
	X(is_rotational)                                                                           \
	X(can_cache)                                                                               \
	X(can_df)                                                                                  \
	X(can_fast_zero)                                                                           \
	X(can_flush)                                                                               \
	X(can_fua)                                                                                 \
	X(can_meta_context)                                                                        \
	X(can_multi_conn)                                                                          \
	X(can_trim)                                                                                \
	X(can_zero)                                                                                \
	X(aio_block_status)                                                                        \
	X(aio_connect_socket)                                                                      \
	X(aio_disconnect)                                                                          \
	X(aio_flush)                                                                               \
	X(aio_get_direction)                                                                       \
	X(aio_get_fd)                                                                              \
	X(aio_is_closed)                                                                           \
	X(aio_is_dead)                                                                             \
	X(aio_is_negotiating)                                                                      \
	X(aio_is_ready)                                                                            \
	X(aio_notify_read)                                                                         \
	X(aio_notify_write)                                                                        \
	X(aio_opt_abort)                                                                           \
	X(aio_opt_info)                                                                            \
	X(aio_opt_list)                                                                            \
	X(aio_opt_list_meta_context)                                                               \
	X(aio_pread)                                                                               \
	X(aio_pwrite)                                                                              \
	X(aio_trim)                                                                                \
	X(aio_zero)

struct nbd_calls {
#define NBD_CALL(name) __typeof__(nbd_##name) *name;
	NBD_CALLS(NBD_CALL)
#undef NBD_CALL
};

/* Main thread. The library stays loaded. */
bool nbd_calls_load(struct nbd_calls *calls, struct error **err);

#endif
