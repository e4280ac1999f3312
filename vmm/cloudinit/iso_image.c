/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ISO 9660 images by libisofs (ECMA-119, IEEE P1282, Joliet). Main thread; libisofs runs a thread
 * of its own that ends within iso_image_build().
 */
#include "vmm/cloudinit/iso_image.h"

#include "config.h"

#ifdef CONFIG_ISOFS

#include <dlfcn.h>
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

#include "vmm/core/util.h"

#define SONAME "libisofs.so.6"

/* The library is loaded when it is needed: a guest without a seed should not start later for it. */
struct isofs {
	void *handle;
	__typeof__(iso_init) *init;
	__typeof__(iso_finish) *finish;
	__typeof__(iso_set_msgs_severities) *set_msgs_severities;
	__typeof__(iso_error_to_msg) *error_to_msg;
	__typeof__(iso_image_new) *image_new;
	__typeof__(iso_image_unref) *image_unref;
	__typeof__(iso_image_get_root) *image_get_root;
	__typeof__(iso_image_set_volume_id) *image_set_volume_id;
	__typeof__(iso_memory_stream_new) *memory_stream_new;
	__typeof__(iso_stream_unref) *stream_unref;
	__typeof__(iso_tree_add_new_file) *tree_add_new_file;
	__typeof__(iso_write_opts_new) *opts_new;
	__typeof__(iso_write_opts_free) *opts_free;
	__typeof__(iso_write_opts_set_iso_level) *opt_level;
	__typeof__(iso_write_opts_set_rockridge) *opt_rockridge;
	__typeof__(iso_write_opts_set_joliet) *opt_joliet;
	__typeof__(iso_write_opts_set_omit_version_numbers) *opt_omit_version_numbers;
	__typeof__(iso_write_opts_set_no_force_dots) *opt_no_force_dots;
	__typeof__(iso_write_opts_set_relaxed_vol_atts) *opt_relaxed_vol_atts;
	__typeof__(iso_image_create_burn_source) *image_create_burn_source;
};

static const struct {
	const char *name;
	size_t offset;
} symbols[] = {
	{ "iso_init", offsetof(struct isofs, init) },
	{ "iso_finish", offsetof(struct isofs, finish) },
	{ "iso_set_msgs_severities", offsetof(struct isofs, set_msgs_severities) },
	{ "iso_error_to_msg", offsetof(struct isofs, error_to_msg) },
	{ "iso_image_new", offsetof(struct isofs, image_new) },
	{ "iso_image_unref", offsetof(struct isofs, image_unref) },
	{ "iso_image_get_root", offsetof(struct isofs, image_get_root) },
	{ "iso_image_set_volume_id", offsetof(struct isofs, image_set_volume_id) },
	{ "iso_memory_stream_new", offsetof(struct isofs, memory_stream_new) },
	{ "iso_stream_unref", offsetof(struct isofs, stream_unref) },
	{ "iso_tree_add_new_file", offsetof(struct isofs, tree_add_new_file) },
	{ "iso_write_opts_new", offsetof(struct isofs, opts_new) },
	{ "iso_write_opts_free", offsetof(struct isofs, opts_free) },
	{ "iso_write_opts_set_iso_level", offsetof(struct isofs, opt_level) },
	{ "iso_write_opts_set_rockridge", offsetof(struct isofs, opt_rockridge) },
	{ "iso_write_opts_set_joliet", offsetof(struct isofs, opt_joliet) },
	{ "iso_write_opts_set_omit_version_numbers",
	  offsetof(struct isofs, opt_omit_version_numbers) },
	{ "iso_write_opts_set_no_force_dots", offsetof(struct isofs, opt_no_force_dots) },
	{ "iso_write_opts_set_relaxed_vol_atts", offsetof(struct isofs, opt_relaxed_vol_atts) },
	{ "iso_image_create_burn_source", offsetof(struct isofs, image_create_burn_source) },
};

static bool load(struct isofs *iso, struct error **err)
{
	iso->handle = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
	if (!iso->handle) {
		error_set(err, "cannot make the seed: %s", dlerror());
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
		void *symbol = dlsym(iso->handle, symbols[i].name);

		if (!symbol) {
			error_set(err, "cannot make the seed: " SONAME " has no %s",
				  symbols[i].name);
			dlclose(iso->handle);
			return false;
		}
		memcpy((char *)iso + symbols[i].offset, &symbol, sizeof(symbol));
	}
	return true;
}

static int add_file(const struct isofs *iso, IsoImage *image, const struct iso_file *file)
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
static int write_image(const struct isofs *iso, IsoImage *image, struct burn_source **source)
{
	IsoWriteOpts *opts;
	int ret = iso->opts_new(&opts, 0);

	if (ret < 0)
		return ret;
	iso->opt_level(opts, 3);
	iso->opt_rockridge(opts, 1);
	iso->opt_joliet(opts, 1);
	iso->opt_omit_version_numbers(opts, 2); /* Joliet names as they are: no ".;1" */
	iso->opt_no_force_dots(opts, 2);
	iso->opt_relaxed_vol_atts(opts, 1); /* a label in small letters */
	ret = iso->image_create_burn_source(image, opts, source);
	iso->opts_free(opts);
	return ret;
}

/* The descriptor, or -1 with err. */
static int build(const struct isofs *iso, const char *label, const struct iso_file *files,
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
	struct isofs iso;
	int fd;

	if (!load(&iso, err))
		return -1;
	fd = build(&iso, label, files, count, err);
	dlclose(iso.handle);
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
