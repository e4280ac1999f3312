/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The capabilities of KVM that matter here (Linux: Documentation/virt/kvm/api.rst).
 */
#ifndef ACCEL_KVM_CAPS_H
#define ACCEL_KVM_CAPS_H

struct kvm_cap {
	int number; /* KVM_CAP_* */
	const char *name;
	const char *use; /* what goes without it */
	enum { KVM_CAP_NEEDED, KVM_CAP_NEEDED_SPLIT, KVM_CAP_NICE } need;
};
/* Ends with a name of NULL. */
extern const struct kvm_cap kvm_caps[];

#endif
