/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the user-mode back end share. libslirp is a TCP/IP stack in a library: it makes
 * connections of the process's own out of the guest's packets.
 *
 * Thread: the loop of the one queue while a device is attached; the main thread otherwise, and for
 * making and freeing. Whoever is not on that loop goes through user_call().
 */
#ifndef NET_USER_H
#define NET_USER_H

#include <libslirp.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "net/net.h"
#include "vmm/core/log.h"

enum {
	USER_PENDING_MAX = 512, /* packets that wait for the guest's buffers; more are lost */
	USER_FRAME_MAX = 65536 + 64,
};

/* -netdev user's options as libslirp wants them; strings are borrowed from the options. */
struct user_config {
	SlirpConfig slirp;
	const char **dnssearch; /* owned, ends with NULL */
};

/* A descriptor that libslirp waits for. Allocated once for each number, so that its address lasts.
 */
struct user_fd {
	struct ev_fd ev;
	uint32_t revents; /* since libslirp was last told */
	uint32_t wanted;
	unsigned generation; /* of the question in which it was wanted */
	bool listed;	     /* in user.watched */
	struct user *user;
};

/* One of libslirp's own timers. */
struct user_timer {
	struct ev_timer ev;
	struct user *user;
	SlirpTimerId id;
	void *opaque;
	int64_t deadline; /* ns; 0: not armed */
	struct user_timer *next;
};

struct user_pending {
	size_t len;
	uint16_t segment;
	uint8_t data[];
};

/* A chardev at the end of guestfwd=. */
struct user_forward {
	struct user *user;
	struct chardev *chardev;
	struct chardev_peer peer;
	struct in_addr server;
	int port;
	/* What the chardev has not taken yet. While there is some, packets for it are lost, and the
	 * guest's TCP sends them again. */
	uint8_t *backlog;
	size_t backlog_start, backlog_len, backlog_room;
	struct user_forward *next;
};

/* The socket file of hostfwd=unix:. */
struct user_path {
	char *path;
	struct user_path *next;
};

struct user {
	struct netdev nd;
	const struct net_context *context;
	Slirp *slirp;
	struct in_addr net;
	bool restricted;

	struct evloop *loop; /* while attached */
	struct ev_hook hook;
	struct ev_timer timer; /* for libslirp's turn at the latest */
	struct user_timer *timers;
	struct user_fd **fds; /* by number */
	int fd_room;
	int *watched; /* numbers of those that are registered with the loop */
	int watched_count, watched_room;
	unsigned generation;
	bool due;	/* descriptors are ready, or time has come: libslirp's turn */
	bool changed;	/* what libslirp waits for may have */
	bool can_take;	/* a guestfwd may take more */
	int64_t now_ms; /* that libslirp was last told */

	/* Room in the guest, filled from the front while libslirp works. */
	struct net_packet batch[NET_BATCH];
	unsigned batch_used, batch_count;
	struct user_pending *pending[USER_PENDING_MAX]; /* a ring */
	unsigned pending_first, pending_count;
	uint8_t *frame; /* a packet of several pieces, laid together */

	/* Segments of one connection that are being joined; held_len 0: none. */
	unsigned offloads; /* NET_OFFLOAD_* that the guest takes */
	uint8_t *held;
	size_t held_len;
	unsigned held_count;
	uint16_t held_segment; /* bytes of data in each but the last */
	bool held_closed;      /* that one is there */

	struct user_forward *forwards;
	struct user_path *paths;
	struct log_ratelimit guest_errors;
};

static inline struct user *user_of(struct netdev *nd)
{
	return (struct user *)nd; /* its first member */
}

/* user_config.c: pure. Fails for what is no address or does not fit together. */
bool user_config_parse(struct user_config *config, struct opts *opts, struct error **err);
void user_config_free(struct user_config *config);

/* user_loop.c: libslirp's callbacks, and its turns on the event loop. */
extern const SlirpCb user_callbacks;
void user_loop_attach(struct user *u, struct evloop *loop);
void user_loop_detach(struct user *u);
void user_loop_destroy(struct user *u);
/* libslirp's clock stands still outside its turns; before it is given anything. */
void user_tick(struct user *u);
/* On the loop, or directly while there is none. */
void user_call(struct user *u, void (*fn)(void *opaque), void *opaque);

/* user.c: packets for the guest. */
void user_to_guest(struct user *u, const void *frame, size_t len);
void user_flush(struct user *u);

/* A frame, or segments of so many bytes of data as one. */
void user_deliver(struct user *u, const uint8_t *frame, size_t len, uint16_t segment);

/* user_offload.c: what struct virtio_net_hdr asks for is done in the frame; false: it is nonsense.
 */
bool user_finish_frame(const uint8_t *hdr, uint8_t *frame, size_t len);
void user_make_header(const struct user *u, uint8_t hdr[12], size_t len, uint16_t segment);
/* Keeps a frame that may be joined with what follows; false: it may not, and what was kept is
 * delivered. */
bool user_hold(struct user *u, const uint8_t *frame, size_t len);
void user_release(struct user *u);

/* user_forward.c */
struct user_rule {
	bool udp;
	bool family_unix;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_un un;
	} host;
	socklen_t host_len;
	struct sockaddr_in guest;
};
/* Pure. removing: the rule ends behind the host's end. */
bool user_rule_parse(struct user_rule *rule, const char *text, bool removing, struct error **err);
bool user_hostfwd_add(struct netdev *nd, const char *text, struct error **err);
bool user_hostfwd_remove(struct netdev *nd, const char *text, struct error **err);
bool user_guestfwd_add(struct user *u, const char *text, struct error **err);
/* Whether the frame is for a chardev that has not taken what came before. */
bool user_forward_blocked(const struct user *u, const uint8_t *frame, size_t len);
/* The guest has room again: chardevs may have something to say. */
void user_forwards_accept(struct user *u);
void user_forwards_free(struct user *u);

#endif
