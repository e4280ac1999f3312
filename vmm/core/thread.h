/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads with names. Signals that end the process are blocked in all of them but main.
 */
#ifndef VMM_CORE_THREAD_H
#define VMM_CORE_THREAD_H

#include <pthread.h>

#include "vmm/core/error.h"
#include "vmm/core/evloop.h"

/* name: at most 15 bytes are shown by the kernel ("CPU 0/KVM", "IO iothread0"). */
bool thread_start(pthread_t *thread, const char *name, void *(*fn)(void *opaque), void *opaque,
		  struct error **err);

/* A thread that runs one event loop: -object iothread, and every ioN. Created and freed by the
 * main thread. */
struct iothread {
	char *id;
	struct evloop *loop;
	pthread_t thread;
};
struct iothread *iothread_new(const char *id, struct error **err);
/* Stops, joins, frees. Everything must have left its loop. */
void iothread_free(struct iothread *t);

#endif
