/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ISO 9660 images by libisofs (ECMA-119, IEEE P1282, Joliet). Main thread; libisofs runs a thread
 * of its own that ends within iso_image_build().
 */
#include "vmm/cloudinit/iso_image.h"

#include "config.h"

#ifdef CONFIG_ISOFS

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Its header declares functions without saying that they take nothing. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#define LIBISOFS_WITHOUT_LIBBURN
#include <libisofs.h>
#pragma GCC diagnostic pop

#include "vmm/core/util.h"

static int add_file(IsoImage *image, const struct iso_file *file)
{
	unsigned char *copy = malloc(file->len + 1); /* the stream takes it over */
	IsoStream *stream;
	int ret;

	if (!copy)
		return ISO_OUT_OF_MEM;
	memcpy(copy, file->bytes, file->len);
	ret = iso_memory_stream_new(copy, file->len, &stream);
	if (ret < 0) {
		free(copy);
		return ret;
	}
	ret = iso_tree_add_new_file(iso_image_get_root(image), file->name, stream, NULL);
	if (ret < 0)
		iso_stream_unref(stream);
	return ret;
}

/* The image's bytes into fd. 0 or -errno. */
static int drain(struct burn_source *source, int fd)
{
	unsigned char sector[2048];
	int n, ret = 0;

	while ((n = source->read_xt(source, sector, sizeof(sector))) > 0 && !ret)
		ret = write_full(fd, sector, n);
	if (n < 0)
		ret = -EIO;
	if (ret < 0)
		source->cancel(source);
	source->free_data(source);
	free(source);
	return ret;
}

/* 1 as libisofs's functions, or one of its errors. */
static int write_image(IsoImage *image, struct burn_source **source)
{
	IsoWriteOpts *opts;
	int ret = iso_write_opts_new(&opts, 0);

	if (ret < 0)
		return ret;
	iso_write_opts_set_iso_level(opts, 3);
	iso_write_opts_set_rockridge(opts, 1);
	iso_write_opts_set_joliet(opts, 1);
	iso_write_opts_set_omit_version_numbers(opts, 2); /* Joliet names as they are: no ".;1" */
	iso_write_opts_set_no_force_dots(opts, 2);
	iso_write_opts_set_relaxed_vol_atts(opts, 1); /* a label in small letters */
	ret = iso_image_create_burn_source(image, opts, source);
	iso_write_opts_free(opts);
	return ret;
}

int iso_image_build(const char *label, const struct iso_file *files, size_t count,
		    struct error **err)
{
	struct burn_source *source;
	IsoImage *image = NULL;
	int fd = -1, ret, written = 0;

	ret = iso_init();
	if (ret < 0)
		goto out;
	iso_set_msgs_severities("NEVER", "NEVER", "");
	ret = iso_image_new(label, &image);
	for (size_t i = 0; ret >= 0 && i < count; i++)
		ret = add_file(image, &files[i]);
	if (ret < 0)
		goto out_image;
	iso_image_set_volume_id(image, label);
	fd = memfd_create("vmm-seed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		written = -errno;
	else if ((ret = write_image(image, &source)) >= 0)
		written = drain(source, fd);
	if (fd >= 0 && ret >= 0 && !written &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		written = -errno;
out_image:
	if (image)
		iso_image_unref(image);
	iso_finish();
out:
	if (ret < 0)
		error_set(err, "cannot make the seed: %s", iso_error_to_msg(ret));
	else if (written < 0)
		error_set_errno(err, written, "cannot make the seed");
	if ((ret < 0 || written < 0) && fd >= 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

#else

int iso_image_build(const char *label, const struct iso_file *files, size_t count,
		    struct error **err)
{
	error_set(err, "this vmm was built without libisofs and cannot make seeds");
	return -1;
}

#endif
