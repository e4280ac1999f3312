/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation that cannot fail, whole reads and writes, and the command line's numbers.
 * Pure functions, any thread.
 */
#include "vmm/core/util.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

static void *checked(void *p)
{
	if (!p) {
		static const char msg[] = "vmm: out of memory\n";
		(void)!write(STDERR_FILENO, msg, sizeof(msg) - 1);
		_exit(1);
	}
	return p;
}

void *xmalloc(size_t size)
{
	return checked(malloc(size ? size : 1));
}

void *xcalloc(size_t n, size_t size)
{
	return checked(calloc(n ? n : 1, size ? size : 1));
}

void *xrealloc(void *p, size_t size)
{
	return checked(realloc(p, size ? size : 1));
}

char *xstrdup(const char *s)
{
	return checked(strdup(s));
}

char *xstrndup(const char *s, size_t n)
{
	return checked(strndup(s, n));
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		s = NULL;
	va_end(ap);
	return checked(s);
}

int read_full(int fd, void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = read(fd, (char *)buf + done, n - done);

		if (r == 0)
			return -ENODATA;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0)
			done += r;
	}
	return 0;
}

int write_full(int fd, const void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = write(fd, (const char *)buf + done, n - done);

		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0)
			done += r;
	}
	return 0;
}

/*
 * Edits that make one short word of another, two letters that changed places being one edit; anything
 * longer is far from everything.
 */
static unsigned edit_distance(const char *a, const char *b)
{
	enum { LONGEST = 63 };
	unsigned rows[3][LONGEST + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > LONGEST || lb > LONGEST)
		return LONGEST;
	for (size_t j = 0; j <= lb; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);

			row[j] = MIN(above[j - 1] + (x != y), MIN(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				row[j] = MIN(row[j], two_above[j - 2] + 1);
		}
	}
	return rows[la % 3][lb];
}

const char *nearest_name(const char *word, const char *const *names, size_t count)
{
	size_t len = strlen(word);
	unsigned best = len < 4 ? 2 : len / 3 + 1; /* this far off is not the same word */
	const char *found = NULL;

	for (size_t i = 0; i < count; i++) {
		unsigned d = edit_distance(word, names[i]);

		/* A word that was cut short, or written on, is near as well. */
		if (len >= 3 && !strncasecmp(word, names[i], MIN(len, strlen(names[i]))) &&
		    strlen(names[i]) >= 3)
			d = MIN(d, 1u);
		if (d < best) {
			best = d;
			found = names[i];
		}
	}
	return found;
}

bool parse_u64(const char *s, uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*out = strtoull(s, &end, 0);
	return errno == 0 && *end == '\0';
}

bool parse_size(const char *s, uint64_t unit, uint64_t *out)
{
	static const char suffixes[] = "BKMGTPE";
	const char *suffix;
	char *end;
	uint64_t whole;
	double fraction = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
		/* Hexadecimal digits swallow B and E: no suffix follows. */
		whole = strtoull(s, &end, 16);
	} else {
		whole = strtoull(s, &end, 10);
		if (*end == '.') {
			const char *point = end;

			if (!isdigit((unsigned char)end[1]))
				return false;
			end++;
			while (isdigit((unsigned char)*end))
				end++;
			char *digits = xstrndup(point, end - point);
			fraction = strtod(digits, NULL);
			free(digits);
		}
	}
	if (errno)
		return false;
	if (*end) {
		suffix = strchr(suffixes, toupper((unsigned char)*end));
		if (!suffix || end[1])
			return false;
		unit = UINT64_C(1) << (10 * (suffix - suffixes));
	}
	if (fraction != 0 && unit == 1)
		return false;
	if (whole > UINT64_MAX / unit)
		return false;
	uint64_t part = (uint64_t)(fraction * unit + 0.5);
	if (whole * unit > UINT64_MAX - part)
		return false;
	*out = whole * unit + part;
	return true;
}

bool parse_bool(const char *s, bool *out)
{
	static const char *const yes[] = { "on", "yes", "true", "y" };
	static const char *const no[] = { "off", "no", "false", "n" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(s, yes[i]) || !strcmp(s, no[i])) {
			*out = !strcmp(s, yes[i]);
			return true;
		}
	}
	return false;
}
