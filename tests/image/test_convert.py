# SPDX-License-Identifier: Apache-2.0
"""vmm-img's commands that move data or change images, against qemu-img's: contents and messages."""
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

from conftest import (Model, VMM_IMG, assert_quiet, assert_same, needs_qemu, qemu_img, qemu_io, vmm_img,
                      vmm_io)

pytestmark = needs_qemu
MiB = 1 << 20


def text_and_noise(path, size, seed=1):
    """Something to compress, something that cannot be, and holes."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        for i in range(24):
            f.seek(rng.randrange(size - 70000))
            n = rng.randrange(1, 70000)
            f.write(rng.randbytes(n) if i % 3 == 0 else bytes(rng.choices(b"abcdefgh", k=n)))
        f.truncate(size)


@pytest.mark.parametrize("options", [f"cluster_size={c},refcount_bits={b},compression_type={t}"
                                     for c, b, t in [(512, 1, "zstd"), (4096, 2, "zlib"), (65536, 16, "zlib"),
                                                     (65536, 64, "zstd"), (65536, 1, "zlib"), (2 * MiB, 16, "zstd")]])
def test_compressed(tmp_path, options):
    raw, ours, theirs = tmp_path / "raw", tmp_path / "ours", tmp_path / "theirs"
    text_and_noise(raw, 3 * MiB + 512)
    for tool, out in [(vmm_img, ours), (qemu_img, theirs)]:
        tool("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, out)
        qemu_img("check", out)
        vmm_img("check", out)
        qemu_img("compare", "-f", "raw", raw, out)
        vmm_img("compare", "-f", "raw", raw, out)
    if "2097152" not in options:
        assert os.path.getsize(ours) <= os.path.getsize(theirs) * 1.08 + 65536
    # What was compressed can be written, compressed again, and thrown away.
    model = Model(3 * MiB + 512, seed=5, data=raw.read_bytes())
    assert_quiet(vmm_io(ours, model.commands(25), "-t", "unsafe"))
    assert_same(ours, model, tmp_path)
    vmm_img("convert", "-n", "-c", "-f", "raw", "-O", "qcow2", raw, ours)
    qemu_img("compare", "-f", "raw", raw, ours)
    qemu_img("check", ours)


@pytest.mark.parametrize("cluster", [4096, 65536, 2 * MiB])
def test_compressed_looking_far_back(tmp_path, cluster):
    """Noise that comes again at each distance which deflate has: qemu-img reads what ours made of it."""
    raw, ours, theirs, back = [tmp_path / n for n in ("raw", "ours", "theirs", "back")]
    rng, far = random.Random(8), []
    for distance in [1, 100, 4000, 4096, 4097, 5000, 8191, 8193, 16384, 20000, 32767, 32768, 32769]:
        noise = rng.randbytes(distance)
        far.append((noise * (max(cluster, 65536) // distance + 1))[:max(cluster, 65536)])
    raw.write_bytes(b"".join(far))
    for tool, image in [(vmm_img, ours), (qemu_img, theirs)]:
        tool("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"cluster_size={cluster}", raw, image)
    if cluster > 4096 and b"libdeflate" in open(VMM_IMG, "rb").read():
        assert os.path.getsize(ours) < os.path.getsize(theirs) * 0.8  # it does look that far back
    qemu_img("check", ours)
    qemu_img("compare", "-f", "raw", raw, ours)
    qemu_img("convert", "-O", "raw", ours, back)
    assert back.read_bytes() == raw.read_bytes()
    for i, piece in enumerate(far):  # one sector in a cluster: all of it is decompressed for that
        qemu_io(ours, [f"read -q {i * len(piece) + len(piece) - 512} 512"], "-r")
    vmm_img("compare", "-f", "raw", raw, ours)


def test_compressed_io(tmp_path):
    image = tmp_path / "a"
    vmm_img("create", "-q", "-f", "qcow2", image, "1000k")
    assert_quiet(vmm_io(image, ["write -q -c -P 7 64k 128k", "write -q -c -P 8 960k 40k",
                                "write -q -c -P 9 64k 64k", "read -q -P 9 64k 64k",
                                "read -q -P 7 128k 64k", "read -q -P 8 960k 40k"]))
    code, out, _ = vmm_io(image, ["write -c 1k 64k"], ok=False)
    assert code == 1 and "write failed: Invalid argument" in out
    qemu_img("check", image)
    raw = tmp_path / "r"
    vmm_img("create", "-q", "-f", "raw", raw, "1M")
    assert "write failed: Operation not supported" in vmm_io(raw, ["write -c 0 64k"], "-f", "raw", ok=False)[1]


def test_several_sources(tmp_path):
    parts, whole = [tmp_path / f"p{i}" for i in range(3)], b""
    for i, p in enumerate(parts):
        text_and_noise(p, 700000 // 512 * 512 + i * 512, seed=i)
        whole += p.read_bytes()
    (tmp_path / "whole").write_bytes(whole)
    for extra in [[], ["-c"], ["-W"], ["-S", "0"], ["-S", "64k"], ["-m", "1"], ["-m", "16", "-r", "100M"]]:
        out = tmp_path / "out"
        vmm_img("convert", *extra, "-f", "raw", "-O", "qcow2", *parts, out)
        qemu_img("compare", "-f", "raw", tmp_path / "whole", out)
        qemu_img("check", out)


def test_sparse_sizes(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    with open(raw, "wb") as f:
        f.write(b"\1" * 4096 + bytes(MiB - 4096))
    for size, blocks in [("0", 2048), ("4k", 8), ("1M", 2048)]:
        vmm_img("convert", "-S", size, "-f", "raw", "-O", "raw", raw, out)
        assert os.stat(out).st_blocks == blocks, size


def test_salvage(tmp_path):
    """An image whose backing chain cannot be read everywhere."""
    image, out = tmp_path / "a", tmp_path / "out"
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    assert_quiet(vmm_io(image, ["write -q -c -P 7 0 64k", "write -q -P 8 64k 64k"]))
    at = [m for m in json.loads(qemu_img("map", "--output=json", image)[1])]
    with open(image, "r+b") as f:
        data = f.read()
        place = data.index(b"\x08" * 512)
        f.seek(place - 2 * 65536)
        f.write(b"\xff" * 200)
    assert at and vmm_img("convert", "-O", "raw", image, out, ok=False)[0] == 1
    code, _, err = vmm_img("convert", "--salvage", "-O", "raw", image, out)
    assert "error while reading offset 0: " in err
    assert out.read_bytes()[65536:131072] == b"\x08" * 65536
    assert vmm_img("convert", "--salvage", "-q", "-O", "raw", image, out)[2] == ""


def test_progress(tmp_path):
    raw = tmp_path / "raw"
    text_and_noise(raw, 4 * MiB)
    out = vmm_img("convert", "-p", "-f", "raw", "-O", "raw", raw, tmp_path / "o")[1]
    out = [line.strip() for line in out.splitlines() if line.strip()]  # "\r" counts as an end here
    assert out[0] == "(0.00/100%)" and out[-1] == "(100.00/100%)"
    assert vmm_img("convert", "-p", "-q", "-f", "raw", "-O", "raw", raw, tmp_path / "o")[1] == ""
    p = subprocess.Popen([VMM_IMG, "convert", "-S", "0", "-r", "2M", "-f", "raw", "-O", "raw", str(raw),
                          str(tmp_path / "o")], stderr=subprocess.PIPE, text=True)
    time.sleep(0.8)
    p.send_signal(signal.SIGUSR1)
    err = p.communicate()[1]
    assert p.returncode == 0 and re.search(r"\(\d+\.\d\d/100%\)", err), err


def chain(tmp_path, seed=2):
    """base <- mid <- top, and what the top shows."""
    model = Model(4 * MiB, seed=seed)
    names = [tmp_path / n for n in ("base", "mid", "top")]
    vmm_img("create", "-q", "-f", "qcow2", names[0], model.size)
    models = []
    for i, n in enumerate(names):
        if i:
            vmm_img("create", "-q", "-f", "qcow2", "-b", names[i - 1].name, "-F", "qcow2", n)
        assert_quiet(vmm_io(n, model.commands(20, discards=False)))
        models.append(bytes(model.data))
    return names, model, models


@pytest.mark.parametrize("argv", [[], ["-d"], ["-b", "base"], ["-b", "mid"]])
def test_commit(tmp_path, argv):
    (base, mid, top), model, models = chain(tmp_path)
    assert vmm_img("commit", *argv, top)[1] == "Image committed.\n"
    target = base if "base" in argv else mid
    assert_same(target, model, tmp_path)
    if "base" not in argv:
        assert_same(top, model, tmp_path)
    entries = json.loads(qemu_img("map", "--output=json", top)[1])
    assert any(e["depth"] == 0 and e["present"] for e in entries) == bool(argv)
    qemu_img("check", top)


def test_commit_to_smaller_and_refusals(tmp_path):
    base, top = tmp_path / "base", tmp_path / "top"
    vmm_img("create", "-q", "-f", "qcow2", base, "1M")
    vmm_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", top, "3M")
    assert_quiet(vmm_io(top, ["write -q -P 5 2M 100k"]))
    for argv in [("commit", base), ("commit", "-b", "nope", top), ("commit", "-t", "foo", top)]:
        ours, theirs = vmm_img(*argv, ok=False), qemu_img(*argv, ok=False)
        assert ours[0] == theirs[0] == 1 and ours[2] == theirs[2].replace("qemu-img", "vmm-img")
    vmm_img("commit", "-q", top)
    assert json.loads(qemu_img("info", "--output=json", base)[1])["virtual-size"] == 3 * MiB
    assert_quiet(vmm_io(base, ["read -q -P 5 2M 100k", "read -q -P 0 0 1M"]))
    holder = subprocess.Popen([VMM_IMG, "io", str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write("length\n")
    holder.stdin.flush()
    assert holder.stdout.readline()
    assert 'Failed to get "write" lock' in vmm_img("commit", top, ok=False)[2]
    holder.communicate("quit\n")


@pytest.mark.parametrize("to", ["base", "", "other", "raw"])
def test_rebase(tmp_path, to):
    (base, mid, top), model, models = chain(tmp_path)
    other = Model(3 * MiB, seed=9)
    vmm_img("create", "-q", "-f", "qcow2", tmp_path / "other", other.size)
    assert_quiet(vmm_io(tmp_path / "other", other.commands(20)))
    vmm_img("convert", "-O", "raw", tmp_path / "other", tmp_path / "raw")
    fmt = ["-F", "raw" if to == "raw" else "qcow2"] if to else []
    vmm_img("rebase", "-b", to, *fmt, top)
    assert_same(top, model, tmp_path)
    info = json.loads(qemu_img("info", "--output=json", top)[1])
    assert info.get("backing-filename", "") == to
    assert info.get("backing-filename-format") == (fmt[1] if fmt else None)
    if to:
        vmm_img("rebase", "-u", "-b", "mid", "-F", "qcow2", top)
        assert json.loads(qemu_img("info", "--output=json", top)[1])["backing-filename"] == "mid"
    vmm_img("rebase", "-u", "-b", "", top)
    assert "backing-filename" not in json.loads(qemu_img("info", "--output=json", top)[1])
    for argv in [("rebase", top), ("rebase", "-b", "nope", "-F", "qcow2", top), ("rebase", "-b", "mid", top),
                 ("rebase", "-u", "-b", "mid", "-F", "foo", top)]:
        ours, theirs = vmm_img(*argv, ok=False), qemu_img(*argv, ok=False)
        assert ours[0] == theirs[0] == 1
        assert ours[2].split("\n")[0].replace(str(tmp_path) + "/", "") == \
            theirs[2].split("\n")[0].replace("qemu-img", "vmm-img").replace(str(tmp_path) + "/", ""), argv


def test_rebase_keeps_unknown_extensions(tmp_path):
    image = tmp_path / "a"
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    data = bytearray(image.read_bytes())
    at = 112
    while int.from_bytes(data[at:at + 4], "big"):
        at += 8 + (int.from_bytes(data[at + 4:at + 8], "big") + 7) // 8 * 8
    data[at:at + 16] = (0x11223344).to_bytes(4, "big") + (5).to_bytes(4, "big") + b"hello\0\0\0"
    image.write_bytes(data)
    for name in ["one", "x" * 1000, "two", ""]:
        vmm_img("rebase", "-u", "-b", name, *(["-F", "qcow2"] if name else []), image)
        assert b"\x11\x22\x33\x44\0\0\0\5hello" in image.read_bytes()[:65536]
        info = json.loads(qemu_img("info", "--output=json", image)[1])
        assert info.get("backing-filename", "") == name
        qemu_img("check", "--image-opts", f"driver=qcow2,backing=,file.filename={image}", ok=False)


def test_amend(tmp_path):
    image = tmp_path / "a"
    model = Model(2 * MiB, seed=3)
    vmm_img("create", "-q", "-f", "qcow2", image, model.size)
    assert_quiet(vmm_io(image, model.commands(40)))
    steps = [("lazy_refcounts=on", "lazy-refcounts", True), ("lazy_refcounts=off", "lazy-refcounts", False),
             ("compat=0.10", "compat", "0.10"), ("compat=1.1", "compat", "1.1")]
    for option, key, value in steps:
        vmm_img("amend", "-o", option, image)
        assert json.loads(qemu_img("info", "--output=json", image)[1])["format-specific"]["data"][key] == value
        assert_same(image, model, tmp_path)
    vmm_img("amend", "-f", "qcow2", "-o", "size=4M", image)
    assert json.loads(qemu_img("info", "--output=json", image)[1])["virtual-size"] == 4 * MiB
    for option in ["foo=1", "cluster_size=4k", "compat=7"]:
        ours, theirs = vmm_img("amend", "-o", option, image, ok=False), qemu_img("amend", "-o", option, image, ok=False)
        assert ours[0] == 1 and ours[2] == theirs[2].replace("qemu-img", "vmm-img")
    raw = tmp_path / "raw"
    vmm_img("create", "-q", raw, "1M")
    assert vmm_img("amend", "-f", "raw", "-o", "size=2M", raw, ok=False)[2] == \
        "vmm-img: Format driver 'raw' does not support option amendment\n"


def test_dd(tmp_path):
    raw = tmp_path / "raw"
    text_and_noise(raw, 2 * MiB)
    for args in [["bs=1M"], ["bs=64k", "count=3", "skip=1"], ["bs=64k", "skip=30"], ["count=8"], ["bs=1M", "skip=9"]]:
        out = {}
        for tool in [vmm_img, qemu_img]:
            path = tmp_path / "out"
            path.unlink(missing_ok=True)
            code, _, err = tool("dd", "-f", "raw", "-O", "raw", *args, f"if={raw}", f"of={path}", ok=False)
            out[tool] = (code, err.replace("qemu-img", "vmm-img"), path.read_bytes())
        assert out[vmm_img] == out[qemu_img], args
    for args in [["if=a"], ["if=a", "of=b", "bs=0"], ["if=a", "of=b", "foo=1"], ["if=a", "of=b", "foo"]]:
        ours, theirs = vmm_img("dd", *args, ok=False), qemu_img("dd", *args, ok=False)
        assert ours[0] == theirs[0] == 1 and ours[2] == theirs[2].replace("qemu-img", "vmm-img")


def test_measure(tmp_path):
    raw, image = tmp_path / "raw", tmp_path / "q"
    text_and_noise(raw, 3 * MiB)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    for args in [["--size", "1G"], ["-O", "qcow2", "--size", "1G"], ["-O", "qcow2", "--size", "0"],
                 ["-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", "--size", "1T"],
                 ["-O", "qcow2", "-o", "compat=0.10", image], ["-O", "qcow2", image],
                 ["-O", "qcow2", "-f", "raw", raw], ["-O", "raw", image],
                 ["-O", "qcow2", "-o", "cluster_size=2M", image], ["-O", "qcow2", "--size", "1G", raw], ["-O", "foo", raw]]:
        ours, theirs = vmm_img("measure", *args, ok=False), qemu_img("measure", *args, ok=False)
        if "WARNING" not in theirs[2]:
            assert (ours[0], ours[1], ours[2]) == (theirs[0], theirs[1], theirs[2].replace("qemu-img", "vmm-img")), args
        if not ours[0]:
            assert json.loads(vmm_img("measure", "--output=json", *args)[1]) == \
                json.loads(qemu_img("measure", "--output=json", *args)[1])


def test_snapshots(tmp_path):
    image = tmp_path / "a"
    model = Model(2 * MiB, seed=3)
    vmm_img("create", "-q", "-f", "qcow2", image, model.size)
    kept = {}
    for name in ["one", "two", "three"]:
        assert_quiet(vmm_io(image, model.commands(20)))
        vmm_img("snapshot", "-c", name, image)
        kept[name] = bytes(model.data)
    assert_quiet(vmm_io(image, model.commands(20)))
    assert_same(image, model, tmp_path)
    assert vmm_img("snapshot", "-l", image)[1] == qemu_img("snapshot", "-l", image)[1]
    assert vmm_img("info", image)[1] == qemu_img("info", image)[1]
    assert json.loads(vmm_img("info", "--output=json", image)[1]) == json.loads(qemu_img("info", "--output=json", image)[1])
    for name, data in kept.items():
        for spec in [name, f"snapshot.name={name}"]:
            vmm_img("convert", "-l", spec, "-O", "raw", image, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == data
    vmm_img("snapshot", "-d", "two", image)
    vmm_img("snapshot", "-a", "one", image)
    model.data = bytearray(kept["one"])
    assert_same(image, model, tmp_path)
    for argv in [("-a", "zz"), ("-d", "zz"), ("-l", "-c", "x")]:
        ours, theirs = vmm_img("snapshot", *argv, image, ok=False), qemu_img("snapshot", *argv, image, ok=False)
        assert ours[0] == theirs[0] == 1
        assert ours[2].split("\n")[0] == theirs[2].split("\n")[0].replace("qemu-img", "vmm-img")
    assert vmm_img("convert", "-l", "nope", image, tmp_path / "o", ok=False)[2] == \
        "vmm-img: Failed to load snapshot: Can't find snapshot\n"


def test_bench(tmp_path):
    image = tmp_path / "a"
    vmm_img("create", "-q", "-f", "qcow2", image, "10M")
    for args in [["-c", "500"], ["-w", "-d", "4", "--flush-interval", "10", "--no-drain", "-c", "100"], ["-c", "0"],
                 ["-i", "io_uring", "-c", "9"], ["-w", "-c", "500", "-d", "4", "-o", "4096", "-s", "8192", "-S", "16384",
                                 "--pattern=5", "--flush-interval", "10", "-t", "none", "-i", "native"]]:
        ours, theirs = vmm_img("bench", "-f", "qcow2", *args, image), qemu_img("bench", "-f", "qcow2", *args, image)
        cut = [re.sub(r"in [\d.]+ s", "in s", r[1]) for r in (ours, theirs)]
        assert cut[0].replace("in-flight ", "") == cut[1]
    assert_quiet(vmm_io(image, ["read -q -P 5 4096 8192", "read -q -P 5 20480 8192"]))
    for args in [["-i", "foo"], ["--flush-interval", "3"], ["--pattern", "300"]]:
        ours, theirs = vmm_img("bench", *args, image, ok=False), qemu_img("bench", *args, image, ok=False)
        assert ours[0] == theirs[0] == 1 and ours[2] == theirs[2].replace("qemu-img", "vmm-img")
    assert vmm_img("bench", "-o", "20M", image, ok=False)[0] == 1


def test_convert_mistakes(tmp_path):
    image, raw = tmp_path / "q", tmp_path / "r"
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    vmm_img("create", "-q", "-f", "raw", raw, "512k")
    for argv in [("-O", "raw", "-c", image, "o"), ("-m", "0", "a", "b"), ("-m", "17", "a", "b"), ("-S", "3", "a", "b"),
                 ("a",), ("-n", "-o", "x=1", "a", "b"), ("--target-is-zero", "a", "b"),
                 ("--target-image-opts", image, "o"), ("--image-opts", "-f", "qcow2", "driver=x", "o"),
                 ("-n", "-O", "raw", image, raw), ("-O", "blah", image, "o"), ("-T", "foo", image, "b"),
                 ("-O", "qcow2", "-B", image, image, "o"), ("-O", "qcow2", "-o", "nonsense=a", image, "o")]:
        ours, theirs = vmm_img("convert", *argv, ok=False), qemu_img("convert", *argv, ok=False)
        assert ours[0] == theirs[0] == 1
        assert ours[2].split("\n")[0] == theirs[2].split("\n")[0].replace("qemu-img", "vmm-img"), argv
