/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of snapshots ("Snapshots" in the format's document): reading it from bytes that nobody
 * trusts, and putting it together. What it says of L1 tables is checked when they are used
 * (snapshot.c), so that one bad snapshot does not take the disk away.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/snapshot.h"

enum { HEAD = 40, EXTRA_KNOWN = 24 };

static int read_some(struct qcow2 *s, uint64_t at, void *buf, size_t bytes)
{
	if (!range_inside(at, bytes, s->file->length))
		return -EIO;
	return bytes ? block_pread(s->file, at, buf, bytes) : 0;
}

static void take_extra(struct qcow2 *s, struct block_snapshot *sn, struct qsnapshot *q,
		       const uint8_t *extra, uint32_t len)
{
	sn->disk_size = s->h.size;
	sn->icount = BLOCK_SNAPSHOT_NO_ICOUNT;
	if (len >= 8)
		sn->vm_state_bytes = load_be64(extra);
	if (len >= 16)
		sn->disk_size = load_be64(extra + 8);
	if (len >= EXTRA_KNOWN)
		sn->icount = load_be64(extra + 16);
	if (len > EXTRA_KNOWN) {
		q->extra_len = len - EXTRA_KNOWN;
		q->extra = xmalloc(q->extra_len);
		memcpy(q->extra, extra + EXTRA_KNOWN, q->extra_len);
	}
}

/* One entry at *at, which moves behind it. 0, -EINVAL for nonsense, or another -errno. */
static int read_entry(struct qcow2 *s, uint64_t *at, struct block_snapshot *sn, struct qsnapshot *q)
{
	uint8_t head[HEAD], extra[QCOW2_MAX_SNAPSHOT_EXTRA];
	uint32_t extra_len, id_len, name_len;
	char text[UINT16_MAX + 1];
	int ret = read_some(s, *at, head, sizeof(head));

	if (ret)
		return ret;
	q->l1_offset = load_be64(head);
	q->l1_size = load_be32(head + 8);
	id_len = load_be16(head + 12);
	name_len = load_be16(head + 14);
	sn->date_sec = load_be32(head + 16);
	sn->date_nsec = load_be32(head + 20);
	sn->vm_clock_ns = load_be64(head + 24);
	sn->vm_state_bytes = load_be32(head + 32);
	extra_len = load_be32(head + 36);
	if (extra_len > sizeof(extra))
		return -EINVAL;
	*at += sizeof(head);
	ret = read_some(s, *at, extra, extra_len);
	if (ret)
		return ret;
	take_extra(s, sn, q, extra, extra_len);
	*at += extra_len;
	ret = read_some(s, *at, text, id_len);
	if (ret)
		return ret;
	sn->id = xstrndup(text, id_len);
	*at += id_len;
	ret = read_some(s, *at, text, name_len);
	if (ret)
		return ret;
	sn->name = xstrndup(text, name_len);
	*at = ALIGN_UP(*at + name_len, 8);
	return 0;
}

int qcow2_snapshots_read(struct qcow2 *s, struct error **err)
{
	struct qsnapshots *t = &s->snapshots;
	uint64_t at = s->h.snapshots_offset;

	*t = (struct qsnapshots){0};
	if (!s->h.snapshots)
		return 0;
	t->pub = calloc(s->h.snapshots, sizeof(*t->pub));
	t->more = calloc(s->h.snapshots, sizeof(*t->more));
	if (!t->pub || !t->more) {
		error_set_errno(err, ENOMEM, "Could not read snapshots");
		return -ENOMEM;
	}
	while (t->count < s->h.snapshots) {
		unsigned i = t->count++;
		int ret = read_entry(s, &at, &t->pub[i], &t->more[i]);

		if (!ret && at - s->h.snapshots_offset > QCOW2_MAX_SNAPSHOT_TABLE)
			ret = -EFBIG;
		if (ret) {
			error_set_errno(err, ret, "Could not read snapshots");
			qcow2_snapshots_free(s);
			return ret;
		}
	}
	t->bytes = at - s->h.snapshots_offset;
	return 0;
}

static void free_entry(struct block_snapshot *sn, struct qsnapshot *q)
{
	free(sn->id);
	free(sn->name);
	free(q->extra);
}

void qcow2_snapshots_free(struct qcow2 *s)
{
	struct qsnapshots *t = &s->snapshots;

	for (unsigned i = 0; i < t->count; i++)
		free_entry(&t->pub[i], &t->more[i]);
	free(t->pub);
	free(t->more);
	*t = (struct qsnapshots){0};
}

void qcow2_snapshots_append(struct qcow2 *s, const struct block_snapshot *sn,
			    const struct qsnapshot *q)
{
	struct qsnapshots *t = &s->snapshots;

	t->pub = xrealloc(t->pub, (t->count + 1) * sizeof(*t->pub));
	t->more = xrealloc(t->more, (t->count + 1) * sizeof(*t->more));
	t->pub[t->count] = *sn;
	t->pub[t->count].id = xstrdup(sn->id);
	t->pub[t->count].name = xstrdup(sn->name);
	t->more[t->count] = *q;
	t->count++;
}

void qcow2_snapshots_remove(struct qcow2 *s, unsigned index)
{
	struct qsnapshots *t = &s->snapshots;

	free_entry(&t->pub[index], &t->more[index]);
	t->count--;
	memmove(&t->pub[index], &t->pub[index + 1], (t->count - index) * sizeof(*t->pub));
	memmove(&t->more[index], &t->more[index + 1], (t->count - index) * sizeof(*t->more));
}

static size_t entry_bytes(const struct block_snapshot *sn, const struct qsnapshot *q)
{
	return ALIGN_UP(HEAD + EXTRA_KNOWN + q->extra_len + strlen(sn->id) + strlen(sn->name),
			(size_t)8);
}

static void put_entry(uint8_t *p, const struct block_snapshot *sn, const struct qsnapshot *q)
{
	store_be64(p, q->l1_offset);
	store_be32(p + 8, q->l1_size);
	store_be16(p + 12, strlen(sn->id));
	store_be16(p + 14, strlen(sn->name));
	store_be32(p + 16, sn->date_sec);
	store_be32(p + 20, sn->date_nsec);
	store_be64(p + 24, sn->vm_clock_ns);
	store_be32(p + 32, sn->vm_state_bytes > UINT32_MAX ? 0 : sn->vm_state_bytes);
	store_be32(p + 36, EXTRA_KNOWN + q->extra_len);
	p += HEAD;
	store_be64(p, sn->vm_state_bytes);
	store_be64(p + 8, sn->disk_size);
	store_be64(p + 16, sn->icount);
	p += EXTRA_KNOWN;
	if (q->extra_len)
		memcpy(p, q->extra, q->extra_len);
	p += q->extra_len;
	memcpy(p, sn->id, strlen(sn->id));
	memcpy(p + strlen(sn->id), sn->name, strlen(sn->name));
}

uint8_t *qcow2_snapshots_pack(const struct qcow2 *s, unsigned without, uint64_t *bytes)
{
	const struct qsnapshots *t = &s->snapshots;
	uint64_t at = 0;
	uint8_t *buf;

	*bytes = 0;
	for (unsigned i = 0; i < t->count; i++)
		if (i != without)
			*bytes += entry_bytes(&t->pub[i], &t->more[i]);
	buf = calloc(1, ALIGN_UP(MAX(*bytes, UINT64_C(1)), s->cluster_size));
	for (unsigned i = 0; buf && i < t->count; i++) {
		if (i == without)
			continue;
		put_entry(buf + at, &t->pub[i], &t->more[i]);
		at += entry_bytes(&t->pub[i], &t->more[i]);
	}
	return buf;
}
