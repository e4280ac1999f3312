# SPDX-License-Identifier: Apache-2.0
"""Foreign image formats, in both directions: made and written by qemu-img and qemu-io, read by ours;
made and written by ours, compared and checked by theirs."""
import base64
import bz2
import shutil
import struct
import zlib

import pytest

from conftest import Model, assert_quiet, needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu
MiB = 1 << 20

WRITABLE = [
    ("vdi", ""), ("vdi", "static=on"),
    ("vpc", ""), ("vpc", "force_size=on"), ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", ""), ("vhdx", "block_size=1M,log_size=2M"), ("vhdx", "subformat=fixed"),
    ("vhdx", "block_state_zero=off"),
    ("vmdk", ""), ("vmdk", "zeroed_grain=on"), ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"), ("vmdk", "subformat=twoGbMaxExtentFlat"),
]
CHECKED = {"vdi", "vhdx", "vmdk"}  # qemu-img check knows them


def ident(value):
    return value.replace(",", "+").replace("=", "-") if isinstance(value, str) else None


def create(tool, fmt, options, image, size):
    tool("create", "-q", "-f", fmt, *(["-o", options] if options else []), image, size)


def length(image, fmt):
    """As both see it, which must be the same."""
    theirs = qemu_img("info", "-f", fmt, image)[1].split("(")[1].split(" bytes")[0]
    ours = vmm_img("info", "-f", fmt, image)[1].split("(")[1].split(" bytes")[0]
    assert theirs == ours
    return int(ours)


def assert_same(image, fmt, model, tmp_path):
    if fmt in CHECKED:
        qemu_img("check", "-f", fmt, image)
    expect = tmp_path / "model.raw"
    model.write(expect)
    qemu_img("compare", "-f", fmt, "-F", "raw", image, expect)
    vmm_img("compare", "-f", fmt, "-F", "raw", image, expect)


@pytest.mark.parametrize("fmt,options", WRITABLE, ids=ident)
@pytest.mark.parametrize("maker", ["qemu", "vmm"])
def test_random_operations(tmp_path, fmt, options, maker):
    """Both write in turn, and both read the same."""
    image = tmp_path / f"a.{fmt}"
    create(qemu_img if maker == "qemu" else vmm_img, fmt, options, image, 9 * MiB + 1536)
    model = Model(length(image, fmt), seed=len(options) + len(fmt))
    assert_same(image, fmt, model, tmp_path)
    assert_quiet(vmm_io(image, model.commands(100), "-f", fmt))
    assert_same(image, fmt, model, tmp_path)
    qemu_io(image, model.commands(30, discards=False), "-f", fmt)
    assert_quiet(vmm_io(image, model.commands(60), "-f", fmt))
    assert_same(image, fmt, model, tmp_path)
    assert_quiet(vmm_io(image, model.reads(0, model.size), "-r", "-f", fmt))


@pytest.mark.parametrize("fmt,options", WRITABLE, ids=ident)
def test_convert(tmp_path, fmt, options):
    raw, image, back = tmp_path / "a.raw", tmp_path / f"a.{fmt}", tmp_path / "back.raw"
    model = Model(7 * MiB, seed=3)
    vmm_img("create", "-q", "-f", "raw", raw, model.size)
    assert_quiet(vmm_io(raw, model.commands(100), "-f", "raw"))
    vmm_img("convert", "-f", "raw", "-O", fmt, *(["-o", options] if options else []), raw, image)
    qemu_img("compare", "-f", "raw", "-F", fmt, raw, image)
    vmm_img("convert", "-f", fmt, "-O", "raw", image, back)
    assert back.read_bytes()[:model.size] == model.data
    assert not any(back.read_bytes()[model.size:])
    image.unlink()
    qemu_img("convert", "-f", "raw", "-O", fmt, *(["-o", options] if options else []), raw, image)
    vmm_img("compare", "-f", "raw", "-F", fmt, raw, image)


@pytest.mark.parametrize("fmt,options", [(f, o) for f, o in WRITABLE if not o], ids=ident)
@pytest.mark.parametrize("cache", ["none", "writethrough", "unsafe"])
def test_cache_modes(tmp_path, fmt, options, cache):
    image = tmp_path / f"a.{fmt}"
    create(vmm_img, fmt, options, image, 5 * MiB)
    model = Model(length(image, fmt), seed=7)
    assert_quiet(vmm_io(image, model.commands(60), "-f", fmt, "-t", cache))
    assert_same(image, fmt, model, tmp_path)


@pytest.mark.parametrize("size,fmt,options",
                         [(s, f, o) for s in [0, 512, 68 * MiB + 512, "130G"] for f, o in WRITABLE
                          if s or not (f in ("vhdx", "vmdk") or "subformat=fixed" in o)], ids=ident)
def test_sizes(tmp_path, fmt, options, size):
    """Rounding to geometries, and maps of several pages."""
    ours, theirs = tmp_path / f"ours.{fmt}", tmp_path / f"theirs.{fmt}"
    create(vmm_img, fmt, options, ours, size)
    create(qemu_img, fmt, options, theirs, size)
    assert length(ours, fmt) == length(theirs, fmt)
    if isinstance(size, int):
        qemu_img("compare", "-f", fmt, "-F", fmt, ours, theirs)


@pytest.mark.parametrize("fmt,options,opens", [
    ("vpc", "subformat=fixed", True), ("vpc", "subformat=fixed,force_size=on", True), ("vhdx", "", True),
    ("vhdx", "block_size=1M,log_size=2M", True), ("vhdx", "subformat=fixed", True), ("vhdx", "block_state_zero=off", True),
    ("vmdk", "", False), ("vmdk", "zeroed_grain=on", False), ("vmdk", "subformat=monolithicFlat", None),
    ("vmdk", "subformat=twoGbMaxExtentSparse", None), ("vmdk", "subformat=twoGbMaxExtentFlat", None)], ids=ident)
def test_empty_of_kinds_qemu_cannot_open(tmp_path, fmt, options, opens):
    """qemu-img fails on them or crashes, or wants room for 2^32 blocks of none. opens: None, not even made."""
    image = tmp_path / "a"
    argv = ["create", "-q", "-f", fmt, *(["-o", options] if options else []), image, 0]
    code, _, err = vmm_img(*argv, ok=False)
    assert code == (opens is None) and ("cannot be empty" in err) == (opens is None)
    if opens is None:
        assert not image.exists()
        return
    code, out, err = vmm_img("info", "-f", fmt, image, ok=False)
    assert code == (not opens) and ("0 B (0 bytes)" in out if opens else "Could not open" in err)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def vhdx_log_entry(guid, sequence, tail, descriptors, file_size, zero_bytes=0):
    """descriptors: (file offset, 4096 bytes or None for zeroes)."""
    head = bytearray(4096)
    body = b""
    for i, (offset, data) in enumerate(descriptors):
        at = 64 + 32 * i
        if data is None:
            struct.pack_into("<4sIQQQ", head, at, b"zero", 0, zero_bytes, offset, sequence)
            continue
        struct.pack_into("<4s4s8sQQ", head, at, b"desc", data[4092:], data[:8], offset, sequence)
        body += struct.pack("<4sI", b"data", sequence >> 32) + data[8:4092] + \
            struct.pack("<I", sequence & 0xffffffff)
    struct.pack_into("<4sIIIQII16sQQ", head, 0, b"loge", 0, 4096 + len(body), tail, sequence,
                     len(descriptors), 0, guid, file_size, file_size)
    entry = head + body
    struct.pack_into("<I", entry, 4, crc32c(bytes(entry)))
    return bytes(entry)


@pytest.mark.parametrize("wrapped", [False, True])
def test_vhdx_log_replay(tmp_path, wrapped):
    """An image whose writer died with its log full: refused for reading, replayed for writing,
    just as QEMU does it. A damaged entry ends the sequence before it."""
    image, theirs = tmp_path / "a.vhdx", tmp_path / "b.vhdx"
    vmm_img("create", "-q", "-f", "vhdx", image, 20 * MiB)
    vmm_io(image, [f"write -q -P 5 0 {MiB}", f"write -q -P 6 {8 * MiB} {MiB}"], "-f", "vhdx")
    data = bytearray(image.read_bytes())
    log, bat = 1 * MiB, 3 * MiB
    guid = bytes(range(16))
    sector = bytearray(data[bat:bat + 4096])
    sector[0:8], sector[8:16] = sector[8:16], sector[0:8]  # the blocks change places
    start = MiB - 8192 if wrapped else 4096
    ring = bytearray(MiB)
    at = start
    for n, descriptors in enumerate([[(bat, bytes(sector))], [(bat + 8192, None)],
                                     [(bat, bytes(4096))]]):
        entry = vhdx_log_entry(guid, (5 << 32) + n, start, descriptors, len(data), 4096)
        if n == 2:
            entry = entry[:-1] + b"x"
        for i in range(0, len(entry), 4096):
            ring[at:at + 4096] = entry[i:i + 4096]
            at = (at + 4096) % MiB
    data[log:log + MiB] = ring
    for header in (0x10000, 0x20000):
        data[header + 48:header + 64] = guid
        data[header + 4:header + 8] = bytes(4)
        struct.pack_into("<I", data, header + 4, crc32c(bytes(data[header:header + 4096])))
    image.write_bytes(data)
    shutil.copy(image, theirs)
    code, _, err = vmm_img("info", image, ok=False)
    assert code == 1 and "contains a log that needs to be replayed" in err
    assert_quiet(vmm_io(image, [f"read -q -P 6 0 {MiB}", f"read -q -P 5 {8 * MiB} {MiB}"], "-f", "vhdx"))
    vmm_img("info", image)
    qemu_img("check", "-f", "vhdx", image)
    if not wrapped:  # QEMU 7.2 drops a sequence that goes over the ring's end
        qemu_img("check", "-f", "vhdx", "-r", "all", theirs)
        qemu_img("compare", "-f", "vhdx", "-F", "vhdx", image, theirs)


def patterned(path, size=5 * MiB + 7 * 512, seed=21):
    """A raw image with data that compresses, zeroes, and some noise."""
    model = Model(size, seed)
    for at in range(0, size, 90000):
        model.fill(at, min(model.random.randrange(100, 90000), size - at), model.random.choice([0, 3, 77]))
    model.data[MiB:MiB + 200000] = model.random.randbytes(200000)
    path.write_bytes(model.data)
    return model


def test_vmdk_stream_optimized(tmp_path):
    raw, image, theirs = tmp_path / "a.raw", tmp_path / "ours.vmdk", tmp_path / "theirs.vmdk"
    patterned(raw)
    options = ["-O", "vmdk", "-o", "subformat=streamOptimized"]
    qemu_img("convert", "-f", "raw", *options, raw, theirs)
    vmm_img("compare", "-f", "raw", "-F", "vmdk", raw, theirs)
    vmm_img("convert", "-f", "raw", *options, raw, image)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, image)
    qemu_img("check", "-f", "vmdk", image)
    vmm_img("compare", "-f", "raw", "-F", "vmdk", raw, image)
    assert image.stat().st_size < 700000
    # A grain is written once.
    code, out, _ = vmm_io(image, ["write -q -P 1 1M 64k"], "-f", "vmdk", ok=False)
    assert "Input/output error" in out


@pytest.mark.parametrize("maker", ["qemu", "vmm"])
def test_vmdk_parent(tmp_path, maker):
    base, top = tmp_path / "base.vmdk", tmp_path / "top.vmdk"
    make = qemu_img if maker == "qemu" else vmm_img
    make("create", "-q", "-f", "vmdk", base, 3 * MiB)
    model = Model(3 * MiB, seed=5)
    assert_quiet(vmm_io(base, model.commands(60), "-f", "vmdk"))
    make("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", top)
    for _ in range(2):
        assert_quiet(vmm_io(top, model.commands(60), "-f", "vmdk"))
        assert_same(top, "vmdk", model, tmp_path)
    assert_quiet(vmm_io(base, ["write -q -P 9 0 64k"], "-f", "vmdk"))
    code, _, err = vmm_img("map", "-f", "vmdk", top, ok=False)
    assert code == 1 and "was changed since" in err


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.raw", "sub/x.raw", "", ".."])
def test_vmdk_extents_stay_beside_the_descriptor(tmp_path, name):
    (tmp_path / "sub").mkdir()
    secret = tmp_path / "sub" / "x.raw"
    secret.write_bytes(b"secret" + bytes(MiB - 6))
    image = tmp_path / "sub" / "a.vmdk" if name.startswith("..") else tmp_path / "a.vmdk"
    image.write_text('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n'
                     f'createType="monolithicFlat"\nRW 8 FLAT "{name}" 0\n')
    assert "4 KiB" in vmm_img("info", image)[1]
    code, _, err = vmm_img("convert", "-O", "raw", image, tmp_path / "out", ok=False)
    assert code == 1 and "does not lie beside the descriptor" in err
    if name == "sub/x.raw":
        vmm_img("convert", "--image-opts", "-O", "raw",
                f"driver=vmdk,extent-paths=on,file.driver=file,file.filename={image}", tmp_path / "out")
        assert (tmp_path / "out").read_bytes()[:6] == b"secret"


READ_ONLY = [("qcow", ""), ("qed", ""), ("qed", "cluster_size=8k,table_size=2"), ("parallels", ""),
             ("parallels", "cluster_size=64k")]


@pytest.mark.parametrize("fmt,options", READ_ONLY, ids=ident)
def test_read_only_formats(tmp_path, fmt, options):
    raw, image, back = tmp_path / "a.raw", tmp_path / "a.img", tmp_path / "back.raw"
    create(qemu_img, fmt, options, image, 6 * MiB)
    model = Model(6 * MiB, seed=31)
    qemu_io(image, model.commands(60, discards=False), "-f", fmt)
    raw.write_bytes(model.data)
    vmm_img("compare", "-F", "raw", image, raw)
    vmm_img("convert", "-f", fmt, "-O", "raw", image, back)
    assert back.read_bytes() == model.data
    assert_quiet(vmm_io(image, model.reads(0, model.size), "-r", "-f", fmt))
    code, _, err = vmm_io(image, ["write 0 512"], "-f", fmt, ok=False)
    assert code == 1 and "can only be read" in err
    code, _, err = vmm_img("create", "-f", fmt, tmp_path / "b", "1M", ok=False)
    assert code == 1 and "does not support image creation" in err


def test_qcow1_compressed(tmp_path):
    """Whole clusters of 4 KiB; QEMU 7.2's convert -c to this format fails."""
    image = tmp_path / "a.qcow"
    qemu_img("create", "-q", "-f", "qcow", image, MiB)
    model = Model(MiB, seed=2)
    commands = []
    for at in range(0, MiB, 8192):
        byte = model.random.randrange(1, 256)
        model.fill(at, 4096, byte)
        commands.append(f"write -q -c -P {byte} {at} 4096")
    qemu_io(image, commands, "-f", "qcow")
    assert_quiet(vmm_io(image, model.reads(0, MiB), "-r", "-f", "qcow"))


@pytest.mark.parametrize("fmt", ["qcow", "qed"])
def test_read_only_backing(tmp_path, fmt):
    base, top, raw = tmp_path / "base.raw", tmp_path / "top.img", tmp_path / "a.raw"
    model = patterned(base, 3 * MiB)
    qemu_img("create", "-q", "-f", fmt, "-b", "base.raw", "-F", "raw", top, 4 * MiB)
    model = Model(4 * MiB, 8, bytes(model.data) + bytes(MiB))
    qemu_io(top, [c for c in model.commands(40, discards=False) if "read" not in c], "-f", fmt)
    raw.write_bytes(model.data)
    vmm_img("compare", "-f", fmt, "-F", "raw", top, raw)


@pytest.mark.parametrize("version", [0x10000, 0x20000])
def test_bochs(tmp_path, version):
    raw, image = tmp_path / "a.raw", tmp_path / "a.bochs"
    model = patterned(raw, 2 * MiB)
    extent, bitmap, catalog = 65536, 512, 40
    size = struct.pack("<Q", model.size) if version == 0x10000 else struct.pack("<IQ", 0, model.size)
    head = struct.pack("<32s16s16sIIIII", b"Bochs Virtual HD Image", b"Redolog", b"Growing", version,
                       512, catalog, bitmap, extent) + size
    entries, body, count = [0xffffffff] * catalog, b"", 0
    for i in reversed(range(model.size // extent)):
        data = bytes(model.data[i * extent:(i + 1) * extent])
        if not any(data):
            continue
        entries[i] = count
        count += 1
        bits = bytearray(bitmap)
        for s in range(extent // 512):
            if any(data[s * 512:s * 512 + 512]):
                bits[s // 8] |= 1 << s % 8
        body += bytes(bits) + data
    image.write_bytes(head.ljust(512, b"\0") + struct.pack(f"<{catalog}I", *entries) + body)
    qemu_img("compare", "-f", "bochs", "-F", "raw", image, raw)
    vmm_img("compare", "-F", "raw", image, raw)


def test_cloop(tmp_path):
    raw, image = tmp_path / "a.raw", tmp_path / "a.cloop"
    block = 40960
    model = patterned(raw, 50 * block)
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    packed = [zlib.compress(model.data[i:i + block]) for i in range(0, model.size, block)]
    at, offsets = 136 + 8 * (len(packed) + 1), []
    for p in packed + [b""]:
        offsets.append(at)
        at += len(p)
    image.write_bytes(script.ljust(128, b"\0") + struct.pack(">II", block, len(packed)) +
                      struct.pack(f">{len(offsets)}Q", *offsets) + b"".join(packed))
    qemu_img("compare", "-f", "cloop", "-F", "raw", image, raw)
    vmm_img("compare", "-F", "raw", image, raw)


def dmg(model, kinds, fork):
    """Chunks of 64 KiB, their kinds in turn; zeroes are zero chunks, or left out."""
    data, chunks, piece = b"", [], 65536
    for n, at in enumerate(range(0, model.size, piece)):
        plain = bytes(model.data[at:at + piece])
        kind = kinds[n % len(kinds)]
        packed = plain
        if not any(plain):
            kind, packed = (0 if n % 2 else 2), b""
        elif kind == 0x80000005:
            packed = zlib.compress(plain)
        elif kind == 0x80000006:
            packed = bz2.compress(plain)
        chunks.append(struct.pack(">IIQQQQ", kind, 0, at // 512, len(plain) // 512, len(data), len(packed)))
        data += packed
    chunks.append(struct.pack(">IIQQQQ", 0xffffffff, 0, model.size // 512, 0, len(data), 0))
    mish = struct.pack(">4sIQQQII", b"mish", 1, 0, model.size // 512, 0, 0, 0).ljust(200, b"\0")
    mish += struct.pack(">I", len(chunks)) + b"".join(chunks)
    if fork:
        table = struct.pack(">IIII", 256, 256 + 4 + len(mish), 4 + len(mish), 0).ljust(256, b"\0")
        table += struct.pack(">I", len(mish)) + mish
    else:
        table = (b"<plist><dict><key>blkx</key><array><dict><data>\n" + base64.encodebytes(mish) +
                 b"</data></dict></array></dict></plist>")
    trailer = bytearray(512)
    trailer[:4] = b"koly"
    struct.pack_into(">QQ", trailer, 0x18, 0, len(data))
    struct.pack_into(">QQ", trailer, 0x28 if fork else 0xd8, len(data), len(table))
    struct.pack_into(">Q", trailer, 0x1ec, model.size // 512)
    return data + table + bytes(trailer)


@pytest.mark.parametrize("fork", [False, True])
def test_dmg(tmp_path, fork):
    raw, image = tmp_path / "a.raw", tmp_path / "a.dmg"
    model = patterned(raw, 2 * MiB + 1024)
    image.write_bytes(dmg(model, [1, 0x80000005], fork))
    qemu_img("compare", "-f", "dmg", "-F", "raw", image, raw)
    vmm_img("compare", "-F", "raw", image, raw)
    image.write_bytes(dmg(model, [1, 0x80000005, 0x80000006], fork))
    vmm_img("compare", "-f", "dmg", "-F", "raw", image, raw)
    image.write_bytes(dmg(model, [0x80000007], fork))
    code, _, err = vmm_img("info", image, ok=False)
    assert code == 1 and "lzfse" in err


def test_vmdk_short_content_id(tmp_path):
    """QEMU writes no leading zeros: a number that replaces it has as many digits."""
    image = tmp_path / "a.vmdk"
    vmm_img("create", "-q", "-f", "vmdk", image, 3 * MiB)
    data = image.read_bytes()
    at = data.index(b"\nCID=") + 5
    image.write_bytes(data[:at] + b"abc\n#xyz" + data[at + 8:])
    assert_quiet(vmm_io(image, ["write -q -P 9 0 64k"], "-f", "vmdk"))
    line = image.read_bytes()[at:at + 8]
    assert line[3:] == b"\n#xyz" and line[:3] != b"abc" and int(line[:3], 16) >= 0
    qemu_img("check", "-f", "vmdk", image)
