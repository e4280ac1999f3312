/* SPDX-License-Identifier: Apache-2.0 */
/* The command line. Input: its words, each ended by a newline. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli/cli.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_WORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xstrndup((const char *)data, size), *save = NULL, *words[MAX_WORDS + 1];
	struct vm_config config;
	struct error *err = NULL;
	int count = 1;

	words[0] = "vmm";
	for (char *w = strtok_r(text, "\n", &save); w && count < MAX_WORDS;
	     w = strtok_r(NULL, "\n", &save))
		if (!strstr(w, "help") && strcmp(w, "-h") && strcmp(w, "--h") && strcmp(w, "?") &&
		    !strstr(w, "version"))
			words[count++] = w; /* answers would only fill the screen */
	config_init(&config);
	cli_parse(&config, count, words, &err);
	error_free(err);
	config_free(&config);
	free(text);
	return 0;
}
