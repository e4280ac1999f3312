/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with names, and threads that run an event loop; see thread.h. */
#include "vmm/core/thread.h"

#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/core/util.h"

bool thread_start(pthread_t *thread, const char *name, void *(*fn)(void *opaque), void *opaque,
		  struct error **err)
{
	sigset_t all, old;
	char shown[16];
	int r;

	/* Faults stay deliverable; everything else is for the main thread. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, fn, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		error_set_errno(err, r, "cannot start thread '%s'", name);
		return false;
	}
	snprintf(shown, sizeof(shown), "%s", name);
	pthread_setname_np(*thread, shown);
	return true;
}

static void *run_loop(void *opaque)
{
	struct iothread *t = opaque;

	evloop_run(t->loop);
	return NULL;
}

static void tell_running(void *opaque)
{
	sem_post(opaque);
}

struct iothread *iothread_new(const char *id, struct error **err)
{
	struct iothread *t = xcalloc(1, sizeof(*t));
	struct ev_work work;
	char name[32];
	sem_t running;

	t->id = xstrdup(id);
	t->loop = evloop_new(NULL, err);
	if (!t->loop)
		goto fail;
	snprintf(name, sizeof(name), "IO %s", id);
	if (!thread_start(&t->thread, name, run_loop, t, err))
		goto fail_loop;
	/* Only a running loop knows whose it is (evloop_is_mine, evloop_call). */
	sem_init(&running, 0, 0);
	ev_work_init(&work, tell_running, &running);
	evloop_post(t->loop, &work);
	while (sem_wait(&running))
		;
	sem_destroy(&running);
	return t;
fail_loop:
	evloop_free(t->loop);
fail:
	free(t->id);
	free(t);
	return NULL;
}

void iothread_free(struct iothread *t)
{
	if (!t)
		return;
	evloop_stop(t->loop);
	pthread_join(t->thread, NULL);
	evloop_free(t->loop);
	free(t->id);
	free(t);
}
