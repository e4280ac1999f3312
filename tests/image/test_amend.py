# SPDX-License-Identifier: Apache-2.0
"""amend: widths of refcounts, the data file's name and rawness, old and new headers."""
import json

import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img

pytestmark = needs_qemu


def info(path):
    return json.loads(qemu_img("info", "--output=json", path)[1])["format-specific"]["data"]


def make(path, *options):
    qemu_img("create", "-q", "-f", "qcow2", "-o", ",".join(("cluster_size=4k",) + options), path, "16M")
    qemu_io(path, ["write -q -P 3 0 3M", "write -q -P 4 9M 100k", "discard -q 1M 64k"], "-f", "qcow2")
    return path


@pytest.mark.parametrize("old,new", [(16, 1), (16, 64), (1, 64), (64, 2), (8, 32), (4, 16)])
def test_refcount_bits(tmp_path, old, new):
    image, want = make(tmp_path / "x.qcow2", f"refcount_bits={old}"), tmp_path / "want.raw"
    qemu_img("convert", "-O", "raw", image, want)
    if min(old, new) > 1:
        qemu_img("snapshot", "-c", "a", image)
        qemu_io(image, ["write -q -P 3 0 64k"], "-f", "qcow2")
    vmm_img("amend", "-o", f"refcount_bits={new}", image)
    assert info(image)["refcount-bits"] == new
    # What the old tables took is free, and no more than that.
    for check in vmm_img, qemu_img:
        check("check", "-q", image)
    qemu_io(image, ["write -q -P 9 15M 64k", "write -q -z 15M 64k"], "-f", "qcow2")
    vmm_img("check", "-q", image)
    qemu_img("compare", "-q", want, image)


def test_too_narrow(tmp_path):
    image = make(tmp_path / "x.qcow2")
    for name in "abc":
        qemu_img("snapshot", "-c", name, image)
    before = image.read_bytes()
    texts = [img("amend", "-o", "refcount_bits=2", image, ok=False)[2] for img in (vmm_img, qemu_img)]
    assert "Cannot decrease refcount entry width to 2 bits: Cluster at offset" in texts[0]
    assert "Cannot decrease refcount entry width to 2 bits: Cluster at offset" in texts[1]
    assert image.read_bytes()[:512] == before[:512]
    qemu_img("check", "-q", image)
    for option in "refcount_bits=3", "refcount_bits=128", "compat=0.10,refcount_bits=8":
        assert vmm_img("amend", "-o", option, image, ok=False)[2] == \
            qemu_img("amend", "-o", option, image, ok=False)[2].replace("qemu-img", "vmm-img")


def test_versions_and_widths(tmp_path):
    image = make(tmp_path / "x.qcow2", "compat=0.10")
    vmm_img("amend", "-o", "compat=1.1,refcount_bits=32,lazy_refcounts=on", image)
    assert info(image)["refcount-bits"] == 32 and info(image)["lazy-refcounts"]
    qemu_img("check", "-q", image)
    vmm_img("amend", "-o", "compat=0.10,refcount_bits=16,lazy_refcounts=off", image)
    assert info(image)["compat"] == "0.10"
    qemu_img("check", "-q", image)


def test_data_file(tmp_path):
    image, data, moved = tmp_path / "x.qcow2", tmp_path / "x.raw", tmp_path / "moved.raw"
    make(image, f"data_file={data}", "data_file_raw=on")
    vmm_img("amend", "-o", "data_file_raw=off", image)
    assert info(image)["data-file-raw"] is False
    data.rename(moved)
    opened = "json:" + json.dumps({"driver": "qcow2", "data-file": {"driver": "file", "filename": str(moved)},
                                   "file": {"driver": "file", "filename": str(image)}})
    vmm_img("amend", "-o", f"data_file={moved}", opened)
    assert info(image)["data-file"] == str(moved)
    qemu_io(image, ["read -q -P 3 0 1M"], "-f", "qcow2")
    plain = make(tmp_path / "plain.qcow2")
    for option in f"data_file={data}", "data_file_raw=on":
        assert vmm_img("amend", "-o", option, plain, ok=False)[2] == \
            qemu_img("amend", "-o", option, plain, ok=False)[2].replace("qemu-img", "vmm-img")
