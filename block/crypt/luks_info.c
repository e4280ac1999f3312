/* SPDX-License-Identifier: Apache-2.0 */
/* What a LUKS header says, for info and QMP, in QEMU's words and order. Main thread. */
#include <jansson.h>

#include "block/crypt/luks_node.h"

void luks_info(const struct luks *l, bool in_qcow2, json_t *o)
{
	json_t *slots = json_array();

	json_object_set_new(o, "ivgen-alg", json_string(crypt_ivgen_name(l->spec.ivgen)));
	json_object_set_new(o, "hash-alg", json_string(crypt_hash_name(l->hash)));
	json_object_set_new(o, "cipher-alg", json_string(crypt_alg_name(l->spec.alg)));
	json_object_set_new(o, "uuid", json_string(l->uuid));
	if (in_qcow2)
		json_object_set_new(o, "format", json_string("luks"));
	if (l->spec.ivhash)
		json_object_set_new(o, "ivgen-hash-alg",
				    json_string(crypt_hash_name(l->spec.ivhash)));
	json_object_set_new(o, "cipher-mode", json_string(crypt_mode_name(l->spec.mode)));
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const struct luks_slot *slot = &l->slots[i];
		json_t *one = json_object();

		json_object_set_new(one, "active", json_boolean(slot->active));
		if (slot->active)
			json_object_set_new(one, "iters", json_integer(slot->iterations));
		json_object_set_new(one, "key-offset", json_integer(slot->offset));
		if (slot->active)
			json_object_set_new(one, "stripes", json_integer(LUKS_STRIPES));
		json_array_append_new(slots, one);
	}
	json_object_set_new(o, "slots", slots);
	json_object_set_new(o, "payload-offset", json_integer(l->payload));
	json_object_set_new(o, "master-key-iters", json_integer(l->digest_iterations));
}
