/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices' back ends against real sockets, terminals and files, and the mux.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/chardev/chardev.h"
#include "vmm/core/util.h"

/* A front end that keeps what it gets. */
struct front {
	struct chardev *c;
	struct chardev_peer peer;
	char in[16384];
	size_t len, room; /* room: what it still takes */
	char events[64];  /* one letter each */
	unsigned writable;
};

struct fixture {
	struct evloop *loop;
	struct chardevs set;
	char dir[32];
	unsigned quits;
};

static size_t front_can_receive(void *opaque)
{
	struct front *f = opaque;

	return MIN(f->room, sizeof(f->in) - f->len);
}

static void front_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct front *f = opaque;

	assert_true(len <= front_can_receive(f));
	memcpy(f->in + f->len, data, len);
	f->len += len;
	f->room -= len;
}

static void front_writable(void *opaque)
{
	((struct front *)opaque)->writable++;
}

static void front_event(void *opaque, enum chardev_event event)
{
	struct front *f = opaque;

	f->events[strlen(f->events)] = "ocbIO"[event];
}

static void front_take(struct front *f, struct chardevs *set, const char *id)
{
	*f = (struct front){ .room = SIZE_MAX };
	f->peer = (struct chardev_peer){ front_can_receive, front_receive, front_writable,
					 front_event, f };
	f->c = chardevs_take(set, id, NULL);
	assert_non_null(f->c);
	chardev_attach(f->c, &f->peer);
}

static void on_quit(void *opaque)
{
	((struct fixture *)opaque)->quits++;
}

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	signal(SIGPIPE, SIG_IGN);
	x->loop = evloop_new(NULL, NULL);
	chardevs_init(&x->set, x->loop);
	x->set.quit = on_quit;
	x->set.opaque = x;
	strcpy(x->dir, "/tmp/vmm-chardev-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	chardevs_destroy(&x->set);
	evloop_free(x->loop);
	rmdir(x->dir); /* empty: socket files are gone */
	assert_int_equal(access(x->dir, F_OK), -1);
	free(x);
	return 0;
}

static bool try_add(struct fixture *x, struct error **err, const char *fmt, ...)
{
	struct opts opts;
	char *text;
	va_list ap;
	bool ok;

	va_start(ap, fmt);
	assert_true(vasprintf(&text, fmt, ap) >= 0);
	va_end(ap);
	assert_true(opts_parse(&opts, text, "backend", NULL));
	ok = chardevs_add(&x->set, &opts, err);
	opts_free(&opts);
	free(text);
	return ok;
}

#define add(x, ...)                                                                                \
	do {                                                                                       \
		struct error *error_ = NULL;                                                       \
		if (!try_add(x, &error_, __VA_ARGS__))                                             \
			fail_msg("%s", error_message(error_));                                     \
	} while (0)

#define add_bad(x, message, ...)                                                                   \
	do {                                                                                       \
		struct error *error_ = NULL;                                                       \
		assert_false(try_add(x, &error_, __VA_ARGS__));                                    \
		if (!strstr(error_message(error_), message))                                       \
			fail_msg("%s", error_message(error_));                                     \
		error_free(error_);                                                                \
	} while (0)

/* Turns the loop until nothing happens. */
static void settle(struct fixture *x)
{
	while (evloop_run_once(x->loop, 5 * NSEC_PER_MSEC))
		;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void test_file(void **state)
{
	struct fixture *x = *state;
	struct front f;
	char *path = xasprintf("%s/log", x->dir), buf[64] = "";
	int fd;

	add(x, "file,id=a,path=%s", path);
	front_take(&f, &x->set, "a");
	assert_string_equal(f.events, "o");
	assert_int_equal(chardev_write(f.c, "one\n", 4), 4);
	add(x, "file,id=b,path=%s,append=on", path);
	front_take(&f, &x->set, "b");
	assert_int_equal(chardev_write(f.c, "two\n", 4), 4);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, buf, sizeof(buf)), 8);
	assert_string_equal(buf, "one\ntwo\n");
	close(fd);
	/* A misspelt option leaves the file alone. */
	add_bad(x, "no option 'apend'", "file,id=c,path=%s,apend=on", path);
	assert_int_equal(access(path, F_OK), 0);
	add_bad(x, "cannot open", "file,id=c,path=/nonexistent/x");
	add_bad(x, "path is missing", "file,id=c");
	add_bad(x, "already", "null,id=a");
	add_bad(x, "did you mean 'socket'?", "soket,id=c");
	unlink(path);
	free(path);
}

static void test_ringbuf(void **state)
{
	struct fixture *x = *state;
	struct front f;
	uint8_t buf[32];

	add(x, "ringbuf,id=r,size=8");
	front_take(&f, &x->set, "r");
	assert_int_equal(chardev_write(f.c, "abcdefghijk", 11), 11);
	assert_int_equal(chardevs_ringbuf_read(&x->set, "r", buf, 3), 3);
	assert_memory_equal(buf, "def", 3);
	assert_int_equal(chardevs_ringbuf_read(&x->set, "r", buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "ghijk", 5);
	assert_int_equal(chardevs_ringbuf_write(&x->set, "r", (const uint8_t *)"xy", 2), 2);
	assert_memory_equal(f.in, "xy", 2);
	assert_int_equal(chardevs_ringbuf_read(&x->set, "none", buf, 1), -ENOENT);
	add(x, "null,id=n");
	assert_int_equal(chardevs_ringbuf_read(&x->set, "n", buf, 1), -EINVAL);
	assert_null(chardevs_take(&x->set, "r", NULL)); /* taken */
	add_bad(x, "power of two", "ringbuf,id=s,size=7");
}

static void test_unix_server(void **state)
{
	struct fixture *x = *state;
	struct front f;
	char *path = xasprintf("%s/sock", x->dir), buf[64] = "";
	int fd, second;

	add(x, "socket,id=s,path=%s,server,nowait", path);
	front_take(&f, &x->set, "s");
	assert_string_equal(f.events, "");
	assert_int_equal(chardev_write(f.c, "lost", 4), 4); /* nobody is there */
	fd = connect_unix(path);
	settle(x);
	assert_string_equal(f.events, "o");
	assert_int_equal(chardev_write(f.c, "hello", 5), 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");

	/* What does not fit stays in the kernel until the front end asks. */
	f.room = 2;
	assert_int_equal(write(fd, "abcd", 4), 4);
	settle(x);
	assert_int_equal(f.len, 2);
	f.room = 10;
	chardev_accept_input(f.c);
	settle(x);
	assert_memory_equal(f.in, "abcd", 4);

	/* A second client waits until the first has gone. */
	second = connect_unix(path);
	settle(x);
	assert_int_equal(write(second, "Z", 1), 1);
	settle(x);
	assert_int_equal(f.len, 4);
	close(fd);
	settle(x);
	assert_string_equal(f.events, "oco");
	assert_int_equal(f.in[4], 'Z');
	chardev_disconnect(f.c);
	settle(x);
	assert_string_equal(f.events, "ococ");
	assert_int_equal(read(second, buf, 1), 0);
	close(second);
	free(path);
}

/* The last bytes of a client that hung up while the front end had no room. */
static void test_late_input(void **state)
{
	struct fixture *x = *state;
	struct front f;
	char *path = xasprintf("%s/sock", x->dir);
	int fd;

	add(x, "socket,id=s,path=%s,server=on,wait=off", path);
	front_take(&f, &x->set, "s");
	f.room = 0;
	fd = connect_unix(path);
	settle(x);
	assert_int_equal(write(fd, "late", 4), 4);
	close(fd);
	settle(x); /* ends: the hang-up does not keep the loop busy */
	assert_int_equal(f.len, 0);
	f.room = 100;
	chardev_accept_input(f.c);
	settle(x);
	assert_memory_equal(f.in, "late", 4);
	assert_string_equal(f.events, "oc");
	free(path);
}

static void test_slow_reader(void **state)
{
	struct fixture *x = *state;
	struct front f;
	char *path = xasprintf("%s/sock", x->dir);
	uint8_t *data = xmalloc(1 << 20), *got = xmalloc(1 << 20);
	size_t sent = 0, received = 0;
	int fd;

	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = i * 7 + (i >> 8);
	add(x, "socket,id=s,path=%s,server=on,wait=off", path);
	front_take(&f, &x->set, "s");
	fd = connect_unix(path);
	settle(x);
	while (sent < 1 << 20) {
		size_t n = chardev_write(f.c, data + sent, (1 << 20) - sent);

		sent += n;
		if (n)
			continue;
		/* Full: nothing more is taken, and the front end hears when that changes. */
		f.writable = 0;
		settle(x);
		assert_int_equal(f.writable, 0);
		received += read(fd, got + received, 65536);
		for (int i = 0; i < 8 && !f.writable; i++) {
			evloop_run_once(x->loop, 5 * NSEC_PER_MSEC);
			if (!f.writable)
				received += read(fd, got + received, 65536);
		}
		assert_int_equal(f.writable, 1);
	}
	while (received < 1 << 20) {
		ssize_t n = recv(fd, got + received, 65536, MSG_DONTWAIT);

		if (n > 0)
			received += n;
		settle(x);
	}
	assert_memory_equal(data, got, 1 << 20);
	/* A reader that dies sets a waiting front end free. */
	while (chardev_write(f.c, data, 65536))
		;
	f.writable = 0;
	close(fd);
	settle(x);
	assert_int_equal(f.writable, 1);
	assert_string_equal(f.events, "oc");
	free(data);
	free(got);
	free(path);
}

static int listen_unix(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_unix_client(void **state)
{
	struct fixture *x = *state;
	char *path = xasprintf("%s/sock", x->dir), byte;
	struct front f;
	int server, fd;

	add_bad(x, "cannot connect to unix:", "socket,id=c,path=%s", path);
	/* With reconnect it may come later. */
	add(x, "socket,id=c,path=%s,reconnect=1", path);
	front_take(&f, &x->set, "c");
	server = listen_unix(path);
	while (!f.c->open)
		evloop_run_once(x->loop, -1);
	fd = accept(server, NULL, NULL);
	assert_int_equal(chardev_write(f.c, "x", 1), 1);
	assert_int_equal(read(fd, &byte, 1), 1);
	close(fd);
	settle(x);
	assert_string_equal(f.events, "oc");
	add(x, "socket,id=d,path=%s", path);
	add_bad(x, "wait is for servers", "socket,id=e,path=%s,wait=off", path);
	add_bad(x, "telnet", "socket,id=e,path=%s,server=on,telnet=on", path);
	close(server);
	unlink(path);
	free(path);
}

static void keep_filename(void *opaque, const char *id, const char *filename, bool open)
{
	free(*(char **)opaque);
	*(char **)opaque = xstrdup(filename);
}

static void test_tcp(void **state)
{
	struct fixture *x = *state;
	struct front server, client;
	char *name = NULL;
	int port;

	add(x, "socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
	chardevs_each(&x->set, keep_filename, &name);
	assert_int_equal(sscanf(name, "disconnected:tcp:127.0.0.1:%d,server=on", &port), 1);
	front_take(&server, &x->set, "s");
	add(x, "socket,id=c,host=127.0.0.1,port=%d,nodelay=on", port);
	front_take(&client, &x->set, "c");
	settle(x);
	assert_string_equal(server.events, "o");
	assert_string_equal(client.events, "o");
	chardev_write(client.c, "ping", 4);
	settle(x);
	assert_memory_equal(server.in, "ping", 4);
	free(name);
}

/* A child that connects a little later, for wait=on. */
static void test_wait(void **state)
{
	struct fixture *x = *state;
	char *path = xasprintf("%s/sock", x->dir);
	int status;
	pid_t child = fork();

	if (child == 0) {
		for (int i = 0; i < 200 && access(path, F_OK); i++)
			usleep(5000);
		close(connect_unix(path));
		_exit(0);
	}
	add(x, "socket,id=s,path=%s,server=on", path);
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	x->set.cancelled = true;
	add_bad(x, "ended while waiting", "socket,id=t,path=%s2,server=on", path);
	free(path);
}

/* A server that answers nobody: its queue is full. The signal that ends the program ends the wait. */
static void test_connecting_ends(void **state)
{
	struct fixture *x = *state;
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0), waiting[8];

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
		waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(waiting[i], (struct sockaddr *)&in, len);
	}
	x->set.cancelled = true;
	add_bad(x, "Interrupted", "socket,id=s,host=127.0.0.1,port=%u", ntohs(in.sin_port));
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++)
		close(waiting[i]);
	close(fd);
}

/* A client that there is no descriptor for waits, and does not keep the loop busy. */
static void test_no_descriptors(void **state)
{
	struct fixture *x = *state;
	char *path = xasprintf("%s/sock", x->dir);
	struct rlimit before, now;
	struct front f;
	int client, turns = 0;

	add(x, "socket,id=s,path=%s,server=on,wait=off", path);
	front_take(&f, &x->set, "s");
	client = connect_unix(path);
	getrlimit(RLIMIT_NOFILE, &before);
	now = before;
	now.rlim_cur = client + 1;
	setrlimit(RLIMIT_NOFILE, &now);
	for (int i = 0; i < 20; i++)
		turns += evloop_run_once(x->loop, NSEC_PER_MSEC);
	assert_true(turns < 5);
	assert_string_equal(f.events, "");
	setrlimit(RLIMIT_NOFILE, &before);
	for (int i = 0; i < 300 && !f.c->open; i++)
		evloop_run_once(x->loop, 10 * NSEC_PER_MSEC);
	assert_string_equal(f.events, "o");
	close(client);
	free(path);
}

static int quiet_stdout(void)
{
	int saved = dup(1), null = open("/dev/null", O_WRONLY);

	fflush(stdout);
	dup2(null, 1);
	close(null);
	return saved;
}

static void test_pty(void **state)
{
	struct fixture *x = *state;
	char *name = NULL, buf[64] = "";
	struct front f;
	int saved = quiet_stdout(), fd;

	add(x, "pty,id=p");
	dup2(saved, 1);
	close(saved);
	chardevs_each(&x->set, keep_filename, &name);
	assert_memory_equal(name, "pty:/dev/pts/", 13);
	front_take(&f, &x->set, "p");
	for (int i = 0; i < 100; i++) /* nobody is there: never stalls */
		assert_int_equal(chardev_write(f.c, buf, sizeof(buf)), sizeof(buf));
	assert_string_equal(f.events, "");
	fd = open(name + 4, O_RDWR | O_NOCTTY);
	assert_true(fd >= 0);
	assert_int_equal(chardev_write(f.c, "login: ", 7), 7);
	assert_string_equal(f.events, "o");
	assert_int_equal(read(fd, buf, sizeof(buf)), 7);
	assert_string_equal(buf, "login: ");
	assert_int_equal(write(fd, "a\r\003", 3), 3); /* raw: all bytes pass */
	settle(x);
	assert_int_equal(f.len, 3);
	/* Unread input does not keep a closed terminal open. */
	f.room = 0;
	assert_int_equal(write(fd, "zz", 2), 2);
	settle(x);
	close(fd);
	settle(x);
	assert_string_equal(f.events, "oc");
	fd = open(name + 4, O_RDWR | O_NOCTTY);
	while (!f.c->open)
		evloop_run_once(x->loop, -1);
	close(fd);
	free(name);
}

static struct fixture *mux_fixture(struct fixture *x, struct front *monitor, struct front *serial,
				   int *fd)
{
	char *path = xasprintf("%s/sock", x->dir);

	add(x, "socket,id=m,path=%s,server=on,wait=off,mux=on", path);
	front_take(monitor, &x->set, "m");
	front_take(serial, &x->set, "m");
	*fd = connect_unix(path);
	settle(x);
	free(path);
	return x;
}

static void type(struct fixture *x, int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	settle(x);
}

static void test_mux(void **state)
{
	struct front monitor, serial;
	struct fixture *x = *state;
	char buf[2048];
	int fd, n;

	mux_fixture(x, &monitor, &serial, &fd);
	assert_string_equal(monitor.events, "Oo");
	assert_string_equal(serial.events, "o");
	type(x, fd, "ls\001\001");
	assert_int_equal(serial.len, 3);
	assert_memory_equal(serial.in, "ls\001", 3);
	type(x, fd, "\001cstop");
	assert_string_equal(serial.events, "oO");
	assert_memory_equal(monitor.in, "stop", 4);
	type(x, fd, "\001c\001b\001");
	assert_string_equal(serial.events, "oOIb");
	assert_int_equal(serial.len, 3);
	type(x, fd, "h"); /* the command of the escape before */
	n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n > 0);
	buf[n] = '\0';
	assert_non_null(strstr(buf, "C-a x"));
	assert_int_equal(chardev_write(monitor.c, "m", 1), 1);
	assert_int_equal(chardev_write(serial.c, "s", 1), 1);
	assert_int_equal(read(fd, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "ms", 2);

	/* A line and the way back, typed at once. */
	type(x, fd, "\001cinfo\001c");
	assert_memory_equal(monitor.in, "stopinfo", 8);
	monitor.len = 4;

	/* A guest that reads nothing does not keep the user in. */
	serial.room = 0;
	type(x, fd, "hung?\001x");
	assert_int_equal(x->quits, 1);
	assert_int_equal(serial.len, 3);
	serial.room = 3;
	chardev_accept_input(serial.c);
	assert_memory_equal(serial.in + 3, "hun", 3);
	assert_int_equal(serial.len, 6);
	chardevs_release(&x->set, serial.c);
	type(x, fd, "c");
	assert_memory_equal(monitor.in, "stopc", 5);
	close(fd);
}

static void test_mux_stamps(void **state)
{
	struct front monitor, serial;
	struct fixture *x = *state;
	char buf[256] = "";
	int fd;

	mux_fixture(x, &monitor, &serial, &fd);
	type(x, fd, "\001t");
	assert_int_equal(chardev_write(serial.c, "a\nb", 3), 3);
	assert_int_equal(chardev_write(serial.c, "c\nd", 3), 3);
	assert_true(read(fd, buf, sizeof(buf) - 1) > 0);
	assert_memory_equal(buf, "a\n[00:00:00.00", 14);
	assert_memory_equal(buf + 15, "] bc\n[00:00:00.00", 17);
	assert_string_equal(buf + 33, "] d");
	close(fd);
}

/* A child has a terminal as stdio; after its death in whatever way the terminal is as before, and
 * what it shares with the shell was never non-blocking. */
static void test_terminal(void **state)
{
	static const int deaths[] = { 0, SIGTERM, SIGABRT, SIGINT, -1 };
	struct fixture *x = *state;
	struct termios before, during, after;
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave, status;
	char ready[8];

	assert_int_equal(grantpt(master), 0);
	assert_int_equal(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	tcgetattr(slave, &before);
	assert_true(before.c_lflag & ICANON);
	for (size_t i = 0; i < ARRAY_SIZE(deaths); i++) {
		pid_t child = fork();

		if (child == 0) {
			struct front f;

			dup2(slave, 0);
			dup2(slave, 1);
			/* Not as whoever runs this has them: in a shell's background SIGINT is
			 * ignored. */
			for (size_t k = 0; k < ARRAY_SIZE(deaths); k++)
				if (deaths[k] > 0)
					signal(deaths[k], SIG_DFL);
			add(x, "stdio,id=io,signal=off");
			front_take(&f, &x->set, "io");
			chardev_write(f.c, "ready", 5);
			while (!memchr(f.in, 'q', f.len))
				evloop_run_once(x->loop, -1);
			if (deaths[i] > 0)
				kill(getpid(), deaths[i]);
			if (deaths[i] == 0)
				chardevs_destroy(&x->set);
			if (deaths[i] < 0)
				exit(0);
			_exit(0);
		}
		assert_int_equal(read(master, ready, sizeof(ready)), 5);
		tcgetattr(slave, &during);
		assert_false(during.c_lflag & (ICANON | ECHO | ISIG));
		assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
		assert_int_equal(write(master, "q", 1), 1);
		waitpid(child, &status, 0);
		if (deaths[i] > 0)
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == deaths[i]);
		else
			assert_int_equal(status, 0);
		tcgetattr(slave, &after);
		assert_int_equal(after.c_lflag, before.c_lflag);
		assert_int_equal(after.c_iflag, before.c_iflag);
	}
	close(slave);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ringbuf, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_server, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_input, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unix_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connecting_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mux, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mux_stamps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_terminal, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
