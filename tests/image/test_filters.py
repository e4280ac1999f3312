# SPDX-License-Identifier: Apache-2.0
"""Filters above an image: copy-on-read against qemu-io's."""
import json

import pytest

from conftest import Model, needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu
MiB = 1 << 20


def cor_options(path):
    return ("driver=copy-on-read,discard=unmap,file.driver=qcow2,file.file.driver=file,"
            f"file.file.filename={path}")


def chain(tmp_path, size=4 * MiB, cluster="64k"):
    """Two overlays with the same base, half of which is zeroes, and the base's bytes."""
    base = tmp_path / "base.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, size)
    qemu_io(base, [f"write -q -P 7 0 {size // 4}", f"write -q -P 9 {size // 2} {size // 4}"],
            "-f", "qcow2")
    data = bytearray(size)
    data[:size // 4] = b"\7" * (size // 4)
    data[size // 2:size * 3 // 4] = b"\11" * (size // 4)
    for name in "ours.qcow2", "theirs.qcow2":
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", "-b", base, "-F",
                 "qcow2", tmp_path / name)
    return tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2", data


def depths(path):
    """Of each 64 KiB: 0 if they are in the image itself."""
    out = []
    for e in json.loads(qemu_img("map", "--output=json", path)[1]):
        out += [e["depth"]] * (e["length"] // 65536)
    return out


def test_copies_what_qemu_copies(tmp_path):
    ours, theirs, _ = chain(tmp_path)
    # What lies within one cluster, over two, in data, at their edge.
    reads = ["read -q 1000 100", "read -q 130000 2000", "read -q 512k 64k", "read -q 2090000 9000",
             "read -q 3M 200k", "read -q 1048000 2000"]
    vmm_io(cor_options(ours), reads, "--image-opts")
    qemu_io(theirs, reads, "-C", "-f", "qcow2")
    copied = [i for i, depth in enumerate(depths(theirs)) if depth == 0]
    assert copied and [i for i, depth in enumerate(depths(ours)) if depth == 0] == copied
    qemu_img("check", "-q", ours)
    qemu_img("compare", "-q", ours, theirs)
    # A second time nothing is written any more.
    size = ours.stat().st_size
    vmm_io(cor_options(ours), reads, "--image-opts")
    assert ours.stat().st_size == size


@pytest.mark.parametrize("cluster", ["4k", "64k", "1M"])
def test_random_above_a_base(tmp_path, cluster):
    ours, _, data = chain(tmp_path, cluster=cluster)
    model = Model(len(data), 5, data)
    vmm_io(cor_options(ours), model.commands(150, discards=False), "--image-opts")
    raw = tmp_path / "model.raw"
    raw.write_bytes(model.data)
    qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", raw, ours)
    qemu_img("check", "-q", ours)


def test_copy_on_read_as_an_option(tmp_path):
    ours, theirs, _ = chain(tmp_path)
    vmm_io(ours, ["read -q 512k 64k"], "-C", "-f", "qcow2")
    qemu_io(theirs, ["read -q 512k 64k"], "-C", "-f", "qcow2")
    assert depths(ours) == depths(theirs) and 0 in depths(ours)
    assert vmm_img("io", "-c", "abort", ours, ok=False)[0] == -6


def test_refusals(tmp_path):
    ours, _, _ = chain(tmp_path)
    code, _, err = vmm_img("io", "--image-opts", "-r", "-c", "read 0 512", cor_options(ours),
                           ok=False)
    assert code and "read-only" in err
    code, _, err = vmm_img("io", "--image-opts", "-c", "read 0 512",
                           cor_options(ours) + ",bottom=x", ok=False)
    assert code and "bottom" in err
    code, _, err = vmm_img("io", "--image-opts", "-c", "read 0 512",
                           "driver=throttle,throttle-group=g,file.driver=null-co", ok=False)
    assert code and "Throttle group 'g' does not exist" in err
