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
#include <stdbool.h>
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

#include "vmm/core/library.h"
#include "vmm/core/util.h"

/* The library is loaded when it is needed: a guest without a seed should not start later for it. */
#define ISO_CALLS(X)                                                                               \
	X(init)                                                                                    \
	X(finish)                                                                                  \
	X(set_msgs_severities)                                                                     \
	X(error_to_msg)                                                                            \
	X(image_new)                                                                               \
	X(image_unref)                                                                             \
	X(image_get_root)                                                                          \
	X(image_set_volume_id)                                                                     \
	X(image_create_burn_source)                                                                \
	X(memory_stream_new)                                                                       \
	X(stream_unref)                                                                            \
	X(tree_add_new_file)                                                                       \
	X(write_opts_new)                                                                          \
	X(write_opts_free)                                                                         \
	X(write_opts_set_iso_level)                                                                \
	X(write_opts_set_rockridge)                                                                \
	X(write_opts_set_joliet)                                                                   \
	X(write_opts_set_omit_version_numbers)                                                     \
	X(write_opts_set_no_force_dots)                                                            \
	X(write_opts_set_relaxed_vol_atts)

struct iso_calls {
#define ISO_CALL(name) __typeof__(iso_##name) *name;
	ISO_CALLS(ISO_CALL)
#undef ISO_CALL
};

static bool find_calls(void *library, struct iso_calls *iso, struct error **err)
{
#define FIND(name) library_find(library, "iso_" #name, &iso->name, err) &&
	return ISO_CALLS(FIND) true;
}

static int add_file(const struct iso_calls *iso, IsoImage *image, const struct iso_file *file)
{
	unsigned char *copy = malloc(file->len + 1); /* the stream takes it over */
	IsoStream *stream;
	int ret;

	if (!copy)
		return ISO_OUT_OF_MEM;
	memcpy(copy, file->bytes, file->len);
	ret = iso->memory_stream_new(copy, file->len, &stream);
	if (ret < 0) {
		free(copy);
		return ret;
	}
	ret = iso->tree_add_new_file(iso->image_get_root(image), file->name, stream, NULL);
	if (ret < 0)
		iso->stream_unref(stream);
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
static int write_image(const struct iso_calls *iso, IsoImage *image, struct burn_source **source)
{
	IsoWriteOpts *opts;
	int ret = iso->write_opts_new(&opts, 0);

	if (ret < 0)
		return ret;
	iso->write_opts_set_iso_level(opts, 3);
	iso->write_opts_set_rockridge(opts, 1);
	iso->write_opts_set_joliet(opts, 1);
	iso->write_opts_set_omit_version_numbers(opts, 2); /* Joliet names as they are: no ".;1" */
	iso->write_opts_set_no_force_dots(opts, 2);
	iso->write_opts_set_relaxed_vol_atts(opts, 1); /* a label in small letters */
	ret = iso->image_create_burn_source(image, opts, source);
	iso->write_opts_free(opts);
	return ret;
}

/* The descriptor, or -1 with err. */
static int build(const struct iso_calls *iso, const char *label, const struct iso_file *files,
		 size_t count, struct error **err)
{
	struct burn_source *source;
	IsoImage *image = NULL;
	int fd = -1, written = 0, ret = iso->init();

	if (ret < 0)
		goto out;
	iso->set_msgs_severities("NEVER", "NEVER", "");
	ret = iso->image_new(label, &image);
	for (size_t i = 0; ret >= 0 && i < count; i++)
		ret = add_file(iso, image, &files[i]);
	if (ret < 0)
		goto out_image;
	iso->image_set_volume_id(image, label);
	fd = memfd_create("vmm-seed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		written = -errno;
	else if ((ret = write_image(iso, image, &source)) >= 0)
		written = drain(source, fd);
	if (fd >= 0 && ret >= 0 && !written &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		written = -errno;
out_image:
	if (image)
		iso->image_unref(image);
	iso->finish();
out:
	if (ret < 0)
		error_set(err, "cannot make the seed: %s", iso->error_to_msg(ret));
	else if (written < 0)
		error_set_errno(err, written, "cannot make the seed");
	if ((ret < 0 || written < 0) && fd >= 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int iso_image_build(const char *label, const struct iso_file *files, size_t count,
		    struct error **err)
{
	void *library = library_open("libisofs.so.6", err);
	struct iso_calls iso;
	int fd = -1;

	if (library && find_calls(library, &iso, err))
		fd = build(&iso, label, files, count, err);
	else
		error_prefix(err, "cannot make the seed: ");
	if (library)
		library_close(library);
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
