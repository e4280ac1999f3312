# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots: taken, applied and deleted by qemu-img and ours in turn."""
import json
import random

import pytest

from conftest import (Model, assert_quiet, assert_same, needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io)

pytestmark = needs_qemu
MiB = 1 << 20


def shot(image, name, out):
    vmm_img("convert", "-l", f"snapshot.name={name}", "-O", "raw", image, out)
    return out.read_bytes()


@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10", "cluster_size=512,refcount_bits=32",
                                     "extended_l2=on,cluster_size=16k"])
def test_in_turn(tmp_path, options):
    image = tmp_path / "a.qcow2"
    r = random.Random(options)
    tool = lambda: r.choice([qemu_img, vmm_img])
    tool()("create", "-q", "-f", "qcow2", "-o", options, image, 2 * MiB + 512)
    model = Model(2 * MiB + 512, seed=3)
    shots = {}
    for step in range(9):
        assert_quiet(vmm_io(image, model.commands(12), "-f", "qcow2"))
        what = r.random()
        if what < 0.5 or not shots:
            tool()("snapshot", "-c", f"s{step}", image)
            shots[f"s{step}"] = bytes(model.data)
        elif what < 0.75:
            name = r.choice(list(shots))
            tool()("snapshot", "-a", name, image)
            model.data = bytearray(shots[name])
        else:
            name = r.choice(list(shots))
            tool()("snapshot", "-d", name, image)
            del shots[name]
        assert_same(image, model, tmp_path)
    for name, data in shots.items():
        assert shot(image, name, tmp_path / "o.raw") == data
    lists = [t("snapshot", "-l", image)[1] for t in (qemu_img, vmm_img)]
    assert [line.split()[:2] for line in lists[0].splitlines()] == \
        [line.split()[:2] for line in lists[1].splitlines()]


def test_sizes(tmp_path):
    """A snapshot remembers the disk's size, and brings it back."""
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 1 * MiB)
    assert_quiet(vmm_io(image, ["write -q -P 1 0 1M"]))
    vmm_img("snapshot", "-c", "small", image)
    vmm_img("resize", "-q", image, "700M")  # a longer L1 table
    assert_quiet(vmm_io(image, ["write -q -P 2 600M 1M"]))
    vmm_img("snapshot", "-c", "large", image)
    for tool in (vmm_img, qemu_img):
        tool("snapshot", "-a", "small", image)
        qemu_img("check", image)
        assert json.loads(vmm_img("info", "--output=json", image)[1])["virtual-size"] == MiB
        assert_quiet(vmm_io(image, ["read -q -P 1 0 1M"], "-r"))
        tool("snapshot", "-a", "large", image)
        qemu_img("check", image)
        assert json.loads(qemu_img("info", "--output=json", image)[1])["virtual-size"] == 700 * MiB
        assert_quiet(vmm_io(image, ["read -q -P 1 0 1M", "read -q -P 2 600M 1M"], "-r"))


def test_nothing_left(tmp_path):
    """The last snapshot's end gives everything back."""
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, 4 * MiB)
    for i in range(1, 4):
        assert_quiet(vmm_io(image, [f"write -q -P {i} 0 4M"]))
        vmm_img("snapshot", "-c", f"s{i}", image)
    for i in range(1, 4):
        vmm_img("snapshot", "-d", f"s{i}", image)
    assert vmm_img("snapshot", "-l", image)[1] == ""
    assert_quiet(vmm_io(image, ["read -q -P 3 0 4M"] + [f"write -q -P 4 {i}M 1M" for i in range(4)]))
    out = json.loads(qemu_img("check", "--output=json", image)[1])
    assert out.get("leaks", 0) == 0 and out["allocated-clusters"] == 64


@pytest.mark.parametrize("command", ["-a", "-d"])
def test_missing(tmp_path, command):
    image = tmp_path / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, MiB)
    for tool in (qemu_img, vmm_img):
        code, _, err = tool("snapshot", command, "none", image, ok=False)
        assert code == 1 and "none" in err and err.count("\n") == 1
