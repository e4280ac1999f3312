# SPDX-License-Identifier: Apache-2.0
"""check and info of the formats that are not ours: what qemu-img says, of good images and bad."""
import json
import shutil
import struct

import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img
from test_formats import MiB, crc32c, vhdx_log_entry

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


def repair(image, mode, *options):
    """Both, on an image each: exit code, output, and the repaired bytes."""
    theirs = image.with_name(image.name + ".theirs")
    shutil.copy(image, theirs)
    out = []
    for img, path in (vmm_img, image), (qemu_img, theirs):
        code, text, err = img("check", "-r", mode, *options, path, ok=False)
        out.append((code, text.replace(str(path), "X"), err.replace("qemu-img: ", "vmm-img: ")))
    return out + [image.read_bytes() == theirs.read_bytes()]


def same_repair(image, mode, code):
    """... which leave the same behind, and say the same; what is left is nothing to repair."""
    ours, theirs, same = repair(image, mode)
    assert ours == theirs and ours[0] == code and same
    ours, theirs, same = repair(image, mode, "--output=json")
    assert ours[0] == theirs[0] == code and json.loads(ours[1]) == json.loads(theirs[1])
    qemu_img("check", "-q", image, ok=code == 0)


@pytest.mark.parametrize("mode", ["leaks", "all"])
@pytest.mark.parametrize("fmt", ["qed", "parallels", "vhdx", "vdi", "vmdk", "qcow"])
def test_repair_good(tmp_path, fmt, mode):
    image = make(tmp_path / "x", fmt)
    before = image.read_bytes()
    ours, theirs, _ = repair(image, mode)
    assert ours == theirs
    assert fmt == "vhdx" or image.read_bytes() == before  # which has a new identity


@pytest.mark.parametrize("mode", ["leaks", "all"])
def test_repair_qed(tmp_path, mode):
    image = make(tmp_path / "x", "qed")
    table = peek(image, peek(image, 40, "<Q"), "<Q")
    poke(image, 16, "<Q", 2)  # needs a check
    poke(image, table + 8 * 20, "<QQ", 1 << 40, 12345)
    poke(image, peek(image, 40, "<Q") + 8, "<Q", 77)  # beyond the disk: nobody's
    poke(image, peek(image, 40, "<Q") + 8, "<Q", 0)
    ours, theirs, same = repair(image, mode)
    assert same and ours[0] == theirs[0] == 3  # clusters that nothing refers to any more
    assert ours[1] == theirs[1] and "    2 corruptions" in ours[1]
    assert peek(image, 16, "<Q") == 0
    qemu_io(image, ["read -q -P 0xcd 1M 256k", "read -q -P 0 1280k 128k", "read -q -P 0xcd 1408k 1664k"], "-f", "qed")


def test_repair_qed_tables(tmp_path):
    image = tmp_path / "x"
    qemu_img("create", "-q", "-f", "qed", "-o", "cluster_size=4k", image, "32M")
    qemu_io(image, ["write -q 0 64k", "write -q 12M 64k"], "-f", "qed")
    l1 = peek(image, 40, "<Q")
    good = image.read_bytes()
    poke(image, l1 + 8, "<Q", 1 << 50)
    ours, theirs, same = repair(image, "all")
    assert same and ours[:2] == theirs[:2] and ours[0] == 3
    image.write_bytes(good)
    poke(image, l1 + 8, "<Q", peek(image, l1, "<Q"))  # one table for both
    poke(image, peek(image, l1, "<Q") + 8, "<Q", 1 << 40)
    before = image.read_bytes()
    assert vmm_img("check", "-r", "all", image, ok=False)[0] == 2
    assert image.read_bytes() == before  # what is mixed up is left alone


def test_repair_qed_cut_short(tmp_path):
    """What the file still has of its last cluster stays."""
    image = make(tmp_path / "x", "qed")
    image.write_bytes(image.read_bytes()[:-32768])
    assert vmm_img("check", image, ok=False)[0] == qemu_img("check", image, ok=False)[0] == 2
    assert "    1 corruptions" in vmm_img("check", "-r", "all", image)[1]
    qemu_img("check", image)
    qemu_io(image, ["read -q -P 0xcd 1M 2M", "read -q -P 0xcd 5M 32k"], "-f", "qed")


def test_repair_parallels(tmp_path):
    image = make(tmp_path / "x", "parallels")
    good = image.read_bytes()
    image.write_bytes(good + bytes(3 << 20))
    same_repair(image, "leaks", 0)
    image.write_bytes(good)
    poke(image, 64 + 4 * 7, "<I", 1 << 30)
    before = image.read_bytes()
    assert vmm_img("check", "-r", "leaks", image, ok=False)[0] == 2 and image.read_bytes() == before
    same_repair(image, "all", 0)
    image.write_bytes(good + bytes(100000))
    poke(image, 44, "<I", 0x746f6e59)
    poke(image, 64 + 4 * 7, "<I", 1 << 30)
    ours, theirs, same = repair(image, "all")
    assert ours == theirs and same and ours[0] == 0
    qemu_io(image, ["read -q -P 0xcd 1M 2M", "read -q -P 0 7M 1M"], "-f", "parallels")
    # The extension's clusters are not leaked.
    image.write_bytes(good + bytes(2 << 20))
    poke(image, 56, "<Q", len(good) // 512)
    assert vmm_img("check", "-r", "all", image)[0] == 0 and image.stat().st_size == len(good) + (2 << 20)


def test_repair_vhdx_log(tmp_path):
    image = make(tmp_path / "x", "vhdx")
    data, guid, log = bytearray(image.read_bytes()), bytes(range(16)), 1 * MiB
    bat = bytes(data[3 * MiB:3 * MiB + 4096])
    entry = vhdx_log_entry(guid, 77, 0, [(3 * MiB, bat)], len(data))
    data[log:log + len(entry)] = entry
    for header in (0x10000, 0x20000):
        data[header + 48:header + 64] = guid
        data[header + 4:header + 8] = bytes(4)
        struct.pack_into("<I", data, header + 4, crc32c(bytes(data[header:header + 4096])))
    image.write_bytes(data)
    code, _, err = vmm_img("check", image, ok=False)
    assert code == 1 and f"vmm-img check -r all '{image}'" in err
    ours, theirs, _ = repair(image, "all")
    assert ours == theirs and ours[0] == 0 and "    1 corruptions" in ours[1]
