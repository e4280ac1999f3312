# SPDX-License-Identifier: Apache-2.0
"""qcow2's rarer features against qemu-img, both ways: external data files, subclusters, preallocation,
shrinking."""
import json
import os
import random

import pytest

from conftest import (Model, assert_quiet, assert_same, needs_qemu, qemu_img, qemu_io, run, vmm_img,
                      vmm_io)

pytestmark = needs_qemu
MiB = 1 << 20
MAKERS = {"qemu": qemu_img, "vmm": vmm_img}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("raw", ["on", "off"])
@pytest.mark.parametrize("cluster", [4096, 65536])
def test_data_file(tmp_path, maker, raw, cluster):
    image, data = tmp_path / "a.qcow2", tmp_path / "a.data"
    size = 3 * MiB + 1536
    MAKERS[maker]("create", "-q", "-f", "qcow2", "-o",
                  f"data_file={data},data_file_raw={raw},cluster_size={cluster}", image, size)
    model = Model(size, seed=cluster)
    for turn in range(2):
        discards = turn > 0  # which end as zeroes here: the file gets holes
        assert_quiet(vmm_io(image, model.commands(120, discards), "-f", "qcow2", "-d", "unmap"))
        assert_same(image, model, tmp_path)
        at, length = model.span()
        qemu_io(image, [f"write -q -P 99 {at} {length}"], "-f", "qcow2")
        model.fill(at, length, 99)
        if raw == "on":
            assert data.read_bytes()[:size] == bytes(model.data)
    info = {tool: json.loads(t("info", "--output=json", image)[1])["format-specific"]
            for tool, t in MAKERS.items()}
    assert info["vmm"] == info["qemu"]
    vmm_img("resize", "-q", image, size + MiB)
    model.data += bytes(MiB)
    model.size += MiB
    assert_quiet(vmm_io(image, model.commands(60), "-f", "qcow2"))
    assert_same(image, model, tmp_path)


def test_data_file_is_left_alone(tmp_path):
    """info and check open no file that the image names; nothing but a file's name is taken."""
    image, data = tmp_path / "a.qcow2", tmp_path / "a.data"
    vmm_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, MiB)
    os.unlink(data)
    assert f"data file: {data}" in vmm_img("info", image)[1]
    vmm_img("check", image)
    code, _, err = vmm_img("map", image, ok=False)
    assert code == 1 and "No such file or directory" in err
    evil = image.read_bytes().replace(str(data).encode(), b"json:{}".ljust(len(str(data)), b" "))
    image.write_bytes(evil)
    code, _, err = vmm_img("map", image, ok=False)
    assert code == 1 and "not a file's name" in err and err.count("\n") == 1
    assert "json:{}" in vmm_img("info", image)[1]


def test_data_file_by_option(tmp_path):
    image, data, moved = tmp_path / "a.qcow2", tmp_path / "a.data", tmp_path / "b.data"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, MiB)
    os.rename(data, moved)
    opts = f"driver=qcow2,file.driver=file,file.filename={image},data-file.filename={moved}"
    assert_quiet(vmm_img("io", "--image-opts", "-c", "write -q -P 5 0 64k", opts))
    code, _, err = vmm_img("io", "--image-opts", "-c", "read -q 0 1",
                           f"driver=qcow2,file.driver=file,file.filename={image}", ok=False)
    assert code == 1 and "a.data" in err
    os.rename(moved, data)
    qemu_io(image, ["read -q -P 5 0 64k"])
    plain = tmp_path / "p.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", plain, MiB)
    code, _, err = vmm_img("io", "--image-opts", "-c", "read -q 0 1",
                           opts.replace(str(image), str(plain)).replace(str(moved), str(data)), ok=False)
    assert code == 1 and "data-file" in err


@pytest.mark.parametrize("options,message", [
    ("data_file_raw=on", "data-file-raw requires data-file"),
    ("compat=0.10,data_file=x", "External data files are only supported"),
])
def test_data_file_refused(tmp_path, options, message):
    for tool in MAKERS.values():
        code, _, err = tool("create", "-q", "-f", "qcow2", "-o", options, tmp_path / "a.qcow2", MiB,
                            ok=False)
        assert code == 1 and message in err


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("cluster,bits,compat", [(65536, 16, "1.1"), (512, 64, "1.1"), (4096, 16, "0.10")])
def test_preallocation(tmp_path, mode, cluster, bits, compat):
    image = tmp_path / "a.qcow2"
    size = 2 * MiB + 512
    vmm_img("create", "-q", "-f", "qcow2", "-o",
            f"preallocation={mode},cluster_size={cluster},refcount_bits={bits},compat={compat}", image,
            size)
    model = Model(size, seed=1)
    assert_same(image, model, tmp_path)
    assert json.loads(qemu_img("check", "--output=json", image)[1])["allocated-clusters"] == \
        -(-size // cluster)
    used = image.stat().st_blocks * 512
    assert used >= size if mode != "metadata" else used < MiB
    before = image.stat().st_size
    assert_quiet(vmm_io(image, [f"write -q -P 9 0 {size}"]))
    assert image.stat().st_size == before
    model.fill(0, size, 9)
    assert_same(image, model, tmp_path)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("cluster,backing", [(16384, True), (65536, False)])
def test_subclusters(tmp_path, maker, cluster, backing):
    """Extended L2 entries, written by both in turn, with snapshots' and backing files' data below."""
    base, image = tmp_path / "base.qcow2", tmp_path / "a.qcow2"
    size = 4 * MiB + 1536
    model = Model(size, seed=cluster)
    args = []
    if backing:
        qemu_img("create", "-q", "-f", "qcow2", base, size - MiB)
        below = Model(size - MiB, seed=2)
        assert_quiet(vmm_io(base, below.commands(80), "-f", "qcow2"))
        model.data[:below.size] = below.data
        args = ["-b", base, "-F", "qcow2"]
    MAKERS[maker]("create", "-q", "-f", "qcow2", "-o", f"extended_l2=on,cluster_size={cluster}", *args,
                  image, size)
    for turn in range(3):
        assert_quiet(vmm_io(image, model.commands(100), "-f", "qcow2"))
        assert_same(image, model, tmp_path)
        commands = []
        for _ in range(6):
            at, length = model.span(20000)
            zero = model.random.random() < 0.4
            commands.append(f"write -q {'-z -u' if zero else '-P 77'} {at} {length}")
            model.fill(at, length, 0 if zero else 77)
        qemu_io(image, commands, "-f", "qcow2")
        if turn == 1:
            kept = bytes(model.data)
            qemu_img("snapshot", "-c", "s", image)
        assert_same(image, model, tmp_path)
    qemu_img("convert", "-l", "snapshot.name=s", "-O", "raw", image, tmp_path / "s.raw")
    assert (tmp_path / "s.raw").read_bytes() == kept
    info = {tool: json.loads(t("info", "--output=json", image)[1])["format-specific"]
            for tool, t in MAKERS.items()}
    assert info["vmm"] == info["qemu"] and info["vmm"]["data"]["extended-l2"]


def test_subclusters_copy_little(tmp_path):
    """A small write to an overlay allocates one subcluster."""
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    base.write_bytes(b"\x11" * MiB)
    vmm_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", image)
    assert_quiet(vmm_io(image, ["write -q -P 5 70000 10"]))
    own = [e for e in json.loads(qemu_img("map", "--output=json", image)[1]) if e["depth"] == 0]
    assert [(e["start"], e["length"]) for e in own] == [(69632, 2048)]
    assert json.loads(vmm_img("map", "--output=json", image)[1])[1]["length"] == 2048


def test_subclusters_compressed(tmp_path):
    raw, image = tmp_path / "a.raw", tmp_path / "a.qcow2"
    model = Model(2 * MiB, seed=4)
    model.fill(1000, MiB, 3)
    raw.write_bytes(model.data)
    qemu_img("convert", "-c", "-O", "qcow2", "-o", "extended_l2=on", raw, image)
    assert_same(image, model, tmp_path)
    assert_quiet(vmm_io(image, model.commands(80)))
    assert_same(image, model, tmp_path)
    mine = tmp_path / "b.qcow2"
    vmm_img("convert", "-c", "-O", "qcow2", "-o", "extended_l2=on", image, mine)
    assert_same(mine, model, tmp_path)


@pytest.mark.parametrize("mode", ["metadata", "falloc"])
def test_subclusters_preallocated(tmp_path, mode):
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    base.write_bytes(b"\x11" * MiB)
    vmm_img("create", "-q", "-f", "qcow2", "-o", f"extended_l2=on,preallocation={mode}", "-b", base, "-F",
            "raw", image, 2 * MiB)
    model = Model(2 * MiB, seed=1)
    model.fill(0, MiB, 0x11)
    assert_same(image, model, tmp_path)
    assert_quiet(vmm_io(image, model.commands(60)))
    assert_same(image, model, tmp_path)


@pytest.mark.parametrize("options,backing", [(o, b) for b in [False, True]
                                             for o in ["cluster_size=512", "cluster_size=65536", "compat=0.10",
                                                       "extended_l2=on"] if not b or "compat" not in o])
def test_shrink(tmp_path, options, backing):
    """Smaller and larger again: what was cut off is zero, what snapshots hold stays."""
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    size, small = 3 * MiB, MiB + 700 * 512
    args = []
    model = Model(size, seed=3)
    if backing:
        base.write_bytes(b"\x11" * size)
        model.fill(0, size, 0x11)
        args = ["-b", base, "-F", "raw"]
    vmm_img("create", "-q", "-f", "qcow2", "-o", options, *args, image, size)
    assert_quiet(vmm_io(image, model.commands(80)))
    kept = bytes(model.data)
    snapshots = "compat" not in options
    if snapshots:
        qemu_img("snapshot", "-c", "s", image)
        assert_quiet(vmm_io(image, model.commands(30)))
    code, _, err = vmm_img("resize", "-q", image, small, ok=False)
    assert code == 1 and "--shrink" in err
    vmm_img("resize", "-q", "--shrink", image, small)
    model.data, model.size = model.data[:small], small
    assert_same(image, model, tmp_path)
    vmm_img("resize", "-q", image, size)
    model.data, model.size = model.data + bytes(size - small), size
    assert_same(image, model, tmp_path)
    assert_quiet(vmm_io(image, model.commands(30)))
    assert_same(image, model, tmp_path)
    if snapshots:
        qemu_img("snapshot", "-a", "s", image)
        model.data = bytearray(kept)
        assert_same(image, model, tmp_path)


def test_shrink_without_zero_clusters(tmp_path):
    """Version 2 over a backing file: growing again would show what the backing file has there."""
    base, image = tmp_path / "base.raw", tmp_path / "a.qcow2"
    base.write_bytes(b"\x11" * MiB)
    vmm_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", base, "-F", "raw", image, MiB)
    before = image.read_bytes()
    code, _, err = vmm_img("resize", "--shrink", image, 65536, ok=False)
    assert code == 1 and "shrink a v2 image with a backing file" in err
    assert image.read_bytes() == before


def test_shrink_data_file(tmp_path):
    image, data = tmp_path / "a.qcow2", tmp_path / "a.data"
    vmm_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", image, MiB)
    assert_quiet(vmm_io(image, [f"write -q -P 3 0 {MiB}"]))
    vmm_img("resize", "-q", "--shrink", image, 300000 // 512 * 512)
    assert data.read_bytes() == b"\x03" * (300000 // 512 * 512)
    vmm_img("resize", "-q", image, MiB)
    model = Model(MiB, seed=1)
    model.fill(0, 300000 // 512 * 512, 3)
    assert_same(image, model, tmp_path)
    assert data.read_bytes() == bytes(model.data)


def test_bitmaps_are_counted(tmp_path):
    """check knows persistent bitmaps; whoever writes makes them invalid, as the format has it."""
    image = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    for name in ("one", "two"):
        qemu_img("bitmap", "--add", image, name)
    qemu_io(image, ["write -q -P 1 0 3M"])
    for tool in (qemu_img, vmm_img):
        tool("check", image)
    damaged = bytearray(image.read_bytes())
    at = damaged.index(b"\x23\x85\x28\x75") + 8 + 16  # the directory's place
    damaged[at:at + 8] = (1 << 40).to_bytes(8, "big")
    (tmp_path / "b.qcow2").write_bytes(damaged)
    code, _, err = vmm_img("check", tmp_path / "b.qcow2", ok=False)
    assert code == 2 and "bitmap directory" in err
    assert_quiet(vmm_io(image, ["write -q -P 2 1M 1M"]))
    vmm_img("check", "-r", "leaks", image)
    qemu_img("check", image)
    qemu_io(image, ["read -q -P 1 0 1M", "read -q -P 2 1M 1M", "read -q -P 1 2M 1M"])
