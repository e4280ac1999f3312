/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-img nbd: serves an image to NBD clients, with qemu-nbd's options. Ends when the last client
 * has gone (-t: at a signal), images flushed, socket and pid file removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/img/img.h"
#include "block/nbd/list.h"
#include "block/nbd/server.h"
#include "vmm/core/log.h"

enum { HANDSHAKE_SECONDS = 10, ACTIVATED_FD = 3 };

struct settings {
	const char *host, *port, *path, *format, *cache, *aio, *discard, *detect_zeroes, *snapshot;
	const char *pid_file, *tls_creds, *tls_hostname, *bitmap[2];
	uint64_t offset;
	uint32_t flags;
	unsigned shared;
	bool help, image_opts, temporary, persistent, list, fork, verbose, named, described;
	struct nbd_export_config export;
};

struct serving {
	const struct settings *set;
	struct img *img;
	struct block_node *node;
	struct nbd_server *server;
	struct ev_fd signals;
	int signal_fd, pid_fd, report_fd;
	bool bound; /* set->path is ours */
};

/* The image */

static struct block_node *find_base(void *opaque, const char *name)
{
	return opaque;
}

/* base from offset on; consumes base. */
static struct block_node *at_offset(struct img *img, struct block_node *base, uint64_t offset,
				    struct error **err)
{
	struct block_names names = {.find = find_base, .opaque = base};
	uint32_t flags = BLOCK_OPEN_BLOCKDEV | BLOCK_OPEN_UNMAP;
	struct block_node *node;
	struct opts opts = {0};
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)offset);
	opts_add(&opts, "driver", "raw");
	opts_add(&opts, "file", "base");
	opts_add(&opts, "offset", text);
	if (!base->read_only)
		flags |= BLOCK_OPEN_RDWR;
	node = block_open_tool(img->loop, &opts, flags, &names, err);
	opts_free(&opts);
	block_unref(base);
	return node;
}

static struct block_node *open_named(struct img *img, const struct settings *set, const char *name,
				     uint32_t flags, struct error **err)
{
	struct opts opts = {0};
	struct block_node *node;

	if (set->image_opts) {
		if (!opts_parse(&opts, name, NULL, err))
			return NULL;
		flags |= BLOCK_OPEN_BLOCKDEV;
	} else {
		opts_add(&opts, "file", name);
		if (set->format)
			opts_add(&opts, "format", set->format);
		if (set->aio)
			opts_add(&opts, "file.aio", set->aio);
	}
	if (set->discard)
		opts_add(&opts, "discard", set->discard);
	if (set->detect_zeroes)
		opts_add(&opts, "detect-zeroes", set->detect_zeroes);
	node = block_open_tool(img->loop, &opts, flags, &img->names, err);
	opts_free(&opts);
	return node;
}

/* A temporary image, which takes over what is to be done with writes. Consumes base. */
static struct block_node *above(const struct block_open *how, struct block_node *base,
				struct error **err)
{
	bool ignore_discard = base->ignore_discard;
	int zeroes = base->detect_zeroes;
	struct block_node *node;

	base->detect_zeroes = 0;
	node = block_overlay(how, base, err);
	if (node) {
		node->ignore_discard = ignore_discard;
		node->detect_zeroes = zeroes;
	}
	return node;
}

static struct block_node *open_image(struct img *img, const struct settings *set, const char *name,
				     struct error **err)
{
	uint32_t flags = set->flags;
	struct block_open how;
	struct block_node *node;

	if (set->cache && !block_parse_cache(set->cache, &flags)) {
		error_set(err, "Invalid cache mode '%s'", set->cache);
		return NULL;
	}
	how = (struct block_open){.flags = flags, .loop = img->loop, .home = img->loop};
	if (set->temporary)
		flags &= ~BLOCK_OPEN_RDWR;
	node = open_named(img, set, name, flags, err);
	if (node && set->temporary)
		node = above(&how, node, err);
	if (!node) {
		error_prefix(err, "Could not open '%s': ", name);
		return NULL;
	}
	if (set->snapshot && !img_show_snapshot(node, set->snapshot, err)) {
		block_unref(node);
		return NULL;
	}
	return set->offset ? at_offset(img, node, set->offset, err) : node;
}

/* Sockets */

static int listen_on(const struct addrinfo *ai, struct error **err)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	if (fd < 0) {
		error_set_errno(err, errno, "Failed to create a socket");
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, SOMAXCONN))
		return fd;
	error_set_errno(err, errno, "Failed to bind socket");
	close(fd);
	return -1;
}

static bool listen_fd(struct serving *s, int fd, struct error **err)
{
	int ret = fd < 0 ? 0 : nbd_server_listen(s->server, fd);

	if (ret)
		error_set_errno(err, ret, "Failed to wait for clients");
	return fd >= 0 && !ret;
}

/* Every address that the name has. */
static bool listen_tcp(struct serving *s, struct error **err)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	const char *host = s->set->host ? s->set->host : "0.0.0.0";
	struct addrinfo *list, *ai;
	int ret = getaddrinfo(host, s->set->port, &hints, &list);
	bool ok = true;

	if (ret) {
		error_set(err, "address resolution failed for %s:%s: %s", host, s->set->port,
			  gai_strerror(ret));
		return false;
	}
	for (ai = list; ai && ok; ai = ai->ai_next)
		ok = listen_fd(s, listen_on(ai, err), err);
	freeaddrinfo(list);
	return ok;
}

static bool listen_unix(struct serving *s, struct error **err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct addrinfo ai = {.ai_family = AF_UNIX,
				    .ai_socktype = SOCK_STREAM,
				    .ai_addr = (struct sockaddr *)&address,
				    .ai_addrlen = sizeof(address)};
	const char *path = s->set->path;
	struct stat st;

	if (strlen(path) >= sizeof(address.sun_path)) {
		error_set(err, "UNIX socket path '%s' is too long", path);
		return false;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	/* What an earlier server left behind; never anything but a socket. */
	if (!lstat(path, &st) && S_ISSOCK(st.st_mode))
		unlink(path);
	if (!listen_fd(s, listen_on(&ai, err), err))
		return false;
	s->bound = true;
	return true;
}

/* systemd's socket activation, which nbdcopy and others use as well: a socket is there already. */
static bool is_activated(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	uint64_t n;

	return pid && fds && parse_u64(pid, &n) && n == (uint64_t)getpid() && !strcmp(fds, "1");
}

static bool listen_all(struct serving *s, struct error **err)
{
	if (!is_activated())
		return s->set->path ? listen_unix(s, err) : listen_tcp(s, err);
	if (s->set->path || s->set->host) {
		error_set(err, "Unix socket or host and port are not for socket activation");
		return false;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	fcntl(ACTIVATED_FD, F_SETFD, FD_CLOEXEC);
	fcntl(ACTIVATED_FD, F_SETFL, fcntl(ACTIVATED_FD, F_GETFL) | O_NONBLOCK);
	return listen_fd(s, ACTIVATED_FD, err);
}

/* The process */

/* The file is locked while we live, and says who we are. */
static bool write_pid(struct serving *s, struct error **err)
{
	const char *path = s->set->pid_file;
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (!path)
		return true;
	s->pid_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->pid_fd < 0 || lockf(s->pid_fd, F_TLOCK, 0) || ftruncate(s->pid_fd, 0) ||
	    write_full(s->pid_fd, text, len)) {
		error_set_errno(err, errno, "Cannot create pid file '%s'", path);
		if (s->pid_fd >= 0)
			close(s->pid_fd);
		s->pid_fd = -1;
		return false;
	}
	return true;
}

/* --fork: the parent waits until the child serves, and ends as it does. Its exit code, or -1 in the
 * child, which reports to fd. */
static int fork_server(int *fd)
{
	int ends[2], status = 0;
	char byte;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		return img_usage("Failed to fork: %s", strerror(errno));
	if (!pid) {
		close(ends[0]);
		setsid();
		*fd = ends[1];
		return -1;
	}
	close(ends[1]);
	if (read_full(ends[0], &byte, 1)) {
		/* It has said why. */
		waitpid(pid, &status, 0);
		status = WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
	}
	close(ends[0]);
	return status;
}

static void report_ready(struct serving *s)
{
	int null;

	if (s->report_fd < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2 && null >= 0; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	if (write_full(s->report_fd, "", 1))
		evloop_stop(s->img->loop); /* nobody waits for us any more */
	close(s->report_fd);
	s->report_fd = -1;
}

static void on_signal(void *opaque, uint32_t revents)
{
	struct serving *s = opaque;

	evloop_stop(s->img->loop);
}

static bool catch_signals(struct serving *s, struct error **err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0 ||
	    evloop_fd_add(s->img->loop, &s->signals, s->signal_fd, EPOLLIN, on_signal, s)) {
		error_set_errno(err, errno, "Cannot wait for signals");
		return false;
	}
	return true;
}

static void client_left(void *opaque, unsigned clients, bool negotiated)
{
	struct serving *s = opaque;

	if (s->set->verbose)
		log_info("a client has left; %u are connected", clients);
	if (!s->set->persistent && negotiated && !clients)
		evloop_stop(s->img->loop);
}

static bool start(struct serving *s, const char *name, struct error **err)
{
	const struct settings *set = s->set;
	struct nbd_server_config config = {
		.max_clients = set->shared,
		.handshake_ns = HANDSHAKE_SECONDS * NSEC_PER_SEC,
		.client_left = client_left,
		.opaque = s,
	};
	struct nbd_export_config export = set->export;

	if (set->tls_creds) {
		config.tls = tls_creds_find(s->img->names.objects, set->tls_creds, true, err);
		if (!config.tls)
			return false;
	}
	/* Before threads are made, which inherit what is blocked. */
	if (!catch_signals(s, err))
		return false;
	s->node = open_image(s->img, set, name, err);
	if (!s->node)
		return false;
	s->node->writeback = !set->cache || (strcmp(set->cache, "writethrough") &&
					     strcmp(set->cache, "directsync"));
	export.node = s->node;
	s->server = nbd_server_new(s->img->loop, &config);
	return nbd_server_add(s->server, &export, err) && listen_all(s, err) && write_pid(s, err);
}

static int serve(struct img *img, const struct settings *set, const char *name, int report_fd)
{
	struct serving s = {
		.set = set, .img = img, .signal_fd = -1, .pid_fd = -1, .report_fd = report_fd};
	struct error *err = NULL;
	bool ok = start(&s, name, &err);

	if (ok) {
		if (set->verbose)
			log_info("serving '%s'", name);
		report_ready(&s);
		evloop_run(img->loop);
	}
	nbd_server_free(s.server);
	if (s.bound)
		unlink(set->path);
	block_unref(s.node);
	evloop_fd_del(img->loop, &s.signals);
	if (s.signal_fd >= 0)
		close(s.signal_fd);
	if (s.pid_fd >= 0) {
		unlink(set->pid_file);
		close(s.pid_fd);
	}
	return ok ? 0 : img_fail(err);
}

/* Options */

static int list(struct img *img, const struct settings *set)
{
	struct nbd_list_config config = {
		.path = set->path,
		.host = set->host ? set->host : "0.0.0.0",
		.port = set->port,
		.tls_hostname = set->tls_hostname,
	};
	struct error *err = NULL;

	if (set->tls_creds) {
		config.tls = tls_creds_find(img->names.objects, set->tls_creds, false, &err);
		if (!config.tls)
			return img_fail(err);
	}
	return nbd_list(img->loop, &config, &err) ? 0 : img_fail(err);
}

static int check_settings(const struct settings *set, int names)
{
	if (set->list && names)
		return img_usage("List mode is incompatible with a file name");
	if (set->list && (set->named || set->described || set->offset || set->snapshot ||
			  set->temporary || set->fork || set->pid_file || set->persistent))
		return img_usage("List mode is incompatible with per-export settings");
	if (!set->list && names != 1)
		return img_usage("Invalid number of arguments");
	if (!set->list && set->tls_hostname)
		return img_usage("TLS hostname is only supported with list mode");
	if (set->path && set->path[0] != '/')
		return img_usage("socket path must be absolute");
	if (set->image_opts && set->format)
		return img_usage("--image-opts and -f are mutually exclusive");
	if (set->image_opts && set->aio)
		return img_usage("--image-opts and --aio are mutually exclusive");
	return 0;
}

static bool parse_number(const char *what, const char *text, uint64_t max, uint64_t *out)
{
	if (parse_u64(text, out) && *out <= max)
		return true;
	img_usage("Invalid %s '%s'", what, text);
	return false;
}

enum {
	CACHE = 1,
	AIO,
	DISCARD,
	DETECT_ZEROES,
	IMAGE_OPTS,
	FORK,
	PID_FILE,
	TLS_CREDS,
	TLS_AUTHZ,
	TLS_HOSTNAME
};

static const struct option longs[] = {{"port", 1, 0, 'p'},
				      {"bind", 1, 0, 'b'},
				      {"socket", 1, 0, 'k'},
				      {"offset", 1, 0, 'o'},
				      {"format", 1, 0, 'f'},
				      {"read-only", 0, 0, 'r'},
				      {"snapshot", 0, 0, 's'},
				      {"nocache", 0, 0, 'n'},
				      {"load-snapshot", 1, 0, 'l'},
				      {"shared", 1, 0, 'e'},
				      {"persistent", 0, 0, 't'},
				      {"export-name", 1, 0, 'x'},
				      {"description", 1, 0, 'D'},
				      {"list", 0, 0, 'L'},
				      {"allocation-depth", 0, 0, 'A'},
				      {"bitmap", 1, 0, 'B'},
				      {"connect", 1, 0, 'c'},
				      {"disconnect", 0, 0, 'd'},
				      {"verbose", 0, 0, 'v'},
				      {"help", 0, 0, 'h'},
				      {"cache", 1, 0, CACHE},
				      {"aio", 1, 0, AIO},
				      {"discard", 1, 0, DISCARD},
				      {"fork", 0, 0, FORK},
				      {"detect-zeroes", 1, 0, DETECT_ZEROES},
				      {"image-opts", 0, 0, IMAGE_OPTS},
				      {"pid-file", 1, 0, PID_FILE},
				      {"tls-creds", 1, 0, TLS_CREDS},
				      {"tls-authz", 1, 0, TLS_AUTHZ},
				      {"tls-hostname", 1, 0, TLS_HOSTNAME},
				      {0}};

static int usage(void)
{
	printf("usage: vmm-img nbd [OPTIONS] FILE\n"
	       "       vmm-img nbd -L [OPTIONS]\n\n"
	       "  -p PORT          TCP port (10809)           -b ADDRESS       address (0.0.0.0)\n"
	       "  -k PATH          a unix socket instead      -e N             clients at once "
	       "(1);\n"
	       "                                                               0: any number\n"
	       "  -t               goes on after the last     -x NAME          the export's name\n"
	       "                   client has gone            -D TEXT          its description\n"
	       "  -f FORMAT        the image's format         --image-opts     FILE is options\n"
	       "  -o OFFSET        serves it from there on    -r               read-only\n"
	       "  -B NAME          the bitmap, as qemu:dirty-bitmap:NAME\n"
	       "  -s               writes go to a temporary   -l SNAPSHOT      of inside the "
	       "image\n"
	       "                   image                      -A               "
	       "qemu:allocation-depth\n"
	       "  --cache=MODE, --aio=ENGINE, --discard=MODE, --detect-zeroes=MODE: as -drive's\n"
	       "  --object=OBJECT  makes credentials          --tls-creds=ID   TLS or nothing\n"
	       "  --fork           returns when it serves     --pid-file=PATH\n"
	       "  -L               lists a server's exports   --tls-hostname=NAME of that server\n"
	       "  -v               tells of clients\n");
	return 0;
}

static int parse(struct settings *set, int argc, char **argv)
{
	uint64_t n;
	int o;

	while ((o = getopt_long(argc, argv, "p:b:k:o:f:rsnl:e:tx:D:LAB:c:dvh", longs, NULL)) !=
	       -1) {
		switch (o) {
		case 'p':
			if (!parse_number("port", optarg, 65535, &n))
				return 1;
			set->port = optarg;
			break;
		case 'b':
			set->host = optarg;
			break;
		case 'k':
			set->path = optarg;
			break;
		case 'o':
			if (!parse_size(optarg, 1, &set->offset) || set->offset > INT64_MAX)
				return img_usage("Invalid offset '%s'", optarg);
			break;
		case 'f':
			set->format = optarg;
			break;
		case 'l':
			set->snapshot = optarg;
			set->flags &= ~BLOCK_OPEN_RDWR;
			break;
		case 'r':
			set->flags &= ~BLOCK_OPEN_RDWR;
			break;
		case 's':
			set->temporary = true;
			break;
		case 'n':
			set->cache = "none";
			break;
		case 'e':
			if (!parse_number("shared device number", optarg, INT32_MAX, &n))
				return 1;
			set->shared = n;
			break;
		case 't':
			set->persistent = true;
			break;
		case 'x':
			set->export.name = optarg;
			set->named = true;
			break;
		case 'D':
			set->export.description = optarg;
			set->described = true;
			break;
		case 'L':
			set->list = true;
			break;
		case 'A':
			set->export.allocation_depth = true;
			break;
		case 'B':
			set->bitmap[0] = optarg;
			set->export.bitmaps = set->bitmap;
			break;
		case 'c':
		case 'd':
			return img_usage("-%c: the kernel's /dev/nbd devices are not supported; "
					 "'nbd-client' connects one to a server",
					 o);
		case 'v':
			set->verbose = true;
			break;
		case CACHE:
			set->cache = optarg;
			break;
		case AIO:
			set->aio = optarg;
			break;
		case DISCARD:
			set->discard = optarg;
			break;
		case DETECT_ZEROES:
			set->detect_zeroes = optarg;
			break;
		case IMAGE_OPTS:
			set->image_opts = true;
			break;
		case FORK:
			set->fork = true;
			break;
		case PID_FILE:
			set->pid_file = optarg;
			break;
		case TLS_CREDS:
			set->tls_creds = optarg;
			break;
		case TLS_AUTHZ:
			return img_usage(
				"--tls-authz %s: authorization objects are not supported; "
				"--tls-creds with verify-peer=on admits whom its CA signed",
				optarg);
		case TLS_HOSTNAME:
			set->tls_hostname = optarg;
			break;
		case 'h':
			set->help = true;
			break;
		default:
			return 1;
		}
	}
	return 0;
}

int img_nbd(struct img *img, int argc, char **argv)
{
	struct settings set = {
		.port = "10809",
		.shared = 1,
		.flags = BLOCK_OPEN_RDWR,
		.export = {.name = ""},
	};
	int ret = parse(&set, argc, argv), report_fd = -1;

	if (!ret && set.help)
		return usage();
	if (!ret)
		ret = check_settings(&set, argc - optind);
	if (ret)
		return ret;
	if (set.list)
		return list(img, &set);
	if (set.fork) {
		ret = fork_server(&report_fd);
		if (ret >= 0)
			return ret;
	}
	return serve(img, &set, argv[optind], report_fd);
}
