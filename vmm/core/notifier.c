/* SPDX-License-Identifier: Apache-2.0 */
/* eventfds and lists of callbacks; see notifier.h. */
#include "vmm/core/notifier.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int event_notifier_init(struct event_notifier *n)
{
	n->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return n->fd < 0 ? -errno : 0;
}

void event_notifier_destroy(struct event_notifier *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

void event_notifier_set(struct event_notifier *n)
{
	uint64_t one = 1;

	/* EAGAIN means that the counter is full, which is set enough. */
	while (write(n->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool event_notifier_test_and_clear(struct event_notifier *n)
{
	uint64_t count;
	ssize_t r;

	do
		r = read(n->fd, &count, sizeof(count));
	while (r < 0 && errno == EINTR);
	return r == sizeof(count);
}

void notifier_add(struct notifier_list *list, struct notifier *n)
{
	struct notifier **p = &list->first;

	while (*p)
		p = &(*p)->next;
	n->next = NULL;
	*p = n;
}

void notifier_remove(struct notifier_list *list, struct notifier *n)
{
	for (struct notifier **p = &list->first; *p; p = &(*p)->next) {
		if (*p == n) {
			*p = n->next;
			return;
		}
	}
}

void notifier_fire(struct notifier_list *list, void *data)
{
	for (struct notifier *n = list->first, *next; n; n = next) {
		next = n->next;
		n->fn(n, data);
	}
}
