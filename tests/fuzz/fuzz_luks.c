/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS headers. Input: "L" and a header's 592 bytes; or changes to a good header that a password
 * opens, three bytes each: where (big-endian), and what is put there. Iterations are cut down,
 * since many of them are only slow.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "block/crypt/luks.h"
#include "tests/lib/block_memdisk.h"
#include "tests/lib/crypt_secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DISK = 64 << 10 };

static uint8_t *good_image(const struct objects *secrets, uint64_t *len)
{
	struct opts opts = {0};
	struct luks_params p;
	uint8_t *header, *image = NULL;
	size_t header_len;

	opts_add(&opts, "key-secret", "s");
	opts_add(&opts, "cipher-alg", "aes-128");
	opts_add(&opts, "cipher-mode", "cbc");
	opts_add(&opts, "iter-time", "1");
	if (luks_params_read(&p, &opts, "", secrets, NULL) &&
	    (header = luks_make(&p, &header_len, NULL))) {
		*len = luks_params_payload(&p) + DISK;
		image = xcalloc(1, *len);
		memcpy(image, header, header_len);
		free(header);
	}
	opts_free(&opts);
	return image;
}

static void change(uint8_t *header, const uint8_t *data, size_t size)
{
	if (size && data[0] == 'L') {
		memcpy(header, data + 1, MIN(size - 1, (size_t)LUKS_HEADER));
	} else {
		for (size_t i = 0; i + 3 <= size; i += 3)
			header[load_be16(data + i) % LUKS_HEADER] = data[i + 2];
	}
	/* Of the master key's digest, and of each slot. */
	for (unsigned i = 0; i <= LUKS_SLOTS; i++) {
		uint8_t *at = header + (i ? luks_slot_at(i - 1) + 4 : 164);

		if (load_be32(at) <= LUKS_MAX_ITERATIONS)
			store_be32(at, load_be32(at) & 0xff);
	}
}

static void use(struct block_node *node)
{
	uint64_t length = block_length(node);
	uint8_t buf[3000] = {1};

	for (uint64_t at = 0; at < length; at += length / 3 + 1) {
		block_pread(node, at, buf, MIN(sizeof(buf), length - at));
		block_pwrite(node, at, buf, MIN((uint64_t)700, length - at), 0);
		block_zero(node, at + (length - at) / 2, (length - at) / 2, 0);
	}
	block_flush(node);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct objects *secrets = crypt_secrets();
	/* Made once, and copied: a key takes its time. */
	static uint8_t *good;
	static uint64_t len;
	struct memdisk *disk;
	struct block_node *node;
	uint8_t *image;

	if (!good)
		good = good_image(secrets, &len);
	if (good) {
		image = xmalloc(len);
		memcpy(image, good, len);
		change(image, data, size);
		disk = memdisk_new(loop, image, len, len);
		disk->objects = secrets;
		node = memdisk_open(disk, "luks", NULL, BLOCK_OPEN_RDWR, NULL);
		if (node)
			use(node);
		block_unref(node);
		memdisk_free(disk);
		free(image);
	}
	objects_free(secrets);
	evloop_free(loop);
	return 0;
}
