/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other people's programs around a tap: the scripts that bring its interface up and down, and the
 * set-uid helper that opens one on a bridge for those who may not. Main thread, which waits for
 * them.
 */
#include "net/tap.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/core/util.h"

extern char **environ;

/* keep: a descriptor that the program inherits besides its first three; -1: none. */
static int start(pid_t *pid, char *const argv[], int keep)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, defaults;
	int r;

	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&actions);
	/* A descriptor duplicated onto itself is one that exec(2) leaves open. */
	if (keep >= 0)
		posix_spawn_file_actions_adddup2(&actions, keep, keep);
	r = posix_spawn(pid, argv[0], &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return r;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

static void set_status(struct error **err, const char *what, const char *path, int status)
{
	if (WIFSIGNALED(status))
		error_set(err, "%s %s was ended by signal %d", what, path, WTERMSIG(status));
	else
		error_set(err, "%s %s failed with status %d", what, path, WEXITSTATUS(status));
}

bool tap_run_script(const char *script, const char *ifname, struct error **err)
{
	char *argv[] = {(char *)script, (char *)ifname, NULL};
	pid_t pid;
	int r = start(&pid, argv, -1);

	if (r) {
		error_set_errno(err, r, "could not launch network script %s", script);
		return false;
	}
	r = wait_for(pid);
	if (r)
		set_status(err, "network script", script, r);
	return !r;
}

/* The one descriptor that comes with a message, or -1. */
static int receive_fd(int sock)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;
	ssize_t n;
	int fd = -1;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* A helper that is given with arguments of its own is a shell's line. */
static int start_helper(pid_t *pid, const char *helper, const char *bridge, int sock)
{
	char *fd = xasprintf("--fd=%d", sock), *br = xasprintf("--br=%s", bridge), *line = NULL;
	char *plain[] = {(char *)helper, "--use-vnet", fd, br, NULL};
	char *shell[] = {"/bin/sh", "-c", NULL, NULL};
	int r;

	if (strpbrk(helper, " \t")) {
		line = xasprintf("%s %s %s %s", helper, "--use-vnet", fd,
				 strstr(helper, "--br=") ? "" : br);
		shell[2] = line;
	}
	r = start(pid, line ? shell : plain, sock);
	free(line);
	free(br);
	free(fd);
	return r;
}

int tap_run_helper(const char *helper, const char *bridge, struct error **err)
{
	int sv[2], fd, r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0) {
		error_set_errno(err, errno, "cannot start bridge helper %s", helper);
		return -1;
	}
	r = start_helper(&pid, helper, bridge, sv[1]);
	close(sv[1]);
	if (r) {
		close(sv[0]);
		error_set_errno(err, r, "could not launch bridge helper %s", helper);
		return -1;
	}
	fd = receive_fd(sv[0]);
	close(sv[0]);
	r = wait_for(pid);
	if (r) {
		set_status(err, "bridge helper", helper, r);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (fd < 0)
		error_set(err, "bridge helper %s sent no file descriptor", helper);
	return fd;
}
