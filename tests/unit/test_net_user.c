/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user-mode network against the real libslirp: a guest of our own (tests/lib/user_guest.h) on
 * one side, the host's sockets on the other. Forwards: test_net_user_forward.c.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/types.h"
#include "tests/lib/user_net.h"
#include "vmm/core/util.h"

#ifdef CONFIG_SLIRP
#include "net/user.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

static void refused(struct user_net *x, const char *text, const char *message)
{
	struct error *err = NULL;

	assert_null(user_net_make(x, text, &err));
	if (!strstr(error_message(err), message) || strchr(error_message(err), '\n'))
		fail_msg("%s: '%s' is not '%s'", text, error_message(err), message);
	error_free(err);
}

/* DHCP */

static const uint8_t *dhcp_option(const uint8_t *f, size_t len, uint8_t code)
{
	size_t at = 14 + 20 + 8 + 240;

	while (at + 1 < len && f[at] != 255) {
		if (f[at] == code)
			return f + at + 1;
		at += f[at] ? 2 + f[at + 1] : 1;
	}
	return NULL;
}

static void send_dhcp(struct guest *g, uint8_t kind)
{
	uint8_t m[300] = {1, 1, 6};
	size_t at = 240;

	store_be32(m + 4, 0x12345678);
	memcpy(m + 28, g->mac, 6);
	store_be32(m + 236, 0x63825363);
	m[at++] = 53, m[at++] = 1, m[at++] = kind;
	if (kind == 3) {
		m[at++] = 50, m[at++] = 4;
		store_be32(m + at, g->ip);
		at += 4;
	}
	m[at++] = 255;
	guest_send_udp(g, 0, UINT32_MAX, 68, 67, m, sizeof(m));
}

static bool option_is(const struct guest_frame *f, uint8_t code, const char *text)
{
	const uint8_t *o = dhcp_option(f->data, f->len, code);

	return o && o[0] == strlen(text) && !memcmp(o + 1, text, o[0]);
}

static void test_dhcp(void **state)
{
	struct guest_frame f;
	struct guest *g;

	/* libslirp 4.7 never frees the server's name. */
#ifdef __SANITIZE_ADDRESS__
	__lsan_disable();
#endif
	g = user_net_start(*state,
			   "user,id=n0,net=192.168.7.0/24,dhcpstart=192.168.7.50,hostname=box,"
			   "domainname=example.org,bootfile=pxe.0,dnssearch=a.example,"
			   "dnssearch=b.example,tftp-server-name=boot.example");
#ifdef __SANITIZE_ADDRESS__
	__lsan_enable();
#endif
	send_dhcp(g, 1);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(load_be32(f.data + 42 + 16), 0xc0a80732);
	assert_int_equal(dhcp_option(f.data, f.len, 53)[1], 2); /* offer */
	assert_int_equal(load_be32(dhcp_option(f.data, f.len, 3) + 1), 0xc0a80702);
	assert_int_equal(load_be32(dhcp_option(f.data, f.len, 6) + 1), 0xc0a80703);
	assert_int_equal(load_be32(dhcp_option(f.data, f.len, 1) + 1), 0xffffff00);
	assert_true(option_is(&f, 12, "box"));
	assert_true(option_is(&f, 15, "example.org"));
	assert_true(option_is(&f, 66, "boot.example"));
	assert_string_equal((char *)f.data + 42 + 108, "pxe.0");
	assert_non_null(memmem(dhcp_option(f.data, f.len, 119), 40, "\1b", 2));
	free(f.data);
	g->ip = 0xc0a80732;
	send_dhcp(g, 3);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(dhcp_option(f.data, f.len, 53)[1], 5); /* acknowledged */
	free(f.data);
}

static void test_arp_icmp(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	uint8_t echo[16] = {8, 0, 0, 0, 0, 7, 0, 1, 'h', 'i'};
	struct guest_frame f;
	char *info;

	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	assert_memory_equal(g->gateway_mac, "\x52\x55\x0a\x00\x02\x02", 6);
	store_be16(echo + 2, guest_checksum(echo, sizeof(echo), 0));
	guest_send_ip(g, USER_NET_GATEWAY, 1, echo, sizeof(echo));
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(f.data[23], 1);
	assert_int_equal(f.data[34], 0); /* echo reply */
	assert_memory_equal(f.data + 42, "hi", 2);
	free(f.data);
	info = net_info(g->nd);
	assert_string_equal(info, "index=0,type=user,net=10.0.2.0,restrict=off");
	free(info);
}

static void test_tftp(void **state)
{
	char dir[] = "/tmp/vmm-tftp-XXXXXX", *path, *text;
	struct guest_frame f;
	struct guest *g;
	FILE *out;

	assert_non_null(mkdtemp(dir));
	path = xasprintf("%s/boot", dir);
	out = fopen(path, "w");
	fputs("the kernel", out);
	fclose(out);
	text = xasprintf("user,id=n0,tftp=%s,bootfile=boot", dir);
	g = user_net_start(*state, text);
	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	guest_send_udp(g, g->ip, USER_NET_GATEWAY, 2000, 69, "\0\1boot\0octet", 13);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(load_be16(f.data + 42), 3); /* DATA */
	assert_int_equal(load_be16(f.data + 44), 1);
	assert_int_equal(load_be16(f.data + 38) - 8, 4 + 10);
	assert_memory_equal(f.data + 46, "the kernel", 10);
	free(f.data);
	/* Nothing above the directory. */
	guest_send_udp(g, g->ip, USER_NET_GATEWAY, 2001, 69, "\0\1../etc/passwd\0octet", 22);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(load_be16(f.data + 42), 5); /* ERROR */
	free(f.data);
	unlink(path);
	rmdir(dir);
	free(path);
	free(text);
}

static void test_udp_out(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint16_t port;
	int fd = user_net_listen(SOCK_DGRAM, &port);
	struct guest_frame f;
	char buf[16];

	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	guest_send_udp(g, g->ip, USER_NET_GATEWAY, 5000, port, "ping", 4);
	guest_turn(g, 2);
	assert_int_equal(
		recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len), 4);
	assert_int_equal(sendto(fd, "pong!", 5, 0, (struct sockaddr *)&from, len), 5);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(load_be16(f.data + 34), port);
	assert_int_equal(load_be16(f.data + 36), 5000);
	assert_memory_equal(f.data + 42, "pong!", 5);
	free(f.data);
	close(fd);
}

/* A host of its own, whose name server is the test. False: this host allows none. */
static bool enter_private_host(void)
{
	char path[] = "/tmp/vmm-resolv-XXXXXX";
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd, s;
	bool ok;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) < 0)
		return false;
	fd = mkstemp(path);
	ok = write(fd, "nameserver 127.0.0.1\n", 21) == 21 &&
	     !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	     !mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL);
	s = socket(AF_INET, SOCK_DGRAM, 0);
	ok = ok && !ioctl(s, SIOCSIFFLAGS, &up);
	close(s);
	close(fd);
	unlink(path);
	return ok;
}

enum { NO_PRIVATE_HOST = 77 };

/* In a process of its own: 0 if the question arrived and so did the answer. */
static int ask_name_server(struct user_net *x)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(53)};
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	struct guest_frame f;
	struct guest *g;
	char buf[16];
	int fd;

	if (!enter_private_host())
		return NO_PRIVATE_HOST;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0)
		return NO_PRIVATE_HOST;
	g = user_net_start(x, "user,id=n0");
	if (!guest_find_gateway(g, 0x0a000203))
		return 1;
	guest_send_udp(g, g->ip, 0x0a000203, 5353, 53, "who?", 4);
	guest_turn(g, 5);
	if (recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len) != 4)
		return 2;
	sendto(fd, "you", 3, 0, (struct sockaddr *)&from, len);
	if (!guest_next(g, &f, 1000) || load_be16(f.data + 34) != 53 ||
	    load_be32(f.data + 26) != 0x0a000203 || memcmp(f.data + 42, "you", 3))
		return 3;
	return 0;
}

static void test_dns(void **state)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(ask_name_server(*state));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == NO_PRIVATE_HOST)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A megabyte each way through a connection of the guest's. */
static void bulk(struct guest *g)
{
	enum { LEN = 1 << 20 };
	uint8_t *out = xmalloc(LEN), *in = xmalloc(LEN);
	struct guest_tcp *t;
	size_t sent = 0, got = 0;
	uint16_t port;
	int listener = user_net_listen(SOCK_STREAM, &port), fd;

	user_net_pattern(out, LEN);
	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	t = guest_connect(g, USER_NET_GATEWAY, port);
	assert_true(t->open);
	fd = user_net_accept(g, listener);
	assert_true(fd >= 0);
	/* out, a piece at a time, as the host reads */
	while (sent < LEN) {
		size_t n = MIN(LEN - sent, 32768);

		assert_int_equal(guest_write(t, out + sent, n), n);
		sent += n;
		got += user_net_read(g, fd, in + got, sent - got, 2000);
	}
	assert_int_equal(got, LEN);
	assert_memory_equal(in, out, LEN);
	/* in */
	for (sent = 0; sent < LEN;) {
		ssize_t n = send(fd, out + sent, LEN - sent, MSG_DONTWAIT);

		if (n > 0)
			sent += n;
		guest_turn(g, 1);
	}
	assert_true(guest_wait(t, LEN, 5000));
	assert_memory_equal(t->in, out, LEN);
	close(fd);
	for (int i = 0; i < 100 && !t->fin_seen; i++)
		guest_turn(g, 2);
	assert_true(t->fin_seen);
	guest_close(t);
	close(listener);
	free(out);
	free(in);
}

static void test_tcp_out(void **state)
{
	bulk(user_net_start(*state, "user,id=n0"));
}

/* The same with large segments both ways. */
static void test_tcp_large(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	const uint8_t *h = g->largest_hdr;

	assert_int_equal(g->nd->vnet_hdr_max, 12);
	assert_false(net_set_offloads(g->nd, NET_OFFLOAD_UFO));
	assert_true(net_set_offloads(g->nd, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4));
	net_set_vnet_hdr(g->nd, 12);
	g->hdr = 12;
	g->large = true;
	bulk(g);
	assert_true(g->largest > 2 * 1514);
	assert_int_equal(h[0], 1);
	assert_int_equal(h[1], 1);
	assert_int_equal(load_le16(h + 2), 54);
	assert_in_range(load_le16(h + 4), 1400, 1460);
	assert_int_equal(load_le16(h + 6), 34);
	assert_int_equal(load_le16(h + 8), 16);
}

/* A guest that takes none gets none. */
static void test_tcp_header_alone(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");

	net_set_vnet_hdr(g->nd, 10);
	g->hdr = 10;
	bulk(g);
	assert_in_range(g->largest, 1400, 1514);
	assert_int_equal(g->largest_hdr[0], 0);
}

/* Headers that no guest of good will writes, before frames of all kinds. */
static void test_hostile_headers(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	static uint8_t f[NET_PACKET_MAX];
	uint32_t seed = 7;

	net_set_vnet_hdr(g->nd, 12);
	assert_true(net_set_offloads(g->nd, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4));
	g->hdr = 12;
	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	for (int i = 0; i < 3000; i++) {
		size_t len;

		for (size_t k = 0; k < 64; k++)
			f[k] = (seed = seed * 1103515245 + 12345) >> 16;
		for (size_t k = 0; k < 12; k++)
			g->send_hdr[k] = (seed = seed * 1103515245 + 12345) >> 16;
		if (i % 2)
			g->send_hdr[0] = 1, g->send_hdr[1] = 1;
		if (i % 4 == 1)
			g->send_hdr[7] = 0;
		store_be16(f + 12, i % 3 ? 0x0800 : 0x86dd);
		f[14] = 0x45;
		f[23] = 6;
		len = i % 50 ? (seed >> 8) % 300 : sizeof(f) - 12;
		guest_send(g, f, len);
	}
	guest_turn(g, 2);
}

/* Each frame's checksums, whatever made them. */
static void test_checksums(void **state)
{
	uint8_t hdr[12] = {1}, frame[14 + 20 + 20 + 101], want[2];
	uint32_t pseudo = 0;

	for (size_t len = 54; len <= sizeof(frame); len++) {
		for (size_t i = 0; i < len; i++)
			frame[i] = i * 91 + len;
		store_le16(hdr + 6, 34);
		store_le16(hdr + 8, 16);
		pseudo = 0x1234 + len;
		store_be16(frame + 50, 0);
		store_be16(want, guest_checksum(frame + 34, len - 34, pseudo));
		store_be16(frame + 50, pseudo);
		assert_true(user_finish_frame(hdr, frame, len));
		assert_memory_equal(frame + 50, want, 2);
	}
	store_le16(hdr + 6, sizeof(frame));
	assert_false(user_finish_frame(hdr, frame, sizeof(frame)));
	store_le16(hdr + 6, 34);
	store_le16(hdr + 8, sizeof(frame) - 34 - 1);
	assert_false(user_finish_frame(hdr, frame, sizeof(frame)));
	hdr[1] = 4; /* IPv6 */
	assert_false(user_finish_frame(hdr, frame, sizeof(frame)));
}

static void test_refused_connection(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	struct guest_tcp *t;

	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	t = guest_connect(g, USER_NET_GATEWAY, user_net_free_port(SOCK_STREAM));
	assert_true(t->reset);
	assert_false(t->open);
}

static void test_ipv6(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0,ipv6-net=fd00:7::/64");
	/* A router solicitation from a link-local address. */
	uint8_t f[14 + 40 + 8] = {0x33, 0x33, 0, 0, 0, 2};
	struct guest_frame r;
	bool found = false;
	uint32_t sum;

	memcpy(f + 6, g->mac, 6);
	store_be16(f + 12, 0x86dd);
	f[14] = 0x60;
	store_be16(f + 18, 8);
	f[20] = 58;
	f[21] = 255;
	memcpy(f + 22, "\xfe\x80\0\0\0\0\0\0\x50\x54\0\xff\xfe\x12\x34\x56", 16);
	memcpy(f + 38, "\xff\2\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 16);
	f[54] = 133;
	sum = 58 + 8;
	for (int i = 22; i < 54; i += 2)
		sum += load_be16(f + i);
	store_be16(f + 56, guest_checksum(f + 54, 8, sum));
	guest_send(g, f, sizeof(f));
	while (!found && guest_next(g, &r, 500)) {
		found = load_be16(r.data + 12) == 0x86dd && r.data[54] == 134 &&
			memmem(r.data, r.len, "\xfd\0\0\7\0\0\0\0", 8);
		free(r.data);
	}
	assert_true(found);
}

/* A guest without buffers gets its packets once it has some. */
static void test_no_buffers(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	struct guest_frame f;

	g->stalled = true;
	send_dhcp(g, 1);
	guest_turn(g, 2);
	assert_false(guest_next(g, &f, 10));
	g->stalled = false;
	net_receive_ready(g->nd, 0);
	assert_true(guest_next(g, &f, 1000));
	assert_int_equal(dhcp_option(f.data, f.len, 53)[1], 2);
	free(f.data);
	/* Far more than is kept for it: nothing grows. */
	g->stalled = true;
	for (int i = 0; i < 2 * USER_PENDING_MAX; i++)
		send_dhcp(g, 1);
	assert_int_equal(((struct user *)g->nd)->pending_count, USER_PENDING_MAX);
	g->stalled = false;
}

static void test_link(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	struct guest_frame f;

	net_set_link(g->nd, false);
	assert_int_equal(g->links, 1);
	send_dhcp(g, 1);
	assert_false(guest_next(g, &f, 20));
	net_set_link(g->nd, true);
	send_dhcp(g, 1);
	assert_true(guest_next(g, &f, 1000));
	free(f.data);
}

/* Frames that no guest of good will sends. */
static void test_garbage(void **state)
{
	struct guest *g = user_net_start(*state, "user,id=n0");
	static uint8_t f[65600];
	uint32_t seed = 1;

	assert_true(guest_find_gateway(g, USER_NET_GATEWAY));
	for (int i = 0; i < 3000; i++) {
		size_t len;

		for (size_t k = 0; k < 128; k++)
			f[k] = (seed = seed * 1103515245 + 12345) >> 16;
		len = i % 100 ? (seed >> 8) % 200 : sizeof(f);
		store_be16(f + 12, i % 3 ? 0x0800 : i % 2 ? 0x0806 : 0x86dd);
		if (i % 3)
			f[14] = 0x45;
		guest_send(g, f, len);
	}
	guest_turn(g, 2);
}

static void test_errors(void **state)
{
	struct user_net *x = *state;
	uint16_t port;
	int fd = user_net_listen(SOCK_STREAM, &port);
	char *taken = xasprintf("user,id=n0,hostfwd=tcp:127.0.0.1:%u-:22", port);

	refused(x, "user", "'id' is missing");
	refused(x, "usr,id=n0", "did you mean 'user'?");
	refused(x, "vde,id=n0", "not supported");
	refused(x, "user,id=n0,guestfdw=x", "did you mean 'guestfwd'?");
	refused(x, "user,id=n0,smb=/tmp", "Invalid parameter 'smb'");
	refused(x, "user,id=n0,net=hello", "expects ADDRESS/BITS");
	refused(x, "user,id=n0,net=10.0.2.0/3", "4 to 32 bits");
	refused(x, "user,id=n0,net=10.0.2.0/x", "no mask");
	refused(x, "user,id=n0,host=1.2.3.4", "host is not in the network");
	refused(x, "user,id=n0,host=10.0.2.3", "dns and host must differ");
	refused(x, "user,id=n0,dhcpstart=10.0.3.15", "dhcpstart is not in the network");
	refused(x, "user,id=n0,dhcpstart=10.0.2.2", "must differ");
	refused(x, "user,id=n0,dns=8.8.8.8,restrict=on", "dns is not in the network");
	refused(x, "user,id=n0,dns=eight", "expects an IPv4 address");
	refused(x, "user,id=n0,ipv4=off,ipv6=off", "both off");
	refused(x, "user,id=n0,ipv4=off,net=10.0.0.0/8", "net needs IPv4");
	refused(x, "user,id=n0,ipv6=off,ipv6-host=fec0::2", "ipv6-host needs IPv6");
	refused(x, "user,id=n0,ipv6-net=fec0::/200", "at most 126 bits");
	refused(x, "user,id=n0,ipv6-host=fe80::1", "ipv6-host is not in the network");
	refused(x, "user,id=n0,domainname=", "cannot be empty");
	refused(x, "user,id=n0,restrict=maybe", "'on' or 'off'");
	refused(x, "user,id=n0,hostfwd=sctp::1-:1", "begins with tcp:");
	refused(x, "user,id=n0,hostfwd=tcp::1", "'-' is missing");
	refused(x, "user,id=n0,hostfwd=tcp::70000-:22", "a port is 0 to 65535");
	refused(x, "user,id=n0,hostfwd=tcp::22-:0", "a port is 1 to 65535");
	refused(x, "user,id=n0,hostfwd=tcp:a.b:22-:22", "no IPv4 address");
	refused(x, "user,id=n0,hostfwd=unix:-:22", "1 to 107 bytes");
	refused(x, taken, "Address already in use");
	refused(x, "user,id=n0,guestfwd=tcp:10.0.2.100:7", "it is tcp:SERVER:PORT");
	refused(x, "user,id=n0,guestfwd=tcp:1.2.3.4:7-cmd:cat", "not in the network");
	refused(x, "user,id=n0,guestfwd=tcp:10.0.2.100:7-chardev:none", "no chardev 'none'");
	refused(x, "user,id=n0,guestfwd=tcp:10.0.2.100:7-stdio", "ends with chardev:ID");
	close(fd);
	free(taken);
}

int main(void)
{
#define NET_TEST(f) cmocka_unit_test_setup_teardown(f, user_net_setup, user_net_teardown)
	const struct CMUnitTest tests[] = {
		NET_TEST(test_dhcp),
		NET_TEST(test_arp_icmp),
		NET_TEST(test_tftp),
		NET_TEST(test_udp_out),
		NET_TEST(test_dns),
		NET_TEST(test_tcp_out),
		NET_TEST(test_tcp_large),
		NET_TEST(test_tcp_header_alone),
		NET_TEST(test_hostile_headers),
		cmocka_unit_test(test_checksums),
		NET_TEST(test_refused_connection),
		NET_TEST(test_ipv6),
		NET_TEST(test_no_buffers),
		NET_TEST(test_link),
		NET_TEST(test_garbage),
		NET_TEST(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	return 0;
}
#endif
