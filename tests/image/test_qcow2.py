# SPDX-License-Identifier: Apache-2.0
"""qcow2: random operations mirrored on a model, images of every kind made by qemu-img, kills."""
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from conftest import (Model, VMM_IMG, assert_quiet, assert_same, needs_qemu, qemu_img, qemu_io, run,
                      vmm_img, vmm_io)

pytestmark = needs_qemu
MiB = 1 << 20


@pytest.mark.parametrize("cluster", [512, 1024, 4096, 65536, 2 * MiB])
@pytest.mark.parametrize("maker", ["qemu", "vmm"])
def test_random_operations(tmp_path, cluster, maker):
    image = tmp_path / "a.qcow2"
    size = 4 * MiB + 1536
    make = qemu_img if maker == "qemu" else vmm_img
    make("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", image, size)
    model = Model(size, seed=cluster)
    for _ in range(3):
        assert_quiet(vmm_io(image, model.commands(150), "-f", "qcow2"))
        assert_same(image, model, tmp_path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("cluster", [512, 65536])
def test_refcount_widths(tmp_path, bits, cluster):
    image = tmp_path / "a.qcow2"
    size = 12 * MiB  # 512-byte clusters: the refcount table has to grow
    vmm_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster},refcount_bits={bits}", image,
            size)
    model = Model(size, seed=bits)
    model.fill(0, 9 * MiB, 7)
    assert_quiet(vmm_io(image, [f"write -q -P 7 0 {9 * MiB}"] + model.commands(100), "-f", "qcow2"))
    assert_same(image, model, tmp_path)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("options", [["-n"], ["-t", "writethrough"], ["-t", "unsafe"],
                                     ["-i", "threads"], ["-n", "-i", "native"], ["-d", "unmap"]])
def test_versions_caches_engines(tmp_path, compat, options):
    image = tmp_path / "a.qcow2"
    size = 8 * MiB
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", image, size)
    model = Model(size, seed=3)
    assert_quiet(vmm_io(image, model.commands(300), "-f", "qcow2", *options))
    assert_same(image, model, tmp_path)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("cluster", [512, 65536])
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_backing(tmp_path, compat, cluster, fmt):
    """The overlay is longer than what is below, and relative names are relative to the image."""
    (tmp_path / "d").mkdir()
    base, top = tmp_path / "d" / "base.img", tmp_path / "d" / "top.qcow2"
    below = Model(3 * MiB + 512, seed=1)
    qemu_img("create", "-q", "-f", fmt, base, below.size)
    assert_quiet(vmm_io(base, below.commands(60), "-f", fmt))
    vmm_img("create", "-q", "-f", "qcow2", "-b", "base.img", "-F", fmt, "-o",
            f"cluster_size={cluster},compat={compat}", top, 6 * MiB)
    before = base.read_bytes()
    model = Model(6 * MiB, seed=2, data=bytes(below.data) + bytes(6 * MiB - below.size))
    assert_quiet(vmm_io(top, model.reads(0, model.size), "-f", "qcow2"))
    for _ in range(2):
        assert_quiet(vmm_io(top, model.commands(120), "-f", "qcow2"))
        assert_same(top, model, tmp_path)
    assert base.read_bytes() == before


def test_deep_chain(tmp_path):
    model = Model(2 * MiB, seed=5)
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "0.qcow2", model.size)
    for i in range(1, 12):
        assert_quiet(vmm_io(tmp_path / f"{i - 1}.qcow2", model.commands(8), "-f", "qcow2"))
        vmm_img("create", "-q", "-f", "qcow2", "-b", f"{i - 1}.qcow2", "-F", "qcow2",
                tmp_path / f"{i}.qcow2")
    assert_quiet(vmm_io(tmp_path / "11.qcow2", model.commands(40), "-f", "qcow2"))
    assert_same(tmp_path / "11.qcow2", model, tmp_path)
    code, out, _ = vmm_img("info", "--backing-chain", tmp_path / "11.qcow2")
    assert out.count("\nfile format: qcow2") == 12


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", [512, 4096, 65536, 2 * MiB])
def test_compressed(tmp_path, kind, cluster):
    """Compressed by qemu-img, read and written over by ours."""
    raw, image = tmp_path / "a.raw", tmp_path / "a.qcow2"
    model = Model(5 * MiB, seed=9)
    for at in range(0, model.size, 50000):
        model.fill(at, min(model.random.randrange(100, 50000), model.size - at),
                   model.random.randrange(256))
    noise = random.Random(4).randbytes(200000)
    model.data[MiB:MiB + len(noise)] = noise
    raw.write_bytes(model.data)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", "-o",
             f"cluster_size={cluster},compression_type={kind}", raw, image)
    qemu_img("check", image)
    model.fill(MiB, len(noise), 0)  # noise is no pattern: read it through compare
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, image)
    assert_quiet(vmm_io(image, model.reads(0, MiB), "-r"))
    commands = [f"write -q -P 0x44 {MiB + 3000} 70000", f"write -q -z {MiB} 3000",
                f"write -q -P 1 {MiB + 73000} 127000"]
    model.fill(MiB + 3000, 70000, 0x44)
    model.fill(MiB + 73000, 127000, 1)
    assert_quiet(vmm_io(image, commands + model.commands(150), "-f", "qcow2"))
    assert_same(image, model, tmp_path)


@pytest.mark.parametrize("prealloc", ["metadata", "falloc", "full"])
def test_preallocated(tmp_path, prealloc):
    image = tmp_path / "a.qcow2"
    model = Model(6 * MiB, seed=8)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"preallocation={prealloc}", image, model.size)
    assert_quiet(vmm_io(image, model.commands(150), "-f", "qcow2"))
    assert_same(image, model, tmp_path)


def test_internal_snapshots_survive(tmp_path):
    """Writes go to copies; what the snapshots had is there when qemu-img goes back to it."""
    image = tmp_path / "a.qcow2"
    model = Model(3 * MiB, seed=12)
    qemu_img("create", "-q", "-f", "qcow2", image, model.size)
    assert_quiet(vmm_io(image, model.commands(60), "-f", "qcow2"))
    states = []
    for name in ["one", "two", "three"]:
        qemu_img("snapshot", "-c", name, image)
        states.append((name, bytes(model.data)))
        assert_quiet(vmm_io(image, model.commands(60), "-f", "qcow2"))
        assert_same(image, model, tmp_path)
    for name, data in reversed(states):
        qemu_img("snapshot", "-a", name, image)
        model.data = bytearray(data)
        assert_same(image, model, tmp_path)


def test_lazy_refcounts_dirty_image_is_repaired(tmp_path):
    """qemu-io dies with the dirty bit set and refcounts behind; ours repairs when it opens."""
    image = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, 8 * MiB)
    qemu_io(image, ["write -P 5 0 1M", "flush", "write -P 6 4M 64k", "flush", "abort"], ok=False)
    assert "cleanly shut down: no" in vmm_img("info", image)[1]
    assert_quiet(vmm_io(image, [f"read -q -P 5 0 {MiB}", f"read -q -P 6 {4 * MiB} 65536",
                                f"write -q -P 7 {6 * MiB} 65536"], "-f", "qcow2"))
    assert "cleanly shut down" not in vmm_img("info", image)[1]
    qemu_img("check", image)


def test_autoclear(tmp_path):
    """Opening for writing takes back the claims that nobody here keeps up to date; reading does not.
    Bitmaps are kept (test_bitmap.py)."""
    image = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 4 * MiB)
    qemu_img("bitmap", "--add", image, "b0")
    with open(image, "r+b") as f:
        f.seek(88)
        f.write((0x81).to_bytes(8, "big"))
    assert_quiet(vmm_io(image, ["read -q -P 0 0 4096"], "-r"))
    assert image.read_bytes()[88:96] == (0x81).to_bytes(8, "big")
    assert_quiet(vmm_io(image, ["write -q -P 1 0 4096"], "-f", "qcow2"))
    assert image.read_bytes()[88:96] == (1).to_bytes(8, "big")


def test_corrupt_bit(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, MiB)
    data = bytearray(image.read_bytes())
    data[79] = 2
    image.write_bytes(data)
    code, _, err = vmm_io(image, ["read 0 512"], ok=False)
    assert code == 1 and "Image is corrupt; cannot be opened read/write" in err
    assert_quiet(vmm_io(image, ["read -q -P 0 0 512"], "-r"))
    vmm_img("check", "-r", "all", image)
    assert_quiet(vmm_io(image, ["write -q -P 1 0 512"]))


def test_unknown_features_are_refused_by_name(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, MiB)
    data = bytearray(image.read_bytes())
    for bit, name in [(5, "feature: 20"), (17, "feature: 20000")]:
        data[72:80] = (1 << bit).to_bytes(8, "big")
        image.write_bytes(data)
        code, _, err = vmm_img("info", image, ok=False)
        assert code == 1 and name in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("damage", ["refcount_low", "refcount_high", "no_block", "copied"])
def test_check_and_repair(tmp_path, damage):
    image = tmp_path / "a.qcow2"
    model = Model(4 * MiB, seed=20)
    vmm_img("create", "-q", "-f", "qcow2", image, model.size)
    assert_quiet(vmm_io(image, model.commands(40, discards=False), "-f", "qcow2"))
    data = bytearray(image.read_bytes())
    block = int.from_bytes(data[65536:65544], "big")
    if damage == "refcount_low":
        data[block + 12:block + 14] = bytes(2)
    elif damage == "refcount_high":
        n = (len(data) + 65535) // 65536  # one more cluster, which nobody uses
        data += bytes((n + 1) * 65536 - len(data))
        data[block + 2 * n:block + 2 * n + 2] = b"\0\5"
    elif damage == "no_block":
        data[65536:65544] = bytes(8)
    else:
        l1 = int.from_bytes(data[40:48], "big")
        data[l1] &= 0x7f
    image.write_bytes(data)
    theirs = shutil.copy(image, tmp_path / "theirs.qcow2")
    code, out, err = vmm_img("check", image, ok=False)
    assert code == qemu_img("check", theirs, ok=False)[0]
    assert code == (3 if damage == "refcount_high" else 2)
    assert vmm_img("check", "-r", "leaks", image, ok=False)[0] in (0, 2)
    vmm_img("check", "-r", "all", image)
    if damage == "refcount_high":
        assert vmm_io(image, ["read -q 0 512"])[0] == 0
    assert_same(image, model, tmp_path)


def test_kill_leaves_leaks_at_most(tmp_path):
    """SIGKILL while writing: what was flushed is there, and the image has leaks at most."""
    image = tmp_path / "a.qcow2"
    size = 64 * MiB
    rng = random.Random(77)
    vmm_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", image, size)
    flushed = {}
    for round_ in range(12):
        p = subprocess.Popen([VMM_IMG, "io", "-f", "qcow2", "-t", rng.choice(["writeback", "none"]),
                              str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        written = {}
        lines = []
        for i in range(rng.randrange(5, 60)):
            block, byte = rng.randrange(size // 4096), rng.randrange(1, 256)
            lines.append(f"write -q -P {byte} {block * 4096} 4096")
            written[block] = byte
        lines += ["flush", "length"]
        p.stdin.write("\n".join(lines) + "\n")
        p.stdin.flush()
        assert p.stdout.readline()  # the flush is done
        flushed.update(written)
        for i in range(200):
            block = rng.randrange(size // 4096)
            if block not in flushed:
                p.stdin.write(f"aio_write -q -P 3 {block * 4096} {rng.choice([512, 4096])}\n")
            if i % 50 == 20:
                p.stdin.write("flush\n")
        p.stdin.flush()
        time.sleep(rng.random() * 0.02)
        p.send_signal(signal.SIGKILL)
        p.wait()
        p.stdin.close()
        p.stdout.close()
        assert vmm_img("check", image, ok=False)[0] in (0, 3)
        assert qemu_img("check", image, ok=False)[0] in (0, 3)
        assert_quiet(vmm_io(image, [f"read -q -P {b} {n * 4096} 4096" for n, b in flushed.items()], "-r"))


def test_resize(tmp_path):
    """Across the L1 table's first cluster, with small clusters so that it moves."""
    image = tmp_path / "a.qcow2"
    model = Model(MiB, seed=31)
    vmm_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", image, model.size)
    for size in [3 * MiB, 3 * MiB + 512, 9 * MiB]:
        assert_quiet(vmm_io(image, model.commands(40), "-f", "qcow2"))
        vmm_img("resize", "-q", image, size)
        model.data += bytes(size - model.size)
        model.size = size
        assert_same(image, model, tmp_path)
    code, _, err = vmm_img("resize", image, MiB, ok=False)
    assert code == 1 and "--shrink" in err


def test_resize_hides_a_longer_backing_file(tmp_path):
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"\7" * (2 * MiB))
    vmm_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top, MiB)
    vmm_img("resize", "-q", top, 3 * MiB)
    assert_quiet(vmm_io(top, [f"read -q -P 7 0 {MiB}", f"read -q -P 0 {MiB} {2 * MiB}"], "-r"))


def test_discard_gives_space_back(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 32 * MiB)
    assert_quiet(vmm_io(image, [f"write -q -P 1 0 {16 * MiB}", "flush"], "-f", "qcow2"))
    full = os.stat(image).st_blocks
    assert_quiet(vmm_io(image, [f"discard -q 0 {16 * MiB}", "flush"], "-f", "qcow2", "-d", "ignore"))
    assert os.stat(image).st_blocks == full
    assert_quiet(vmm_io(image, [f"discard -q 0 {16 * MiB}", "flush", f"read -q -P 0 0 {16 * MiB}"],
                        "-f", "qcow2"))  # as in qemu-io, unmap is the default
    assert os.stat(image).st_blocks < full // 8
    vmm_img("check", image)
    qemu_img("check", image)
