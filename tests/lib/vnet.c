/* SPDX-License-Identifier: Apache-2.0 */
/* A network card's driver: see vnet.h. */
#include "tests/lib/vnet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vmm/core/util.h"

const uint8_t vnet_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
const uint8_t vnet_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

void vnet_init(struct vnet *v, unsigned queues, unsigned vnet_hdr, unsigned offloads)
{
	memset(v, 0, sizeof(*v));
	vguest_init(&v->g);
	fake_netdev_init(&v->net, "n0", queues, vnet_hdr, offloads);
	vguest_object(&v->g, "n0", &v->net.nd);
}

void vnet_destroy(struct vnet *v)
{
	vguest_destroy(&v->g);
	fake_netdev_destroy(&v->net);
	if (v->iothread)
		iothread_free(v->iothread);
}

void vnet_add(struct vnet *v, const char *props)
{
	char all[256];

	snprintf(all, sizeof(all), "netdev=n0%s%s", props ? "," : "", props ? props : "");
	v->dev = vguest_add(&v->g, &virtio_net_pci_desc, all, NULL);
	vguest_boot(&v->g);
}

void vnet_drive_again(struct vnet *v, uint64_t features)
{
	struct vdriver *d = &v->d;
	bool many;

	vdriver_negotiate(d, features);
	if (d->msix)
		vdriver_config_vector(d, 0);
	many = d->features & (VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS);
	v->pairs = many ? vdriver_config_read(d, 8, 2) : 1;
	assert_true(v->pairs && v->pairs <= VNET_PAIRS);
	for (unsigned i = 0; i < v->pairs; i++) {
		v->rx[i] = vdriver_ring(d, 2 * i, 0);
		v->tx[i] = vdriver_ring(d, 2 * i + 1, 0);
	}
	v->ctrl = NULL;
	if (d->features & VIRTIO_NET_F_CTRL_VQ)
		v->ctrl = vdriver_ring(d, 2 * v->pairs, 0);
	v->hdr = d->features & VIRTIO_NET_F_HASH_REPORT			       ? 20
		 : d->features & (VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF) ? 12
									       : 10;
	vdriver_ok(d);
	vguest_settle(&v->g);
}

void vnet_drive(struct vnet *v, bool legacy, uint64_t features, bool msix)
{
	vdriver_open(&v->d, &v->g, v->dev, legacy);
	vdriver_reset(&v->d);
	if (msix)
		vdriver_enable_msix(&v->d, pci_device_of(v->dev)->msix.count);
	vnet_drive_again(v, features);
}

void vnet_post(struct vnet *v, unsigned pair, unsigned count, uint32_t len)
{
	struct vring *r = v->rx[pair];

	for (unsigned i = 0; i < count; i++) {
		uint64_t gpa = vguest_alloc(&v->g, len, 16);
		struct vbuf buf = {gpa, len};
		uint16_t head;

		if (r->free == r->size)
			vring_recycle(r);
		memset(vguest_ptr(&v->g, gpa), 0xcc, len);
		head = vring_add(r, &buf, 0, 1, false);
		v->posted[pair][head] = (struct vnet_posted){gpa, len};
	}
	vring_kick(r);
	vguest_settle(&v->g);
}

static size_t take_buffer(struct vnet *v, unsigned pair, uint8_t *to, size_t room)
{
	struct vnet_posted *p;
	uint16_t head;
	uint32_t len;

	if (!vring_used(v->rx[pair], &head, &len))
		return 0;
	p = &v->posted[pair][head];
	assert_true(len <= p->len && len <= room);
	memcpy(to, vguest_ptr(&v->g, p->gpa), len);
	return len;
}

size_t vnet_take(struct vnet *v, unsigned pair, void *packet, size_t room, unsigned *buffers)
{
	uint8_t *to = packet;
	size_t at;
	unsigned n;

	vguest_settle(&v->g);
	at = take_buffer(v, pair, to, room);
	if (!at)
		return 0;
	n = v->hdr > 10 ? load_le16(to + 10) : 1;
	assert_true(n);
	if (!(v->d.features & VIRTIO_NET_F_MRG_RXBUF))
		assert_int_equal(n, 1);
	for (unsigned i = 1; i < n; i++) {
		size_t more = take_buffer(v, pair, to + at, room - at);

		assert_true(more);
		at += more;
	}
	if (buffers)
		*buffers = n;
	return at;
}

uint16_t vnet_put(struct vnet *v, unsigned pair, const struct virtio_net_hdr *hdr,
		  const void *frame, size_t len, unsigned pieces)
{
	static const struct virtio_net_hdr zero;
	struct vring *r = v->tx[pair];
	uint64_t gpa = vguest_alloc(&v->g, v->hdr + len, 16);
	struct vbuf bufs[1024];
	size_t all = v->hdr + len, at = 0;

	memcpy(vguest_ptr(&v->g, gpa), hdr ? hdr : &zero, v->hdr);
	memcpy(vguest_ptr(&v->g, gpa + v->hdr), frame, len);
	if (r->free + (pieces > 1 ? 1 : pieces) > r->size)
		vring_recycle(r);
	for (unsigned i = 0; i < pieces; i++) {
		size_t n = i + 1 < pieces ? all / pieces : all - at;

		bufs[i] = (struct vbuf){gpa + at, n};
		at += n;
	}
	return vring_add(r, bufs, pieces, 0,
			 pieces > 1 && (v->d.features & VIRTIO_F_INDIRECT_DESC));
}

void vnet_send(struct vnet *v, unsigned pair, const struct virtio_net_hdr *hdr, const void *frame,
	       size_t len)
{
	uint16_t head = vnet_put(v, pair, hdr, frame, len, 1), used;

	vring_kick(v->tx[pair]);
	vguest_settle(&v->g);
	assert_true(vring_used(v->tx[pair], &used, NULL));
	assert_int_equal(used, head);
}

uint8_t vnet_command(struct vnet *v, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	uint64_t gpa = vguest_alloc(&v->g, 2 + len + 1, 16);
	uint8_t *p = vguest_ptr(&v->g, gpa);
	struct vbuf bufs[3] = {{gpa, 2}};
	unsigned out = 1;

	p[0] = class;
	p[1] = cmd;
	if (len) {
		memcpy(p + 2, data, len);
		bufs[out++] = (struct vbuf){gpa + 2, len};
	}
	p[2 + len] = VNET_PENDING;
	bufs[out] = (struct vbuf){gpa + 2 + len, 1};
	if (v->ctrl->free + 3 > v->ctrl->size)
		vring_recycle(v->ctrl);
	vring_add(v->ctrl, bufs, out, 1, false);
	vring_kick(v->ctrl);
	vguest_settle(&v->g);
	assert_true(vring_used(v->ctrl, NULL, NULL));
	return p[2 + len];
}

void vnet_frame(uint8_t *frame, size_t len, const uint8_t *dst, unsigned seed)
{
	static const uint8_t src[6] = {2, 0, 0, 0, 0, 1};

	assert_true(len >= 14);
	memcpy(frame, dst ? dst : vnet_mac, 6);
	memcpy(frame + 6, src, 6);
	store_be16(frame + 12, 0x88b5); /* for experiments */
	for (size_t i = 14; i < len; i++)
		frame[i] = seed + i * 7 + i / 256;
}

bool vnet_arrive(struct vnet *v, unsigned queue, const void *frame, size_t len)
{
	unsigned hdr = v->net.nd.vnet_hdr;
	uint8_t *packet = calloc(1, hdr + len);
	bool ok;

	memcpy(packet + hdr, frame, len);
	ok = fake_netdev_receive(&v->net, queue, packet, hdr + len);
	free(packet);
	return ok;
}

int vnet_setup(void **state)
{
	struct vnet *v = calloc(1, sizeof(*v));

	vnet_init(v, 1, 12, VNET_ALL_OFFLOADS);
	*state = v;
	return 0;
}

int vnet_setup_plain(void **state)
{
	struct vnet *v = calloc(1, sizeof(*v));

	vnet_init(v, 1, 0, 0);
	*state = v;
	return 0;
}

int vnet_teardown(void **state)
{
	struct vnet *v = *state;

	vnet_destroy(v);
	free(v);
	return 0;
}

void vnet_start(struct vnet *v, const char *props, uint64_t features)
{
	vnet_add(v, props);
	vnet_drive(v, false, features, true);
}

void vnet_check_receives(struct vnet *v, unsigned pair, size_t len, unsigned seed)
{
	static uint8_t frame[VNET_LARGEST], got[VNET_LARGEST + 20];

	vnet_frame(frame, len, NULL, seed);
	assert_true(vnet_arrive(v, pair, frame, len));
	assert_int_equal(vnet_take(v, pair, got, sizeof(got), NULL), v->hdr + len);
	assert_memory_equal(got + v->hdr, frame, len);
}

void vnet_check_sends(struct vnet *v, unsigned pair, size_t len, unsigned seed)
{
	static uint8_t frame[VNET_LARGEST];
	struct fake_netdev_packet *p;
	unsigned before = v->net.sent_count, hdr = v->net.nd.vnet_hdr;

	vnet_frame(frame, len, vnet_broadcast, seed);
	vnet_send(v, pair, NULL, frame, len);
	assert_int_equal(v->net.sent_count, before + 1);
	p = &v->net.sent[before % FAKE_NETDEV_PACKETS];
	assert_int_equal(p->queue, pair);
	assert_int_equal(p->len, hdr + len);
	assert_memory_equal(p->data + hdr, frame, len);
}

void vnet_check_works(struct vnet *v)
{
	vnet_post(v, 0, 4, 2048);
	vnet_check_receives(v, 0, 200, 1);
	vnet_check_sends(v, 0, 200, 2);
}
