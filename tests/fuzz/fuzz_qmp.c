/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client sends to a monitor. Input: the first byte chooses QMP (even), QMP after its
 * negotiation (bit 1), or the human monitor (odd); the rest is the client's.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vmm/control/control.h"
#include "vmm/core/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHUNK 61

static void send(struct chardevs *set, struct evloop *loop, const uint8_t *data, size_t size)
{
	uint8_t sink[4096];

	for (unsigned turns = 0; size && turns < 10000; turns++) {
		size_t n = MIN(size, CHUNK);

		n = chardevs_ringbuf_write(set, "c", data, n);
		data += n;
		size -= n;
		evloop_run_once(loop, 0);
		while (chardevs_ringbuf_read(set, "c", sink, sizeof(sink)) > 0)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
	struct evloop *loop = evloop_new(NULL, NULL);
	struct drive cdrom = { .id = "cd", .cdrom = true }, *drives = &cdrom;
	struct opts opts = { 0 };
	struct net_context context = {.loop = loop};
	struct netdevs netdevs;
	struct chardevs set;
	struct control *control;
	struct vm vm;

	vm_init(&vm, loop);
	chardevs_init(&set, loop);
	netdevs_init(&netdevs, &context);
	opts_add(&opts, "id", "c");
	opts_add(&opts, "backend", "ringbuf");
	chardevs_add(&set, &opts, NULL);
	opts_free(&opts);
	control = control_new(&vm, &set, &drives, &netdevs);
	control_add(control, "c", !(size && data[0] & 1), false, NULL);
	if (size && (data[0] & 3) == 2)
		send(&set, loop, (const uint8_t *)hello, sizeof(hello) - 1);
	if (size)
		send(&set, loop, data + 1, size - 1);
	while (evloop_run_once(loop, 0))
		;
	control_free(control);
	netdevs_destroy(&netdevs);
	chardevs_destroy(&set);
	vm_destroy(&vm);
	evloop_free(loop);
	return 0;
}
