/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for people. Each line leaves in one write(2), so that lines of several threads and
 * processes do not mix. Any thread; the settings are made at start-up.
 */
#include "vmm/core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/core/evloop.h"
#include "vmm/core/util.h"

/* See log.h: standard error is the process's, and so is how we write to it. */
static struct {
	const char *program;
	bool timestamps;
	int debug_fd;
	char items[256]; /* ",guest_errors,pci," */
} sink = { .program = "vmm", .debug_fd = STDERR_FILENO };

void log_set_timestamps(bool on)
{
	sink.timestamps = on;
}

void log_set_program(const char *name)
{
	sink.program = name;
}

bool log_set_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);

	if (fd < 0)
		return false;
	if (sink.debug_fd != STDERR_FILENO)
		close(sink.debug_fd);
	sink.debug_fd = fd;
	return true;
}

void log_enable(const char *item)
{
	size_t used = strlen(sink.items);

	if (*item && !log_enabled(item) && used + strlen(item) + 3 <= sizeof(sink.items))
		snprintf(sink.items + used, sizeof(sink.items) - used, "%s%s,", used ? "" : ",",
			 item);
}

bool log_enabled(const char *item)
{
	const char *p = sink.items;
	size_t len = strlen(item);

	while (len && (p = strstr(p, item))) {
		if (p > sink.items && p[-1] == ',' && p[len] == ',')
			return true;
		p += len;
	}
	return false;
}

static void emit(int fd, const char *kind, const char *fmt, va_list ap)
{
	char line[4096];
	size_t used = 0;

	if (sink.timestamps) {
		struct timespec now;
		struct tm tm;

		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &tm);
		used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
		used += snprintf(line + used, sizeof(line) - used, ".%06ldZ ", now.tv_nsec / 1000);
	}
	used += snprintf(line + used, sizeof(line) - used, "%s: %s", sink.program, kind);
	used += vsnprintf(line + used, sizeof(line) - used, fmt, ap);
	used = MIN(used, sizeof(line) - 2);
	line[used++] = '\n';
	write_full(fd, line, used);
}

#define EMIT(fd, kind)                     \
	do {                               \
		int saved_errno = errno;   \
		va_list ap;                \
		va_start(ap, fmt);         \
		emit(fd, kind, fmt, ap);   \
		va_end(ap);                \
		errno = saved_errno;       \
	} while (0)

void log_error(const char *fmt, ...)
{
	EMIT(STDERR_FILENO, "");
}

void log_warn(const char *fmt, ...)
{
	EMIT(STDERR_FILENO, "warning: ");
}

void log_info(const char *fmt, ...)
{
	EMIT(STDERR_FILENO, "info: ");
}

void log_debug(const char *item, const char *fmt, ...)
{
	if (log_enabled(item))
		EMIT(sink.debug_fd, "");
}

void log_guest_error(struct log_ratelimit *rl, const char *fmt, ...)
{
	enum { BURST = 5 };
	int64_t now = clock_now(&clock_monotonic);
	int64_t start = atomic_load_explicit(&rl->window_start, memory_order_relaxed);
	uint32_t seen;

	if (start == 0 || now - start > 10 * NSEC_PER_SEC) {
		/* Whoever wins the exchange opens the window and tells what the last one dropped. */
		if (atomic_compare_exchange_strong(&rl->window_start, &start, now)) {
			seen = atomic_exchange(&rl->count, 0);
			if (seen > BURST)
				log_warn("guest: %u more messages like the last were dropped",
					 seen - BURST);
		}
	}
	if (atomic_fetch_add(&rl->count, 1) < BURST)
		EMIT(STDERR_FILENO, "warning: guest: ");
}
