/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's memory behind the guest's RAM: -object memory-backend-ram, -memfd and -file, or what a
 * board makes by itself when none is named. Its bytes are mapped from creation to destruction.
 *
 * Main thread; the bytes are everybody's. Owner: whoever keeps the list.
 */
#ifndef VMM_CORE_MEMORY_BACKEND_H
#define VMM_CORE_MEMORY_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/core/error.h"
#include "vmm/core/opts.h"

struct memory_backend {
	char *id;
	uint64_t size;	    /* bytes, a multiple of page_size */
	uint64_t page_size; /* the host's pages: 4 KiB, or huge ones */
	uint8_t *hva;	    /* aligned to page_size, and to 2 MiB if it is as long as that */
	int fd;		    /* what another process can map at offset 0, or -1 */
	bool share;	    /* it sees the guest's writes */
	bool discard;	    /* the file's contents are given up at the end */
	struct memory_backend *next;
};

/* What the machine says about all of its memory. */
struct memory_defaults {
	bool merge; /* same-page merging */
	bool dump;  /* part of the process's core dumps */
	bool prealloc;
};

/* Anonymous, private memory; share: a memory file instead, that another process can be given.
 * Nothing is reserved: pages come when they are touched. */
struct memory_backend *memory_backend_new(uint64_t size, bool share,
					  const struct memory_defaults *defaults,
					  struct error **err);
/* NULL is allowed. */
void memory_backend_free(struct memory_backend *mb);

/* Whether opts' qom-type is one of these. */
bool memory_backend_is_type(const char *qom_type);
/* Makes what -object says and puts it at the head of the list. */
bool memory_backends_add(struct memory_backend **list, struct opts *opts,
			 const struct memory_defaults *defaults, struct error **err);
struct memory_backend *memory_backends_find(struct memory_backend *list, const char *id);

#endif
