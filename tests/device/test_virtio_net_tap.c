/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net over a tap of the kernel's, in a network namespace of its own where there is
 * /dev/net/tun and the right to use it: the kernel understands the headers that the card passes on,
 * and cuts segments and finishes checksums where the guest does not want to.
 */
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/tap.h"
#include "tests/lib/net_make.h"
#include "tests/lib/vnet.h"
#include "vmm/core/util.h"

#define ALL UINT64_MAX
enum { ETH = 14, IP = 20, TCP = 20, HEADERS = ETH + IP + TCP, MSS = 1448, DATA = 4 * MSS + 100 };

struct fixture {
	struct vnet v;
	struct netdev *nd;
	int host; /* what the host's side of the tap sees; packets with headers of 10 bytes */
};

static int host_socket(const char *ifname)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htobe16(ETH_P_ALL)), one = 1;
	struct ifreq ifr = {.ifr_flags = IFF_UP};
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htobe16(ETH_P_ALL),
		.sll_ifindex = if_nametoindex(ifname),
	};

	assert_true(fd >= 0 && addr.sll_ifindex);
	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	/* What it sends itself comes back in pieces otherwise. */
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	vguest_init(&f->v.g);
	f->nd = net_must_make(f->v.g.vm.loop, "tap,ifname=vt0,script=no,downscript=no");
	vguest_object(&f->v.g, "n0", f->nd);
	vnet_add(&f->v, NULL);
	f->host = host_socket("vt0");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->host);
	device_free(f->v.dev);
	net_free(f->nd);
	vguest_destroy(&f->v.g);
	free(f);
	return 0;
}

static uint16_t sum(const uint8_t *p, size_t len, uint32_t acc)
{
	for (size_t i = 0; i < len; i++)
		acc += i % 2 ? p[i] : p[i] << 8;
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return acc;
}

/* The sum over what TCP adds in front for a segment of len bytes. */
static uint16_t pseudo(const uint8_t *frame, size_t len)
{
	return sum(frame + ETH + 12, 8, 6 + len);
}

/* A TCP segment of len bytes of data whose checksum is left to others. */
static size_t segment(uint8_t *frame, size_t len)
{
	static const uint8_t headers[HEADERS] = {
		2,    0,    0,	  0,	0, 9,  2, 0, 0, 0,  0, 1, 8,	0,    0x45, 0, 0,
		0,    0,    1,	  0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1,	10,   0,    0, 2,
		0x12, 0x34, 0x56, 0x78, 0, 0,  0, 1, 0, 0,  0, 1, 0x50, 0x18, 0x10, 0,
	};

	memcpy(frame, headers, sizeof(headers));
	store_be16(frame + ETH + 2, IP + TCP + len);
	store_be16(frame + ETH + 10, ~sum(frame + ETH, IP, 0));
	store_be16(frame + ETH + IP + 16, pseudo(frame, TCP + len));
	for (size_t i = 0; i < len; i++)
		frame[HEADERS + i] = i + i / 256;
	return HEADERS + len;
}

static const struct virtio_net_hdr large = {
	.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
	.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
	.hdr_len = HEADERS,
	.gso_size = MSS,
	.csum_start = ETH + IP,
	.csum_offset = 16,
};

static ssize_t host_receive(struct fixture *f, uint8_t *buf, size_t room)
{
	for (int i = 0; i < 2000; i++) {
		ssize_t n = recv(f->host, buf, room, 0);

		if (n >= 0)
			return n;
		evloop_run_once(f->v.g.vm.loop, NSEC_PER_MSEC);
	}
	fail_msg("nothing came");
	return 0;
}

static size_t guest_receive(struct fixture *f, uint8_t *buf, size_t room, unsigned *buffers)
{
	for (int i = 0; i < 2000; i++) {
		size_t n = vnet_take(&f->v, 0, buf, room, buffers);

		if (n)
			return n;
		evloop_run_once(f->v.g.vm.loop, NSEC_PER_MSEC);
	}
	fail_msg("nothing came");
	return 0;
}

static void large_segments_go_out(void **state)
{
	struct fixture *f = *state;
	static uint8_t frame[HEADERS + DATA], got[70000];
	struct virtio_net_hdr h;
	size_t len = segment(frame, DATA);

	vnet_drive(&f->v, false, ALL, true);
	for (int i = 0; i < 3; i++) {
		vnet_send(&f->v, 0, &large, frame, len);
		assert_int_equal(host_receive(f, got, sizeof(got)), 10 + len);
		memcpy(&h, got, 10);
		assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(h.gso_size, MSS);
		assert_memory_equal(got + 10, frame, len);
	}
	/* One that asks for nothing, and one for its checksum. */
	len = segment(frame, 100);
	vnet_send(&f->v, 0, NULL, frame, len);
	assert_int_equal(host_receive(f, got, sizeof(got)), 10 + len);
	assert_int_equal(got[0], 0);
	assert_memory_equal(got + 10, frame, len);
	h = large;
	h.gso_type = h.gso_size = 0;
	vnet_send(&f->v, 0, &h, frame, len);
	assert_int_equal(host_receive(f, got, sizeof(got)), 10 + len);
	assert_int_equal(got[0], VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

static void send_large_to_guest(struct fixture *f, const uint8_t *frame, size_t len)
{
	static uint8_t packet[10 + HEADERS + DATA];

	memcpy(packet, &large, 10);
	memcpy(packet + 10, frame, len);
	assert_int_equal(send(f->host, packet, 10 + len, 0), 10 + len);
}

static void large_segments_come_in(void **state)
{
	struct fixture *f = *state;
	static uint8_t frame[HEADERS + DATA], got[70000];
	struct virtio_net_hdr h;
	size_t len = segment(frame, DATA);
	unsigned buffers;

	vnet_drive(&f->v, false, ALL, true);
	vnet_post(&f->v, 0, 100, 1526);
	for (int i = 0; i < 3; i++) {
		send_large_to_guest(f, frame, len);
		assert_int_equal(guest_receive(f, got, sizeof(got), &buffers), 12 + len);
		memcpy(&h, got, 12);
		assert_int_equal(buffers, div_round_up(12 + len, 1526));
		assert_int_equal(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(h.gso_size, MSS);
		assert_memory_equal(got + 12, frame, len);
	}
}

/* Drivers of every kind of header that want no offloads get what a wire would carry. */
static void the_kernel_cuts_what_the_guest_does_not_want(void **state)
{
	struct fixture *f = *state;
	static uint8_t frame[HEADERS + DATA], got[70000];
	size_t len = segment(frame, DATA);

	for (int round = 0; round < 4; round++) {
		vnet_drive(&f->v, round > 1, round % 2 ? VIRTIO_NET_F_MRG_RXBUF : 0, true);
		vnet_post(&f->v, 0, 20, 1600);
		send_large_to_guest(f, frame, len);
		for (size_t at = 0; at < DATA; at += MSS) {
			size_t data = MIN((size_t)MSS, DATA - at);
			const uint8_t *p = got + f->v.hdr;

			assert_int_equal(guest_receive(f, got, sizeof(got), NULL),
					 f->v.hdr + HEADERS + data);
			assert_int_equal(got[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
			assert_int_equal(got[1], 0);
			assert_memory_equal(p + HEADERS, frame + HEADERS + at, data);
			assert_int_equal(sum(p + ETH + IP, TCP + data, pseudo(p, TCP + data)),
					 0xffff);
		}
		/* And outwards. */
		vnet_send(&f->v, 0, NULL, frame, 600);
		assert_int_equal(host_receive(f, got, sizeof(got)), 610);
		assert_memory_equal(got + 10, frame, 600);
		vdriver_reset(&f->v.d);
	}
}

static void bursts_both_ways(void **state)
{
	struct fixture *f = *state;
	uint8_t frame[200], got[300], packet[210] = {0};

	vnet_drive(&f->v, false, ALL, true);
	vnet_post(&f->v, 0, 256, 1526);
	for (unsigned i = 0; i < 200; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		vnet_put(&f->v, 0, NULL, frame, sizeof(frame), 1);
		memcpy(packet + 10, frame, sizeof(frame));
		assert_int_equal(send(f->host, packet, sizeof(packet), 0), sizeof(packet));
	}
	vring_kick(f->v.tx[0]);
	for (unsigned i = 0; i < 200; i++) {
		vnet_frame(frame, sizeof(frame), vnet_broadcast, i);
		assert_int_equal(guest_receive(f, got, sizeof(got), NULL), 212);
		assert_memory_equal(got + 12, frame, sizeof(frame));
		assert_int_equal(host_receive(f, got, sizeof(got)), 210);
		assert_memory_equal(got + 10, frame, sizeof(frame));
	}
}

static void be_quiet(const char *sysctl)
{
	int fd = open(sysctl, O_WRONLY);

	if (fd < 0)
		return;
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(large_segments_go_out),
		TEST(large_segments_come_in),
		TEST(the_kernel_cuts_what_the_guest_does_not_want),
		TEST(bursts_both_ways),
	};

	if (access(TAP_TUN_DEVICE, R_OK | W_OK) ||
	    (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))) {
		print_message("no taps here\n");
		return 0;
	}
	be_quiet("/proc/sys/net/ipv6/conf/all/disable_ipv6");
	be_quiet("/proc/sys/net/ipv6/conf/default/disable_ipv6");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
