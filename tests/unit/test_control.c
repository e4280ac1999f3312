/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP and the human monitor over a real socket, with a guest that has no CPUs.
 */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "block/throttle.h"
#include "vmm/control/control.h"
#include "vmm/control/json_stream.h"
#include "vmm/control/readline.h"
#include "vmm/core/util.h"

struct fixture {
	struct evloop *loop;
	struct vm vm;
	struct chardevs chardevs;
	struct control *control;
	struct drive *drives;
	struct netdevs netdevs;
	struct drive cdrom;
	char dir[32], *path;
	int fd;
	unsigned changes;   /* of the medium */
	char text[1 << 16]; /* what came since the last question */
};

static void settle(struct fixture *x)
{
	size_t len = strlen(x->text);
	ssize_t n;

	do {
		while (evloop_run_once(x->loop, 2 * NSEC_PER_MSEC))
			;
		n = recv(x->fd, x->text + len, sizeof(x->text) - 1 - len, MSG_DONTWAIT);
		len += n > 0 ? n : 0;
		x->text[len] = '\0';
	} while (n > 0);
}

static void reconnect(struct fixture *x)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	if (x->fd >= 0)
		close(x->fd);
	x->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(un.sun_path, x->path);
	assert_int_equal(connect(x->fd, (struct sockaddr *)&un, sizeof(un)), 0);
	x->text[0] = '\0';
	settle(x);
}

static int setup(void **state)
{
	struct fixture *x = xcalloc(1, sizeof(*x));

	signal(SIGPIPE, SIG_IGN);
	x->loop = evloop_new(NULL, NULL);
	vm_init(&x->vm, x->loop);
	x->vm.name = xstrdup("web");
	chardevs_init(&x->chardevs, x->loop);
	x->cdrom = (struct drive){ .id = "ide2-cd0", .cdrom = true };
	x->drives = &x->cdrom;
	netdevs_init(&x->netdevs, &(struct net_context){.loop = x->loop});
	x->control = control_new(&x->vm, &x->chardevs, &x->drives, &x->netdevs);
	strcpy(x->dir, "/tmp/vmm-control-XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	x->path = xasprintf("%s/qmp", x->dir);
	x->fd = -1;
	*state = x;
	return 0;
}

static void open_monitor(struct fixture *x, bool qmp)
{
	struct opts opts = { 0 };

	opts_add(&opts, "backend", "socket");
	opts_add(&opts, "id", "mon");
	opts_add(&opts, "path", x->path);
	opts_add(&opts, "server", "on");
	opts_add(&opts, "wait", "off");
	assert_true(chardevs_add(&x->chardevs, &opts, NULL));
	opts_free(&opts);
	assert_true(control_add(x->control, "mon", qmp, false, NULL));
	reconnect(x);
}

static int teardown(void **state)
{
	struct fixture *x = *state;

	control_free(x->control);
	netdevs_destroy(&x->netdevs);
	chardevs_destroy(&x->chardevs);
	vm_destroy(&x->vm);
	evloop_free(x->loop);
	if (x->fd >= 0)
		close(x->fd);
	rmdir(x->dir);
	free(x->path);
	free(x);
	return 0;
}

/* Sends and returns everything that came. */
static const char *ask(struct fixture *x, const char *text)
{
	x->text[0] = '\0';
	assert_int_equal(send(x->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	settle(x);
	return x->text;
}

static void expect(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in '%s'", part, text);
}

/* What is said while the guest is made is done when it is there. */
static void test_held(void **state)
{
	struct fixture *x = *state;

	control_hold(x->control, true);
	open_monitor(x, true);
	settle(x);
	expect(x->text, "\"QMP\"");
	assert_string_equal(ask(x, "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}"), "");
	control_hold(x->control, false);
	settle(x);
	expect(x->text, "{\"return\": {}}");
	expect(x->text, "prelaunch");
}

static void test_held_monitor(void **state)
{
	struct fixture *x = *state;

	control_hold(x->control, true);
	open_monitor(x, false);
	settle(x);
	x->text[0] = '\0';
	assert_string_equal(ask(x, "info name\r"), "");
	control_hold(x->control, false);
	settle(x);
	expect(x->text, "web");
}

static void negotiate(struct fixture *x)
{
	open_monitor(x, true);
	assert_string_equal(ask(x, "{\"execute\":\"qmp_capabilities\"}"), "{\"return\": {}}\r\n");
}

static void test_negotiation(void **state)
{
	struct fixture *x = *state;

	open_monitor(x, true);
	assert_string_equal(x->text,
			    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, "
			    "\"major\": 7}, \"package\": \"vmm 0.1\"}, "
			    "\"capabilities\": []}}\r\n");
	expect(ask(x, "{\"execute\":\"query-status\",\"id\":7}"),
	       "{\"error\": {\"class\": \"CommandNotFound\"");
	expect(x->text, "\"id\": 7}\r\n");
	/* No events yet. */
	vm_start(&x->vm);
	vm_stop(&x->vm, RUN_STATE_PAUSED);
	assert_null(strstr(ask(x, " "), "STOP"));
	assert_string_equal(ask(x, "{\"execute\":\"qmp_capabilities\",\"id\":[1,{}]}"),
			    "{\"return\": {}, \"id\": [1, {}]}\r\n");
	expect(ask(x, "{\"execute\":\"qmp_capabilities\"}"), "CommandNotFound");
	expect(ask(x, "{\"execute\":\"fly\"}"), "The command fly has not been found");
	/* A new client begins anew. */
	reconnect(x);
	expect(x->text, "QMP");
	expect(ask(x, "{\"execute\":\"query-status\"}"), "CommandNotFound");
}

static void test_requests(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	expect(ask(x, "{\"execute\":1}"), "GenericError");
	expect(ask(x, "{\"arguments\":{}}"), "QMP input lacks member 'execute'");
	expect(ask(x, "{\"execute\":\"stop\",\"x\":1}"), "QMP input member 'x' is unexpected");
	expect(ask(x, "{\"execute\":\"stop\",\"arguments\":1}"), "must be an object");
	expect(ask(x, "{\"execute\":\"stop\",\"arguments\":{\"a\":1}}"),
	       "Parameter 'a' is unexpected");
	expect(ask(x, "{\"execute\":\"human-monitor-command\"}"), "'command-line' is missing");
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{\"force\":\"yes\",\"id\":\"x\"}}"),
	       "expected: boolean");
	expect(ask(x, "[]"), "must be a JSON object");
	expect(ask(x, "{\"execute\":}"), "JSON parse error");
	expect(ask(x, "hello\n"), "JSON parse error");
	/* In pieces, and several at once. */
	assert_string_equal(ask(x, "{\"execute\":\"query-"), "");
	assert_string_equal(ask(x,
				"name\"}{\"execute\":\"query-uuid\"}\n{\"execute\":\"query-name\","
				"\"id\":\"}\"}"),
			    "{\"return\": {\"name\": \"web\"}}\r\n"
			    "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}\r\n"
			    "{\"return\": {\"name\": \"web\"}, \"id\": \"}\"}\r\n");
	expect(ask(x, "{\"execute\":\"query-chardev\"}"), "\"frontend-open\": true");
	expect(ask(x, "{\"execute\":\"query-commands\"}"), "{\"name\": \"system_reset\"}");
	expect(ask(x, "{\"execute\":\"query-block\"}"), "\"device\": \"ide2-cd0\"");
}

/* The event comes before the reply. */
static void test_order(void **state)
{
	static const struct {
		const char *command, *event, *data;
	} table[] = {
		{ "cont", "RESUME", "" },
		{ "stop", "STOP", "" },
		{ "system_powerdown", "POWERDOWN", "" },
		{ "system_reset", "RESET",
		  ", \"data\": {\"guest\": false, \"reason\": \"host-qmp-system-reset\"}" },
		{ "quit", "SHUTDOWN",
		  ", \"data\": {\"guest\": false, \"reason\": \"host-qmp-quit\"}" },
	};
	struct fixture *x = *state;

	negotiate(x);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char *question = xasprintf("{\"execute\":\"%s\",\"id\":1}\n", table[i].command);
		char *end = xasprintf("\"event\": \"%s\"%s}\r\n{\"return\": {}, \"id\": 1}\r\n",
				      table[i].event, table[i].data);

		ask(x, question);
		assert_memory_equal(x->text, "{\"timestamp\": {\"seconds\": ", 26);
		expect(x->text, end);
		assert_string_equal(strstr(x->text, "\"event\""), end);
		free(question);
		free(end);
	}
	assert_true(x->vm.exiting);
}

static void test_cont(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	expect(ask(x, "{\"execute\":\"query-status\"}"), "\"status\": \"prelaunch\"");
	vm_start(&x->vm);
	vm_stop(&x->vm, RUN_STATE_INTERNAL_ERROR);
	expect(ask(x, "{\"execute\":\"cont\"}"), "Resetting the Virtual Machine is required");
	ask(x, "{\"execute\":\"system_reset\"}");
	ask(x, "{\"execute\":\"cont\"}");
	assert_true(vm_is_running(&x->vm));
	/* A guest's own end. */
	x->text[0] = '\0';
	x->vm.no_shutdown = true;
	vm_request_shutdown(&x->vm, CAUSE_GUEST_SHUTDOWN);
	settle(x);
	expect(x->text, "\"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}");
}

/* Whether the server hung up. */
static bool lost(struct fixture *x)
{
	char byte;

	settle(x);
	return recv(x->fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_misbehaviour(void **state)
{
	struct fixture *x = *state;
	char *deep = xmalloc(10001), *big = xmalloc(1 << 20);
	size_t sent = 0;

	negotiate(x);
	memset(deep, '[', 10000);
	deep[10000] = '\0';
	ask(x, deep);
	expect(x->text, "nesting depth");
	assert_true(lost(x));
	reconnect(x);
	ask(x, "{\"execute\":\"\xff\xfe\"}");
	assert_true(lost(x));
	reconnect(x);
	ask(x, "\xff\n");
	assert_true(lost(x));
	/* Endless. */
	reconnect(x);
	memset(big, 'x', 1 << 20);
	big[0] = '"';
	ask(x, "{");
	for (bool gone = false; !gone; sent++) {
		ssize_t n = send(x->fd, big, 1 << 20, MSG_DONTWAIT | MSG_NOSIGNAL);

		big[0] = 'x';
		gone = n < 0 && errno == EPIPE;
		for (int i = 0; i < 100; i++)
			evloop_run_once(x->loop, 0);
	}
	assert_true(sent < 2000);
	/* The next one finds everything as it was. */
	reconnect(x);
	expect(x->text, "QMP");
	expect(ask(x, "{\"execute\":\"qmp_capabilities\"}"), "return");
	free(deep);
	free(big);
}

/* A client that never reads loses its connection. */
static void test_deaf_client(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	for (int i = 0; i < 200000 && x->fd >= 0; i++) {
		vm_send_event(&x->vm, &(struct vm_event){ .kind = VM_EVENT_POWERDOWN });
		evloop_run_once(x->loop, 0);
	}
	while (evloop_run_once(x->loop, 0))
		;
	reconnect(x);
	expect(x->text, "QMP");
}

static int64_t fake_time;

static int64_t fake_now(const struct clock *clock)
{
	return fake_time;
}

/* What a guest can cause at will is told once a second, the newest. */
static void test_throttle(void **state)
{
	static const struct clock clock = { fake_now };
	struct fixture *x = *state;
	const char *first;

	/* A loop with a clock of ours in place of the fixture's. */
	control_free(x->control);
	netdevs_destroy(&x->netdevs);
	chardevs_destroy(&x->chardevs);
	vm_destroy(&x->vm);
	evloop_free(x->loop);
	x->loop = evloop_new(&clock, NULL);
	netdevs_init(&x->netdevs, &(struct net_context){.loop = x->loop});
	vm_init(&x->vm, x->loop);
	chardevs_init(&x->chardevs, x->loop);
	x->control = control_new(&x->vm, &x->chardevs, &x->drives, &x->netdevs);
	negotiate(x);
	x->text[0] = '\0';
	for (int i = 1; i <= 1000; i++)
		vm_send_event(&x->vm,
			      &(struct vm_event){ .kind = VM_EVENT_RTC_CHANGE, .value = i });
	vm_send_event(&x->vm, &(struct vm_event){ .kind = VM_EVENT_TRAY_MOVED, .device = "a" });
	vm_send_event(&x->vm, &(struct vm_event){ .kind = VM_EVENT_TRAY_MOVED, .device = "b" });
	settle(x);
	expect(x->text, "\"offset\": 1}");
	first = strstr(x->text, "RTC_CHANGE");
	assert_null(strstr(first + 1, "RTC_CHANGE"));
	expect(x->text, "\"device\": \"a\"");
	expect(x->text, "\"device\": \"b\"");
	x->text[0] = '\0';
	fake_time += NSEC_PER_SEC - 1;
	settle(x);
	assert_string_equal(x->text, "");
	fake_time += 1;
	settle(x);
	expect(x->text, "\"offset\": 1000}");
	x->text[0] = '\0';
	fake_time += 2 * NSEC_PER_SEC;
	settle(x);
	assert_string_equal(x->text, "");
	vm_send_event(&x->vm, &(struct vm_event){ .kind = VM_EVENT_BLOCK_IMAGE_CORRUPTED,
						  .device = "d0",
						  .node_name = "n",
						  .message = "torn" });
	settle(x);
	expect(x->text, "\"event\": \"BLOCK_IMAGE_CORRUPTED\", \"data\": {\"device\": \"d0\", "
			"\"msg\": \"torn\", \"fatal\": true, \"node-name\": \"n\"}");
	vm_send_event(&x->vm, &(struct vm_event){ .kind = VM_EVENT_RTC_CHANGE, .value = 7 });
	settle(x);
	expect(x->text, "\"offset\": 7}");
}

static void on_medium(struct drive *drive, void *opaque)
{
	((struct fixture *)opaque)->changes++;
}

#define LIMITS                                                                                     \
	"{\"execute\":\"block_set_io_throttle\",\"arguments\":{\"device\":\"ide2-cd0\",\"bps_rd\":0,"  \
	"\"bps_wr\":0,\"iops\":0,\"iops_rd\":0,\"iops_wr\":0,\"bps\":"

static void set_limits(struct fixture *x)
{
	struct throttle_groups *groups = throttle_groups_new();

	expect(ask(x, LIMITS "5}}"), "no medium"); /* of a machine that has no groups */
	x->cdrom.throttles = groups;
	expect(ask(x, LIMITS "1000000,\"bps_max\":2000000}}"), "{\"return\": {}}");
	expect(ask(x, "{\"execute\":\"query-block\"}"), "\"bps\": 1000000, ");
	expect(ask(x, LIMITS "1000000,\"bps_max\":2}}"), "slower");
	expect(ask(x, LIMITS "7,\"group\":\"both\"}}"), "return");
	expect(ask(x, "{\"execute\":\"query-block\"}"), "\"group\": \"both\"");
	expect(ask(x, LIMITS "0}}"), "return");
	assert_null(throttle_group_of(x->cdrom.node));
	throttle_groups_free(groups);
	x->cdrom.throttles = NULL;
}

static void test_medium(void **state)
{
	char file[] = "/tmp/vmm-control-disc-XXXXXX";
	struct fixture *x = *state;
	int fd = mkstemp(file);

	assert_int_equal(ftruncate(fd, 4096), 0);
	close(fd);
	negotiate(x);
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{\"device\":\"nope\"}}"),
	       "DeviceNotFound");
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{}}"), "exactly one of");
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{\"device\":\"ide2-cd0\"}}"), "return");
	x->cdrom.removable_locked = true;
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{\"device\":\"ide2-cd0\"}}"), "locked");
	expect(ask(x, "{\"execute\":\"blockdev-change-medium\",\"arguments\":{\"id\":\"ide2-cd0\","
		      "\"force\":true,\"filename\":\"/nonexistent\"}}"),
	       "error");
	/* A disc in, another one, none. */
	x->cdrom.medium_changed = on_medium;
	x->cdrom.opaque = x;
	for (int i = 0; i < 2; i++) {
		char *question = xasprintf("{\"execute\":\"blockdev-change-medium\",\"arguments\":{"
					   "\"id\":\"ide2-cd0\",\"force\":true,\"format\":\"raw\","
					   "\"filename\":\"%s\"}}",
					   file);

		assert_string_equal(ask(x, question), "{\"return\": {}}\r\n");
		assert_non_null(x->cdrom.node);
		assert_true(block_read_only(x->cdrom.node));
		assert_int_equal(block_length(x->cdrom.node), 4096);
		assert_int_equal(x->changes, i + 1);
		free(question);
	}
	expect(ask(x, "{\"execute\":\"query-block\"}"), "\"drv\": \"raw\"");
	set_limits(x);
	ask(x, "{\"execute\":\"eject\",\"arguments\":{\"device\":\"ide2-cd0\",\"force\":true}}");
	assert_null(x->cdrom.node);
	assert_int_equal(x->changes, 3);
	unlink(file);
	x->cdrom.cdrom = false;
	expect(ask(x, "{\"execute\":\"eject\",\"arguments\":{\"id\":\"ide2-cd0\"}}"),
	       "not removable");
}

static void test_human(void **state)
{
	struct fixture *x = *state;

	open_monitor(x, false);
	expect(x->text, "vmm 0.1 monitor");
	expect(x->text, "(vmm) ");
	expect(ask(x, "info status\r\n"), "\r\nVM status: paused (prelaunch)\r\n\r(vmm) ");
	assert_null(strstr(strstr(x->text, "(vmm)") + 1, "(vmm)")); /* CR LF is one end of line */
	ask(x, "c\n");
	assert_true(vm_is_running(&x->vm));
	expect(ask(x, "staap\x7f\x7f\x7fop\n"), "(vmm) ");
	assert_int_equal(x->vm.state, RUN_STATE_PAUSED);
	expect(ask(x, "\033[A\033[A\n"), "(vmm) c"); /* two lines before */
	assert_true(vm_is_running(&x->vm));
	expect(ask(x, "qit\n"), "did you mean quit");
	expect(ask(x, "eject nope\n"), "Error: Device 'nope' not found");
	expect(ask(x, "change ide2-cd0\n"), "usage: change DEVICE FILE [FORMAT]");
	expect(ask(x, "help\n"), "system_powerdown");
	expect(ask(x, "info\n"), "chardev");
	expect(ask(x, "info block\n"), "ide2-cd0: [not inserted]");
	expect(ask(x, "info name\n"), "web");
	expect(ask(x, "a b c d e f g h i j\n"), "too many words");
	ask(x, "quit\n");
	assert_true(x->vm.exiting);
}

static void test_human_through_qmp(void **state)
{
	struct fixture *x = *state;

	negotiate(x);
	assert_string_equal(ask(x, "{\"execute\":\"human-monitor-command\",\"arguments\":"
				   "{\"command-line\":\"info name\"}}"),
			    "{\"return\": \"web\\n\"}\r\n");
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in: %s", part, text);
}

#ifdef CONFIG_SLIRP
static unsigned no_buffers(void *opaque, unsigned queue, struct net_packet *pkts, unsigned n)
{
	return 0;
}

static void count_announcement(void *opaque)
{
	++*(unsigned *)opaque;
}

static void some_filter(void *opaque, struct net_rx_filter *f)
{
	*f = (struct net_rx_filter){.broadcast = true,
				    .vlan = NET_RX_ALL,
				    .unicast = NET_RX_NONE,
				    .mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56},
				    .multicast_count = 1,
				    .multicast_table = {{1, 0, 0x5e, 0, 0, 1}},
				    .vlans = {2}};
}

static char *card_info(void *opaque)
{
	return xstrdup("model=card,macaddr=52:54:00:12:34:56");
}

static void test_network(void **state)
{
	struct fixture *x = *state;
	unsigned announced = 0;
	const struct net_peer card = {.buffers = no_buffers,
				      .announce = count_announcement,
				      .rx_filter = some_filter,
				      .info = card_info,
				      .name = "card0",
				      .opaque = &announced};
	struct netdev *nd;

	negotiate(x);
	has(ask(x, "{\"execute\":\"netdev_add\",\"arguments\":{\"type\":\"user\",\"id\":\"n0\","
		   "\"restrict\":true,\"dnssearch\":[{\"str\":\"a.example\"}]}}"),
	    "\"return\"");
	nd = netdevs_find(&x->netdevs, "n0");
	assert_non_null(nd);
	assert_true(net_attach(nd, &card, &x->loop, 1, NULL));
	has(ask(x, "{\"execute\":\"netdev_add\",\"arguments\":{\"type\":\"user\",\"id\":\"n0\"}}"),
	    "Duplicate ID 'n0'");
	has(ask(x, "{\"execute\":\"netdev_add\",\"arguments\":{\"type\":\"user\",\"id\":\"n1\","
		   "\"nett\":\"x\"}}"),
	    "Invalid parameter 'nett'");
	has(ask(x, "{\"execute\":\"netdev_add\",\"arguments\":{\"id\":\"n1\"}}"),
	    "Parameter 'type' is missing");

	/* By either end's name. */
	has(ask(x, "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"card0\",\"up\":false}}"),
	    "\"return\"");
	assert_false(net_link(nd));
	has(ask(x, "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"n0\",\"up\":true}}"),
	    "\"return\"");
	assert_true(net_link(nd));
	has(ask(x, "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"n7\",\"up\":true}}"),
	    "DeviceNotFound");

	has(ask(x, "{\"execute\":\"announce-self\",\"arguments\":{\"initial\":1,\"max\":1,"
		   "\"rounds\":3,\"step\":0,\"interfaces\":[\"card0\"]}}"),
	    "\"return\"");
	for (int i = 0; i < 100 && announced < 3; i++)
		evloop_run_once(x->loop, NSEC_PER_MSEC);
	assert_int_equal(announced, 3);
	has(ask(x, "{\"execute\":\"announce-self\",\"arguments\":{\"initial\":1,\"max\":1,"
		   "\"rounds\":0,\"step\":0}}"),
	    "'rounds' expects");

	has(ask(x, "{\"execute\":\"query-rx-filter\"}"), "\"name\": \"card0\"");
	has(x->text, "\"main-mac\": \"52:54:00:12:34:56\"");
	has(x->text, "\"vlan\": \"all\"");
	has(x->text, "\"unicast\": \"none\"");
	has(x->text, "\"multicast-table\": [\"01:00:5e:00:00:01\"]");
	has(x->text, "\"vlan-table\": [1]");
	has(ask(x, "{\"execute\":\"query-rx-filter\",\"arguments\":{\"name\":\"n9\"}}"),
	    "invalid net client name: n9");

	notifier_fire(&nd->events, &(struct net_event){.netdev = nd,
						       .connected = true,
						       .type = "unix",
						       .path = "/tmp/s"});
	has(ask(x, "{\"execute\":\"query-name\"}"), "NETDEV_STREAM_CONNECTED");
	has(x->text, "\"netdev-id\": \"n0\"");
	has(x->text, "/tmp/s");

	/* Used: its link goes, and it with the device. */
	has(ask(x, "{\"execute\":\"netdev_del\",\"arguments\":{\"id\":\"n0\"}}"), "\"return\"");
	assert_null(netdevs_find(&x->netdevs, "n0"));
	assert_ptr_equal(x->netdevs.first, nd);
	assert_false(net_link(nd));
	net_detach(nd);
	evloop_run_once(x->loop, 0);
	assert_null(x->netdevs.first);
	has(ask(x, "{\"execute\":\"netdev_del\",\"arguments\":{\"id\":\"n0\"}}"),
	    "DeviceNotFound");
}

static void test_network_human(void **state)
{
	struct fixture *x = *state;
	const struct net_peer card = {.buffers = no_buffers, .info = card_info, .name = "card0"};
	struct netdev *nd;

	open_monitor(x, false);
	ask(x, "netdev_add user,id=n0,net=10.9.0.0/16\n");
	nd = netdevs_find(&x->netdevs, "n0");
	assert_non_null(nd);
	has(ask(x, "info network\n"), "n0: index=0,type=user,net=10.9.0.0,restrict=off");
	assert_true(net_attach(nd, &card, &x->loop, 1, NULL));
	ask(x, "set_link n0 off\n");
	has(ask(x, "info network\n"),
	    "card0: index=0,type=nic,model=card,macaddr=52:54:00:12:34:56 (link down)\r\n \\ n0: ");
	has(ask(x, "set_link n0 perhaps\n"), "on or off, not 'perhaps'");
	ask(x, "hostfwd_add tcp:127.0.0.1:0-:22\n");
	has(ask(x, "info usernet\n"), "Hub -1 (n0):");
	has(x->text, "TCP[HOST_FORWARD]");
	has(ask(x, "hostfwd_add n1 ::1-:22\n"), "unrecognized netdev id 'n1'");
	has(ask(x, "hostfwd_add n0 ::1\n"), "Invalid host forwarding rule");
	has(ask(x, "hostfwd_remove tcp:127.0.0.1:1\n"), "not found");
	ask(x, "set_link n0 on\n");
	net_detach(nd);
	ask(x, "netdev_del n0\n");
	assert_null(x->netdevs.first);
	has(ask(x, "hostfwd_add ::1-:22\n"), "user mode network stack not in use");
	has(ask(x, "netdev_add usr,id=a\n"), "did you mean 'user'?");
}
#endif

static void test_json_stream(void **state)
{
	static const char text[] = " \n{\"a\":\"}]\\\"{\"}[1]x{\n{}";
	struct json_stream s;
	char results[64] = "";
	size_t values = 0;

	json_stream_init(&s);
	for (const char *p = text; *p; p++) {
		enum json_stream_result r = json_stream_put(&s, *p);

		if (r == JSON_STREAM_VALUE)
			values++;
		if (r == JSON_STREAM_VALUE && values == 1)
			assert_memory_equal(s.buf, "{\"a\":\"}]\\\"{\"}", s.len);
		if (r)
			results[strlen(results)] = '0' + r;
	}
	assert_string_equal(results, "1121");
	/* Size. */
	json_stream_destroy(&s);
	s.max_size = 4096;
	assert_int_equal(json_stream_put(&s, '['), JSON_STREAM_MORE);
	for (int i = 0; i < 4095; i++)
		assert_int_equal(json_stream_put(&s, ' '), JSON_STREAM_MORE);
	assert_int_equal(json_stream_put(&s, ' '), JSON_STREAM_TOO_BIG);
	json_stream_destroy(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_monitor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_negotiation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cont, setup, teardown),
		cmocka_unit_test_setup_teardown(test_misbehaviour, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deaf_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_throttle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_medium, setup, teardown),
		cmocka_unit_test_setup_teardown(test_human, setup, teardown),
		cmocka_unit_test_setup_teardown(test_human_through_qmp, setup, teardown),
#ifdef CONFIG_SLIRP
		cmocka_unit_test_setup_teardown(test_network, setup, teardown),
		cmocka_unit_test_setup_teardown(test_network_human, setup, teardown),
#endif
		cmocka_unit_test(test_json_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
