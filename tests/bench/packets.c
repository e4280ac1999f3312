/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of a guest's network (tests/bench/net.py), with as little work of its own as can be.
 *
 *   packets sink OWN PEER       takes datagrams at the path OWN from the path PEER; tells how many
 *                               there were ("count N") ten times a second
 *   packets source OWN PEER     sends packets of 64 bytes there, as fast as they are taken
 *   packets flood               to the neighbour 10.0.0.1, a million and a half a second, whatever becomes
 *                               of them; the kernel cuts them out of larger ones (UDP_SEGMENT)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64,
	FRAME = 64,
	ROOM = 2048,
	BUFFER_BYTES = 4 << 20,
	PAYLOAD = FRAME - 14 - 20 - 8,
	FLOOD_SENDS = 4, /* of BATCH packets, which together are half of a tap's queue */
	FLOOD_NS = 170000, /* from those to the next */
};

/* Ethernet, IPv4 and UDP from one neighbour, 10.0.0.2, to another, 10.0.0.1, which is the guest. */
static const uint8_t packet[FRAME] = {
	0x52, 0x54, 0,	0,  0, 1, 0x52, 0x54, 0,  0, 0, 2, 8, 0, 0x45, 0,  0, 50, 0, 0, 0x40,
	0,    64,   17, 0x26, 0xb9, 10, 0, 0, 2, 10, 0, 0, 1, 0, 9,	0, 9, 0, 30, 0, 0,
};

static struct sockaddr_un path(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", name);
	return a;
}

static int open_pair(const char *own, const char *peer)
{
	struct sockaddr_un a = path(own), b = path(peer);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), bytes = BUFFER_BYTES;

	unlink(own);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		err(1, "%s", own);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	puts("ready");
	fflush(stdout);
	while (connect(fd, (struct sockaddr *)&b, sizeof(b)) < 0)
		usleep(1000);
	return fd;
}

static int open_neighbour(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), segment = PAYLOAD;

	inet_pton(AF_INET, "10.0.0.1", &to.sin_addr);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) < 0)
		err(1, "10.0.0.1");
	puts("ready");
	fflush(stdout);
	return fd;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void take(int fd)
{
	static uint8_t rooms[BATCH][ROOM];
	struct iovec iov[BATCH];
	struct mmsghdr m[BATCH] = {0};
	unsigned long count = 0;
	double told = now();

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){rooms[i], ROOM};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
	}
	for (;;) {
		int n = recvmmsg(fd, m, BATCH, MSG_WAITFORONE, NULL);

		if (n > 0)
			count += n;
		if (now() - told < 0.1)
			continue;
		told = now();
		printf("count %lu\n", count);
		fflush(stdout);
	}
}

static void give(int fd)
{
	struct iovec iov = {(void *)packet, FRAME};
	struct mmsghdr m[BATCH] = {0};

	for (unsigned i = 0; i < BATCH; i++)
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
	for (;;)
		sendmmsg(fd, m, BATCH, 0);
}

static void flood(int fd)
{
	static const uint8_t payloads[BATCH * PAYLOAD];
	struct timespec next;

	prctl(PR_SET_TIMERSLACK, 1);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		for (unsigned i = 0; i < FLOOD_SENDS; i++)
			send(fd, payloads, sizeof(payloads), 0);
		next.tv_nsec += FLOOD_NS;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "sink"))
		take(open_pair(argv[2], argv[3]));
	else if (argc == 4 && !strcmp(argv[1], "source"))
		give(open_pair(argv[2], argv[3]));
	else if (argc == 2 && !strcmp(argv[1], "flood"))
		flood(open_neighbour());
	fprintf(stderr, "usage: packets sink|source OWN PEER, packets flood\n");
	return 2;
}
