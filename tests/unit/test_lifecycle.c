/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the process: each test runs a small program in a child, as main would.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/control/lifecycle.h"
#include "vmm/core/util.h"

struct fixture {
	char dir[32], *pid, *marker;
};

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	strcpy(x->dir, "/tmp/vmm-life-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	x->pid = xasprintf("%s/pid", x->dir);
	x->marker = xasprintf("%s/marker", x->dir);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	unlink(x->marker);
	assert_int_equal(rmdir(x->dir), 0); /* no pid file is left */
	free(x->pid);
	free(x->marker);
	free(x);
	return 0;
}

static void on_quit(void *opaque)
{
	evloop_stop(opaque);
}

/* What main does; the exit status. */
static int program(struct fixture *x, bool daemonize, bool fail)
{
	struct evloop *loop;
	struct lifecycle l;
	int status = 1;

	lifecycle_init(&l);
	if (daemonize && !lifecycle_daemonize(&l, NULL))
		return 1;
	loop = evloop_new(NULL, NULL);
	if (lifecycle_signals(&l, loop, on_quit, loop, NULL) &&
	    lifecycle_pidfile(&l, x->pid, NULL)) {
		usleep(50000); /* the rest of a start */
		if (!fail) {
			close(open(x->marker, O_WRONLY | O_CREAT, 0600));
			lifecycle_ready(&l, NULL);
			evloop_run(loop);
			status = 0;
		}
	}
	lifecycle_destroy(&l);
	evloop_free(loop);
	return status;
}

static pid_t start(struct fixture *x, bool daemonize, bool fail)
{
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, STDERR_FILENO); /* "ending on signal" */
		_exit(program(x, daemonize, fail));
	}
	return child;
}

static int wait_status(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t read_pid(struct fixture *x)
{
	FILE *f = fopen(x->pid, "r");
	int pid = -1;

	if (f) {
		if (fscanf(f, "%d\n", &pid) != 1)
			pid = -1;
		fclose(f);
	}
	return pid;
}

static void wait_for(const char *path)
{
	for (int i = 0; i < 1000 && access(path, F_OK); i++)
		usleep(5000);
	assert_int_equal(access(path, F_OK), 0);
}

static void test_signals(void **state)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	struct fixture *x = *state;

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		pid_t child = start(x, false, false);

		wait_for(x->marker);
		assert_int_equal(read_pid(x), child);
		kill(child, SIGPIPE); /* ignored */
		kill(child, signals[i]);
		assert_int_equal(wait_status(child), 0);
		assert_int_equal(access(x->pid, F_OK), -1);
		unlink(x->marker);
	}
}

/* The parent comes back when all is there, with 0, and the child is a daemon. */
static void test_daemon(void **state)
{
	struct fixture *x = *state;
	char *cwd, target[64] = "";
	pid_t parent, daemon;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	parent = start(x, true, false);
	assert_int_equal(wait_status(parent), 0);
	assert_int_equal(access(x->marker, F_OK), 0);
	daemon = read_pid(x);
	assert_true(daemon > 0 && daemon != parent);
	assert_int_equal(getsid(daemon), daemon);
	cwd = xasprintf("/proc/%d/cwd", daemon);
	assert_true(readlink(cwd, target, sizeof(target) - 1) > 0);
	assert_string_equal(target, "/");
	free(cwd);
	/* A second one with the same pid file. */
	assert_int_equal(wait_status(start(x, false, false)), 1);
	assert_int_equal(read_pid(x), daemon);
	kill(daemon, SIGTERM);
	assert_int_equal(wait_status(daemon), 0);
}

static void test_daemon_fails(void **state)
{
	struct fixture *x = *state;
	int status;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	assert_int_equal(wait_status(start(x, true, true)), 1);
	assert_int_equal(access(x->pid, F_OK), -1);
	while (waitpid(-1, &status, WNOHANG) > 0)
		;
}

static void test_stale_pidfile(void **state)
{
	struct fixture *x = *state;
	struct lifecycle l;
	int fd = open(x->pid, O_WRONLY | O_CREAT, 0600);
	struct error *err = NULL;

	assert_int_equal(write(fd, "123456789\n", 10), 10);
	close(fd);
	lifecycle_init(&l);
	assert_true(lifecycle_pidfile(&l, x->pid, NULL)); /* nobody holds it */
	assert_int_equal(read_pid(x), getpid());
	lifecycle_destroy(&l);
	assert_int_equal(access(x->pid, F_OK), -1);
	assert_false(lifecycle_pidfile(&l, "/nonexistent/pid", &err));
	assert_non_null(strstr(error_message(err), ": cannot make it: No such"));
	error_free(err);
	lifecycle_destroy(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_daemon, setup, teardown),
		cmocka_unit_test_setup_teardown(test_daemon_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale_pidfile, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
