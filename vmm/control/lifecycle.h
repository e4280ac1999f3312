/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the process: going to the background, the pid file, signals, its name.
 *
 * Main thread. The order of a start:
 *
 *   lifecycle_init()
 *   lifecycle_daemonize()  before threads, event loops and /dev/kvm: it forks
 *   lifecycle_signals()    before threads too, and before anything waits
 *   lifecycle_pidfile()
 *   ... sockets, guest ...
 *   lifecycle_ready()      when all is there: the waiting parent exits 0
 *   ... evloop_run() ...
 *   lifecycle_destroy()    on every way out
 */
#ifndef VMM_CONTROL_LIFECYCLE_H
#define VMM_CONTROL_LIFECYCLE_H

#include <stdbool.h>

#include "vmm/core/error.h"
#include "vmm/core/evloop.h"

struct lifecycle {
	int ready_fd; /* to the parent that waits; -1 without -daemonize */
	int pid_fd;   /* holds the pid file's lock */
	char *pid_path;
	struct evloop *loop;
	int signal_fd;
	struct ev_fd signal_ev;
	void (*quit)(void *opaque);
	void *opaque;
};

void lifecycle_init(struct lifecycle *l);
/* Gives the pid file up and removes it; harmless for what was not begun. A parent that still waits
 * exits 1. */
void lifecycle_destroy(struct lifecycle *l);

/* Forks. The parent does not come back: it exits 0 at lifecycle_ready(), 1 if the child ends
 * before. The child's messages still go to standard error until then. */
bool lifecycle_daemonize(struct lifecycle *l, struct error **err);
/* Tells the parent, leaves the directory and the terminal. Nothing without -daemonize. */
bool lifecycle_ready(struct lifecycle *l, struct error **err);

/* Written, locked (fcntl(2), so that the lock ends with the process), removed at the end. */
bool lifecycle_pidfile(struct lifecycle *l, const char *path, struct error **err);

/* SIGTERM, SIGINT, SIGHUP call quit on the loop; SIGTSTP and SIGCONT look after the terminal;
 * SIGPIPE is ignored. */
bool lifecycle_signals(struct lifecycle *l, struct evloop *loop, void (*quit)(void *opaque),
		       void *opaque, struct error **err);

/* -name process=: what ps shows; 15 bytes count. */
void lifecycle_set_name(const char *name);
/* -overcommit mem-lock=on: all memory, present and future. */
bool lifecycle_lock_memory(struct error **err);

#endif
