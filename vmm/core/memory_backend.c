/* SPDX-License-Identifier: Apache-2.0 */
/* Memory behind the guest's RAM; see memory_backend.h. memfd_create(2), mmap(2), madvise(2). */
#include "vmm/core/memory_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vmm/core/util.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { SMALL_PAGE = 4096, MAX_NODES = 128 };
#define LARGE_PAGE (UINT64_C(2) << 20)

/* What an option line comes to. */
struct request {
	uint64_t size;
	bool share, reserve, prealloc, merge, dump;
	const char *path; /* -file */
	bool discard, readonly;
	bool hugetlb; /* -memfd */
	uint64_t hugetlb_size;
	bool seal;
	int policy; /* MPOL_* */
	unsigned long nodes[MAX_NODES / (8 * sizeof(long))];
};

/* Maps what the request asks for over address space that is aligned as large pages want it: host and
 * guest addresses must agree on where one begins. */
static bool map(struct memory_backend *mb, const struct request *q, struct error **err)
{
	uint64_t align = mb->size >= LARGE_PAGE ? MAX(mb->page_size, LARGE_PAGE) : mb->page_size;
	int reserve = q->reserve ? 0 : MAP_NORESERVE;
	int flags = MAP_FIXED | reserve | (mb->share ? MAP_SHARED : MAP_PRIVATE) |
		    (mb->fd < 0 ? MAP_ANONYMOUS : 0);
	uint8_t *p = mmap(NULL, mb->size + align, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
		*start;

	if (p != MAP_FAILED) {
		start = (uint8_t *)ALIGN_UP((uintptr_t)p, align);
		if (start > p)
			munmap(p, start - p);
		munmap(start + mb->size, p + align - start);
		if (mmap(start, mb->size, PROT_READ | PROT_WRITE, flags, mb->fd, 0) != MAP_FAILED) {
			mb->hva = start;
			return true;
		}
		int error = errno;

		munmap(start, mb->size);
		errno = error;
	}
	error_set_errno(err, errno, "cannot map %" PRIu64 " MiB of memory", mb->size >> 20);
	return false;
}

/* Touches every page, so that the host cannot run out of them later. */
static bool populate(const struct memory_backend *mb, struct error **err)
{
	if (madvise(mb->hva, mb->size, MADV_POPULATE_WRITE) == 0)
		return true;
	if (errno == EINVAL) {
		/* An older kernel. A page that is not to be had ends the process here, at start. */
		for (uint64_t at = 0; at < mb->size; at += mb->page_size)
			*(volatile uint8_t *)(mb->hva + at) = mb->hva[at];
		return true;
	}
	error_set_errno(err, errno, "cannot preallocate %" PRIu64 " MiB of memory", mb->size >> 20);
	return false;
}

/* Of which of the host's nodes its pages are: before the first of them is touched. mbind(2) */
static bool place(const struct memory_backend *mb, const struct request *q, struct error **err)
{
	if (q->policy == MPOL_DEFAULT ||
	    syscall(SYS_mbind, mb->hva, mb->size, q->policy, q->nodes, (long)MAX_NODES + 1,
		    MPOL_MF_STRICT | MPOL_MF_MOVE) == 0)
		return true;
	error_set_errno(err, errno, "cannot bind memory to host NUMA nodes");
	return false;
}

static bool finish(struct memory_backend *mb, const struct request *q, struct error **err)
{
	if (!IS_ALIGNED(mb->size, mb->page_size)) {
		error_set(err, "size is no multiple of the memory's pages of %" PRIu64 " KiB",
			  mb->page_size >> 10);
		return false;
	}
	if (!map(mb, q, err))
		return false;
	/* Advice: a host that does not take it goes without. */
	if (q->merge)
		madvise(mb->hva, mb->size, MADV_MERGEABLE);
	if (!q->dump)
		madvise(mb->hva, mb->size, MADV_DONTDUMP);
	/* Large pages where kernels live; small guests below stay small. */
	if (mb->page_size == SMALL_PAGE && mb->size > 16 * LARGE_PAGE)
		madvise(mb->hva + 8 * LARGE_PAGE, mb->size - 8 * LARGE_PAGE, MADV_HUGEPAGE);
	return place(mb, q, err) && (!q->prealloc || populate(mb, err));
}

static bool memory_file(struct memory_backend *mb, const struct request *q, struct error **err)
{
	unsigned flags = MFD_CLOEXEC | (q->seal ? MFD_ALLOW_SEALING : 0);

	if (q->hugetlb) {
		flags |= MFD_HUGETLB;
		if (q->hugetlb_size)
			flags |= (unsigned)__builtin_ctzll(q->hugetlb_size) << MFD_HUGE_SHIFT;
	}
	mb->fd = memfd_create("guest-ram", flags);
	if (mb->fd < 0) {
		error_set_errno(err, errno, "cannot make a memory file%s",
				q->hugetlb ? " of huge pages" : "");
		return false;
	}
	if (q->hugetlb) {
		struct stat st;

		if (fstat(mb->fd, &st) == 0)
			mb->page_size = st.st_blksize;
	}
	if (ftruncate(mb->fd, mb->size) < 0 ||
	    (q->seal && fcntl(mb->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)) {
		error_set_errno(err, errno, "cannot size a memory file to %" PRIu64 " MiB",
				mb->size >> 20);
		return false;
	}
	return true;
}

/* A file of the user's; in a folder, one of our own that has no name. */
static bool open_path(struct memory_backend *mb, const struct request *q, struct error **err)
{
	struct stat st;
	struct statfs fs;

	mb->fd = open(q->path, O_RDWR | O_CLOEXEC | O_CREAT, 0600);
	if (mb->fd < 0 && errno == EISDIR) {
		char *name = xasprintf("%s/vmm-ram.XXXXXX", q->path);

		mb->fd = mkostemp(name, O_CLOEXEC);
		if (mb->fd >= 0)
			unlink(name);
		free(name);
	}
	if (mb->fd < 0 || fstat(mb->fd, &st) < 0 || fstatfs(mb->fd, &fs) < 0) {
		error_set_errno(err, errno, "mem-path %s", q->path);
		return false;
	}
	if (fs.f_type == HUGETLBFS_MAGIC)
		mb->page_size = fs.f_bsize;
	if (S_ISREG(st.st_mode) && !st.st_size) {
		if (ftruncate(mb->fd, mb->size) == 0)
			return true;
		error_set_errno(err, errno, "mem-path %s: cannot make it %" PRIu64 " MiB long",
				q->path, mb->size >> 20);
		return false;
	}
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < mb->size) {
		error_set(err, "mem-path %s: has %" PRIu64 " bytes, fewer than size", q->path,
			  (uint64_t)st.st_size);
		return false;
	}
	return true;
}

static struct memory_backend *create(const struct request *q, bool memfd, struct error **err)
{
	struct memory_backend *mb = xcalloc(1, sizeof(*mb));

	*mb = (struct memory_backend){.size = q->size,
				      .page_size = SMALL_PAGE,
				      .fd = -1,
				      .share = q->share,
				      .discard = q->discard};
	if ((q->path ? open_path(mb, q, err) : !memfd || memory_file(mb, q, err)) &&
	    finish(mb, q, err))
		return mb;
	memory_backend_free(mb);
	return NULL;
}

struct memory_backend *memory_backend_new(uint64_t size, bool share,
					  const struct memory_defaults *defaults,
					  struct error **err)
{
	struct request q = {
		.size = size, .share = share, .merge = defaults->merge, .dump = defaults->dump,
		.prealloc = defaults->prealloc};

	return create(&q, share, err);
}

void memory_backend_free(struct memory_backend *mb)
{
	if (!mb)
		return;
	if (mb->hva) {
		if (mb->discard)
			madvise(mb->hva, mb->size, MADV_REMOVE);
		munmap(mb->hva, mb->size);
	}
	if (mb->fd >= 0)
		close(mb->fd);
	free(mb->id);
	free(mb);
}

/* -object */

enum kind { RAM, MEMFD, FILE_KIND, KINDS };

static const char *const kind_names[KINDS] = {
	[RAM] = "memory-backend-ram",
	[MEMFD] = "memory-backend-memfd",
	[FILE_KIND] = "memory-backend-file",
};

static int kind_of(const char *qom_type)
{
	for (int i = 0; i < KINDS; i++)
		if (!strcmp(qom_type, kind_names[i]))
			return i;
	return -1;
}

bool memory_backend_is_type(const char *qom_type)
{
	return kind_of(qom_type) >= 0;
}

/* "0-1", or "3"; true if it is one. */
static bool add_nodes(struct request *q, const char *text)
{
	unsigned long first, last;
	char *end;

	first = last = strtoul(text, &end, 10);
	if (end != text && *end == '-') {
		text = end + 1;
		last = strtoul(text, &end, 10);
	}
	if (end == text || *end || first > last || last >= MAX_NODES)
		return false;
	for (unsigned long n = first; n <= last; n++)
		q->nodes[n / (8 * sizeof(long))] |= 1ul << n % (8 * sizeof(long));
	return true;
}

/* host-nodes stands once for each range, or as a list from JSON: host-nodes.0, host-nodes.1. */
static bool read_placement(struct request *q, struct opts *opts, struct error **err)
{
	static const char *const policies[] = {
		[MPOL_DEFAULT] = "default",
		[MPOL_PREFERRED] = "preferred",
		[MPOL_BIND] = "bind",
		[MPOL_INTERLEAVE] = "interleave",
		NULL,
	};
	const char *text;
	size_t pos = 0;
	unsigned count = 0;

	if (!opts_get_enum(opts, "policy", policies, &q->policy, err))
		return false;
	for (unsigned i = 0; i <= MAX_NODES; i++) {
		char key[24];

		snprintf(key, sizeof(key), "host-nodes.%u", i);
		text = opts_next_all(opts, "host-nodes", &pos);
		if (!text && !(text = opts_get(opts, key)))
			break;
		count++;
		if (!add_nodes(q, text)) {
			error_set(err, "host-nodes is a node or a range of them, 'FIRST-LAST', "
				       "not '%s'", text);
			return false;
		}
	}
	if (count && q->policy == MPOL_DEFAULT)
		error_set(err, "host-nodes goes with a policy other than default");
	else if (!count && q->policy != MPOL_DEFAULT)
		error_set(err, "host-nodes must be set for policy %s", policies[q->policy]);
	else
		return true;
	return false;
}

static bool read_common(struct request *q, struct opts *opts, struct error **err)
{
	static const char *const refused[] = {"prealloc-context", "prealloc-threads"};
	bool canonical;

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		if (opts_has(opts, refused[i])) {
			error_set(err, "%s is not supported by this build", refused[i]);
			return false;
		}
	}
	if (!opts_get_size(opts, "size", 1, &q->size, err) ||
	    !opts_get_bool(opts, "share", &q->share, err) ||
	    !opts_get_bool(opts, "reserve", &q->reserve, err) ||
	    !opts_get_bool(opts, "prealloc", &q->prealloc, err) ||
	    !opts_get_bool(opts, "merge", &q->merge, err) ||
	    !opts_get_bool(opts, "dump", &q->dump, err) ||
	    /* How RAM is named in a migration stream; nothing else depends on it. */
	    !opts_get_bool(opts, "x-use-canonical-path-for-ramblock-id", &canonical, err))
		return false;
	if (!q->size) {
		error_set(err, "can't create backend with size 0");
		return false;
	}
	if (!IS_ALIGNED(q->size, SMALL_PAGE)) {
		error_set(err, "size is no multiple of 4 KiB");
		return false;
	}
	return read_placement(q, opts, err);
}

static bool read_kind(struct request *q, enum kind kind, struct opts *opts, struct error **err)
{
	if (kind == FILE_KIND) {
		q->path = opts_get(opts, "mem-path");
		if (!q->path || !*q->path) {
			error_set(err, "mem-path property not set");
			return false;
		}
		return opts_get_bool(opts, "discard-data", &q->discard, err);
	}
	if (kind == MEMFD) {
		if (!opts_get_bool(opts, "hugetlb", &q->hugetlb, err) ||
		    !opts_get_size(opts, "hugetlbsize", 1, &q->hugetlb_size, err) ||
		    !opts_get_bool(opts, "seal", &q->seal, err))
			return false;
		if (q->hugetlb_size && (!q->hugetlb || !is_pow2(q->hugetlb_size))) {
			error_set(err, q->hugetlb ? "hugetlbsize is a power of two" :
						    "hugetlbsize goes with hugetlb=on");
			return false;
		}
	}
	return true;
}

bool memory_backends_add(struct memory_backend **list, struct opts *opts,
			 const struct memory_defaults *defaults, struct error **err)
{
	static const char *const known[] = {
		"qom-type", "id",   "size",	"share",	"reserve", "prealloc",	  "merge",
		"dump",	    "seal", "mem-path", "discard-data", "hugetlb", "hugetlbsize",
		"policy",   "host-nodes",
	};
	const char *id = opts_get(opts, "id"), *type = opts_get(opts, "qom-type");
	enum kind kind = kind_of(type);
	struct request q = {.merge = defaults->merge,
			    .dump = defaults->dump,
			    .prealloc = defaults->prealloc,
			    .share = kind == MEMFD,
			    .seal = kind == MEMFD,
			    .reserve = true};
	struct memory_backend *mb;

	if (!read_common(&q, opts, err) || !read_kind(&q, kind, opts, err) ||
	    !opts_check_used(opts, known, ARRAY_SIZE(known), err))
		return false;
	mb = create(&q, kind == MEMFD, err);
	if (!mb)
		return false;
	mb->id = xstrdup(id);
	mb->next = *list;
	*list = mb;
	return true;
}

struct memory_backend *memory_backends_find(struct memory_backend *list, const char *id)
{
	while (list && strcmp(list->id, id))
		list = list->next;
	return list;
}
