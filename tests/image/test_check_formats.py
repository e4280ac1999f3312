# SPDX-License-Identifier: Apache-2.0
"""check and info of the formats that are not ours: what qemu-img says, of good images and bad."""
import json
import struct

import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img

pytestmark = needs_qemu
FORMATS = ["vdi", "vhdx", "vmdk", "vpc", "qed", "qcow", "parallels"]


def make(path, fmt, *more):
    qemu_img("create", "-q", "-f", fmt, *more, path, "8M")
    qemu_io(path, ["write -q 1M 2M", "write -q 5M 64k"], "-f", fmt)
    return path


def same_json(command, path):
    ours, theirs = vmm_img(command, "--output=json", path, ok=False), \
        qemu_img(command, "--output=json", path, ok=False)
    assert ours[0] == theirs[0]
    if theirs[1]:
        assert json.loads(ours[1]) == json.loads(theirs[1])


@pytest.mark.parametrize("fmt", FORMATS)
def test_good_images(tmp_path, fmt):
    image = make(tmp_path / "x", fmt)
    same_json("check", image)
    same_json("info", image)
    for command in "check", "info":
        assert vmm_img(command, image, ok=False)[1] == qemu_img(command, image, ok=False)[1]


@pytest.mark.parametrize("sub", ["monolithicFlat", "twoGbMaxExtentFlat", "streamOptimized"])
def test_vmdk_kinds(tmp_path, sub):
    raw, image = tmp_path / "x.raw", tmp_path / "x.vmdk"
    raw.write_bytes(b"\1" * (1 << 20))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={sub}", raw, image)
    same_json("check", image)
    ours, theirs = (json.loads(img("info", "--output=json", image)[1])["format-specific"]
                    for img in (vmm_img, qemu_img))
    assert ours == theirs


def poke(path, at, fmt, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into(fmt, data, at, *values)
    path.write_bytes(data)


def peek(path, at, fmt):
    return struct.unpack_from(fmt, path.read_bytes(), at)[0]


def both(image):
    """The exit codes, and what was counted."""
    out = []
    for img in (vmm_img, qemu_img):
        code, text, _ = img("check", "--output=json", image, ok=False)
        o = json.loads(text)
        out.append((code, o.get("corruptions", 0), o.get("leaks", 0)))
    return out


def test_bad_vdi(tmp_path):
    image = make(tmp_path / "x", "vdi")
    table = peek(image, 0x154, "<I")
    poke(image, table + 8, "<I", 0)  # the block that another entry has
    assert both(image) == [(2, 1, 0)] * 2
    poke(image, table + 8, "<I", 1000)  # behind the file's end
    ours, theirs = both(image)
    assert ours[0] == theirs[0] == 2
    image = make(tmp_path / "y", "vdi")
    poke(image, 0x184, "<I", 9)
    assert both(image)[0] == (2, 1, 0) and vmm_img("check", "-r", "all", image, ok=False)[0] == 63


def test_bad_vmdk(tmp_path):
    image = make(tmp_path / "x", "vmdk")
    gd = peek(image, 0x38, "<Q")
    table = peek(image, gd * 512, "<I")
    poke(image, table * 512 + 4 * 16, "<I", 1 << 30)
    assert vmm_img("check", image, ok=False)[0] == 2  # qemu-img gives up


def test_bad_qed(tmp_path):
    image = make(tmp_path / "x", "qed")
    image.write_bytes(image.read_bytes() + bytes(3 * 65536))
    assert both(image) == [(3, 0, 3)] * 2
    table = peek(image, peek(image, 40, "<Q"), "<Q")
    poke(image, table + 8 * 20, "<Q", 1 << 40)
    ours, theirs = both(image)
    assert ours[0] == theirs[0] == 2 and ours[1] == theirs[1] == 1


def test_bad_parallels(tmp_path):
    image = make(tmp_path / "x", "parallels")
    image.write_bytes(image.read_bytes() + bytes(2 << 20))
    assert both(image) == [(3, 0, 2)] * 2
    poke(image, 64 + 4 * 5, "<I", 1 << 30)
    ours, theirs = both(image)
    assert ours[0] == theirs[0] == 2
    poke(image, 44, "<I", 0x746f6e59)
    assert vmm_img("check", image, ok=False)[0] == 2
