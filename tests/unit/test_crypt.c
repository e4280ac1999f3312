/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ciphers against published vectors (IEEE 1619, RFC 6070) and against the ciphers taken
 * block by block; secrets; LUKS headers: what is refused, passwords, key slots, and a disk that
 * fails at every write.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/crypt/luks.h"
#include "config.h"
#include "tests/lib/crypt_secret.h"
#include "vmm/core/util.h"

static void unhex(const char *hex, uint8_t *out)
{
	for (; *hex; hex += 2)
		sscanf(hex, "%2hhx", out++);
}

static struct crypt_spec spec_of(const char *alg, const char *mode, const char *ivgen,
				 const char *hash)
{
	struct crypt_spec spec = {.alg = crypt_find_alg("", alg, NULL)};

	assert_non_null(spec.alg);
	assert_true(crypt_find_mode("", mode, &spec.mode, NULL));
	assert_true(crypt_find_ivgen("", ivgen, &spec.ivgen, NULL));
	if (hash)
		spec.ivhash = crypt_find_hash("", hash, NULL);
	return spec;
}

/* The first 32 bytes of what a sector of 00 01 02 ... becomes. */
static void check_vector(const char *alg, const char *mode, const char *key_hex, uint64_t sector,
			 const char *expect_hex)
{
	struct crypt_spec spec = spec_of(alg, mode, "plain64", NULL);
	uint8_t key[64], buf[512], expect[32];
	struct crypt *c;

	unhex(key_hex, key);
	unhex(expect_hex, expect);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = i;
	c = crypt_new(&spec, key);
	crypt_encrypt(c, sector, buf, sizeof(buf));
	assert_memory_equal(buf, expect, strlen(expect_hex) / 2);
	crypt_decrypt(c, sector, buf, sizeof(buf));
	for (unsigned i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], (uint8_t)i);
	crypt_free(c);
}

static void test_vectors(void **state)
{
	/* Vectors 4 and 10. */
	check_vector("aes-128", "xts",
		     "2718281828459045235360287471352631415926535897932384626433832795", 0,
		     "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c");
	check_vector("aes-256", "xts",
		     "2718281828459045235360287471352662497757247093699959574966967627"
		     "3141592653589793238462643383279502884197169399375105820974944592",
		     255, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
}

static void test_pbkdf2(void **state)
{
	static const struct {
		const char *hash;
		uint32_t iterations;
		const char *expect;
	} cases[] = {
		{"sha1", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
		{"sha1", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
		{"sha1", 4096, "4b007901b765489abead49d926f721d065a429c1"},
		{"sha256", 1, "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b"},
		{"sha256", 4096,
		 "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"},
	};
	static const char password[] = "password", salt[] = "salt";

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct crypt_hash *hash = crypt_find_hash("", cases[i].hash, NULL);
		size_t len = strlen(cases[i].expect) / 2;
		uint8_t out[64], expect[64];

		unhex(cases[i].expect, expect);
		crypt_pbkdf2(hash, (const uint8_t *)password, 8, (const uint8_t *)salt, 4,
			     cases[i].iterations, out, len);
		assert_memory_equal(out, expect, len);
	}
}

#ifdef CONFIG_NETTLE
#include <nettle/aes.h>
#include <nettle/sha2.h>
#include <nettle/xts.h>

/* Against nettle's own modes, over more sectors than a group has. */
static void test_modes(void **state)
{
	enum { SECTORS = 19, BYTES = SECTORS * 512 };
	struct crypt_spec xts = spec_of("aes-256", "xts", "plain64", NULL);
	struct crypt_spec essiv = spec_of("aes-128", "cbc", "essiv", "sha256");
	uint8_t key[64], *buf = malloc(BYTES), *ref = malloc(BYTES), *plain = malloc(BYTES);
	uint8_t digest[32], iv[16];
	struct xts_aes256_key xts_key;
	struct aes128_ctx aes;
	struct aes256_ctx iv_aes;
	struct sha256_ctx sha;
	struct crypt *c;

	srandom(7);
	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = random();
	for (unsigned i = 0; i < BYTES; i++)
		plain[i] = random();
	xts_aes256_set_encrypt_key(&xts_key, key);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(iv, 0, 16);
		store_le64(iv, UINT64_C(0x100000005) + i);
		xts_aes256_encrypt_message(&xts_key, iv, 512, ref + i * 512, plain + i * 512);
	}
	memcpy(buf, plain, BYTES);
	c = crypt_new(&xts, key);
	crypt_encrypt(c, UINT64_C(0x100000005), buf, BYTES);
	assert_memory_equal(buf, ref, BYTES);
	crypt_decrypt(c, UINT64_C(0x100000005), buf, BYTES);
	assert_memory_equal(buf, plain, BYTES);
	crypt_free(c);

	sha256_init(&sha);
	sha256_update(&sha, 16, key);
	sha256_digest(&sha, 32, digest);
	aes256_set_encrypt_key(&iv_aes, digest);
	aes128_set_encrypt_key(&aes, key);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(iv, 0, 16);
		store_le64(iv, 77 + i);
		aes256_encrypt(&iv_aes, 16, iv, iv);
		for (unsigned k = 0; k < 512; k += 16) {
			for (unsigned b = 0; b < 16; b++)
				iv[b] ^= plain[i * 512 + k + b];
			aes128_encrypt(&aes, 16, iv, iv);
			memcpy(ref + i * 512 + k, iv, 16);
		}
	}
	memcpy(buf, plain, BYTES);
	c = crypt_new(&essiv, key);
	crypt_encrypt(c, 77, buf, BYTES);
	assert_memory_equal(buf, ref, BYTES);
	crypt_decrypt(c, 77, buf, BYTES);
	assert_memory_equal(buf, plain, BYTES);
	crypt_free(c);
	free(buf);
	free(ref);
	free(plain);
}
#endif

/* Every combination that is allowed gives back what it was given, and hides it. */
static void test_all_algorithms(void **state)
{
	static const char *const algs[] = {
		"aes-128",     "aes-192",     "aes-256",     "serpent-128", "serpent-192",
		"serpent-256", "twofish-128", "twofish-192", "twofish-256", "cast5-128"};
	static const char *const modes[] = {"cbc", "xts", "ecb", "ctr"};
	static const char *const ivgens[] = {"plain", "plain64", "essiv"};
	uint8_t key[64], buf[1024], was[1024];
	unsigned n = 0;

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = 3 * i;
	for (unsigned i = 0; i < sizeof(was); i++)
		was[i] = i / 3;
	for (size_t a = 0; a < ARRAY_SIZE(algs); a++) {
		for (size_t m = 0; m < 12; m++) {
			struct crypt_spec spec = spec_of(algs[a], modes[m % 4], ivgens[m / 4],
							 m / 4 == 2 ? "sha256" : NULL);
			struct crypt_spec again;
			char cipher[32], mode[32];
			struct crypt *c;

			if (!crypt_spec_check(&spec, NULL))
				continue;
			crypt_spec_names(&spec, cipher, mode);
			assert_true(crypt_spec_parse(&again, cipher, mode, crypt_key_bytes(&spec),
						     NULL));
			assert_true(again.alg == spec.alg && again.mode == spec.mode &&
				    again.ivgen == spec.ivgen && again.ivhash == spec.ivhash);
			c = crypt_new(&spec, key);
			memcpy(buf, was, sizeof(buf));
			crypt_encrypt(c, 5, buf, sizeof(buf));
			assert_memory_not_equal(buf, was, 16);
			assert_memory_not_equal(buf + 512, was + 512, 16);
			crypt_decrypt(c, 5, buf, sizeof(buf));
			assert_memory_equal(buf, was, sizeof(buf));
			crypt_free(c);
			n++;
		}
	}
	/* cast5: no xts, no essiv with sha256; the others' essiv needs a variant of 32 bytes. */
	assert_int_equal(n, 9 * 12 + 3 * 2);
}

static void check_secret(const char *text, const char *expect)
{
	struct objects *objects = crypt_secrets();
	struct error *err = NULL;
	const uint8_t *data;
	size_t len = 0;

	if (!crypt_secret_add(objects, text, &err))
		fail_msg("%s: %s", text, error_message(err));
	data = secret_find(objects, "x", &len, NULL);
	assert_int_equal(len, strlen(expect));
	assert_memory_equal(data, expect, len);
	objects_free(objects);
}

static void refuse_secret(const char *text, const char *part)
{
	struct objects *objects = crypt_secrets();
	struct error *err = NULL;

	assert_false(crypt_secret_add(objects, text, &err));
	if (!strstr(error_message(err), part))
		fail_msg("%s: %s", text, error_message(err));
	error_free(err);
	objects_free(objects);
}

static void test_secrets(void **state)
{
	char path[] = "/tmp/vmm-secret-XXXXXX", text[80];
	int fd = mkstemp(path);

	assert_int_equal(write(fd, "line\nand more", 13), 13);
	close(fd);
	snprintf(text, sizeof(text), "secret,id=x,file=%s", path);
	check_secret(text, "line\nand more");
	unlink(path);
	refuse_secret(text, "Unable to read");
	check_secret("secret,id=x,data=a b,,c", "a b,c");
	check_secret("secret,id=x,data=", "");
	check_secret("secret,id=x,data=aGVsbG8=,format=base64", "hello");
	check_secret("secret,id=x,data=aGVsbG8h,format=base64", "hello!");
	check_secret("secret,id=x,data=aGVsbA==,format=base64", "hell");
	refuse_secret("secret,id=x,data=aGVsb*==,format=base64", "not base64");
	refuse_secret("secret,id=x,data=aGVsbA=,format=base64", "not base64");
	refuse_secret("secret,id=x,data=aGV=sbA=,format=base64", "not base64");
	refuse_secret("secret,id=x", "must be provided");
	refuse_secret("secret,id=x,data=a,file=b", "mutually exclusive");
	refuse_secret("secret,id=x,data=a,format=hex", "format");
	refuse_secret("secret,id=x,data=a,colour=red", "colour");
	refuse_secret("secret,id=s,data=a", "already");
	refuse_secret("secret,id=x,data=a,keyid=nobody", "No secret with id 'nobody'");
	refuse_secret("secret,id=x,data=a,keyid=s", "32 bytes");
}

/* What openssl enc -aes-256-cbc makes of "123456" with this key and IV. */
static void test_encrypted_secret(void **state)
{
	static const char master[] = "secret,id=k,format=base64,"
				     "data=9miloPQCzGy+TL6aonfzVcptibCmCIhKzrnlfwiWivk=";
	static const char *const wrong[][2] = {
		{"secret,id=y,keyid=k,data=AAAA,format=base64,iv=0I7Gw/TKuA+Old2W2apQ3g==",
		 "multiple of 16"},
		{"secret,id=y,keyid=k,data=AAAA", "IV is required"},
		{"secret,id=y,keyid=k,data=AAAA,iv=AAAA", "16 bytes"},
		{"secret,id=y,keyid=k,data=0123456789abcdef,iv=0I7Gw/TKuA+Old2W2apQ3g==",
		 "padding"},
	};
	struct objects *objects = objects_new();
	struct error *err = NULL;
	const uint8_t *data;
	size_t len = 0;

	assert_true(crypt_secret_add(objects, master, &err));
	assert_true(
		crypt_secret_add(objects,
				 "secret,id=x,keyid=k,format=base64,data=zL/3CUYZC1IqOrRrzXqwsA==,"
				 "iv=0I7Gw/TKuA+Old2W2apQ3g==",
				 &err));
	data = secret_find(objects, "x", &len, NULL);
	assert_int_equal(len, 6);
	assert_memory_equal(data, "123456", 6);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_false(crypt_secret_add(objects, wrong[i][0], &err));
		if (!strstr(error_message(err), wrong[i][1]))
			fail_msg("%s", error_message(err));
		error_free(err);
		err = NULL;
	}
	objects_free(objects);
}

/* A LUKS header in memory. */
struct file {
	uint8_t *data;
	size_t len;
	unsigned writes, fail_at; /* the write that fails; 0: none */
};

static int file_read(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
	struct file *f = opaque;

	if (!range_inside(offset, bytes, f->len))
		return -5;
	memcpy(buf, f->data + offset, bytes);
	return 0;
}

static int file_write(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
	struct file *f = opaque;

	if (!range_inside(offset, bytes, f->len) || ++f->writes == f->fail_at)
		return -5;
	memcpy(f->data + offset, buf, bytes);
	return 0;
}

static int file_flush(void *opaque)
{
	return 0;
}

static struct luks_io io_of(struct file *f)
{
	return (struct luks_io){file_read, file_write, file_flush, f};
}

static void make(struct file *f, const char *options, const struct objects *objects)
{
	struct error *err = NULL;
	struct luks_params p;
	struct opts opts;
	uint8_t *data;
	size_t len;

	assert_true(opts_parse(&opts, options, NULL, NULL));
	if (!luks_params_read(&p, &opts, "", objects, &err))
		fail_msg("%s", error_message(err));
	data = luks_make(&p, &len, &err);
	assert_non_null(data);
	*f = (struct file){calloc(1, luks_params_payload(&p)), luks_params_payload(&p), 0, 0};
	memcpy(f->data, data, len);
	free(data);
	opts_free(&opts);
}

static bool unlocks(const struct luks *l, struct file *f, const char *password, uint8_t *key)
{
	struct luks_io io = io_of(f);

	return luks_unlock(l, &io, (const uint8_t *)password, strlen(password), key, NULL);
}

static bool amend(struct luks *l, struct file *f, const uint8_t *key, const char *options,
		  bool force, const struct objects *objects, const char *part)
{
	struct luks_io io = io_of(f);
	struct error *err = NULL;
	struct opts opts;
	bool ok;

	assert_true(opts_parse(&opts, options, NULL, NULL));
	ok = luks_amend(l, &io, key, &opts, "", force, objects, &err);
	if (!ok != !!part || (part && !strstr(error_message(err), part)))
		fail_msg("%s: %s", options, err ? error_message(err) : "worked");
	error_free(err);
	opts_free(&opts);
	return ok;
}

static void test_slots(void **state)
{
	struct objects *objects = crypt_secrets();
	uint8_t key[CRYPT_MAX_KEY], again[CRYPT_MAX_KEY];
	struct file f;
	struct luks l;

	make(&f, "key-secret=s,iter-time=1", objects);
	assert_true(luks_parse(&l, f.data, f.len, NULL));
	assert_int_equal(l.payload, 2068480);
	assert_int_equal(l.key_bytes, 64);
	assert_true(unlocks(&l, &f, "abc123", key));
	assert_false(unlocks(&l, &f, "abc1234", again));
	assert_false(unlocks(&l, &f, "", again));
	for (unsigned i = 0; i < sizeof(again); i++)
		assert_int_equal(again[i], 0);

	amend(&l, &f, key, "state=active,new-secret=t,iter-time=1", false, objects, NULL);
	assert_true(l.slots[1].active && unlocks(&l, &f, "def456", again));
	assert_memory_equal(key, again, sizeof(key));
	assert_true(luks_parse(&l, f.data, f.len, NULL)); /* as the disk has it */
	assert_true(unlocks(&l, &f, "def456", again) && unlocks(&l, &f, "abc123", again));

	amend(&l, &f, key, "state=active", false, objects, "'new-secret' is required");
	amend(&l, &f, key, "state=active,new-secret=t,keyslot=1", false, objects, "overwrite");
	amend(&l, &f, key, "state=active,new-secret=t,keyslot=8", false, objects, "between 0");
	amend(&l, &f, key, "state=active,new-secret=nobody", false, objects, "No secret");
	amend(&l, &f, key, "new-secret=t", false, objects, "'state' is missing");
	amend(&l, &f, key, "state=sleepy", false, objects, "sleepy");
	amend(&l, &f, key, "state=inactive", false, objects, "must be given");
	amend(&l, &f, key, "state=inactive,keyslot=5", false, objects, "already erased");
	amend(&l, &f, key, "state=inactive,keyslot=0,new-secret=t", false, objects, "must not");
	amend(&l, &f, key, "state=inactive,keyslot=0,old-secret=t", false, objects, "old");

	amend(&l, &f, key, "state=inactive,old-secret=s", false, objects, NULL);
	assert_false(unlocks(&l, &f, "abc123", again));
	amend(&l, &f, key, "state=inactive,old-secret=s", false, objects, "No keyslots match");
	amend(&l, &f, key, "state=inactive,keyslot=1", false, objects, "only active keyslot");
	amend(&l, &f, key, "state=inactive,old-secret=t", false, objects, "All the active");
	for (unsigned i = 1; i < 8; i++)
		amend(&l, &f, key, "state=active,new-secret=s,iter-time=1", false, objects, NULL);
	amend(&l, &f, key, "state=active,new-secret=s,iter-time=1", false, objects, "in use");
	amend(&l, &f, key, "state=inactive,old-secret=s", false, objects, NULL);
	assert_true(luks_parse(&l, f.data, f.len, NULL) && unlocks(&l, &f, "def456", again));
	amend(&l, &f, key, "state=inactive,old-secret=t", true, objects, NULL);
	assert_false(unlocks(&l, &f, "def456", again));
	free(f.data);
	objects_free(objects);
}

/* A disk that fails at any write leaves a header that some password opens. */
static void test_failing_disk(void **state)
{
	static const char *const options[] = {
		"state=active,new-secret=t,iter-time=1",
		"state=active,new-secret=t,iter-time=1,keyslot=6",
		"state=inactive,old-secret=t",
	};
	struct objects *objects = crypt_secrets();
	uint8_t key[CRYPT_MAX_KEY], again[CRYPT_MAX_KEY];
	struct file f;
	struct luks l;

	make(&f, "key-secret=s,iter-time=1,cipher-alg=aes-128,cipher-mode=cbc", objects);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		for (unsigned n = 1; n < 4; n++) {
			struct file cut = f;

			cut.data = malloc(f.len);
			memcpy(cut.data, f.data, f.len);
			cut.writes = 0;
			cut.fail_at = n;
			assert_true(luks_parse(&l, cut.data, f.len, NULL));
			assert_true(unlocks(&l, &cut, "abc123", key));
			amend(&l, &cut, key, options[i], false, objects, "LUKS key slot");
			assert_true(luks_parse(&l, cut.data, f.len, NULL));
			assert_true(unlocks(&l, &cut, "abc123", again));
			assert_memory_equal(key, again, l.key_bytes);
			for (unsigned k = 0; k < 8; k++)
				if (l.slots[k].active && i < 2)
					assert_int_equal(k, 0);
			free(cut.data);
		}
		if (i == 1) {
			assert_true(luks_parse(&l, f.data, f.len, NULL));
			assert_true(unlocks(&l, &f, "abc123", key));
			f.fail_at = 0;
			amend(&l, &f, key, options[0], false, objects, NULL);
		}
	}
	free(f.data);
	objects_free(objects);
}

static void test_hostile_headers(void **state)
{
	static const struct {
		unsigned offset, len;
		uint64_t value;
		const char *part;
	} cases[] = {
		{0, 2, 0x4141, "not in LUKS format"},
		{6, 2, 2, "version 2"},
		{8, 8, UINT64_MAX, "not supported"},
		{40, 8, UINT64_C(0x787473207878), "no IV generator"},
		{72, 8, UINT64_C(0x6162636465666768), "hash-alg"},
		{104, 4, 0, "overlaps"},
		{104, 4, 100, "overlaps"},
		{108, 4, 0, "key has 0 bytes"},
		{108, 4, 65, "key has 65 bytes"},
		{108, 4, UINT32_MAX, "key has"},
		{108, 4, 63, "63 bytes of key"},
		{108, 4, 16, "16 bytes of key"},
		{164, 4, 0, "0 iterations"},
		{164, 4, UINT32_MAX, "iterations"},
		{208, 4, 1, "neither"},
		{208 + 4, 4, 0, "0 iterations"},
		{208 + 4, 4, 0x10000001, "iterations"},
		{208 + 40, 4, 0, "overlaps"},
		{208 + 40, 4, 1, "overlaps"},
		{208 + 40, 4, UINT32_MAX, "overlaps"},
		{208 + 44, 4, 3999, "3999 stripes"},
		{208 + 44, 4, UINT32_MAX, "stripes"},
		{208 + 48 * 3 + 40, 4, 8, "overlap"},
		{208 + 48 * 7 + 40, 4, 4039, "overlaps"},
	};
	struct objects *objects = crypt_secrets();
	struct error *err = NULL;
	uint8_t buf[LUKS_HEADER], *at;
	struct file f;
	struct luks l;

	make(&f, "key-secret=s,iter-time=1", objects);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memcpy(buf, f.data, sizeof(buf));
		at = buf + cases[i].offset;
		if (cases[i].len == 2)
			store_be16(at, cases[i].value);
		else if (cases[i].len == 4)
			store_be32(at, cases[i].value);
		else
			store_be64(at, cases[i].value);
		assert_false(luks_parse(&l, buf, f.len, &err));
		if (!strstr(error_message(err), cases[i].part))
			fail_msg("case %zu: %s", i, error_message(err));
		error_free(err);
		err = NULL;
	}
	/* Names without an end; a file that ends inside of the key material. */
	for (unsigned name = 8; name < 104; name += 32) {
		memcpy(buf, f.data, sizeof(buf));
		memset(buf + name, 'a', 32);
		assert_false(luks_parse(&l, buf, f.len, NULL));
	}
	assert_false(luks_parse(&l, f.data, f.len - 20000, NULL));
	assert_false(luks_parse(&l, f.data, 0, NULL));
	assert_true(luks_parse(&l, f.data, f.len, NULL));
	/* What is written is what was read. */
	luks_store(&l, buf);
	assert_memory_equal(buf, f.data, sizeof(buf));
	memset(f.data + 168, 0x80, 40);
	assert_true(luks_parse(&l, f.data, f.len, NULL));
	assert_int_equal(strspn(l.uuid, "?"), 40);
	free(f.data);
	objects_free(objects);
}

static void test_parameters(void **state)
{
	static const char *const wrong[][2] = {
		{"", "'key-secret' is required"},
		{"key-secret=x", "No secret"},
		{"key-secret=s,cipher-alg=rot13", "rot13"},
		{"key-secret=s,cipher-mode=xyz", "xyz"},
		{"key-secret=s,cipher-alg=cast5-128", "16 bytes"},
		{"key-secret=s,ivgen-alg=essiv,ivgen-hash-alg=sha1", "essiv"},
		{"key-secret=s,hash-alg=crc32", "crc32"},
		{"key-secret=s,iter-time=-1", "iter-time"},
	};
	struct objects *objects = crypt_secrets();

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct error *err = NULL;
		struct luks_params p;
		struct opts opts = {0};

		if (*wrong[i][0])
			assert_true(opts_parse(&opts, wrong[i][0], NULL, NULL));
		assert_false(luks_params_read(&p, &opts, "", objects, &err));
		if (!strstr(error_message(err), wrong[i][1]))
			fail_msg("%s: %s", wrong[i][0], error_message(err));
		error_free(err);
		opts_free(&opts);
	}
	objects_free(objects);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_pbkdf2),
#ifdef CONFIG_NETTLE
		cmocka_unit_test(test_modes),
#endif
		cmocka_unit_test(test_all_algorithms),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_encrypted_secret),
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_failing_disk),
		cmocka_unit_test(test_hostile_headers),
		cmocka_unit_test(test_parameters),
	};

	if (!crypt_find_alg("", "aes-128", NULL))
		return 0; /* built without nettle */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
