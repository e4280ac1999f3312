/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -fw_cfg: files that the user hands to the guest. Main thread, before the guest starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hw/fw_cfg/fw_cfg.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

/* The whole of a file, pipes included. */
static bool load(const char *path, uint8_t **data, size_t *len, struct error **err)
{
	size_t capacity = 4096, n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *buf;
	ssize_t got;

	if (fd < 0) {
		error_set_errno(err, errno, "can't load %s", path);
		return false;
	}
	buf = xmalloc(capacity);
	for (;;) {
		if (n == capacity) {
			capacity *= 2;
			buf = xrealloc(buf, capacity);
		}
		got = read(fd, buf + n, capacity - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		n += got;
		if (n > FW_CFG_USER_FILE_MAX) {
			errno = EFBIG;
			got = -1;
			break;
		}
	}
	if (got < 0) {
		error_set_errno(err, errno, "can't load %s", path);
		close(fd);
		free(buf);
		return false;
	}
	close(fd);
	*data = buf;
	*len = n;
	return true;
}

bool fw_cfg_add_user(struct fw_cfg *fw, struct opts *opts, struct error **err)
{
	static const char *const known[] = {"name", "file", "string"};
	const char *name = opts_get(opts, "name"), *path = opts_get(opts, "file");
	const char *string = opts_get(opts, "string");
	struct fw_cfg_file file = {.name = name, .owned = true};
	uint8_t *data;

	if (!opts_check_used(opts, known, ARRAY_SIZE(known), err))
		return false;
	if (!name || !*name || !string == !path || (path && !*path)) {
		error_set(err, "name, plus exactly one of file and string, are needed");
		return false;
	}
	if (strlen(name) > FW_CFG_NAME_MAX) {
		error_set(err, "name too long (max. %d char)", FW_CFG_NAME_MAX);
		return false;
	}
	if (path) {
		if (!load(path, &data, &file.len, err))
			return false;
	} else {
		data = (uint8_t *)xstrdup(string);
		file.len = strlen(string); /* without its NUL */
	}
	file.data = data;
	if (!fw_cfg_add_file(fw, &file, err)) {
		free(data);
		return false;
	}
	if (strncmp(name, "opt/", 4))
		log_warn("-fw_cfg name=%s: externally provided fw_cfg item names should be "
			 "prefixed with \"opt/\"",
			 name);
	return true;
}
