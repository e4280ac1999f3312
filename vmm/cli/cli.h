/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: QEMU's options into struct vm_config. One table (options.c) drives parsing, -h
 * and the manual.
 *
 * Main thread, once, before anything else exists.
 */
#ifndef VMM_CLI_CLI_H
#define VMM_CLI_CLI_H

#include <stdio.h>

#include "vmm/config.h"
#include "vmm/core/device.h"
#include "vmm/core/error.h"

enum cli_result {
	CLI_RUN,   /* config is whole */
	CLI_DONE,  /* an answer was printed to standard output (-h, -version, -chardev help): exit 0
		    */
	CLI_ERROR, /* err is set: exit 1 */
};

/* argv[0] is skipped. config was initialised and is to be freed in each case. */
enum cli_result cli_parse(struct vm_config *config, int argc, char *const *argv,
			  struct error **err);

/* -cloud-init: makes the seed and adds its drive and device to config. *fd is to stay open until
 * the drive is; -1 without -cloud-init. */
bool cli_make_seed(struct vm_config *config, int *fd, struct error **err);

void cli_print_help(FILE *out);
void cli_print_version(FILE *out);

/* --help-manual: docs/manual.md, the options and the devices; table ends with NULL. */
void cli_print_manual(FILE *out);
void cli_print_device_manual(FILE *out, const struct device_desc *const *table);

#endif
