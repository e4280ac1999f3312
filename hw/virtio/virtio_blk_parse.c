/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block requests as bytes: see virtio_blk_parse.h.
 * Thread: any. Owner: none, pure functions.
 */
#include "hw/virtio/virtio_blk_parse.h"

#include "vmm/core/util.h"

static void answer(struct virtio_blk_cmd *cmd, uint8_t status)
{
	cmd->action = VIRTIO_BLK_ANSWER;
	cmd->status = status;
}

/* Sectors to bytes; false if any of it lies outside the disk or between blocks. */
static bool place(struct virtio_blk_cmd *cmd, const struct virtio_blk_limits *limits,
		  uint64_t sector, uint64_t bytes)
{
	if (sector > limits->capacity / VIRTIO_BLK_SECTOR)
		return false;
	cmd->offset = sector * VIRTIO_BLK_SECTOR;
	cmd->bytes = bytes;
	return range_inside(cmd->offset, bytes, limits->capacity) &&
	       cmd->offset % limits->logical_block == 0 && bytes % limits->logical_block == 0;
}

static void parse_transfer(struct virtio_blk_cmd *cmd, const struct virtio_blk_limits *limits,
			   enum virtio_blk_action action, uint64_t sector, uint64_t bytes)
{
	if ((action == VIRTIO_BLK_WRITE && limits->read_only) || !place(cmd, limits, sector, bytes))
		answer(cmd, VIRTIO_BLK_S_IOERR);
	else if (!bytes)
		answer(cmd, VIRTIO_BLK_S_OK);
	else
		cmd->action = action;
}

/* DISCARD and WRITE_ZEROES carry a list of ranges; we offer a length of one. */
static void parse_range(struct virtio_blk_cmd *cmd, const struct virtio_blk_limits *limits,
			enum virtio_blk_action action, uint64_t bytes)
{
	bool discard = action == VIRTIO_BLK_DISCARD;
	uint32_t max = discard ? limits->max_discard_sectors : limits->max_write_zeroes_sectors;
	struct virtio_blk_range range;
	uint32_t sectors, flags;

	if (!max || bytes != sizeof(range)) {
		answer(cmd, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	iov_to_buf(cmd->data, cmd->data_count, 0, &range, sizeof(range));
	sectors = le32toh(range.num_sectors);
	flags = le32toh(range.flags);
	if (flags & ~(discard ? 0 : VIRTIO_BLK_RANGE_UNMAP)) {
		answer(cmd, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	cmd->unmap = flags & VIRTIO_BLK_RANGE_UNMAP;
	if (limits->read_only || sectors > max ||
	    !place(cmd, limits, le64toh(range.sector), (uint64_t)sectors * VIRTIO_BLK_SECTOR))
		answer(cmd, VIRTIO_BLK_S_IOERR);
	else if (!sectors)
		answer(cmd, VIRTIO_BLK_S_OK);
	else
		cmd->action = action;
}

const char *virtio_blk_parse(struct vq_chain *chain, const struct virtio_blk_limits *limits,
			     struct virtio_blk_cmd *cmd)
{
	struct iovec *in = chain->iov + chain->readable, *out = chain->iov;
	unsigned in_count = chain->writable, out_count = chain->readable;
	struct virtio_blk_outhdr header;
	uint64_t in_bytes, out_bytes, sector;

	if (chain->readable_bytes < sizeof(header))
		return "a block request has no header";
	if (!chain->writable_bytes)
		return "a block request has no status";
	iov_to_buf(out, out_count, 0, &header, sizeof(header));
	sector = le64toh(header.sector);
	*cmd = (struct virtio_blk_cmd){0};
	cmd->status_byte = (uint8_t *)in[in_count - 1].iov_base + in[in_count - 1].iov_len - 1;
	vq_iov_cut_front(&out, &out_count, sizeof(header));
	vq_iov_cut_back(in, &in_count, 1);
	out_bytes = chain->readable_bytes - sizeof(header);
	in_bytes = chain->writable_bytes - 1;

	switch (le32toh(header.type)) {
	case VIRTIO_BLK_T_IN:
		cmd->data = in;
		cmd->data_count = in_count;
		parse_transfer(cmd, limits, VIRTIO_BLK_READ, sector, in_bytes);
		break;
	case VIRTIO_BLK_T_OUT:
		cmd->data = out;
		cmd->data_count = out_count;
		parse_transfer(cmd, limits, VIRTIO_BLK_WRITE, sector, out_bytes);
		break;
	case VIRTIO_BLK_T_FLUSH:
		cmd->action = VIRTIO_BLK_FLUSH;
		break;
	case VIRTIO_BLK_T_GET_ID:
		cmd->action = VIRTIO_BLK_GET_ID;
		cmd->data = in;
		cmd->data_count = in_count;
		break;
	case VIRTIO_BLK_T_DISCARD:
		cmd->data = out;
		cmd->data_count = out_count;
		parse_range(cmd, limits, VIRTIO_BLK_DISCARD, out_bytes);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		cmd->data = out;
		cmd->data_count = out_count;
		parse_range(cmd, limits, VIRTIO_BLK_WRITE_ZEROES, out_bytes);
		break;
	default:
		answer(cmd, VIRTIO_BLK_S_UNSUPP);
	}
	return NULL;
}
