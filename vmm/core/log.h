/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for people: one line each, to standard error ("vmm: ...") .
 *
 * The sink is the one mutable thing in the program with file scope, because standard error is
 * itself the process's. Any thread.
 */
#ifndef VMM_CORE_LOG_H
#define VMM_CORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

/* -msg timestamp=on: lines begin with an ISO 8601 time in UTC. */
void log_set_timestamps(bool on);
/* The program's name in front of each line; "vmm" unless set. Not copied. */
void log_set_program(const char *name);
/* -D FILE: guest-error and debug lines go there instead. False with errno set. */
bool log_set_file(const char *path);
/* -d: comma-separated item names are kept by log_debug(); "guest_errors" is one. */
void log_enable(const char *item);
bool log_enabled(const char *item);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* "warning: " */
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* "info: " */
void log_debug(const char *item, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For what a guest can cause at will: at most burst lines per interval and place, the next line
 * after a pause telling how many were dropped. Zero-initialise with LOG_RATELIMIT. */
struct log_ratelimit {
	_Atomic int64_t window_start; /* ns, CLOCK_MONOTONIC */
	_Atomic uint32_t count;
};
#define LOG_RATELIMIT ((struct log_ratelimit){ 0, 0 })
/* Guest misbehaviour: one rate-limited warning line. rl lives in the device that reports. */
void log_guest_error(struct log_ratelimit *rl, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
