# SPDX-License-Identifier: Apache-2.0
"""Persistent bitmaps: made, filled and changed by qemu-img, qemu-io and ours in turn.

The bits are read from the file itself, by the format's document; qemu-nbd tells them once as well.
"""
import json
import random
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

from conftest import VMM_IMG, needs_qemu, qemu_img, qemu_io, run, vmm_img, vmm_io

pytestmark = needs_qemu
KiB, MiB = 1 << 10, 1 << 20
IN_USE, AUTO, EXTRA_COMPATIBLE = 1, 2, 4


def be(data, at, size):
    return int.from_bytes(data[at:at + size], "big")


class Header:
    """The header's extensions."""

    def __init__(self, image):
        with open(image, "rb") as f:
            self.first = f.read(4096)
        self.cluster = 1 << be(self.first, 20, 4)
        self.size = be(self.first, 24, 8)
        self.autoclear = be(self.first, 88, 8)
        self.extensions = {}
        at = be(self.first, 100, 4)
        while be(self.first, at, 4):
            self.extensions[be(self.first, at, 4)] = (at + 8, be(self.first, at + 4, 4))
            at += 8 + (be(self.first, at + 4, 4) + 7) // 8 * 8

    def bitmaps(self):
        return self.extensions.get(0x23852875)


class Stored:
    def __init__(self, f, header, entry, at, offset):
        self.table, self.entries, self.flags, self.type, self.shift, name, extra = \
            struct.unpack(">QIIBBHI", entry[:24])
        self.entry_offset = offset + at
        self.extra = entry[24:24 + extra]
        self.name = entry[24 + extra:24 + extra + name].decode()
        self.bytes = (24 + extra + name + 7) // 8 * 8
        self.bits = -(-header.size // (1 << self.shift))
        self.f, self.header = f, header

    def dirty(self):
        """The numbers of the bits that are set."""
        out, per = set(), self.header.cluster * 8
        self.f.seek(self.table)
        table = self.f.read(self.entries * 8)
        for i in range(self.entries):
            entry = be(table, i * 8, 8)
            if entry == 1:
                out |= set(range(i * per, min((i + 1) * per, self.bits)))
            elif entry:
                self.f.seek(entry)
                value = int.from_bytes(self.f.read(self.header.cluster), "little")
                while value:
                    low = value & -value
                    out.add(i * per + low.bit_length() - 1)
                    value ^= low
        return out


def stored(image):
    """The image's bitmaps, by name."""
    header, out, at = Header(image), {}, 0
    if not header.autoclear & 1 or not header.bitmaps():
        return out
    f = open(image, "rb")
    where = header.bitmaps()[0]
    count, size, offset = be(header.first, where, 4), be(header.first, where + 8, 8), \
        be(header.first, where + 16, 8)
    f.seek(offset)
    directory = f.read(size)
    for _ in range(count):
        b = Stored(f, header, directory[at:], at, offset)
        out[b.name] = b
        at += b.bytes
    assert at == size
    return out


def granules(spans, shift):
    out = set()
    for at, length in spans:
        out |= set(range(at >> shift, (at + length - 1 >> shift) + 1))
    return out


def clean(image):
    qemu_img("check", image)
    vmm_img("check", image)


class Bitmap:
    def __init__(self, shift):
        self.shift, self.dirty, self.enabled = shift, set(), True


class Player:
    """One image, its bitmaps as they should be, and what random tools do to them."""

    def __init__(self, image, size, seed):
        self.image, self.size, self.maps, self.random, self.made = image, size, {}, random.Random(seed), 0

    def tool(self):
        return self.random.choice([qemu_img, vmm_img])

    def write(self):
        spans, commands = [], []
        for _ in range(self.random.randrange(1, 4)):
            length = self.random.choice([512, 4096, 64 * KiB, 300 * KiB])
            at = self.random.randrange(0, (self.size - length) // 512) * 512
            what = self.random.choice(["write -q -P 1", "write -q -z", "write -q -z -u", "discard -q"])
            if what == "discard -q":
                at, length = at // (64 * KiB) * 64 * KiB, 64 * KiB
            spans.append((at, min(length, self.size - at)))
            commands.append(f"{what} {at} {spans[-1][1]}")
        if self.random.random() < 0.5:
            vmm_io(self.image, commands, "-f", "qcow2")
        else:
            qemu_io(self.image, commands, "-f", "qcow2", "-d", "unmap")
        for b in self.maps.values():
            if b.enabled:
                b.dirty |= granules(spans, b.shift)

    def add(self):
        name = f"b{self.made}" + "x" * self.random.choice([0, 3, 200])
        self.made += 1
        b = Bitmap(self.random.choice([9, 12, 16, 20]))
        options = ["--add", "-g", 1 << b.shift]
        if self.random.random() < 0.3:
            options.append("--disable")
            b.enabled = False
        self.tool()("bitmap", *options, self.image, name)
        self.maps[name] = b

    def change(self):
        name = self.random.choice(list(self.maps))
        b, what = self.maps[name], self.random.choice(["clear", "enable", "disable", "merge", "remove"])
        if what == "merge":
            other = self.random.choice(list(self.maps))
            self.tool()("bitmap", "--merge", other, self.image, name)
            o = self.maps[other]
            b.dirty |= granules([(i << o.shift, min(1 << o.shift, self.size - (i << o.shift))) for i in o.dirty],
                                b.shift)
            return
        self.tool()("bitmap", f"--{what}", self.image, name)
        if what == "remove":
            del self.maps[name]
        elif what == "clear":
            b.dirty = set()
        else:
            b.enabled = what == "enable"

    def check(self):
        got = stored(self.image)
        assert list(got) == list(self.maps)
        for name, b in self.maps.items():
            assert got[name].flags == (AUTO if b.enabled else 0)
            assert 1 << got[name].shift == 1 << b.shift
            assert got[name].dirty() == b.dirty, name


@pytest.mark.parametrize("options", ["compat=1.1", "cluster_size=512", "cluster_size=4k,refcount_bits=1",
                                     "extended_l2=on,cluster_size=16k", "cluster_size=2M"])
def test_in_turn(tmp_path, options):
    image, size = tmp_path / "a.qcow2", 5 * MiB + 512
    p = Player(image, size, options)
    p.tool()("create", "-q", "-f", "qcow2", "-o", options, image, size)
    for step in range(14):
        what = p.random.random()
        if what < 0.4:
            p.write()
        elif what < 0.6 and len(p.maps) < 5 or not p.maps:
            p.add()
        else:
            p.change()
        p.check()
        if step % 5 == 4:
            qemu_img("check", image)
    clean(image)


@pytest.mark.skipif(not shutil.which("nbdinfo") or not shutil.which("qemu-nbd"), reason="no nbdinfo")
def test_as_qemu_nbd_tells(tmp_path):
    image, sock = tmp_path / "a.qcow2", tmp_path / "s"
    vmm_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    vmm_img("bitmap", "--add", "-g", "4k", image, "b")
    vmm_io(image, ["write -q 1M 5000", "write -q -z 3M 64k"])
    server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", sock, "-B", "b", image])
    try:
        for _ in range(100):
            if sock.exists():
                break
            time.sleep(0.05)
        text = run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b", f"nbd+unix:///?socket={sock}")[1]
    finally:
        server.terminate()
        server.wait()
    dirty = [(e["offset"], e["length"]) for e in json.loads(text) if e["type"]]
    assert dirty == [(MiB, 8192), (3 * MiB, 64 * KiB)]


def normal(text):
    """What differs between two runs of the same."""
    text = re.sub(r"#block\d+|/[^ ':\n]*", "X", text)
    return re.sub(r"disk size.*\n|\"actual-size.*\n", "", text.replace("qemu-img", "vmm-img"))


def test_told_alike(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    assert normal(vmm_img("info", image)[1]) == normal(qemu_img("info", image)[1])
    vmm_img("bitmap", "--add", image, "one")
    vmm_img("bitmap", "--add", "-g", "2M", "--disable", image, "two")
    human = [normal(t("info", image)[1]) for t in (vmm_img, qemu_img)]
    assert human[0] == human[1] and "granularity: 2097152" in human[0]
    told = [json.loads(t("info", "--output=json", image)[1])["format-specific"] for t in (vmm_img, qemu_img)]
    assert told[0] == told[1]
    for options in ([], ["--output=json"], ["-o", "cluster_size=4k"], ["-o", "compat=0.10"]):
        outs = [t("measure", "-O", "qcow2", *options, image)[1] for t in (vmm_img, qemu_img)]
        assert outs[0] == outs[1], options


def test_refused_alike(tmp_path):
    image, old, raw, large = (tmp_path / n for n in ("a.qcow2", "v2.qcow2", "r.raw", "l.qcow2"))
    qemu_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    qemu_img("bitmap", "--add", image, "b")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", old, 8 * MiB)
    qemu_img("create", "-q", "-f", "raw", raw, 8 * MiB)
    qemu_img("create", "-q", "-f", "qcow2", large, "1P")
    qemu_img("bitmap", "--add", "-g", "2M", large, "b")
    for argv in (["--add", image, "b"], ["--add", image, ""], ["--add", image, "x" * 1024],
                 ["--add", "-g", "1000", image, "c"], ["--add", "-g", "256", image, "c"],
                 ["--add", "-g", "4G", image, "c"], ["--clear", image, "c"], ["--remove", image, "c"],
                 ["--merge", "c", image, "b"], ["--merge", "b", "--add", image, "c"],
                 ["--merge", "b", "-b", large, "-F", "qcow2", image, "b"],
                 ["--add", "-g", "512", large, "c"], ["--add", old, "b"], ["--add", "-f", "raw", raw, "b"],
                 ["--clear", "-f", "raw", raw, "b"], [image, "b"], ["--add", image], ["--clear", "-g", "64k", image, "b"],
                 ["--clear", "-F", "qcow2", image, "b"], ["--clear", "-b", image, image, "b"],
                 ["--add", "-f", "qcow2", "--image-opts", f"driver=qcow2,file.filename={image}", "c"],
                 ["--add", tmp_path / "none", "b"]):
        theirs, ours = (t("bitmap", *argv, ok=False) for t in (qemu_img, vmm_img))
        assert ours[0] == theirs[0] == 1, argv
        if "none" not in str(argv):
            assert normal(ours[2]) == normal(theirs[2]), argv
    assert list(stored(image)) == ["b"]
    # What came before the failure counts, for both.
    for i, tool in enumerate((qemu_img, vmm_img)):
        assert tool("bitmap", "--add", "--merge", "none", image, f"n{i}", ok=False)[0] == 1
    assert list(stored(image)) == ["b", "n0", "n1"]


def crash(image):
    """A writer that dies."""
    p = subprocess.Popen([VMM_IMG, "io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
    p.stdin.write("write 1M 64k\n")
    p.stdin.flush()
    line = p.stdout.readline()
    while "ops/sec" not in line:
        line = p.stdout.readline()
        assert line
    p.send_signal(signal.SIGKILL)
    p.wait()
    p.stdin.close()
    p.stdout.close()


def test_crash(tmp_path):
    image, out = tmp_path / "a.qcow2", tmp_path / "o.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    vmm_img("bitmap", "--add", image, "b")
    vmm_img("bitmap", "--add", "--disable", image, "still")
    # Reading, and writing nothing, leaves them alone.
    vmm_io(image, ["read -q 0 64k", "flush"])
    assert stored(image)["b"].flags == AUTO
    crash(image)
    assert stored(image)["b"].flags == AUTO | IN_USE
    assert stored(image)["still"].flags == 0
    assert vmm_img("info", image)[1].count("in-use") == 1
    for argv in (["--clear"], ["--enable"], ["--disable"], ["--merge", "still"]):
        ours, theirs = (t("bitmap", *argv, image, "b", ok=False) for t in (vmm_img, qemu_img))
        assert ours[0] == theirs[0] == 1
        assert "Bitmap 'b' is inconsistent and cannot be used" in ours[2]
        assert "Bitmap 'b' is inconsistent and cannot be used" in theirs[2]
    for t in (vmm_img, qemu_img):
        code, _, err = t("resize", image, "16M", ok=False)
        assert code == 1 and "inconsistent" in err
        code, _, err = t("convert", "--bitmaps", "-O", "qcow2", image, out, ok=False)
        assert code == 1 and "Cannot copy inconsistent bitmap 'b'" in err
        _, _, err = t("convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", image, out)
        assert "warning: Skipping inconsistent bitmap 'b'" in err
        assert list(stored(out)) == ["still"]
    assert normal(vmm_img("measure", "-O", "qcow2", image)[1]) == normal(qemu_img("measure", "-O", "qcow2", image)[1])
    # It stays what it is while others go on.
    vmm_io(image, ["write -q 2M 64k"])
    clean(image)
    assert stored(image)["b"].flags == AUTO | IN_USE
    vmm_img("bitmap", "--remove", image, "b")
    clean(image)
    assert list(stored(image)) == ["still"]
    vmm_img("resize", "-q", image, "16M")


def test_theirs_crashed(tmp_path):
    image = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    qemu_img("bitmap", "--add", image, "b")
    run("qemu-io", "-c", "write 1M 64k", "-c", "abort", image, ok=False)
    assert stored(image)["b"].flags == AUTO | IN_USE
    vmm_img("check", image)
    vmm_io(image, ["write -q 2M 64k"])
    assert "inconsistent" in vmm_img("bitmap", "--clear", image, "b", ok=False)[2]
    vmm_img("bitmap", "--remove", image, "b")
    clean(image)


def set_autoclear(image, value):
    with open(image, "r+b") as f:
        f.seek(88)
        f.write(value.to_bytes(8, "big"))


def test_not_kept_up_to_date(tmp_path):
    """Without the autoclear bit the extension counts for nothing, and goes."""
    image = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    qemu_img("bitmap", "--add", image, "b")
    set_autoclear(image, 0)
    for args in (["info", image], ["check", image]):
        _, out, err = vmm_img(*args, ok=False)
        assert "without support for bitmaps" in err and "name: b" not in out
    assert Header(image).bitmaps()
    vmm_io(image, ["write -q 0 64k"])
    assert not Header(image).bitmaps()
    assert vmm_img("check", image, ok=False)[0] == 3
    vmm_img("check", "-r", "leaks", image)
    clean(image)
    vmm_img("bitmap", "--add", image, "b")
    clean(image)


def test_sizes(tmp_path):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, 8 * MiB)
    vmm_img("bitmap", "--add", "-g", "512", image, "b")
    vmm_img("bitmap", "--add", "-g", "64k", "--disable", image, "c")
    vmm_io(image, ["write -q 1M 512", "write -q 7M 1M"])
    vmm_img("bitmap", "--merge", "b", image, "c")
    low, high = {2048}, set(range(7 * 2048, 8 * 2048))
    for tool in (vmm_img, qemu_img):
        tool("resize", "-q", image, "40M")
        assert stored(image)["b"].dirty() == low | high
        assert stored(image)["c"].dirty() == {16} | set(range(112, 128))
        clean(image)
        vmm_io(image, ["write -q 39M 512"])
        tool("resize", "-q", "--shrink", image, "8M")
        assert stored(image)["b"].dirty() == low | high
        clean(image)
    vmm_img("resize", "-q", "--shrink", image, "1M")
    vmm_img("resize", "-q", image, "8M")
    assert stored(image)["b"].dirty() == set()
    clean(image)


def test_kept_and_lost(tmp_path):
    base, image = tmp_path / "base.qcow2", tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, 8 * MiB)
    qemu_img("bitmap", "--add", base, "below")
    vmm_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image)
    vmm_img("bitmap", "--add", image, "b")
    clean(image)
    vmm_io(image, ["write -q -P 7 1M 64k"])
    vmm_img("amend", "-o", "lazy_refcounts=on", image)
    vmm_img("amend", "-o", "lazy_refcounts=off", image)
    vmm_img("rebase", "-u", "-b", "../" + tmp_path.name + "/base.qcow2", "-F", "qcow2", image)
    assert stored(image)["b"].dirty() == {16}
    clean(image)
    # Committing changes what the base holds, not what is read here.
    vmm_img("bitmap", "--clear", image, "b")
    vmm_img("commit", "-q", image)
    assert stored(image)["b"].dirty() == set()
    assert stored(base)["below"].dirty() == {16}
    vmm_img("rebase", "-u", "-b", "", image)
    # Snapshots: taken and deleted, but not gone back to.
    vmm_img("snapshot", "-c", "s", image)
    code, _, err = vmm_img("snapshot", "-a", "s", image, ok=False)
    assert code == 1 and err == qemu_img("snapshot", "-a", "s", image, ok=False)[2].replace("qemu-img", "vmm-img")
    clean(image)
    vmm_img("snapshot", "-d", "s", image)
    assert list(stored(image)) == ["b"]
    # The old version of the format has none; nothing is left behind.
    vmm_img("amend", "-o", "compat=0.10", image)
    assert "bitmaps" not in vmm_img("info", image)[1]
    clean(image)


def test_copy_on_read(tmp_path):
    """Copying from below changes nothing that a backup would have to know."""
    base, image = tmp_path / "base.qcow2", tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, 8 * MiB)
    qemu_io(base, ["write 0 1M"])
    vmm_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image)
    vmm_img("bitmap", "--add", image, "b")
    options = f"driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename={image}"
    vmm_io(options, ["read -q 0 1M"], "--image-opts")
    assert json.loads(vmm_img("map", "--output=json", image)[1])[0]["depth"] == 0
    assert stored(image)["b"].dirty() == set()


def test_convert(tmp_path):
    image, out, raw = tmp_path / "a.qcow2", tmp_path / "o.qcow2", tmp_path / "r.raw"
    qemu_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    qemu_img("create", "-q", "-f", "raw", raw, 8 * MiB)
    vmm_img("bitmap", "--add", "-g", "512", image, "fine")
    vmm_io(image, ["write -q 1M 512", "write -q 5M 2M"])
    vmm_img("bitmap", "--add", "--disable", image, "off")
    expect = {"fine": {2048} | set(range(10240, 14336)), "off": set()}
    for tool in (vmm_img, qemu_img):
        for options in ("cluster_size=64k", "cluster_size=512"):
            tool("convert", "--bitmaps", "-O", "qcow2", "-o", options, image, out)
            assert {n: b.dirty() for n, b in stored(out).items()} == expect
            assert {n: b.flags for n, b in stored(out).items()} == {"fine": AUTO, "off": 0}
            assert stored(out)["fine"].shift == 9
            clean(out)
        qemu_img("compare", image, out)
        tool("convert", "-O", "qcow2", image, out)
        assert not stored(out)
    for argv in (["--bitmaps", "-O", "raw", image, out],
                 ["--bitmaps", "-O", "qcow2", "-o", "compat=0.10", image, out],
                 ["--bitmaps", "-f", "raw", "-O", "qcow2", raw, out], ["--skip-broken-bitmaps", image, out],
                 ["--bitmaps", "-O", "qcow2", image, image, out]):
        ours, theirs = (t("convert", *argv, ok=False) for t in (vmm_img, qemu_img))
        assert ours[0] == theirs[0] == 1
        assert normal(ours[2]) == normal(theirs[2])
    # Into one that is there: names must be free, sizes the same.
    vmm_img("create", "-q", "-f", "qcow2", out, 16 * MiB)
    for tool in (vmm_img, qemu_img):
        assert "different sizes" in tool("convert", "-n", "--bitmaps", "-O", "qcow2", image, out, ok=False)[2]
        assert not stored(out)
    vmm_img("create", "-q", "-f", "qcow2", out, 8 * MiB)
    vmm_img("bitmap", "--add", out, "fine")
    for tool in (vmm_img, qemu_img):
        assert "Bitmap already exists: fine" in tool("convert", "-n", "--bitmaps", "-O", "qcow2", image, out,
                                                     ok=False)[2]


@pytest.mark.parametrize("cluster", [512, 1024, 65536])
@pytest.mark.parametrize("name", [5, 200, 600])
def test_header_room(tmp_path, cluster, name):
    """The extension finds its place beside the backing file's name and the table of features."""
    base = tmp_path / "base"
    backing = str(base).replace("/", "/" + "./" * max(0, (name - len(str(base))) // 2), 1)
    vmm_img("create", "-q", "-f", "raw", base, MiB)
    for maker in (vmm_img, qemu_img):
        image = tmp_path / "a.qcow2"
        options = ["-o", f"cluster_size={cluster}", "-b", backing, "-F", "raw"]
        if maker("create", "-q", "-f", "qcow2", *options, image, ok=False)[0]:
            continue  # the name alone is too long
        if vmm_img("bitmap", "--add", image, "b0", ok=False)[0]:
            # It would have to move over itself, in more than one sector.
            assert (cluster, name) == (1024, 600)
            clean(image)
            continue
        vmm_img("bitmap", "--remove", image, "b0")
        for i in range(3):
            vmm_img("bitmap", "--add", image, f"b{i}")
            assert list(stored(image)) == [f"b{k}" for k in range(i + 1)]
            qemu_img("check", image)
        # Rewritten with another name, and back.
        for other in ("x" * 30, backing):
            vmm_img("rebase", "-u", "-b", other, "-F", "raw", image)
            assert list(stored(image)) == ["b0", "b1", "b2"]
        for i in range(3):
            vmm_img("bitmap", "--remove", image, f"b{i}")
        clean(image)
        assert not Header(image).bitmaps() and not Header(image).autoclear
        told = json.loads(qemu_img("info", "--output=json", image)[1])
        assert told["backing-filename"] == backing and told["backing-filename-format"] == "raw"


def test_data_file(tmp_path):
    image, data = tmp_path / "a.qcow2", tmp_path / "d.raw"
    vmm_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", image, 8 * MiB)
    vmm_img("bitmap", "--add", image, "b")
    vmm_io(image, ["write -q 1M 64k"])
    qemu_io(image, ["write 2M 64k"])
    vmm_io(image, ["write -q 3M 64k"])
    assert stored(image)["b"].dirty() == {16, 32, 48}
    assert Header(image).autoclear == 3
    clean(image)


def add_extra(image, flags, extra):
    """The one bitmap gets extra data; its directory, one cluster, has room."""
    b = stored(image)["b"]
    header = Header(image)
    where = header.bitmaps()[0]
    entry = struct.pack(">QIIBBHI", b.table, b.entries, flags, b.type, b.shift, 1, len(extra)) + extra + b"b"
    entry += bytes(-len(entry) % 8)
    with open(image, "r+b") as f:
        f.seek(b.entry_offset)
        f.write(entry)
        f.seek(where + 8)
        f.write(len(entry).to_bytes(8, "big"))


@pytest.mark.parametrize("compatible", [True, False])
def test_extra_data(tmp_path, compatible):
    """What later versions keep there stays; unless they allow it the bitmap is nobody's to use."""
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
    vmm_img("bitmap", "--add", image, "b")
    add_extra(image, AUTO | (EXTRA_COMPATIBLE if compatible else 0), b"something new")
    vmm_io(image, ["write -q 1M 64k"])
    vmm_img("bitmap", "--add", image, "other")
    b = stored(image)["b"]
    assert b.extra == b"something new"
    if compatible:
        assert b.flags == AUTO | EXTRA_COMPATIBLE and b.dirty() == {16}
    else:
        assert b.flags == AUTO | IN_USE and b.dirty() == set()
        assert "inconsistent" in vmm_img("bitmap", "--clear", image, "b", ok=False)[2]
    vmm_img("check", image)
    vmm_img("bitmap", "--remove", image, "b")
    clean(image)


def test_damaged(tmp_path):
    """A directory that is no good keeps the image shut, until it is repaired."""
    image = tmp_path / "a.qcow2"
    for what in ("type", "table", "entry"):
        vmm_img("create", "-q", "-f", "qcow2", image, 8 * MiB)
        vmm_img("bitmap", "--add", image, "b")
        vmm_io(image, ["write -q -P 3 1M 64k"])
        b = stored(image)["b"]
        with open(image, "r+b") as f:
            f.seek({"type": b.entry_offset + 16, "table": b.entry_offset, "entry": b.table}[what])
            f.write(b"\xff\xff\xff\xff\xff\xff\xff\xff" if what != "type" else b"\x02")
        assert qemu_img("check", image, ok=False)[0] == 1
        assert vmm_img("check", image, ok=False)[0] == 2
        if what != "entry":
            code, _, err = vmm_io(image, ["read -q 0 64k"], ok=False)
            assert code == 1 and "Invalid bitmaps" in err
        vmm_img("check", "-q", "-r", "all", image, ok=False)
        vmm_io(image, ["read -q -P 3 1M 64k"])
        clean(image)
        if what == "entry":  # what is not known counts as dirty
            assert len(stored(image)["b"].dirty()) == 128
