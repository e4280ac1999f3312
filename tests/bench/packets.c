/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of a guest's network (tests/bench/net.py), with as little work of its own as can be.
 *
 *   packets sink OWN PEER       takes datagrams at the path OWN from the path PEER; tells how many
 *                               there were ("count N") ten times a second
 *   packets source OWN PEER     sends packets of 64 bytes there, as fast as they are taken
 *   packets flood INTERFACE     out of a network interface, some two million a second, whatever becomes
 *                               of them: the kernel makes them itself, for a BPF program that
 *                               redirects each (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18)
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64,
	FRAME = 64,
	ROOM = 2048,
	BUFFER_BYTES = 4 << 20,
	FLOOD_BURST = 256, /* half of a tap's queue */
	FLOOD_NS = 128000, /* from burst to burst */
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

static int load_redirect(const char *name)
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 1, .imm = if_nametoindex(name)},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 0},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.insns = (uintptr_t)code,
		.insn_cnt = sizeof(code) / sizeof(*code),
		.license = (uintptr_t)"GPL",
	};
	int fd = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

	if (fd < 0 || !code[0].imm)
		err(1, "%s", name);
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
	union bpf_attr attr = {.test = {
				       .prog_fd = fd,
				       .data_in = (uintptr_t)packet,
				       .data_size_in = FRAME,
				       .repeat = FLOOD_BURST,
				       .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
				       .batch_size = BATCH,
			       }};
	struct timespec next;

	prctl(PR_SET_TIMERSLACK, 1);
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)) < 0)
			err(1, "BPF_PROG_TEST_RUN");
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
	else if (argc == 3 && !strcmp(argv[1], "flood"))
		flood(load_redirect(argv[2]));
	fprintf(stderr, "usage: packets sink|source OWN PEER, packets flood INTERFACE\n");
	return 2;
}
