# SPDX-License-Identifier: Apache-2.0
"""Encrypted images against qemu-img, qemu-io and cryptsetup, made by either side and used by the other."""
import fcntl
import json
import os
import shutil

import pytest

from conftest import (Model, assert_quiet, needs_qemu, qemu_img, qemu_io, run, vmm_img, vmm_io)

SECRETS = ["--object", "secret,id=s,data=abc123", "--object", "secret,id=t,data=def456",
           "--object", "secret,id=u,data=wrong"]
QUICK = "iter-time=10"

needs_cryptsetup = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="cryptsetup is not installed")


def ours(command, *argv, **kw):
    return vmm_img(command, *SECRETS, *argv, **kw)


def theirs(command, *argv, ok=True):
    """qemu-img's clock is too coarse now and then for so short an iter-time: it is asked again."""
    for _ in range(20):
        result = qemu_img(command, *SECRETS, *argv, ok=False)
        if "accurate CPU usage" not in result[2]:
            break
    assert not ok or result[0] == 0, result
    return result


def opts(image, fmt, secret="s"):
    key = "key-secret" if fmt == "luks" else "encrypt.key-secret"
    return f"driver={fmt},{key}={secret},file.filename={image}"


def create_options(fmt, more=""):
    if fmt == "luks":
        text = f"key-secret=s,{QUICK}"
    else:
        text = f"encrypt.format=luks,encrypt.key-secret=s,encrypt.{QUICK}"
    return text + ("," + more if more else "")


def make(tool, image, fmt, size, more=""):
    tool("create", "-q", "-f", fmt, "-o", create_options(fmt, more), image, str(size))


def our_io(image, fmt, commands, *options, secret="s", ok=True):
    return vmm_io(opts(image, fmt, secret), commands, "--image-opts", *SECRETS, *options, ok=ok)


def their_io(image, fmt, commands, *options, secret="s", ok=True):
    return qemu_io(opts(image, fmt, secret), commands, "--image-opts", *SECRETS, *options, ok=ok)


def both_read(image, fmt, model, tmp_path):
    if fmt == "qcow2":
        ours("check", "--image-opts", opts(image, fmt))
        theirs("check", "--image-opts", opts(image, fmt))
    raw = tmp_path / "model.raw"
    raw.write_bytes(model.data)
    for compare in ours, theirs:
        compare("compare", "--image-opts", opts(image, fmt), f"driver=raw,file.filename={raw}")


VARIANTS = [
    ("luks", ""),
    ("luks", "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1"),
    ("luks", "cipher-alg=aes-192,ivgen-alg=plain,hash-alg=sha512"),
    ("luks", "cipher-alg=serpent-256,hash-alg=ripemd160"),
    ("luks", "cipher-alg=twofish-128,cipher-mode=ctr"),
    ("luks", "cipher-alg=cast5-128,cipher-mode=cbc"),
    ("qcow2", ""),
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=4k,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc"),
    ("qcow2", "extended_l2=on,cluster_size=16k"),
    ("qcow2", "compat=0.10"),
    ("qcow2", "preallocation=metadata"),
    ("qcow2", "data_file=@/data.raw"),
    ("qcow2", "data_file=@/data.raw,preallocation=full"),
    ("qcow2", "lazy_refcounts=on"),
]


@pytest.fixture
def make_theirs(tmp_path_factory):
    """Making one takes them seconds: all workers of a run share what one has made."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def copy(image, fmt, size):
        kept = folder / f"theirs-{fmt}-{size}"
        with open(folder / "theirs-lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                make(theirs, folder / "theirs-new", fmt, size)
                (folder / "theirs-new").rename(kept)
        shutil.copyfile(kept, image)

    return copy


@needs_qemu
@pytest.mark.parametrize("maker,fmt,more", [("ours", *v) for v in VARIANTS] +
                         [("theirs", "luks", ""), ("theirs", "qcow2", "")])
def test_mirrored(tmp_path, make_theirs, fmt, more, maker):
    """Random operations by both in turn come to the same disk."""
    image, size = tmp_path / "disk", 3 << 20
    if maker == "ours":
        make(ours, image, fmt, size, more.replace("@", str(tmp_path)))
    else:
        make_theirs(image, fmt, size)
    model = Model(size, seed=len(more))
    zero = [f"write -q -z 0 {size}"]
    assert_quiet(our_io(image, fmt, zero + model.commands(40)))
    both_read(image, fmt, model, tmp_path)
    commands = []
    for _ in range(10):
        at, length = model.span()
        byte = model.random.randrange(0, 256)
        commands.append(f"write -q -P {byte} {at} {length}")
        model.fill(at, length, byte)
    their_io(image, fmt, commands)
    assert_quiet(our_io(image, fmt, model.reads(0, size), "-r"))
    assert_quiet(our_io(image, fmt, model.commands(25)))
    both_read(image, fmt, model, tmp_path)


@needs_qemu
@pytest.mark.parametrize("fmt,more", VARIANTS[:7])
def test_info_is_theirs(tmp_path, fmt, more):
    image = tmp_path / "disk"
    make(ours, image, fmt, 1 << 20, more)
    assert vmm_img("info", image)[1] == qemu_img("info", image)[1]
    mine, other = (json.loads(tool("info", "--output=json", image)[1]) for tool in (vmm_img, qemu_img))
    assert mine == other and mine["encrypted"] is True
    # A key may be named, and need not be.
    assert "encrypted: yes" in ours("info", "--image-opts", opts(image, fmt))[1]


@needs_cryptsetup
@pytest.mark.parametrize("more,works", [
    ("", True),
    ("cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", True),
    ("hash-alg=sha1", True), ("hash-alg=sha512", True), ("cipher-alg=aes-192,cipher-mode=cbc", True)])
def test_cryptsetup_opens_ours(tmp_path, more, works):
    image = tmp_path / "disk"
    make(ours, image, "luks", 1 << 20, more)
    ours("amend", "--image-opts", opts(image, "luks"), "-o", f"state=active,new-secret=t,keyslot=5,{QUICK}")
    dump = run("cryptsetup", "luksDump", image)[1]
    assert "Key Slot 0: ENABLED" in dump and "Key Slot 5: ENABLED" in dump and "Key Slot 1: DISABLED" in dump
    for password, slot, code in ("abc123", 0, 0), ("def456", 5, 0), ("nothing", None, 2):
        argv = ["cryptsetup", "open", "--test-passphrase", "--key-file", "-", image]
        assert run(*argv, stdin=password, ok=False)[0] == code
        if slot is not None:
            assert run(*argv, "--key-slot", slot, stdin=password, ok=False)[0] == 0


@needs_cryptsetup
@needs_qemu
@pytest.mark.parametrize("more", [[], ["--cipher", "aes-cbc-essiv:sha256", "--key-size", "128"],
                                  ["--cipher", "aes-xts-plain", "--hash", "sha512"],
                                  ["--cipher", "aes-cbc-plain64", "--key-size", "192", "--hash", "sha1"]])
def test_cryptsetups_are_ours(tmp_path, more):
    image = tmp_path / "disk"
    with open(image, "wb") as f:
        f.truncate(8 << 20)
    run("cryptsetup", "luksFormat", "--type", "luks1", "-q", "--pbkdf-force-iterations", "1000", "--key-file", "-",
        *more, image, stdin="abc123")
    assert_quiet(our_io(image, "luks", ["write -q -P 7 100 30000", "read -q -P 7 100 30000"]))
    if "192" not in more:  # QEMU 7.2 falls over these
        assert not their_io(image, "luks", ["read -q -P 7 100 30000"])[1]
    assert vmm_img("info", image)[1] == qemu_img("info", image)[1]


@needs_cryptsetup
def test_luks2_is_named(tmp_path):
    image = tmp_path / "disk"
    with open(image, "wb") as f:
        f.truncate(20 << 20)
    run("cryptsetup", "luksFormat", "--type", "luks2", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
        "--key-file", "-", image, stdin="abc123")
    assert "luks2" in vmm_img("info", image, ok=False)[2]
    assert "version 2" in our_io(image, "luks", ["read 0 512"], ok=False)[2]


@needs_qemu
@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_amend(tmp_path, fmt):
    """Each side sees the slots that the other filled and erased; what is refused is refused by both."""
    image, p = tmp_path / "disk", "" if fmt == "luks" else "encrypt."
    make(ours, image, fmt, 1 << 20)
    our_io(image, fmt, ["write -q -P 5 0 1M"])

    def amend(tool, text, secret="s", ok=True, force=False):
        text = ",".join(p + item for item in text.split(","))
        return tool("amend", *(["--force"] if force else []), "--image-opts", opts(image, fmt, secret), "-o", text, ok=ok)

    def opens(secret):
        codes = [io(image, fmt, ["read -q -P 5 0 1M"], secret=secret, ok=False)[0] for io in (our_io, their_io)]
        assert codes[0] == codes[1]
        return not codes[0]

    assert opens("s") and not opens("t") and not opens("nobody")
    amend(ours, f"state=active,new-secret=t,{QUICK}")
    amend(theirs, f"state=active,new-secret=u,{QUICK}")
    assert opens("t") and opens("u")
    for text in (f"state=active,new-secret=t,{QUICK},keyslot=1", "state=active,keyslot=8,new-secret=t",
                 "state=active", "new-secret=t", "state=inactive", "state=inactive,new-secret=t",
                 "state=inactive,keyslot=7", "state=what", "state=active,new-secret=nobody", "state=inactive,colour=red"):
        messages = [amend(tool, text, ok=False) for tool in (ours, theirs)]
        assert messages[0][0] == messages[1][0] == 1, text
    amend(theirs, "state=inactive,old-secret=t", secret="t")
    amend(ours, "state=inactive,keyslot=0", secret="u")
    assert not opens("s") and not opens("t") and opens("u")
    for text in "state=inactive,old-secret=u", "state=inactive,keyslot=2":
        for tool in ours, theirs:
            assert amend(tool, text, secret="u", ok=False)[0] == 1
    assert opens("u")
    amend(ours, "state=inactive,old-secret=u", secret="u", force=True)
    assert not opens("u")


@needs_qemu
def test_convert(tmp_path, make_theirs):
    """From and to every kind, by either side, and the result compares equal."""
    raw = tmp_path / "raw"
    model = Model(2 << 20, seed=4)
    for _ in range(12):
        at, length = model.span()
        model.fill(at, length, model.random.randrange(256))
    raw.write_bytes(model.data)
    image, back = tmp_path / "image", tmp_path / "back"
    for fmt, other in ("luks", "qcow2"), ("qcow2", "luks"):
        ours("convert", "-f", "raw", "-O", fmt, "-o", create_options(fmt), raw, image)
        both_read(image, fmt, model, tmp_path)
        theirs("convert", "--image-opts", "-O", "raw", opts(image, fmt), back)
        assert back.read_bytes() == model.data
        make_theirs(back, other, 3 << 20)
        ours("convert", "--image-opts", "--target-image-opts", "-n", opts(image, fmt), opts(back, other))
        ours("convert", "--image-opts", "-O", "raw", opts(back, other), image)
        assert image.read_bytes()[:model.size] == model.data
        theirs("convert", "--target-image-opts", "-n", "-f", "raw", raw, opts(back, other))
        ours("convert", "--image-opts", "-O", "raw", opts(back, other), image)
        assert image.read_bytes()[:model.size] == model.data


def test_compression_is_refused(tmp_path):
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(b"a" * 65536)
    code, _, err = ours("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", create_options("qcow2"), raw, image, ok=False)
    assert code == 1 and "Compression and encryption not supported at the same time" in err
    make(ours, image, "qcow2", 65536)
    code, _, err = ours("convert", "-c", "-n", "-f", "raw", "--target-image-opts", raw, opts(image, "qcow2"), ok=False)
    assert code == 1 and "Compression and encryption" in err
    assert our_io(image, "qcow2", ["write -c 0 64k"], ok=False)[0] == 1


@needs_qemu
def test_compressed_clusters_are_read(tmp_path, make_theirs):
    """Theirs are not encrypted even where the image is."""
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(b"a" * 200000 + b"b" * 62144)
    make_theirs(image, "qcow2", 3 << 20)
    theirs("convert", "-c", "-n", "-f", "raw", "--target-image-opts", raw, opts(image, "qcow2"))
    assert_quiet(our_io(image, "qcow2", ["read -q -P 97 0 200000", "read -q -P 98 200000 62144",
                                         "write -q -P 1 1000 100000", "read -q -P 97 101000 99000"]))
    assert not their_io(image, "qcow2", ["read -q -P 97 0 1000", "read -q -P 1 1000 100000"])[1]
    ours("check", "--image-opts", opts(image, "qcow2"))


@needs_qemu
def test_legacy_aes(tmp_path):
    """Old images are read and written; new ones are refused."""
    image, size = tmp_path / "image", 2 << 20
    for cluster in "65536", "512":
        theirs("create", "-q", "-f", "qcow2", "-o", f"encrypt.format=aes,encrypt.key-secret=s,cluster_size={cluster}",
               image, str(size))
        model = Model(size, seed=8)
        assert vmm_img("info", image)[1] == qemu_img("info", image)[1]
        assert_quiet(our_io(image, "qcow2", model.commands(40)))
        both_read(image, "qcow2", model, tmp_path)
        their_io(image, "qcow2", ["write -q -P 9 70001 90000"])
        model.fill(70001, 90000, 9)
        both_read(image, "qcow2", model, tmp_path)
    for option in "encryption=on", "encrypt.format=aes,encrypt.key-secret=s":
        code, _, err = ours("create", "-f", "qcow2", "-o", option, tmp_path / "new", "1M", ok=False)
        assert code == 1 and "AES" in err and not (tmp_path / "new").exists()


@needs_qemu
@pytest.mark.parametrize("top", ["qcow2", "luks"])
@pytest.mark.parametrize("base", ["luks", "qcow2", "raw"])
def test_chains(tmp_path, base, top):
    """Either side of a backing chain may be encrypted; top "luks": an encrypted qcow2."""
    lower, upper, size = tmp_path / "lower", tmp_path / "upper", 1 << 20
    model = Model(size, seed=6)
    if base == "raw":
        lower.write_bytes(bytes([3]) * size)
        name = str(lower)
    else:
        make(ours, lower, base, size)
        our_io(lower, base, [f"write -q -P 3 0 {size}"])
        key = "key-secret" if base == "luks" else "encrypt.key-secret"
        name = "json:" + json.dumps({"driver": base, key: "s", "file": {"driver": "file", "filename": str(lower)}})
    model.fill(0, size, 3)
    extra = create_options("qcow2") if top == "luks" else ""
    argv = ["-o", extra] if extra else []
    ours("create", "-q", "-f", "qcow2", *argv, "-b", name, "-F", base, upper)
    options = f"driver=qcow2,file.filename={upper}" + (",encrypt.key-secret=s" if extra else "")
    assert_quiet(vmm_io(options, model.commands(30, discards=False), "--image-opts", *SECRETS))
    reads = model.reads(0, size)
    assert_quiet(vmm_io(options, reads, "--image-opts", "-r", *SECRETS))
    raw = tmp_path / "model.raw"
    raw.write_bytes(model.data)
    theirs("compare", "--image-opts", options, f"driver=raw,file.filename={raw}")
    ours("info", "--backing-chain", "--image-opts", options)
    ours("commit", "--image-opts", options)
    assert_quiet(vmm_io(options, reads, "--image-opts", "-r", *SECRETS))
    if base != "raw":
        both_read(lower, base, model, tmp_path)


@needs_qemu
def test_snapshots_and_resize(tmp_path):
    image, size = tmp_path / "image", 2 << 20
    make(ours, image, "qcow2", size)
    model = Model(size, seed=3)
    assert_quiet(our_io(image, "qcow2", model.commands(20)))
    was = bytes(model.data)
    ours("snapshot", "-c", "one", "--image-opts", opts(image, "qcow2"))
    assert_quiet(our_io(image, "qcow2", model.commands(20)))
    both_read(image, "qcow2", model, tmp_path)
    old = tmp_path / "old"
    ours("convert", "-l", "one", "--image-opts", "-O", "raw", opts(image, "qcow2"), old)
    assert old.read_bytes() == was
    theirs("snapshot", "-a", "one", "--image-opts", opts(image, "qcow2"))
    assert_quiet(our_io(image, "qcow2", Model(size, 0, was).reads(0, size), "-r"))
    ours("snapshot", "-d", "one", "--image-opts", opts(image, "qcow2"))
    ours("resize", "-q", "--image-opts", opts(image, "qcow2"), "+1M")
    theirs("resize", "-q", "--shrink", "--image-opts", opts(image, "qcow2"), "1M")
    both_read(image, "qcow2", Model(1 << 20, 0, was[:1 << 20]), tmp_path)
    make(ours, image, "luks", 1 << 20)
    our_io(image, "luks", ["write -q -P 4 0 1M"])
    ours("resize", "-q", "--preallocation", "falloc", "--image-opts", opts(image, "luks"), "2M")
    assert_quiet(our_io(image, "luks", ["read -q -P 4 0 1M", "write -q -P 5 1M 1M"]))
    assert json.loads(qemu_img("info", "--output=json", image)[1])["virtual-size"] == 2 << 20


@pytest.mark.parametrize("argv,required,allocated", [
    (["-O", "luks", "-o", "key-secret=s"], 12554240, 12554240),
    (["-O", "luks", "-o", "key-secret=s,cipher-alg=aes-128,cipher-mode=cbc"], 11014144, 11014144),
    (["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s"], 2424832, 12910592),
    (["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,cluster_size=4k"], 2109440, 12595200),
])
def test_measure(argv, required, allocated):
    """As theirs says, who take seconds for it."""
    out = ours("measure", *argv, "--size", "10M")[1]
    assert out == f"required size: {required}\nfully allocated size: {allocated}\n"


@needs_qemu
@pytest.mark.parametrize("argv", [["-O", "luks"], ["-O", "qcow2", "-o", "encrypt.format=luks"]])
def test_measure_needs_a_key(argv):
    mine, other = (tool("measure", *argv, "--size", "10M", ok=False) for tool in (ours, theirs))
    assert mine[:2] == other[:2]
    assert mine[2].replace("vmm-img", "qemu-img") == other[2]


@needs_qemu
@pytest.mark.parametrize("size", ["1M", "64M"])
@pytest.mark.parametrize("more", ["", "cluster_size=512", "preallocation=full"])
def test_measured_is_made(tmp_path, size, more):
    """The file of a preallocated image is as long as was said."""
    if size == "64M" and more:
        return
    image, text = tmp_path / "image", create_options("qcow2", more)
    made = json.loads(ours("measure", "-O", "qcow2", "-o", text, "--size", size, "--output=json")[1])
    ours("create", "-q", "-f", "qcow2", "-o", text, image, size)
    assert image.stat().st_size <= made["fully-allocated"]
    if "full" in more:
        assert image.stat().st_size == made["required"]


def test_refusals(tmp_path):
    image = tmp_path / "image"
    make(ours, image, "luks", 1 << 20)
    for options, part in [
            (f"driver=luks,file.filename={image}", "Parameter 'key-secret' is required"),
            (opts(image, "luks", "nobody"), "No secret with id 'nobody'"),
            (opts(image, "luks", "u"), "Invalid password")]:
        code, _, err = vmm_io(options, ["read 0 512"], "--image-opts", *SECRETS, ok=False)
        assert code == 1 and part in err, err
    make(ours, image, "qcow2", 1 << 20)
    for options, part in [
            (f"driver=qcow2,file.filename={image}", "Parameter 'encrypt.key-secret' is required"),
            (opts(image, "qcow2", "u"), "Invalid password"),
            (opts(image, "qcow2") + ",encrypt.format=aes", "'luks' encryption format")]:
        code, _, err = vmm_io(options, ["read 0 512"], "--image-opts", *SECRETS, ok=False)
        assert code == 1 and part in err, err
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    assert "encrypt" in vmm_io(opts(image, "qcow2"), ["read 0 512"], "--image-opts", *SECRETS, ok=False)[2]
    for option in ("encrypt.format=luks", "encrypt.key-secret=s", "encrypt.format=x,encrypt.key-secret=s",
                   "encrypt.format=luks,encrypt.key-secret=s,encrypt.colour=red",
                   "encrypt.format=luks,encrypt.key-secret=s,data_file=d,data_file_raw=on"):
        assert ours("create", "-f", "qcow2", "-o", option, tmp_path / "new", "1M", ok=False)[0] == 1
        assert not (tmp_path / "new").exists()


def test_secrets_from_files(tmp_path):
    image, key = tmp_path / "image", tmp_path / "key"
    key.write_text("YWJjMTIz\n")
    make(ours, image, "luks", 1 << 20)
    vmm_img("io", "--object", f"secret,id=f,file={key},format=base64", "--image-opts", "-c", "read 0 4k",
            f"driver=luks,key-secret=f,file.filename={image}")
    for text in ("secret,id=a", "secret,data=a", "secret,id=a,data=b,file=c", f"secret,id=a,file={tmp_path}/none",
                 "secret,id=a,data=b,format=x", "secret,id=a,data=b,colour=c", "nothing,id=a"):
        assert vmm_img("info", "--object", text, image, ok=False)[0] == 1
