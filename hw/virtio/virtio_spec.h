/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and layouts of virtio 1.2 that several files of this room share.
 */
#ifndef HW_VIRTIO_VIRTIO_SPEC_H
#define HW_VIRTIO_VIRTIO_SPEC_H

#include <stdint.h>

/* Device types (section 5). */
enum {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_SCSI = 8,
};

/* Device status (2.1). */
enum {
	VIRTIO_STATUS_ACKNOWLEDGE = 0x01,
	VIRTIO_STATUS_DRIVER = 0x02,
	VIRTIO_STATUS_DRIVER_OK = 0x04,
	VIRTIO_STATUS_FEATURES_OK = 0x08,
	VIRTIO_STATUS_NEEDS_RESET = 0x40,
	VIRTIO_STATUS_FAILED = 0x80,
};

#define VIRTIO_BIT(n) (UINT64_C(1) << (n))

/* Features that belong to no device type (section 6). */
#define VIRTIO_F_NOTIFY_ON_EMPTY VIRTIO_BIT(24) /* legacy */
#define VIRTIO_F_ANY_LAYOUT	 VIRTIO_BIT(27) /* legacy */
#define VIRTIO_F_INDIRECT_DESC	 VIRTIO_BIT(28)
#define VIRTIO_F_EVENT_IDX	 VIRTIO_BIT(29)
#define VIRTIO_F_VERSION_1	 VIRTIO_BIT(32)
#define VIRTIO_F_ACCESS_PLATFORM VIRTIO_BIT(33)

#define VIRTIO_LEGACY_FEATURES (VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT)

/* ISR status (4.1.4.5). */
enum {
	VIRTIO_ISR_QUEUE = 1,
	VIRTIO_ISR_CONFIG = 2,
};

#define VIRTIO_NO_VECTOR 0xffff

#endif
