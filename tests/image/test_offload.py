# SPDX-License-Identifier: Apache-2.0
"""convert -C: the host copies what it can, and the rest is copied as without it."""
import random

import pytest

from conftest import needs_qemu, qemu_img, vmm_img

pytestmark = needs_qemu


@pytest.fixture
def source(tmp_path):
    raw = tmp_path / "src.raw"
    noise = random.Random(5).randbytes(1 << 20)
    with open(raw, "wb") as f:
        f.write(noise)
        f.seek(5 << 20)
        f.write(noise[:300000])
        f.truncate((8 << 20) + 512)
    return raw


@pytest.mark.parametrize("options", [["qcow2"], ["qcow2", "-c"], ["vdi"], ["raw"]])
def test_sources(tmp_path, source, options):
    src, dst = tmp_path / "src", tmp_path / "dst.raw"
    qemu_img("convert", "-f", "raw", "-O", *options, source, src)
    vmm_img("convert", "-C", "-f", options[0], "-O", "raw", src, dst)
    qemu_img("compare", "-q", "-f", options[0], "-F", "raw", src, dst)
    assert dst.stat().st_size == (8 << 20) + 512
    assert dst.stat().st_blocks * 512 < 3 << 20
    # Over something that is there already.
    dst.write_bytes(b"\xee" * ((8 << 20) + 512))
    vmm_img("convert", "-C", "-n", "-f", options[0], "-O", "raw", src, dst)
    qemu_img("compare", "-q", "-f", options[0], "-F", "raw", src, dst)


def test_chain_and_other_targets(tmp_path, source):
    top, dst = tmp_path / "top.qcow2", tmp_path / "dst"
    qemu_img("create", "-q", "-f", "qcow2", "-b", source, "-F", "raw", top)
    vmm_img("io", "-c", "write -q -P 7 1000k 100k", top)
    for fmt in "raw", "qcow2":
        vmm_img("convert", "-C", "-O", fmt, top, dst)
        qemu_img("compare", "-q", "-F", fmt, top, dst)
    # A part of a larger file.
    area = tmp_path / "area"
    area.write_bytes(bytes(10 << 20))
    vmm_img("convert", "-C", "-n", "--target-image-opts", top,
            f"driver=raw,offset=1048576,size={(8 << 20) + 512},file.driver=file,file.filename={area}")
    assert area.read_bytes()[1 << 20:(9 << 20) + 512] == dst_bytes(tmp_path, top)
    assert not any(area.read_bytes()[:1 << 20])


def dst_bytes(tmp_path, image):
    raw = tmp_path / "plain"
    qemu_img("convert", "-O", "raw", image, raw)
    return raw.read_bytes()


@pytest.mark.parametrize("option", [["-S", "4k"], ["-c"], ["--salvage"]])
def test_refusals(tmp_path, option):
    ours, theirs = (img("convert", "-C", *option, "a", "b", ok=False) for img in (vmm_img, qemu_img))
    assert ours[0] == 1 and ours[2] == theirs[2].replace("qemu-img", "vmm-img")
