/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chardev on file descriptors: what stdio, file, pty and sockets have in common. Input is read
 * only as far as the front end can take it; output that the descriptor does not take at once waits
 * in a buffer of CHARDEV_BUFFER bytes, and when that is full with the front end.
 *
 * Embedded first in its owner. Main thread.
 */
#ifndef VMM_CHARDEV_STREAM_H
#define VMM_CHARDEV_STREAM_H

#include <sys/types.h>

#include "vmm/chardev/chardev.h"

struct stream {
	struct chardev base;
	struct evloop *loop;
	int in_fd, out_fd; /* -1: none; may be the same. The owner's to close. */
	struct ev_fd in_ev, out_ev;
	struct ev_work in_work; /* reads from what epoll does not know: files, /dev/null */
	struct ev_work closed_work;
	bool in_polled, out_polled; /* epoll does know */
	bool in_paused;		    /* the front end had no room */
	bool front_waits;	    /* chardev_write() took less than asked */
	bool out_socket;	    /* takes MSG_DONTWAIT */
	bool hup_closes;	    /* unread input is not worth waiting for: pty */
	bool one_by_one;	    /* a blocking terminal: poll() promises one byte */
	uint8_t out[CHARDEV_BUFFER];
	size_t out_start, out_len;
	bool out_failed; /* what closed() is about; else it is end of file */
	/* End of file or a dead peer. Called from the loop, never from inside write. */
	void (*closed)(struct stream *s);
};

void stream_init(struct stream *s, struct evloop *loop, const struct chardev_ops *ops,
		 void (*closed)(struct stream *s));
/* Begins to serve the descriptors; in_fd or out_fd may be -1. 0 or -errno. */
int stream_start(struct stream *s, int in_fd, int out_fd);
/* Ends that; what was buffered is dropped and the front end goes on. */
void stream_stop(struct stream *s);
/* No more input (end of file), output goes on; or the other way round. */
void stream_stop_input(struct stream *s);
void stream_stop_output(struct stream *s);
/* Tells the front end, which then may write at once. */
void stream_set_open(struct stream *s, bool open);
/* Waits up to 200 ms for the buffer to empty: before the end. */
void stream_flush(struct stream *s);

/* For the owner's struct chardev_ops. */
size_t stream_write(struct chardev *c, const uint8_t *data, size_t len);
void stream_accept_input(struct chardev *c);

#endif
