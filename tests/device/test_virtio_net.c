/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net driven through its registers and rings: negotiation and configuration; resets, pauses
 * and saved state. What it carries: test_virtio_net_data.c.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/state_copy.h"
#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

#define ALL UINT64_MAX

/* ---- negotiation and configuration ---- */

static void every_feature_has_its_property(void **state)
{
	struct vnet *v = *state;
	static const struct {
		const char *name;
		uint64_t bit;
	} features[] = {
		{"csum", VIRTIO_NET_F_CSUM},
		{"guest_csum", VIRTIO_NET_F_GUEST_CSUM},
		{"gso", VIRTIO_NET_F_GSO},
		{"guest_tso4", VIRTIO_NET_F_GUEST_TSO4},
		{"guest_tso6", VIRTIO_NET_F_GUEST_TSO6},
		{"guest_ecn", VIRTIO_NET_F_GUEST_ECN},
		{"guest_ufo", VIRTIO_NET_F_GUEST_UFO},
		{"guest_uso4", VIRTIO_NET_F_GUEST_USO4},
		{"guest_uso6", VIRTIO_NET_F_GUEST_USO6},
		{"host_tso4", VIRTIO_NET_F_HOST_TSO4},
		{"host_tso6", VIRTIO_NET_F_HOST_TSO6},
		{"host_ecn", VIRTIO_NET_F_HOST_ECN},
		{"host_ufo", VIRTIO_NET_F_HOST_UFO},
		{"host_uso", VIRTIO_NET_F_HOST_USO},
		{"mrg_rxbuf", VIRTIO_NET_F_MRG_RXBUF},
		{"status", VIRTIO_NET_F_STATUS},
		{"ctrl_rx", VIRTIO_NET_F_CTRL_RX},
		{"ctrl_vlan", VIRTIO_NET_F_CTRL_VLAN},
		{"ctrl_rx_extra", VIRTIO_NET_F_CTRL_RX_EXTRA},
		{"ctrl_mac_addr", VIRTIO_NET_F_CTRL_MAC_ADDR},
		{"guest_announce", VIRTIO_NET_F_GUEST_ANNOUNCE},
		{"ctrl_guest_offloads", VIRTIO_NET_F_CTRL_GUEST_OFFLOADS},
		{"event_idx", VIRTIO_F_EVENT_IDX},
		{"indirect_desc", VIRTIO_F_INDIRECT_DESC},
	};
	const uint64_t always = VIRTIO_NET_F_MAC | VIRTIO_NET_F_CTRL_VQ | VIRTIO_F_VERSION_1;
	uint64_t all = always;
	char props[64];

	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		all |= features[i].bit;
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d), all);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		device_free(v->dev);
		snprintf(props, sizeof(props), "%s=off", features[i].name);
		vnet_add(v, props);
		vdriver_open(&v->d, &v->g, v->dev, false);
		assert_int_equal(vdriver_offered(&v->d), all & ~features[i].bit);
	}
	device_free(v->dev);
	vnet_add(v, "ctrl_vq=off,rss=on,hash=on,host_mtu=9000,speed=1000");
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_false(vdriver_offered(&v->d) &
		     (VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_RSS |
		      VIRTIO_NET_F_GUEST_ANNOUNCE | VIRTIO_NET_F_HASH_REPORT));
	assert_int_equal(vguest_in(&v->g, false, v->d.common + 18, 2), 2);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_MTU);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_SPEED_DUPLEX);
	device_free(v->dev);
	vnet_add(v, "rss=on,hash=on");
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d), all | VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT);
}

static void offloads_are_the_back_ends(void **state)
{
	struct vnet *v = *state;
	const uint64_t none = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GSO | VIRTIO_NET_F_HOST_TSO4 |
			      VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_ECN |
			      VIRTIO_NET_F_HOST_UFO | VIRTIO_NET_F_HOST_USO |
			      VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | VIRTIO_NET_GUEST_OFFLOADS;

	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_false(vdriver_offered(&v->d) & none);
	assert_true(vdriver_offered(&v->d) & VIRTIO_NET_F_MRG_RXBUF);
	device_free(v->dev);
	/* Some of them. */
	v->net.nd.vnet_hdr_max = 10;
	v->net.nd.offloads_able = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_USO4;
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	assert_int_equal(vdriver_offered(&v->d) & none,
			 VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_HOST_TSO4 |
				 VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_USO4 |
				 VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
}

static void configuration_space(void **state)
{
	struct vnet *v = *state;
	struct vdriver *d = &v->d;

	vnet_add(v, "mac=52:54:00:aa:bb:cc,host_mtu=9000,speed=25000,duplex=full,rss=on,"
		    "rx_queue_size=512,tx_queue_size=1024");
	vdriver_open(d, &v->g, v->dev, false);
	assert_int_equal(vdriver_config_read(d, 0, 4), 0xaa005452);
	assert_int_equal(vdriver_config_read(d, 4, 2), 0xccbb);
	assert_int_equal(vdriver_config_read(d, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(vdriver_config_read(d, 8, 2), 1);
	assert_int_equal(vdriver_config_read(d, 10, 2), 9000);
	assert_int_equal(vdriver_config_read(d, 12, 4), 25000);
	assert_int_equal(vdriver_config_read(d, 16, 1), 1);
	assert_int_equal(vdriver_config_read(d, 17, 1), 40);
	assert_int_equal(vdriver_config_read(d, 18, 2), 128);
	assert_int_equal(vdriver_config_read(d, 20, 4), 0x1ff);
	assert_int_equal(vdriver_config_read(d, 24, 4), 0xffffffff);
	assert_int_equal(vguest_in(&v->g, false, d->common + 18, 2), 3);
	static const unsigned sizes[] = {512, 1024, 64};
	for (unsigned i = 0; i < 3; i++) {
		vguest_out(&v->g, false, d->common + 22, i, 2);
		assert_int_equal(vguest_in(&v->g, false, d->common + 24, 2), sizes[i]);
	}
	assert_int_equal(vdriver_pci_read(d, PCI_VENDOR_ID, 4), 0x10001af4);
	assert_int_equal(vdriver_pci_read(d, 8, 4) >> 8, 0x020000);
	assert_int_equal(d->pci->msix.count, 4);
	/* The address is not for modern drivers to write. */
	vdriver_config_write(d, 0, 0, 4);
	vnet_drive(v, false, ALL, false);
	vdriver_config_write(d, 0, 0, 4);
	assert_int_equal(vdriver_config_read(d, 0, 4), 0xaa005452);
	/* Speed and duplex unknown. */
	device_free(v->dev);
	vnet_add(v, NULL);
	vdriver_open(d, &v->g, v->dev, false);
	assert_int_equal(vdriver_config_read(d, 12, 4), 0xffffffff);
	assert_int_equal(vdriver_config_read(d, 16, 1), 0xff);
}

static void addresses_are_counted_up(void **state)
{
	struct vnet *v = *state;
	struct vdriver other;
	struct device *dev;

	dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vnet_add(v, NULL);
	vdriver_open(&v->d, &v->g, v->dev, false);
	vdriver_open(&other, &v->g, dev, false);
	assert_int_equal(vdriver_config_read(&other, 4, 2), 0x5634);
	assert_int_equal(vdriver_config_read(&v->d, 4, 2), 0x5734);
	device_free(dev);
	dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vguest_boot(&v->g);
	vdriver_open(&other, &v->g, dev, false);
	assert_int_equal(vdriver_config_read(&other, 4, 2), 0x5634);
}

static void bad_properties_are_refused(void **state)
{
	struct vnet *v = *state;
	static const char *const bad[] = {
		"rx_queue_size=100",
		"rx_queue_size=128",
		"tx_queue_size=2048",
		"tx_queue_size=300",
		"tx=timer",
		"tx=x",
		"speed=-2",
		"duplex=both",
		"mac=53:54:00:12:34:56",
		"mac=1",
		"netdev=nothing",
		"netdev=n1",
		"vectors=5000",
		"disable-modern=on,disable-legacy=on",
	};
	struct fake_netdev taken;

	fake_netdev_init(&taken, "n1", 1, 0, 0);
	taken.nd.peer = (const struct net_peer *)v;
	vguest_object(&v->g, "n1", &taken.nd);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error *err = NULL;
		char props[128];

		snprintf(props, sizeof(props), "netdev=n0,%s", bad[i]);
		if (vguest_add(&v->g, &virtio_net_pci_desc, props, &err))
			fail_msg("%s was accepted", bad[i]);
		assert_non_null(err);
		error_free(err);
		assert_null(v->net.nd.peer);
	}
	taken.nd.peer = NULL;
	fake_netdev_destroy(&taken);
	vnet_start(v, "tx=bh", ALL);
	vnet_check_works(v);
}

static void a_card_without_a_network_loses_packets(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[60];

	v->dev = vguest_add(&v->g, &virtio_net_pci_desc, NULL, NULL);
	vguest_boot(&v->g);
	vnet_drive(v, false, ALL, true);
	vnet_post(v, 0, 4, 2048);
	vnet_frame(frame, sizeof(frame), NULL, 0);
	vnet_send(v, 0, NULL, frame, sizeof(frame));
	vdriver_reset(&v->d);
}

/* A card to boot from has iPXE's ROM, if that is installed, with the device's own number in it. */
static void a_rom_to_boot_from(void **state)
{
	struct vnet *v = *state;
	struct pci_device *pci;

	for (int modern = 0; modern < 2; modern++) {
		vnet_add(v, modern ? "bootindex=1,disable-legacy=on" : "bootindex=1");
		pci = pci_device_of(v->dev);
		if (pci->rom_data) {
			const uint8_t *pcir = pci->rom_data + load_le16(pci->rom_data + 0x18);
			uint8_t sum = 0;

			assert_int_equal(load_le16(pcir + 6), modern ? 0x1041 : 0x1000);
			for (unsigned i = 0; i < pci->rom_data[2] * 512u; i++)
				sum += pci->rom_data[i];
			assert_int_equal(sum, 0);
		}
		device_free(v->dev);
		vnet_add(v, modern ? "bootindex=1,romfile=" : "bootindex=1,rombar=0");
		assert_null(pci_device_of(v->dev)->rom_data);
		device_free(v->dev);
	}
	vnet_add(v, NULL);
	assert_null(pci_device_of(v->dev)->rom_data);
}

/* ---- stops and goes ---- */

static void a_reset_in_the_middle_of_a_burst(void **state)
{
	struct vnet *v = *state;
	static uint8_t frame[40000];

	vnet_start(v, NULL, ALL);
	for (int round = 0; round < 3; round++) {
		fake_netdev_clear(&v->net);
		v->net.take = 5;
		vnet_post(v, 0, 10, 1526);
		vnet_frame(frame, sizeof(frame), NULL, 1);
		/* One that waits for buffers, and some that wait for the network. */
		assert_true(vnet_arrive(v, 0, frame, sizeof(frame)));
		for (unsigned i = 0; i < 100; i++)
			vnet_put(v, 0, NULL, frame, 100, 1);
		vring_kick(v->tx[0]);
		vguest_settle(&v->g);
		assert_int_equal(v->net.sent_count, 5);
		if (round == 1) {
			vm_reset(&v->g.vm, CAUSE_HOST_QMP_SYSTEM_RESET);
			vguest_boot(&v->g);
			v->net.take = UINT_MAX;
			net_writable(&v->net.nd.queue[0]);
			assert_false(vnet_arrive(v, 0, frame, 60));
			vnet_drive(v, false, ALL, true);
		} else if (round == 2) {
			device_free(v->dev);
			v->net.take = UINT_MAX;
			vnet_add(v, NULL);
			vnet_drive(v, false, ALL, true);
		} else {
			vdriver_reset(&v->d);
			v->net.take = UINT_MAX;
			net_writable(&v->net.nd.queue[0]);
			assert_false(vnet_arrive(v, 0, frame, 60));
			vnet_drive_again(v, ALL);
		}
		assert_int_equal(v->net.sent_count, 5);
		vnet_check_works(v);
	}
}

static void a_paused_guest_sees_nothing(void **state)
{
	struct vnet *v = *state;
	uint8_t frame[100];
	unsigned ready;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 10, 1526);
	vnet_check_receives(v, 0, 60, 0);
	v->net.take = 0;
	vnet_frame(frame, sizeof(frame), vnet_broadcast, 0);
	for (unsigned i = 0; i < 5; i++)
		vnet_put(v, 0, NULL, frame, sizeof(frame), 1);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	v->net.take = UINT_MAX;
	net_writable(&v->net.nd.queue[0]);
	assert_int_equal(v->net.sent_count, 0);
	assert_false(vnet_arrive(v, 0, frame, sizeof(frame)));
	ready = v->net.ready[0];
	vm_start(&v->g.vm);
	vguest_settle(&v->g);
	assert_int_equal(v->net.ready[0], ready + 1);
	assert_int_equal(v->net.sent_count, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_true(vring_used(v->tx[0], NULL, NULL));
	vnet_check_receives(v, 0, 60, 0);
	vnet_check_sends(v, 0, 60, 0);
}

static void another_device_goes_on_where_this_one_was(void **state)
{
	struct vnet *v = *state, *to;
	static uint8_t saved[1 << 20], frame[VNET_LARGEST], got[VNET_LARGEST + 12];
	static const uint8_t macs[] = {1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0};
	struct iovec batch[3] = {{frame, 100}, {frame, 0}, {frame, 2000}};
	struct error *err = NULL;
	uint64_t offloads = htole64(VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4);
	void *other;
	size_t len;

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 200, 1526);
	memset(frame, 0, sizeof(frame));
	/* Rooms in the middle stay unused, so that what is popped is no tidy end of the ring. */
	assert_int_equal(fake_netdev_receive_batch(&v->net, 0, batch, 3), 3);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 100);
	assert_int_equal(vnet_take(v, 0, got, sizeof(got), NULL), 2000);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, macs,
				      sizeof(macs)),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "", 1),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
				      "\2\0\0\0\0\7", 6),
			 VIRTIO_NET_OK);
	assert_int_equal(vnet_command(v, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &offloads, 8),
			 VIRTIO_NET_OK);
	v->net.take = 1;
	for (unsigned i = 0; i < 5; i++)
		vnet_put(v, 0, NULL, frame, 60 + i, 1);
	vring_kick(v->tx[0]);
	vguest_settle(&v->g);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	len = state_save(v->dev->desc->state, v->dev, saved, sizeof(saved));

	vnet_setup(&other);
	to = other;
	to->dev = vguest_add(&to->g, &virtio_net_pci_desc, "netdev=n0", NULL);
	memcpy(to->g.ram, v->g.ram, v->g.next);
	to->g.next = v->g.next;
	if (!state_load(to->dev->desc->state, to->dev, saved, len, &err))
		fail_msg("%s", error_message(err));
	vm_stop(&to->g.vm, RUN_STATE_PAUSED);
	to->g.vm.state = RUN_STATE_PAUSED;
	to->g.vm.launched = true;
	vm_start(&to->g.vm);
	vguest_settle(&to->g);
	vdriver_open(&to->d, &to->g, to->dev, false);
	to->d.features = v->d.features;
	to->d.msix = true;
	memcpy(to->d.rings, v->d.rings, sizeof(to->d.rings));
	memcpy(to->posted, v->posted, sizeof(to->posted));
	to->hdr = 12;
	for (unsigned i = 0; i < 3; i++)
		to->d.rings[i].d = &to->d;
	to->rx[0] = &to->d.rings[0];
	to->tx[0] = &to->d.rings[1];
	to->ctrl = &to->d.rings[2];
	/* The four that had not gone, in order. */
	assert_int_equal(to->net.sent_count, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(to->net.sent[i].len, 12 + 61 + i);
	for (unsigned i = 0; i < 5; i++)
		assert_true(vring_used(to->tx[0], NULL, NULL));
	assert_int_equal(to->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
	assert_int_equal(vdriver_config_read(&to->d, 0, 4), 2);
	/* Its filter, and all its buffers. */
	vnet_frame(frame, 100, NULL, 0);
	assert_true(vnet_arrive(to, 0, frame, 100));
	assert_int_equal(vnet_take(to, 0, got, sizeof(got), NULL), 0);
	vnet_frame(frame, 60000, (const uint8_t *)"\2\0\0\0\0\7", 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(vnet_arrive(to, 0, frame, 60000));
		assert_int_equal(vnet_take(to, 0, got, sizeof(got), NULL), 60012);
		assert_memory_equal(got + 12, frame, 60000);
	}
	vnet_check_sends(to, 0, 60, 0);
	/* What cannot be is refused. */
	vm_stop(&to->g.vm, RUN_STATE_PAUSED);
	struct virtio_net *net = &((struct virtio_net_pci *)to->dev)->net;
	state_save(to->dev->desc->state, to->dev, saved, sizeof(saved));
	net->saved.pairs = 2;
	assert_false(virtio_net_load(net, NULL));
	net->saved.pairs = 1;
	net->saved.filter.uni_count = 65;
	assert_false(virtio_net_load(net, NULL));
	net->saved.filter.uni_count = 64;
	net->saved.rss.table_len = 3;
	assert_false(virtio_net_load(net, NULL));
	vnet_teardown(&other);
}

static void the_saved_device_itself_goes_on(void **state)
{
	struct vnet *v = *state;
	static uint8_t saved[1 << 20];

	vnet_start(v, NULL, ALL);
	vnet_post(v, 0, 100, 1526);
	vnet_check_receives(v, 0, 5000, 0);
	vm_stop(&v->g.vm, RUN_STATE_PAUSED);
	state_save(v->dev->desc->state, v->dev, saved, sizeof(saved));
	vm_start(&v->g.vm);
	vguest_settle(&v->g);
	for (unsigned i = 0; i < 5; i++)
		vnet_check_receives(v, 0, 25000 + i, i);
	vnet_check_sends(v, 0, 60, 0);
}

#define TEST(fn)  cmocka_unit_test_setup_teardown(fn, vnet_setup, vnet_teardown)
#define PLAIN(fn) cmocka_unit_test_setup_teardown(fn, vnet_setup_plain, vnet_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_feature_has_its_property),
		PLAIN(offloads_are_the_back_ends),
		TEST(configuration_space),
		TEST(addresses_are_counted_up),
		TEST(bad_properties_are_refused),
		TEST(a_card_without_a_network_loses_packets),
		TEST(a_rom_to_boot_from),
		TEST(a_reset_in_the_middle_of_a_burst),
		TEST(a_paused_guest_sees_nothing),
		TEST(another_device_goes_on_where_this_one_was),
		TEST(the_saved_device_itself_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
