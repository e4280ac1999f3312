/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An event counter in the kernel (eventfd(2)): how a doorbell reaches an I/O thread, and how a
 * device thread raises an interrupt without a system call into the accelerator.
 * Any thread may set; one clears.
 */
#ifndef VMM_CORE_NOTIFIER_H
#define VMM_CORE_NOTIFIER_H

#include <stdbool.h>

struct event_notifier {
	int fd; /* -1 when not initialised */
};

/* 0 or -errno. Non-blocking, close-on-exec. */
int event_notifier_init(struct event_notifier *n);
void event_notifier_destroy(struct event_notifier *n);
void event_notifier_set(struct event_notifier *n);
/* Whether it had been set. */
bool event_notifier_test_and_clear(struct event_notifier *n);

/* A list of callbacks on something that happens (run state, memory, reset, exit). Main thread. */
struct notifier {
	void (*fn)(struct notifier *n, void *data);
	struct notifier *next;
};
struct notifier_list {
	struct notifier *first;
};
void notifier_add(struct notifier_list *list, struct notifier *n);
void notifier_remove(struct notifier_list *list, struct notifier *n); /* harmless if absent */
/* In the order of adding; a callback may remove itself. */
void notifier_fire(struct notifier_list *list, void *data);

#endif
