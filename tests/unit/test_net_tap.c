/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tap back end: in a network namespace of its own with the kernel's taps where there is
 * /dev/net/tun and the right to use it, through socket pairs everywhere.
 *
 * Called with --use-vnet this program is the bridge helper of its own tests.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/tap.h"
#include "tests/lib/net_fake.h"
#include "tests/lib/net_make.h"
#include "vmm/core/util.h"

enum { ETHERTYPE = 0x88b5, LEN = 100 }; /* for local experiments */

static bool have_tun(void)
{
	int fd = open(TAP_TUN_DEVICE, O_RDWR);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* ---- helpers ---- */

static void frame(uint8_t *p, uint8_t tag)
{
	memset(p, tag, LEN);
	memset(p, 0xff, 6);
	memcpy(p + 6, "\x02\0\0\0\0\1", 6);
	store_be16(p + 12, ETHERTYPE);
}

static void set_up(const char *ifname)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {.ifr_flags = IFF_UP};

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

/* A socket that sees what the host sees of the interface, and speaks there. */
static int packet_socket(const char *ifname)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htobe16(ETHERTYPE));
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htobe16(ETHERTYPE),
		.sll_ifindex = if_nametoindex(ifname),
	};

	assert_true(fd >= 0 && addr.sll_ifindex);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static bool exists(const char *ifname)
{
	return if_nametoindex(ifname) != 0;
}

static void delete_link(const char *ifname)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} msg = {
		.h = {sizeof(msg), RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0},
		.i = {.ifi_family = AF_UNSPEC, .ifi_index = if_nametoindex(ifname)},
	};
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	char reply[256];

	assert_true(send(fd, &msg, sizeof(msg), 0) == sizeof(msg));
	assert_true(recv(fd, reply, sizeof(reply), 0) > 0);
	close(fd);
	assert_false(exists(ifname));
}

static int open_tap(const char *ifname, int flags)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open(TAP_TUN_DEVICE, O_RDWR);

	strcpy(ifr.ifr_name, ifname);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

/* What the guest receives of packets from the host, and the host of the guest's; hdr bytes of
 * header in front on the guest's side. */
static void exchange(struct net_fake *f, int host, unsigned hdr)
{
	uint8_t out[12 + LEN], in[2048];

	net_fake_add_room(f, 0, 16);
	for (uint8_t i = 1; i <= 5; i++) {
		frame(out, i);
		assert_int_equal(send(host, out, LEN, 0), LEN);
	}
	assert_true(net_fake_wait(f, 0, 5));
	for (uint8_t i = 1; i <= 5; i++) {
		frame(out, i);
		assert_int_equal(net_fake_take(f, 0, in), hdr + LEN);
		assert_memory_equal(in + hdr, out, LEN);
	}
	for (uint8_t i = 1; i <= 5; i++) {
		memset(out, 0, hdr);
		frame(out + hdr, i);
		assert_true(net_fake_send(f, 0, out, hdr + LEN));
		assert_int_equal(recv(host, in, sizeof(in), 0), LEN);
		assert_memory_equal(in, out + hdr, LEN);
	}
}

/* ---- devices of the kernel's ---- */

static void test_created(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop, "tap,script=no,downscript=no");
	struct net_fake f;
	char *info = net_info(nd);
	int host;

	assert_string_equal(info, "index=0,type=tap,ifname=tap0,script=no,downscript=no");
	free(info);
	assert_string_equal(nd->ops->type, "tap");
	assert_int_equal(nd->vnet_hdr_max, 12);
	set_up("tap0");
	host = packet_socket("tap0");
	net_fake_init(&f, nd, loop, 1, 2048, 3);
	/* A front end without headers before a device with them, and the other sizes. */
	exchange(&f, host, 0);
	net_set_vnet_hdr(nd, 10);
	exchange(&f, host, 10);
	net_set_vnet_hdr(nd, 12);
	exchange(&f, host, 12);
	net_set_vnet_hdr(nd, 0);
	exchange(&f, host, 0);
	net_fake_destroy(&f);
	close(host);
	net_free(nd);
	assert_false(exists("tap0"));
	evloop_free(loop);
}

static void test_plain(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop,
					  "tap,ifname=plain,vnet_hdr=off,script=no,downscript=no,"
					  "sndbuf=64k");
	struct net_fake f;
	int host;

	assert_int_equal(nd->vnet_hdr_max, 0);
	assert_int_equal(nd->offloads_able, 0);
	assert_true(net_set_offloads(nd, 0));
	assert_false(net_set_offloads(nd, NET_OFFLOAD_CSUM));
	set_up("plain");
	host = packet_socket("plain");
	net_fake_init(&f, nd, loop, 1, 2048, 1);
	exchange(&f, host, 0);
	net_fake_destroy(&f);
	close(host);
	net_free(nd);
	evloop_free(loop);
}

static void test_offloads(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop, "tap,ifname=off,script=no,downscript=no");
	unsigned base = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6;

	assert_int_equal(nd->offloads_able & base, base);
	assert_true(net_set_offloads(nd, nd->offloads_able));
	assert_true(net_set_offloads(nd, base));
	assert_true(net_set_offloads(nd, 0));
	assert_false(net_set_offloads(nd, 1 << 20));
	net_free(nd);
	evloop_free(loop);
}

static void test_persistent(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	int fd = open_tap("stays", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR), size = 12;
	struct netdev *nd;

	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &size), 0);
	close(fd);
	nd = net_must_make(loop, "tap,ifname=stays,script=no,downscript=no");
	net_set_vnet_hdr(nd, 10);
	net_set_offloads(nd, NET_OFFLOAD_CSUM);
	net_free(nd);
	assert_true(exists("stays"));
	fd = open_tap("stays", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	assert_int_equal(ioctl(fd, TUNGETVNETHDRSZ, &size), 0);
	assert_int_equal(size, 12);
	assert_int_equal(ioctl(fd, TUNSETPERSIST, 0), 0);
	close(fd);
	assert_false(exists("stays"));
	evloop_free(loop);
}

static void test_fd(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	int fd = open_tap("given", IFF_TAP | IFF_NO_PI), host;
	struct netdev *nd;
	struct net_fake f;
	char *text = xasprintf("tap,fd=%d", fd), *info;

	nd = net_must_make(loop, "%s", text);
	info = net_info(nd);
	assert_string_equal(strrchr(info, ',') + 1, text + 4);
	assert_int_equal(nd->vnet_hdr_max, 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	set_up("given");
	host = packet_socket("given");
	net_fake_init(&f, nd, loop, 1, 2048, 2);
	exchange(&f, host, 0);
	net_fake_destroy(&f);
	close(host);
	net_free(nd);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	free(info);
	free(text);

	fd = open_tap("atun", IFF_TUN | IFF_NO_PI);
	text = xasprintf("tap,fd=%d", fd);
	net_must_refuse(text, "no Ethernet frames");
	/* What was refused stays its owner's. */
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(fd);
	free(text);
	evloop_free(loop);
}

static void send_many(int host, unsigned n)
{
	uint8_t out[LEN];

	for (unsigned i = 0; i < n; i++) {
		frame(out, i);
		assert_int_equal(send(host, out, LEN, 0), LEN);
	}
}

/* UDP from many ports: what the kernel tells flows by. */
static void send_flows(int host, const char *ifname, unsigned n)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htobe16(ETHERTYPE_IP),
		.sll_ifindex = if_nametoindex(ifname),
	};
	uint8_t out[LEN] = {0};

	memset(out, 0xff, 6);
	memcpy(out + 6, "\x02\0\0\0\0\1\x08\0\x45", 9);
	store_be16(out + 16, LEN - 14);
	memcpy(out + 22, "\x40\x11\0\0\xc0\0\2\1\xc0\0\2\2", 12);
	store_be16(out + 36, 9);
	store_be16(out + 38, LEN - 34);
	for (unsigned i = 0; i < n; i++) {
		store_be16(out + 34, 1000 + i);
		assert_int_equal(sendto(host, out, LEN, 0, (struct sockaddr *)&to, sizeof(to)),
				 LEN);
	}
}

static void test_queues(void **state)
{
	int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	int a = open_tap("multi", flags), b = open_tap("multi", flags), host;
	struct evloop *loop = evloop_new(NULL, NULL);
	char *text = xasprintf("tap,fds=%d:%d", a, b);
	struct netdev *nd = net_must_make(loop, "%s", text);
	struct net_fake f;

	free(text);
	assert_int_equal(nd->queues, 2);
	set_up("multi");
	host = packet_socket("multi");
	net_fake_init(&f, nd, loop, 2, 2048, 1);
	assert_true(net_set_queues(nd, 1));
	net_fake_settle(&f);
	/* A detached queue is an error for poll(2): the loop does not spin on it. */
	assert_false(evloop_run_once(loop, 0));
	net_fake_add_room(&f, 0, 200);
	net_fake_add_room(&f, 1, 200);
	send_flows(host, "multi", 64);
	assert_true(net_fake_wait(&f, 0, 64));
	assert_int_equal(net_fake_count(&f, 1), 0);
	assert_true(net_set_queues(nd, 2));
	net_fake_settle(&f);
	send_flows(host, "multi", 64);
	net_fake_settle(&f);
	assert_int_equal(net_fake_count(&f, 0) + net_fake_count(&f, 1), 128);
	assert_true(net_fake_count(&f, 1) > 0);
	/* Detached with queues off. */
	assert_true(net_set_queues(nd, 1));
	net_fake_destroy(&f);
	close(host);
	net_free(nd);

	nd = net_must_make(loop, "tap,queues=4,ifname=mq%%d,script=no,downscript=no");
	assert_int_equal(nd->queues, 4);
	assert_true(exists("mq0"));
	assert_true(net_set_queues(nd, 1));
	assert_true(net_set_queues(nd, 3));
	net_free(nd);
	evloop_free(loop);
}

/* A device that was made with queues is opened by one who wants a single one. */
static void test_single_of_many(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	int fd = open_tap("many", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);

	assert_int_equal(ioctl(fd, TUNSETPERSIST, 1), 0);
	close(fd);
	net_free(net_must_make(loop, "tap,ifname=many,script=no,downscript=no"));
	delete_link("many");
	fd = open_tap("single", IFF_TAP | IFF_NO_PI);
	net_must_refuse("tap,ifname=single,queues=2,script=no",
			"could not configure /dev/net/tun (single)");
	close(fd);
	evloop_free(loop);
}

static void test_no_room(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop, "tap,ifname=room,script=no,downscript=no");
	struct net_fake f;
	uint8_t in[2048];
	int host;

	set_up("room");
	host = packet_socket("room");
	net_fake_init(&f, nd, loop, 1, 2048, 1);
	send_many(host, 150);
	net_fake_settle(&f);
	/* Quiet while there is no room. */
	assert_false(evloop_run_once(loop, 0));
	assert_int_equal(f.q[0].batches, 0);
	net_fake_add_room(&f, 0, 10);
	net_fake_settle(&f);
	assert_int_equal(net_fake_count(&f, 0), 10);
	assert_false(evloop_run_once(loop, 0));
	net_fake_add_room(&f, 0, 200);
	assert_true(net_fake_wait(&f, 0, 150));
	for (unsigned i = 0; i < 150; i++) {
		assert_int_equal(net_fake_take(&f, 0, in), LEN);
		assert_int_equal(in[20], i);
	}
	/* In batches. */
	assert_in_range(f.q[0].batches, 1, 8);
	/* A link that is down loses what comes, and takes what is sent. */
	net_set_link(nd, false);
	assert_true(net_fake_send(&f, 0, in, LEN));
	send_many(host, 3);
	net_fake_settle(&f);
	assert_int_equal(net_fake_count(&f, 0), 0);
	net_fake_destroy(&f);
	close(host);
	net_free(nd);
	evloop_free(loop);
}

/* Longer than the guest's buffers: lost alone. */
static void test_oversize(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop,
					  "tap,ifname=big,script=no,downscript=no,vnet_hdr=off");
	uint8_t out[1000] = {0}, in[512];
	struct net_fake f;
	int host;

	set_up("big");
	host = packet_socket("big");
	net_fake_init(&f, nd, loop, 1, 512, 2);
	net_fake_add_room(&f, 0, 100);
	send_many(host, 1);
	frame(out, 9);
	assert_int_equal(send(host, out, sizeof(out), 0), sizeof(out));
	send_many(host, 2);
	assert_true(net_fake_wait(&f, 0, 3));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(net_fake_take(&f, 0, in), LEN);
	net_fake_destroy(&f);
	close(host);
	net_free(nd);
	evloop_free(loop);
}

static void test_deleted(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop, "tap,ifname=gone,script=no,downscript=no");
	uint8_t out[LEN];
	struct net_fake f;

	set_up("gone");
	net_fake_init(&f, nd, loop, 1, 2048, 1);
	delete_link("gone");
	assert_true(net_fake_wait_link(&f, false));
	assert_int_equal(f.link_changes, 1);
	net_fake_settle(&f);
	assert_false(evloop_run_once(loop, 0));
	frame(out, 1);
	assert_true(net_fake_send(&f, 0, out, LEN));
	net_fake_add_room(&f, 0, 1);
	net_fake_destroy(&f);
	net_free(nd);
	evloop_free(loop);
}

static void write_script(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
	chmod(path, 0755);
}

static void test_scripts(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	char dir[] = "/tmp/test_net_tap.XXXXXX", text[256], line[64] = "";
	char *up, *down, *log;
	FILE *f;

	assert_non_null(mkdtemp(dir));
	up = xasprintf("%s/up", dir);
	down = xasprintf("%s/down", dir);
	log = xasprintf("%s/log", dir);
	snprintf(text, sizeof(text), "#!/bin/sh\necho up $1 >>%s\n", log);
	write_script(up, text);
	snprintf(text, sizeof(text), "#!/bin/sh\necho down $1 >>%s\n", log);
	write_script(down, text);
	snprintf(text, sizeof(text), "tap,ifname=scr0,script=%s,downscript=%s", up, down);
	net_free(net_must_make(loop, "%s", text));
	f = fopen(log, "r");
	assert_true(fread(line, 1, sizeof(line), f) > 0);
	assert_string_equal(line, "up scr0\ndown scr0\n");
	fclose(f);

	write_script(up, "#!/bin/sh\nexit 3\n");
	snprintf(text, sizeof(text), "tap,ifname=scr0,script=%s,downscript=no", up);
	net_must_refuse(text, "failed with status 3");
	assert_false(exists("scr0"));
	snprintf(text, sizeof(text), "tap,ifname=scr0,script=%s/none", dir);
	net_must_refuse(text, "could not launch network script");
	unlink(up), unlink(down), unlink(log), rmdir(dir);
	free(up), free(down), free(log);
	evloop_free(loop);
}

static void test_helper(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct netdev *nd = net_must_make(loop, "bridge,br=mybr,helper=/proc/self/exe");
	char *info = net_info(nd), self[256], *text;
	ssize_t n;

	assert_string_equal(info, "index=0,type=bridge,helper=/proc/self/exe,br=mybr");
	free(info);
	assert_string_equal(nd->ops->type, "bridge");
	/* The helper names its tap after the bridge. */
	assert_true(exists("t-mybr"));
	assert_int_equal(nd->vnet_hdr_max, 12);
	net_free(nd);

	nd = net_must_make(loop, "tap,br=two,helper=/proc/self/exe");
	assert_true(exists("t-two"));
	net_free(nd);
	/* A line for a shell. */
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(n > 0);
	self[n] = 0;
	text = xasprintf("tap,helper=%s --use-vnet --br=three", self);
	nd = net_must_make(loop, "%s", text);
	assert_true(exists("t-three"));
	net_free(nd);
	free(text);
	net_must_refuse("bridge,br=fail,helper=/proc/self/exe", "failed with status 7");
	net_must_refuse("bridge,br=none,helper=/proc/self/exe", "sent no file descriptor");
	evloop_free(loop);
}

static void test_vhost(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	bool have = access(TAP_VHOST_DEVICE, R_OK | W_OK) == 0;
	struct netdev *nd = net_must_make(loop, "tap,vhost=on,poll-us=5,script=no,downscript=no");

	assert_int_equal(nd->vhost.kind, have ? NET_VHOST_KERNEL : NET_VHOST_NONE);
	assert_int_equal(nd->vhost.vhost_fd[0] >= 0, have);
	net_free(nd);
	if (!have)
		net_must_refuse("tap,vhostforce=on,script=no", "open vhost char device failed");
	net_must_refuse("tap,poll-us=5,script=no,downscript=no", "not valid without vhost");
	net_must_refuse("tap,script=no,downscript=no,vhostfds=0:1",
			"is not that of the tap's queues");
	evloop_free(loop);
}

/* ---- what needs no device ---- */

static void test_options(void **state)
{
	net_must_refuse("tap,fd=0,ifname=x", "are invalid with fd=");
	net_must_refuse("tap,fds=0:1,queues=2", "are invalid with fds=");
	net_must_refuse("tap,helper=/bin/true,script=no", "are invalid with helper=");
	net_must_refuse("tap,vhost=off,vhostfd=0", "is not valid without vhost");
	net_must_refuse("tap,vhostfd=0,vhostfds=1", "invalid together");
	net_must_refuse("tap,queues=0", "'queues' expects");
	net_must_refuse("tap,queues=17", "'queues' expects");
	net_must_refuse("tap,fd=0", "is not a tap device's");
	net_must_refuse("tap,fd=0:1", "expects one file descriptor");
	net_must_refuse("tap,fd=999", "expects open file descriptors");
	net_must_refuse("tap,fd=tap", "expects open file descriptors");
	net_must_refuse("tap,fds=0:0", "twice");
	net_must_refuse("tap,ifname=a-name-that-is-too-long", "'ifname' expects");
	net_must_refuse("tap,ifnam=x", "did you mean 'ifname'");
	net_must_refuse("tap,vnet_hdr=perhaps", "'on' or 'off'");
	net_must_refuse("tap,sndbuf=4G", "'sndbuf' is too large");
	net_must_refuse("bridge,helper=/nonexistent/helper", "could not launch bridge helper");
	net_must_refuse("bridge,helper=/bin/true", "sent no file descriptor");
	net_must_refuse("bridge,script=no", "Invalid parameter 'script'");
}

/* A device that takes no more: the front end waits, and is told. */
static void test_full(void **state)
{
	struct evloop *loop = evloop_new(NULL, NULL);
	struct tap *t = tap_new(loop, "tap", "n0", 1);
	uint8_t out[LEN], in[2048];
	unsigned sent = 0, more;
	struct net_fake f;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sv), 0);
	t->q[0].fd = sv[0];
	net_fake_init(&f, &t->nd, loop, 1, 2048, 1);
	frame(out, 1);
	while (sent < 100000 && net_fake_send(&f, 0, out, LEN))
		sent++;
	assert_in_range(sent, 1, 99999);
	assert_false(net_fake_send(&f, 0, out, LEN));
	net_fake_settle(&f);
	assert_int_equal(f.q[0].writables, 0);
	for (more = 0; recv(sv[1], in, sizeof(in), 0) == LEN; more++)
		;
	assert_int_equal(more, sent);
	net_fake_settle(&f);
	assert_int_equal(f.q[0].writables, 1);
	assert_true(net_fake_send(&f, 0, out, LEN));
	assert_int_equal(recv(sv[1], in, sizeof(in), 0), LEN);
	/* And both directions at once. */
	net_fake_add_room(&f, 0, 4);
	assert_int_equal(send(sv[1], out, LEN, 0), LEN);
	assert_true(net_fake_wait(&f, 0, 1));
	net_fake_destroy(&f);
	net_free(&t->nd);
	close(sv[1]);
	evloop_free(loop);
}

/* Headers of the device's alone, and more pieces than one call takes. */
static void test_strip(void **state)
{
	enum { PIECES = 1024, PIECE = 3 };
	struct evloop *loop = evloop_new(NULL, NULL);
	struct tap *t = tap_new(loop, "tap", "n0", 1);
	static uint8_t data[PIECES * PIECE], in[8192];
	struct iovec iov[PIECES];
	struct net_packet pkt = {iov, PIECES, sizeof(data)};
	struct net_fake f;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sv), 0);
	t->q[0].fd = sv[0];
	t->host_hdr = true;
	t->hdr = 12;
	net_fake_init(&f, &t->nd, loop, 1, 4096, NET_FAKE_IOV);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = i * 7;
	for (unsigned i = 0; i < PIECES; i++)
		iov[i] = (struct iovec){data + i * PIECE, PIECE};
	assert_int_equal(net_send(&t->nd, 0, &pkt, 1), 1);
	assert_int_equal(recv(sv[1], in, sizeof(in), 0), 12 + sizeof(data));
	assert_memory_equal(in, "\0\0\0\0\0\0\0\0\0\0\0\0", 12);
	assert_memory_equal(in + 12, data, sizeof(data));
	net_fake_add_room(&f, 0, 2);
	assert_int_equal(send(sv[1], in, 12 + sizeof(data), 0), 12 + sizeof(data));
	assert_true(net_fake_wait(&f, 0, 1));
	assert_int_equal(net_fake_take(&f, 0, in), sizeof(data));
	assert_memory_equal(in, data, sizeof(data));
	net_fake_destroy(&f);
	net_free(&t->nd);
	close(sv[1]);
	evloop_free(loop);
}

/* ---- the helper ---- */

static int be_helper(int argc, char **argv)
{
	char name[IFNAMSIZ], cmsg[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {"", 1};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = cmsg,
			     .msg_controllen = sizeof(cmsg)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	const char *br = "";
	int sock = -1, tap;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--fd=", 5))
			sock = atoi(argv[i] + 5);
		if (!strncmp(argv[i], "--br=", 5))
			br = argv[i] + 5;
	}
	if (!strcmp(br, "fail"))
		return 7;
	if (!strcmp(br, "none"))
		return 0;
	snprintf(name, sizeof(name), "t-%s", br);
	tap = open_tap(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &tap, sizeof(tap));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : 1;
}

/* No packets of the host's own on new interfaces. */
static void be_quiet(const char *sysctl)
{
	int fd = open(sysctl, O_WRONLY);

	if (fd < 0)
		return;
	assert_int_equal(write(fd, "1", 1), 1);
	close(fd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest devices[] = {
		cmocka_unit_test(test_created),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_offloads),
		cmocka_unit_test(test_persistent),
		cmocka_unit_test(test_fd),
		cmocka_unit_test(test_queues),
		cmocka_unit_test(test_single_of_many),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_oversize),
		cmocka_unit_test(test_deleted),
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_helper),
		cmocka_unit_test(test_vhost),
	};
	const struct CMUnitTest plain[] = {
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_strip),
	};
	int failed;

	if (argc > 1 && !strcmp(argv[1], "--use-vnet"))
		return be_helper(argc, argv);
	failed = cmocka_run_group_tests_name("options and socket pairs", plain, NULL, NULL);
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		print_message("no network namespace here: no devices of the kernel's\n");
		return failed;
	}
	be_quiet("/proc/sys/net/ipv6/conf/all/disable_ipv6");
	be_quiet("/proc/sys/net/ipv6/conf/default/disable_ipv6");
	if (!have_tun()) {
		print_message("no " TAP_TUN_DEVICE " here: no devices of the kernel's\n");
		return failed;
	}
	return failed + cmocka_run_group_tests_name("devices of the kernel's", devices, NULL, NULL);
}
