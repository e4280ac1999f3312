/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's mistakes: options, images, QMP arguments, a host that lacks a feature.
 *
 * A function that can meet one takes `struct error **err` last and returns false (or NULL). It
 * sets *err exactly once, to one line without a final newline or full stop; err may be NULL when
 * the caller only asks whether. The receiver frees it. Run-time failures of the host are negative
 * errno values instead, and a guest's misbehaviour never becomes a struct error.
 *
 * Any thread; an error belongs to one thread at a time.
 */
#ifndef VMM_CORE_ERROR_H
#define VMM_CORE_ERROR_H

#include <stdarg.h>

/* QMP's error classes (qapi/error.json). */
enum error_class {
	ERROR_GENERIC,
	ERROR_COMMAND_NOT_FOUND,
	ERROR_DEVICE_NOT_ACTIVE,
	ERROR_DEVICE_NOT_FOUND,
	ERROR_KVM_MISSING_CAP,
};

struct error;

void error_set(struct error **err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void error_vset(struct error **err, const char *fmt, va_list ap);
void error_set_class(struct error **err, enum error_class class, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* "<fmt>: <strerror(errnum)>"; errnum may be negative. */
void error_set_errno(struct error **err, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts text in front of an error that was set ("-drive file=x: "); nothing if *err is NULL. */
void error_prefix(struct error **err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Hands on an error that lay somewhere; frees it where nobody asks for one. */
void error_propagate(struct error **err, struct error *from);

const char *error_message(const struct error *err);
enum error_class error_class(const struct error *err);
/* The class's QMP name, e.g. "GenericError". */
const char *error_class_name(const struct error *err);
void error_free(struct error *err);

/* Prints "vmm: <message>" to the log as an error, frees it. */
void error_report(struct error *err);

#endif
