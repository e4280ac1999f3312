/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's terminal: raw while a guest uses it, as it was before whenever the process stops,
 * ends or dies (all but SIGKILL).
 *
 * Main thread, but for the signal handlers in terminal.c.
 */
#ifndef VMM_CHARDEV_TERMINAL_H
#define VMM_CHARDEV_TERMINAL_H

#include <stdbool.h>

/* Each byte goes through as it is typed; with signals, Ctrl-C and its like still signal the process
 * instead. 0 or -errno; harmless (0) if fd is no terminal. Once a process. */
int terminal_raw(int fd, bool signals);
/* As it was. Harmless when it is not raw. Async-signal-safe. */
void terminal_restore(void);
/* Around SIGTSTP and after SIGCONT: gives the terminal back to the shell, takes it again. */
void terminal_suspend(void);
void terminal_resume(void);

#endif
