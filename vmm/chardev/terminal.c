/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Terminal modes (termios(3)). What is saved has file scope because signal handlers and atexit()
 * have no other way to find it, and because a process has one terminal. Main thread and handlers;
 * owned by the stdio back end.
 */
#include "vmm/chardev/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/core/util.h"

static struct {
	volatile sig_atomic_t raw; /* handlers may use the rest */
	int fd;
	struct termios before, wanted;
	bool hooked;
} terminal;

void terminal_restore(void)
{
	int saved = errno;

	if (terminal.raw) {
		/* From the background this would stop us with SIGTTOU. */
		struct sigaction ignore = { .sa_handler = SIG_IGN }, old;

		sigaction(SIGTTOU, &ignore, &old);
		tcsetattr(terminal.fd, TCSANOW, &terminal.before);
		sigaction(SIGTTOU, &old, NULL);
		terminal.raw = 0;
	}
	errno = saved;
}

/* SA_RESETHAND: the signal that is raised (or the fault that comes again) then kills. */
static void on_fatal(int sig)
{
	terminal_restore();
	raise(sig);
}

static void hook(void)
{
	static const int fatal[] = { SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGILL,	SIGTRAP, SIGABRT,
				     SIGBUS, SIGFPE, SIGSEGV, SIGSYS,  SIGXCPU, SIGXFSZ };
	struct sigaction action = { .sa_handler = on_fatal, .sa_flags = SA_RESETHAND }, old;

	if (terminal.hooked)
		return;
	terminal.hooked = true;
	atexit(terminal_restore);
	for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
		if (!sigaction(fatal[i], NULL, &old) && old.sa_handler == SIG_DFL)
			sigaction(fatal[i], &action, NULL);
}

int terminal_raw(int fd, bool signals)
{
	struct termios *t = &terminal.wanted;

	if (!isatty(fd))
		return 0;
	if (terminal.raw)
		return -EBUSY;
	if (tcgetattr(fd, &terminal.before) < 0)
		return -errno;
	*t = terminal.before;
	t->c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	t->c_oflag |= OPOST; /* messages of ours still end their lines */
	t->c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN);
	if (!signals)
		t->c_lflag &= ~ISIG;
	t->c_cflag &= ~(CSIZE | PARENB);
	t->c_cflag |= CS8;
	t->c_cc[VMIN] = 1;
	t->c_cc[VTIME] = 0;
	terminal.fd = fd;
	hook();
	if (tcsetattr(fd, TCSANOW, t) < 0)
		return -errno;
	terminal.raw = 1;
	return 0;
}

void terminal_suspend(void)
{
	if (terminal.raw) {
		terminal_restore();
		terminal.raw = 0;
	}
}

void terminal_resume(void)
{
	/* In the background ("bg") the terminal is the shell's; "fg" brings another SIGCONT. */
	if (!terminal.hooked || tcgetpgrp(terminal.fd) != getpgrp())
		return;
	if (!tcsetattr(terminal.fd, TCSANOW, &terminal.wanted))
		terminal.raw = 1;
}
