# SPDX-License-Identifier: Apache-2.0
"""vmm-img's subcommands against qemu-img's: output, exit codes, contents."""
import json
import os
import random
import subprocess
import time

import pytest

from conftest import (Model, VMM_IMG, assert_quiet, assert_same, needs_qemu, qemu_img, qemu_io, run,
                      vmm_img, vmm_io)

pytestmark = needs_qemu
MiB = 1 << 20


def holes_and_data(path, size=9 * MiB + 512, seed=1):
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(25):
            f.seek(rng.randrange(size - 100000))
            f.write(rng.randbytes(rng.randrange(1, 100000)))


@pytest.mark.parametrize("source", ["raw", "qcow2", "compressed"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_convert(tmp_path, source, target):
    raw, src, dst = tmp_path / "a.raw", tmp_path / "src", tmp_path / "dst"
    holes_and_data(raw)
    qemu_img("convert", "-f", "raw", "-O", "qcow2" if source != "raw" else "raw",
             *(["-c"] if source == "compressed" else []), raw, src)
    vmm_img("convert", "-f", "raw" if source == "raw" else "qcow2", "-O", target, src, dst)
    qemu_img("compare", "-f", "raw", "-F", target, raw, dst)
    assert vmm_img("compare", "-f", "raw", "-F", target, raw, dst)[1] == "Images are identical.\n"
    if target == "qcow2":
        qemu_img("check", dst)
    assert os.stat(dst).st_blocks <= os.stat(raw).st_blocks * 1.1 + 2000
    # Over something that is not empty.
    holes_and_data(tmp_path / "other.raw", seed=2)
    vmm_img("convert", "-f", "raw", "-O", target, tmp_path / "other.raw", dst)
    vmm_img("convert", "-n", "-f", "raw", "-O", target, raw, dst)
    qemu_img("compare", "-f", "raw", "-F", target, raw, dst)


def test_convert_with_backing(tmp_path):
    base, top, out = tmp_path / "base.qcow2", tmp_path / "top.qcow2", tmp_path / "out.qcow2"
    model = Model(4 * MiB, seed=4)
    vmm_img("create", "-q", "-f", "qcow2", base, model.size)
    assert_quiet(vmm_io(base, model.commands(60)))
    vmm_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    assert_quiet(vmm_io(top, model.commands(30)))
    vmm_img("convert", "-O", "qcow2", "-B", base, "-F", "qcow2", top, out)
    assert_same(out, model, tmp_path)
    vmm_img("convert", "-O", "qcow2", top, out)
    assert "backing file" not in vmm_img("info", out)[1]
    assert_same(out, model, tmp_path)


def test_compare_tells_where(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    holes_and_data(a)
    data = bytearray(a.read_bytes())
    data[5000000] ^= 1
    b.write_bytes(data)
    for argv in [("-f", "raw", "-F", "raw", a, b), ("-q", "-f", "raw", "-F", "raw", a, b)]:
        assert vmm_img("compare", *argv, ok=False)[:2] == qemu_img("compare", *argv, ok=False)[:2]
    with open(b, "wb") as f:
        f.write(a.read_bytes() + bytes(4096))
    argv = ("-f", "raw", "-F", "raw", a, b)
    assert vmm_img("compare", *argv)[0] == qemu_img("compare", *argv)[0] == 0
    assert vmm_img("compare", "-s", *argv, ok=False)[:2] == qemu_img("compare", "-s", *argv, ok=False)[:2]
    assert vmm_img("compare", a, tmp_path / "missing", ok=False)[0] == 2


@pytest.mark.parametrize("options", ["", "compat=0.10", "cluster_size=4096,refcount_bits=1",
                                     "lazy_refcounts=on,compression_type=zstd"])
def test_info_as_qemu(tmp_path, options):
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    vmm_img("create", "-q", base, "3M")
    argv = ["-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw"] + (["-o", options] if options else [])
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    vmm_img("create", *argv, ours)
    qemu_img("create", *argv, theirs)
    for image in [ours, theirs]:
        assert vmm_img("info", image)[1] == qemu_img("info", image)[1]
        assert json.loads(vmm_img("info", "--output=json", image)[1]) == \
            json.loads(qemu_img("info", "--output=json", image)[1])
    qemu_img("check", ours)
    a, b = (json.loads(qemu_img("info", "--output=json", i)[1]) for i in [ours, theirs])
    for key in ["virtual-size", "format-specific", "cluster-size", "backing-filename"]:
        assert a[key] == b[key]


def test_map_as_qemu(tmp_path):
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    model = Model(4 * MiB, seed=4)
    qemu_img("create", "-q", "-f", "qcow2", base, model.size)
    assert_quiet(vmm_io(base, model.commands(20)))
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    assert_quiet(vmm_io(top, model.commands(10)))
    assert json.loads(vmm_img("map", "--output=json", top)[1]) == \
        json.loads(qemu_img("map", "--output=json", top)[1])
    assert vmm_img("map", top)[1] == qemu_img("map", top)[1]


def test_check_as_qemu(tmp_path):
    image = tmp_path / "a.qcow2"
    model = Model(4 * MiB, seed=4)
    qemu_img("create", "-q", "-f", "qcow2", image, model.size)
    assert_quiet(vmm_io(image, model.commands(50)))
    assert vmm_img("check", image) == qemu_img("check", image)
    assert json.loads(vmm_img("check", "--output=json", image)[1]) == \
        json.loads(qemu_img("check", "--output=json", image)[1])
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(512))
    assert vmm_img("check", "-f", "raw", raw, ok=False)[0] == \
        qemu_img("check", "-f", "raw", raw, ok=False)[0] == 63


def test_mistakes_are_one_line(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    for argv in [("frobnicate",), ("info", tmp_path / "missing"), ("create", "-f", "qcow2", image),
                 ("create", "-f", "qcow2", "-o", "cluster_size=1000", tmp_path / "b", "1M"),
                 ("create", "-f", "qcow2", "-o", "nonsense=1", tmp_path / "b", "1M"),
                 ("create", "-f", "parallels", tmp_path / "b", "1M"),
                 ("create", tmp_path / "b", "lots"),
                 ("io", "-f", "qcow9", "-c", "read 0 512", image),
                 ("io", "-i", "native", "-c", "read 0 512", image),
                 ("io", "--image-opts", "driver=qcow2,file.filename=" + str(image) + ",bogus=1"),
                 ("io", "nbd:localhost:1")]:
        code, out, err = vmm_img(*argv, ok=False)
        assert code == 1 and len(err.strip().splitlines()) == 1, (argv, out, err)
    assert "it requires cache.direct=on, which was not specified" in \
        vmm_img("io", "-i", "native", "-c", "read 0 512", image, ok=False)[2]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_locks_exclude_each_other(tmp_path, fmt):
    """qemu-io and ours, each as the holder and as the one who comes later."""
    image = tmp_path / "a"
    vmm_img("create", "-q", "-f", fmt, image, "1M")
    for holder in [VMM_IMG + " io", "qemu-io"]:
        p = subprocess.Popen(holder.split() + ["-f", fmt, str(image)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p.stdin.write("read -q 0 512\nlength\n")
        p.stdin.flush()
        if "vmm" in holder:
            assert p.stdout.readline()
        else:
            time.sleep(0.3)
        code, _, err = vmm_io(image, ["read 0 512"], "-f", fmt, ok=False)
        assert code == 1 or (fmt == "raw" and "qemu" in holder)  # qemu-io shares a raw file
        if code:
            assert 'Failed to get "write" lock' in err or 'Failed to get shared "write" lock' in err
            assert f"s another process using the image [{image}]?" in err
        if "vmm" in holder:
            code, _, err = qemu_io(image, ["write 0 512"], "-f", fmt, ok=False)
            assert code == 1 and 'Failed to get "write" lock' in err
            assert vmm_img("info", image, ok=False)[0] == 1
            assert vmm_img("create", "-q", "-f", fmt, image, "1M", ok=False)[0] == 1
        vmm_img("info", "-U", image)
        p.stdin.write("quit\n")
        p.stdin.close()
        p.wait()
        p.stdout.close()
        p.stderr.close()
    assert_quiet(vmm_io(image, ["write -q 0 512"], "-f", fmt))


def test_two_readers_share(tmp_path):
    image = tmp_path / "a"
    vmm_img("create", "-q", "-f", "qcow2", image, "1M")
    p = subprocess.Popen([VMM_IMG, "io", "-r", "-f", "qcow2", str(image)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    p.stdin.write("length\n")
    p.stdin.flush()
    assert p.stdout.readline()
    assert_quiet(vmm_io(image, ["read -q 0 512"], "-r", "-f", "qcow2"))
    vmm_img("info", image)
    assert vmm_io(image, ["read -q 0 512"], "-f", "qcow2", ok=False)[0] == 1
    p.communicate("quit\n")


def test_guessed_raw_guards_its_first_sector(tmp_path):
    """As QEMU: what would make the next probe find another format is refused."""
    image = tmp_path / "a.raw"
    image.write_bytes(bytes(MiB))
    vmm_img("create", "-q", "-f", "qcow2", tmp_path / "b", "1M")
    magic = (tmp_path / "b").read_bytes()[:512]
    code, out, err = vmm_io(image, ["write -q -P 1 0 512", "write -q -P 2 4096 512"])
    assert "probing guessed raw" in err
    # Byte by byte is no way in either.
    commands = [f"write -q -P {b} {i} 1" for i, b in enumerate(magic[:8])]
    code, out, err = vmm_io(image, ["write -q -z 0 512"] + commands, ok=False)
    assert code == 1 and "write failed: Operation not permitted" in out
    assert image.read_bytes()[:8] != magic[:8]
    assert_quiet(vmm_io(image, commands, "-f", "raw"))
    assert image.read_bytes()[:8] == magic[:8]


def test_snapshot_and_drive_keys(tmp_path):
    """raw's offset and size, nested keys, unaligned ends."""
    image = tmp_path / "a.raw"
    image.write_bytes(b"\1" * 4096 + b"\2" * 8192 + b"\3" * 4096)
    spec = f"driver=raw,offset=4096,size=8192,file.driver=file,file.filename={image}"
    assert_quiet(vmm_img("io", "--image-opts", spec, "-c", "read -q -P 2 0 8192",
                         "-c", "write -q -P 9 0 512"))
    assert vmm_img("io", "--image-opts", spec, "-c", "read 4096 8192", ok=False)[0] == 1
    assert image.read_bytes()[4096:4608] == b"\x09" * 512
    odd = tmp_path / "odd.raw"
    odd.write_bytes(b"\5" * 1000)
    assert_quiet(vmm_io(odd, ["read -q -P 5 0 1000", "read -q -P 0 1000 24"], "-r", "-f", "raw"))
    assert_quiet(vmm_io(odd, ["read -q -P 5 0 1000", "read -q -P 0 1000 24"], "-n", "-f", "raw"))


@pytest.mark.parametrize("engine", ["threads", "native", "io_uring"])
def test_direct_takes_any_alignment(tmp_path, engine):
    image = tmp_path / "a.raw"
    model = Model(MiB + 512, seed=6)
    image.write_bytes(bytes(model.size))
    commands = []
    for i in range(60):
        at, n = model.random.randrange(model.size - 9000), model.random.randrange(1, 9000)
        byte = model.random.randrange(1, 256)
        commands.append(f"aio_write -q -P {byte} {at} {n}")
        commands.append("aio_flush" if i % 3 == 0 else f"read -q {at // 2} 777")
        if i % 3:
            commands.append("aio_flush")
        model.fill(at, n, byte)
    assert_quiet(vmm_io(image, commands, "-n", "-i", engine, "-f", "raw"))
    assert_same(image, model, tmp_path, fmt="raw")


def test_neighbours_under_direct_do_not_lose(tmp_path):
    """Writes to the sectors of one block, all in flight at once."""
    image = tmp_path / "a.raw"
    image.write_bytes(bytes(MiB))
    commands = [f"aio_write -q -P {1 + i % 250} {i * 100} 100" for i in range(2000)] + ["aio_flush"]
    commands += [f"read -q -P {1 + i % 250} {i * 100} 100" for i in range(2000)]
    assert_quiet(vmm_io(image, commands, "-n", "-f", "raw"))
