# SPDX-License-Identifier: Apache-2.0
"""resize --preallocation: what is new has its place, and reads as zero whatever was there before."""
import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu
MiB = 1 << 20


@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("options", ["", "compat=0.10", "extended_l2=on", "cluster_size=512"])
def test_qcow2(tmp_path, mode, options):
    image, twin = tmp_path / "x.qcow2", tmp_path / "twin.qcow2"
    for path in image, twin:
        qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), path, "1000k")
        # Clusters that are free again, with something in them, and a last one that is cut.
        qemu_io(path, ["write -q -P 5 0 1000k", "discard -q 64k 640k"], "-f", "qcow2")
    vmm_img("resize", "-q", f"--preallocation={mode}", image, "3M")
    qemu_img("resize", "-q", f"--preallocation={mode}", twin, "3M")
    qemu_img("check", "-q", image)
    qemu_img("compare", "-q", image, twin)
    if mode in ("falloc", "full"):
        assert image.stat().st_blocks * 512 > 2 * MiB
    vmm_io(image, ["read -q -P 0 1000k 2072k", "truncate -m metadata 4M", "read -q -P 0 3M 1M"])
    qemu_img("check", "-q", image)


@pytest.mark.parametrize("mode", ["falloc", "full"])
def test_raw(tmp_path, mode):
    image = tmp_path / "x.raw"
    image.write_bytes(b"\7" * MiB)
    vmm_img("resize", "-q", "-f", "raw", f"--preallocation={mode}", image, "+2M")
    assert image.stat().st_blocks * 512 >= 3 * MiB
    assert image.read_bytes() == b"\7" * MiB + bytes(2 * MiB)


def test_refusals(tmp_path):
    raw, image = tmp_path / "x.raw", tmp_path / "x.qcow2"
    raw.write_bytes(bytes(MiB))
    qemu_img("create", "-q", "-f", "qcow2", image, "2M")
    for args in (["--preallocation=metadata", raw, "2M"], ["--preallocation=some", raw, "2M"],
                 ["--preallocation=full", "--shrink", raw, "512k"]):
        assert vmm_img("resize", "-f", "raw", *args, ok=False)[2] == \
            qemu_img("resize", "-f", "raw", *args, ok=False)[2].replace("qemu-img", "vmm-img")
    assert raw.stat().st_size == MiB
