# SPDX-License-Identifier: Apache-2.0
"""Options of open qcow2 images: lazy refcounts, overlap checks, caches, discards passed on."""
import struct

import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu
CLUSTER = 4096


def options(path, extra):
    return f"driver=qcow2,file.driver=file,file.filename={path},{extra}"


def make(path, *more):
    qemu_img("create", "-q", "-f", "qcow2", "-o", ",".join((f"cluster_size={CLUSTER}",) + more), path, "16M")


@pytest.mark.parametrize("by", ["header", "option"])
def test_lazy_refcounts(tmp_path, by):
    image = tmp_path / "x.qcow2"
    make(image, *(["lazy_refcounts=on"] if by == "header" else []))
    how = options(image, "lazy-refcounts=on" if by == "option" else "discard=unmap")
    # Killed behind a flush: the image is dirty, its refcounts were not written, nothing is lost.
    vmm_io(how, ["write -q -P 7 0 1M", "flush", "sigraise 9"], "--image-opts", ok=False)
    assert "cleanly shut down: no" in qemu_img("info", image)[1]
    assert qemu_img("check", "-q", image, ok=False)[0] == 2
    copy = tmp_path / "copy.qcow2"
    copy.write_bytes(image.read_bytes())
    # Whoever writes next repairs it: qemu, and ours; at its end it is clean.
    qemu_io(copy, ["read -q -P 7 0 1M", "write -q -P 8 1M 4k"], "-f", "qcow2")
    vmm_io(how, ["read -q -P 7 0 1M", "write -q -P 8 1M 4k"], "--image-opts")
    for path in copy, image:
        qemu_img("check", "-q", path)
        vmm_img("check", "-q", path)
        assert "cleanly" not in vmm_img("info", path)[1]
    qemu_img("compare", "-q", copy, image)
    # Snapshots, resizing and amending in between want the refcounts to be right.
    vmm_img("snapshot", "-c", "a", image)
    vmm_io(how, ["write -q -P 9 0 64k", "truncate 20M", "write -q -P 5 19M 4k"], "--image-opts")
    vmm_img("snapshot", "-d", "a", image)
    qemu_img("check", "-q", image)


def corrupt_l2_count(path):
    """The table for the disk's second 2 MiB is counted as free."""
    data = bytearray(path.read_bytes())
    l1 = struct.unpack_from(">Q", data, 40)[0]
    table = struct.unpack_from(">Q", data, l1 + 8)[0] & 0xfffffffffffe00
    block = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 48)[0])[0]
    struct.pack_into(">H", data, block + table // CLUSTER * 2, 0)
    path.write_bytes(data)


def test_overlap_checks(tmp_path):
    image, bad = tmp_path / "x.qcow2", tmp_path / "bad.qcow2"
    make(image)
    qemu_io(image, ["write -q 1M 4k", "write -q 2M 64k"], "-f", "qcow2")
    corrupt_l2_count(image)
    writes = [f"write -q {i * CLUSTER} {CLUSTER}" for i in range(12)]
    for extra, stopped in ("overlap-check=cached", True), ("overlap-check=constant", False), \
                          ("overlap-check=all,overlap-check.active-l2=off", False):
        for io in (vmm_io, qemu_io):
            bad.write_bytes(image.read_bytes())
            out = io(options(bad, extra), writes, "--image-opts", ok=False)
            assert (out[0] != 0) == stopped, (extra, io)
            assert ("corrupt: true" in qemu_img("info", bad)[1]) == stopped
    # Once corrupt it is opened for reading alone.
    bad.write_bytes(image.read_bytes())
    vmm_io(options(bad, "overlap-check=cached"), writes, "--image-opts", ok=False)
    vmm_io(bad, ["read -q 2M 64k"], "-r")
    assert "cannot be opened read/write" in vmm_io(bad, ["read 0 512"], ok=False)[2]


@pytest.mark.parametrize("extra", [
    "overlap-check=most", "overlap-check=none,overlap-check.template=all", "l2-cache-entry-size=1000",
    "l2-cache-entry-size=8k", "cache-size=1M,l2-cache-size=2M",
    "cache-size=1M,l2-cache-size=512k,refcount-cache-size=512k",
])
def test_refusals(tmp_path, extra):
    image = tmp_path / "x.qcow2"
    make(image)
    texts = [io(options(image, extra), ["read 0 512"], "--image-opts", ok=False)[2]
             .split(": ", 2)[2] for io in (vmm_io, qemu_io)]
    assert texts[0] == texts[1]


def test_lazy_needs_version_3(tmp_path):
    image = tmp_path / "x.qcow2"
    make(image, "compat=0.10")
    err = vmm_io(options(image, "lazy-refcounts=on"), ["read 0 512"], "--image-opts", ok=False)[2]
    assert "Lazy refcounts require" in err


@pytest.mark.parametrize("extra,freed", [("pass-discard-request=on", True),
                                         ("pass-discard-request=off", False)])
def test_discards_passed_on(tmp_path, extra, freed):
    image = tmp_path / "x.qcow2"
    make(image)
    vmm_io(options(image, f"discard=unmap,{extra},l2-cache-entry-size=512,cache-clean-interval=1"),
           ["write -q 0 8M", "flush", "discard -q 0 8M", "flush"], "--image-opts")
    assert (image.stat().st_blocks * 512 < 2 << 20) == freed
    qemu_img("check", "-q", image)
