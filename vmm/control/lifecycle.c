/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the process. Main thread; see lifecycle.h.
 */
#include "vmm/control/lifecycle.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/chardev/terminal.h"
#include "vmm/core/log.h"
#include "vmm/core/util.h"

void lifecycle_init(struct lifecycle *l)
{
	*l = (struct lifecycle){ .ready_fd = -1, .pid_fd = -1, .signal_fd = -1 };
}

void lifecycle_destroy(struct lifecycle *l)
{
	if (l->signal_fd >= 0) {
		evloop_fd_del(l->loop, &l->signal_ev);
		close(l->signal_fd);
	}
	if (l->pid_path)
		unlink(l->pid_path);
	free(l->pid_path);
	if (l->pid_fd >= 0)
		close(l->pid_fd);
	if (l->ready_fd >= 0)
		close(l->ready_fd);
	lifecycle_init(l);
}

/* The parent: exits as the child tells, or with it. */
static void wait_for_child(int fd, pid_t child)
{
	char status = 1;
	ssize_t n;
	int how;

	do
		n = read(fd, &status, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1) {
		/* It has told why on standard error. */
		while (waitpid(child, &how, 0) < 0 && errno == EINTR)
			;
		status = 1;
	}
	_exit(status);
}

bool lifecycle_daemonize(struct lifecycle *l, struct error **err)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		error_set_errno(err, errno, "cannot make a pipe");
		return false;
	}
	fflush(NULL);
	child = fork();
	if (child < 0) {
		error_set_errno(err, errno, "cannot fork");
		close(fds[0]);
		close(fds[1]);
		return false;
	}
	if (child > 0) {
		close(fds[1]);
		wait_for_child(fds[0], child);
	}
	close(fds[0]);
	l->ready_fd = fds[1];
	/* A session without terminal. A leader could get one by opening it, but all of our opens
	 * say O_NOCTTY. */
	setsid();
	return true;
}

bool lifecycle_ready(struct lifecycle *l, struct error **err)
{
	char status = 0;
	int null;

	if (l->ready_fd < 0)
		return true;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || chdir("/") < 0) {
		error_set_errno(err, errno, "cannot go to the background");
		if (null >= 0)
			close(null);
		return false;
	}
	fflush(NULL);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
	/* Should the parent be gone, nobody waits. */
	if (write(l->ready_fd, &status, 1) < 0)
		status = 1;
	close(l->ready_fd);
	l->ready_fd = -1;
	return true;
}

/* Opens and locks. -EAGAIN: another process has it. */
static int lock_file(const char *path)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct stat held, named;
	int fd, ret;

	for (;;) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
		if (fd < 0)
			return -errno;
		if (fcntl(fd, F_SETLK, &lock) < 0) {
			ret = errno == EACCES ? -EAGAIN : -errno;
			break;
		}
		/* Its last owner may have removed it between our open and our lock. */
		if (!fstat(fd, &held) && !stat(path, &named) && held.st_dev == named.st_dev &&
		    held.st_ino == named.st_ino)
			return fd;
		close(fd);
	}
	close(fd);
	return ret;
}

bool lifecycle_pidfile(struct lifecycle *l, const char *path, struct error **err)
{
	char text[32];
	int fd = lock_file(path), ret;

	if (fd == -EAGAIN) {
		error_set(err, "-pidfile %s: another process holds it", path);
		return false;
	}
	if (fd < 0) {
		error_set_errno(err, fd, "-pidfile %s: cannot make it", path);
		return false;
	}
	snprintf(text, sizeof(text), "%d\n", getpid());
	ret = ftruncate(fd, 0) < 0 ? -errno : write_full(fd, text, strlen(text));
	l->pid_path = realpath(path, NULL); /* -daemonize leaves the directory */
	l->pid_fd = fd;
	if (ret < 0)
		error_set_errno(err, ret, "-pidfile %s: cannot write it", path);
	return ret == 0;
}

static void on_signal(void *opaque, uint32_t revents)
{
	struct lifecycle *l = opaque;
	struct signalfd_siginfo info;

	while (read(l->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTSTP:
			terminal_suspend();
			raise(SIGSTOP);
			break;
		case SIGCONT:
			terminal_resume();
			break;
		default:
			log_info("ending on signal %u from process %u", info.ssi_signo,
				 info.ssi_pid);
			l->quit(l->opaque);
		}
	}
}

bool lifecycle_signals(struct lifecycle *l, struct evloop *loop, void (*quit)(void *opaque),
		       void *opaque, struct error **err)
{
	static const int handled[] = { SIGTERM, SIGINT, SIGHUP, SIGTSTP, SIGCONT };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t set;
	int ret;

	sigaction(SIGPIPE, &ignore, NULL);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(&set, handled[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	l->loop = loop;
	l->quit = quit;
	l->opaque = opaque;
	l->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	ret = l->signal_fd < 0
		      ? -errno
		      : evloop_fd_add(loop, &l->signal_ev, l->signal_fd, EPOLLIN, on_signal, l);
	if (ret < 0)
		error_set_errno(err, ret, "cannot receive signals");
	return ret >= 0;
}

void lifecycle_set_name(const char *name)
{
	prctl(PR_SET_NAME, name);
}

bool lifecycle_lock_memory(struct error **err)
{
	if (!mlockall(MCL_CURRENT | MCL_FUTURE))
		return true;
	error_set_errno(err, errno, "cannot lock memory (ulimit -l tells how much is allowed)");
	return false;
}
