/* SPDX-License-Identifier: Apache-2.0 */
/* The user's mistakes as objects; see error.h. */
#include "vmm/core/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/core/log.h"
#include "vmm/core/util.h"

struct error {
	enum error_class class;
	char *message;
};

static void set(struct error **err, enum error_class class, char *message)
{
	if (!err) {
		free(message);
		return;
	}
	/* The first cause is the one worth reading. */
	if (*err) {
		free(message);
		return;
	}
	*err = xmalloc(sizeof(**err));
	(*err)->class = class;
	(*err)->message = message;
}

static char *format(const char *fmt, va_list ap)
{
	char *s;

	if (vasprintf(&s, fmt, ap) < 0)
		s = xstrdup(fmt);
	return s;
}

void error_vset(struct error **err, const char *fmt, va_list ap)
{
	set(err, ERROR_GENERIC, format(fmt, ap));
}

void error_set(struct error **err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_vset(err, fmt, ap);
	va_end(ap);
}

void error_set_class(struct error **err, enum error_class class, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, class, format(fmt, ap));
	va_end(ap);
}

void error_set_errno(struct error **err, int errnum, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	text = format(fmt, ap);
	va_end(ap);
	set(err, ERROR_GENERIC, xasprintf("%s: %s", text, strerror(abs(errnum))));
	free(text);
}

void error_prefix(struct error **err, const char *fmt, ...)
{
	va_list ap;
	char *prefix, *joined;

	if (!err || !*err)
		return;
	va_start(ap, fmt);
	prefix = format(fmt, ap);
	va_end(ap);
	joined = xasprintf("%s%s", prefix, (*err)->message);
	free(prefix);
	free((*err)->message);
	(*err)->message = joined;
}

const char *error_message(const struct error *err)
{
	return err->message;
}

enum error_class error_class(const struct error *err)
{
	return err->class;
}

const char *error_class_name(const struct error *err)
{
	static const char *const names[] = {
		[ERROR_GENERIC] = "GenericError",
		[ERROR_COMMAND_NOT_FOUND] = "CommandNotFound",
		[ERROR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
		[ERROR_DEVICE_NOT_FOUND] = "DeviceNotFound",
		[ERROR_KVM_MISSING_CAP] = "KVMMissingCap",
	};
	return names[err->class];
}

void error_free(struct error *err)
{
	if (!err)
		return;
	free(err->message);
	free(err);
}

void error_propagate(struct error **err, struct error *from)
{
	if (err)
		*err = from;
	else
		error_free(from);
}

void error_report(struct error *err)
{
	log_error("%s", err->message);
	error_free(err);
}
