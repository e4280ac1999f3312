/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NoCloud seeds: the meta-data that is made up, and the image, read back by its records.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"
#include "vmm/cli/iso.h"
#include "vmm/cloudinit/seed.h"
#include "vmm/core/util.h"

#define SECTOR 2048

static struct seed_text text(const char *s)
{
	return (struct seed_text){ .bytes = xstrdup(s), .len = strlen(s) };
}

static void test_meta_data(void **state)
{
	struct seed_text user = text("#cloud-config\n"), none = { 0 };
	struct seed_text a = seed_meta_data(&user, &none, NULL, "web-1");
	struct seed_text b = seed_meta_data(&user, &none, NULL, "not a name");
	struct seed_text c, again;

	assert_memory_equal(a.bytes, "instance-id: vmm-", 17);
	assert_string_equal(strchr(a.bytes, '\n'), "\nlocal-hostname: \"web-1\"\n");
	assert_null(strstr(b.bytes, "local-hostname"));
	again = seed_meta_data(&user, &none, NULL, "web-1");
	assert_string_equal(a.bytes, again.bytes);
	user.bytes[0] = '!';
	c = seed_meta_data(&user, &none, NULL, "web-1");
	assert_string_not_equal(a.bytes, c.bytes);
	free(a.bytes);
	free(b.bytes);
	free(c.bytes);
	free(again.bytes);
	free(user.bytes);
}

static void keys_bad(const char *meta, const char *keys, const char *message)
{
	struct seed_text t = text(meta);
	struct error *err = NULL;

	assert_false(seed_add_keys(&t, keys, &err));
	if (!strstr(error_message(err), message))
		fail_msg("%s", error_message(err));
	error_free(err);
	free(t.bytes);
}

static void test_keys(void **state)
{
	struct seed_text t = text("instance-id: i");

	assert_true(seed_add_keys(&t, "# mine\nssh-ed25519 AAAA it's\r\n\nssh-rsa BB c: d", NULL));
	assert_string_equal(t.bytes, "instance-id: i\npublic-keys:\n"
				     "  - 'ssh-ed25519 AAAA it''s'\n  - 'ssh-rsa BB c: d'\n");
	free(t.bytes);
	keys_bad("{}", "ssh-rsa A", "JSON");
	keys_bad("a: b\npublic-keys:\n", "ssh-rsa A", "already");
	keys_bad("", "\n# no\n", "no key");
	keys_bad("", "ssh-rsa \001", "not a file of public keys");
}

static void build_bad(const struct seed_options *o, const char *message)
{
	struct error *err = NULL;

	assert_int_equal(seed_build(o, &err), -1);
	if (!strstr(error_message(err), message))
		fail_msg("%s", error_message(err));
	error_free(err);
}

#ifdef CONFIG_ISOFS

static void write_file(char *path, const char *bytes)
{
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
	close(fd);
}

/* Reads a volume's root directory: calls of strcmp on names would do for Joliet, whose names are
 * UCS-2; so names are compared as bytes. */
static bool find_file(const uint8_t *image, size_t size, uint8_t type, const char *name,
		      size_t name_len, char *content, size_t room)
{
	for (size_t vd = 16 * SECTOR; vd + SECTOR <= size && image[vd] != 255; vd += SECTOR) {
		const uint8_t *root = image + vd + 156;
		uint32_t at = load_le32(root + 2) * SECTOR, len = load_le32(root + 10);

		if (image[vd] != type)
			continue;
		assert_true(range_inside(at, len, size));
		for (uint32_t i = 0; i < len && image[at + i]; i += image[at + i]) {
			const uint8_t *record = image + at + i;
			uint32_t data = load_le32(record + 2) * SECTOR, n = load_le32(record + 10);

			if (record[32] != name_len || memcmp(record + 33, name, name_len))
				continue;
			assert_true(range_inside(data, n, size) && n < room);
			memcpy(content, image + data, n);
			content[n] = '\0';
			return true;
		}
	}
	return false;
}

static void test_image(void **state)
{
	static const char user[] = "#cloud-config\nhostname: x\n";
	static const char joliet[] = "\0u\0s\0e\0r\0-\0d\0a\0t\0a";
	char user_path[] = "/tmp/vmm-seed-user-XXXXXX", key_path[] = "/tmp/vmm-seed-key-XXXXXX";
	struct seed_options o = { .user_data = user_path, .ssh_key = key_path, .name = "vm" };
	char path[64], label[ISO_LABEL_SIZE], content[4096];
	struct error *err = NULL;
	struct stat st;
	uint8_t *image;
	int fd;

	write_file(user_path, user);
	write_file(key_path, "ssh-ed25519 AAAA me\n");
	fd = seed_build(&o, &err);
	if (fd < 0)
		fail_msg("%s", error_message(err));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size % SECTOR, 0);
	assert_true(st.st_size < 4 << 20);
	image = xmalloc(st.st_size);
	assert_int_equal(pread(fd, image, st.st_size, 0), st.st_size);
	assert_true(iso_volume_label(image + ISO_PRIMARY_OFFSET, label));
	assert_string_equal(label, "cidata");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_true(iso_is_cidata(path));
	/* Joliet's names, and that the image is what cloud-init reads. */
	assert_true(find_file(image, st.st_size, 2, joliet, sizeof(joliet) - 1, content,
			      sizeof(content)));
	assert_string_equal(content, user);
	/* Rock Ridge's names stand behind the short ones. */
	assert_non_null(memmem(image, st.st_size, "NM\x0e\x01\0meta-data", 14));
	assert_null(memmem(image, st.st_size, "network-config", 14));
	assert_non_null(memmem(image, st.st_size, "local-hostname: \"vm\"\npublic-keys:\n", 34));
	assert_int_equal(pwrite(fd, "x", 1, 0), -1); /* sealed */
	close(fd);
	free(image);

	o.network_config = user_path;
	fd = seed_build(&o, NULL);
	assert_true(fd >= 0);
	close(fd);
	o.ssh_key = "/nonexistent";
	build_bad(&o, "cannot read ssh-key '/nonexistent'");
	unlink(user_path);
	unlink(key_path);
}

#endif

static void test_mistakes(void **state)
{
	build_bad(&(struct seed_options){ .user_data = "/nonexistent" },
		  "cannot read user-data '/nonexistent': No such file");
	build_bad(&(struct seed_options){ .user_data = "/tmp" }, "Is a directory");
	build_bad(&(struct seed_options){ .user_data = "/dev/zero" }, "too large");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meta_data),
		cmocka_unit_test(test_keys),
#ifdef CONFIG_ISOFS
		cmocka_unit_test(test_image),
#endif
		cmocka_unit_test(test_mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
