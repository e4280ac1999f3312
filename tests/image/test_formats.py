# SPDX-License-Identifier: Apache-2.0
"""Foreign image formats, in both directions: made and written by qemu-img and qemu-io, read by ours;
made and written by ours, compared and checked by theirs."""
import pytest

from conftest import Model, assert_quiet, needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu
MiB = 1 << 20

WRITABLE = [
    ("vdi", ""), ("vdi", "static=on"),
    ("vpc", ""), ("vpc", "force_size=on"), ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
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
    expect.write_bytes(model.data)
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
    for _ in range(2):
        assert_quiet(vmm_io(image, model.commands(120), "-f", fmt))
        assert_same(image, fmt, model, tmp_path)
        qemu_io(image, model.commands(30, discards=False), "-f", fmt)
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


@pytest.mark.parametrize("fmt,options", WRITABLE, ids=ident)
@pytest.mark.parametrize("cache", ["none", "writethrough", "unsafe"])
def test_cache_modes(tmp_path, fmt, options, cache):
    image = tmp_path / f"a.{fmt}"
    create(vmm_img, fmt, options, image, 5 * MiB)
    model = Model(length(image, fmt), seed=7)
    assert_quiet(vmm_io(image, model.commands(60), "-f", fmt, "-t", cache))
    assert_same(image, fmt, model, tmp_path)


@pytest.mark.parametrize("fmt,options", WRITABLE, ids=ident)
@pytest.mark.parametrize("size", [0, 512, 68 * MiB + 512, "3G", "130G"])
def test_sizes(tmp_path, fmt, options, size):
    """Rounding to geometries, and maps of several pages."""
    if size == 0 and "fixed" in options:
        pytest.skip("nobody can open these")
    ours, theirs = tmp_path / f"ours.{fmt}", tmp_path / f"theirs.{fmt}"
    create(vmm_img, fmt, options, ours, size)
    create(qemu_img, fmt, options, theirs, size)
    assert length(ours, fmt) == length(theirs, fmt)
    qemu_img("compare", "-f", fmt, "-F", fmt, ours, theirs)
