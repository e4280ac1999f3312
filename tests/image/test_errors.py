# SPDX-License-Identifier: Apache-2.0
"""Errors by blkdebug's rules: the same rules fail the same commands here and in qemu-io."""
import re

import pytest

from conftest import needs_qemu, qemu_img, qemu_io, vmm_img, vmm_io

pytestmark = needs_qemu

CASES = [
    ("qcow2", "event=write_aio,errno=28,once=on", ["write 0 64k", "write 0 64k", "read -P 0xcd 0 64k"]),
    ("qcow2", "event=l2_load,errno=5,once=on", ["read 0 64k", "read 0 512"]),
    ("qcow2", "event=read_aio,state=2", ["write 0 64k", "read 0 64k", "read 0 64k"]),
    ("qcow2", "event=none,iotype=discard", ["write 0 64k", "read 0 64k"]),
    ("raw", "event=read_aio,errno=5,sector=4", ["read 0 2k", "read 2k 512", "write 2k 512"]),
    ("raw", "event=pwritev,errno=28,once=on,iotype=write", ["write 0 4k", "write 0 4k"]),
]


def verdicts(result):
    return re.findall(r"^(\w+ failed: .*|\w+ \d+/\d+ bytes at offset \d+)$", result[1] + result[2], re.M)


@pytest.mark.parametrize("fmt,rule,commands", CASES)
def test_same_commands_fail(tmp_path, fmt, rule, commands):
    outcomes = []
    for name in "ours", "theirs":
        image = tmp_path / name
        qemu_img("create", "-q", "-f", fmt, image, "4M")
        options = f"driver={fmt},file.driver=blkdebug,file.image.driver=file,file.image.filename={image}"
        options += "".join(f",file.inject-error.0.{item}" for item in rule.split(","))
        options += ",file.set-state.0.event=read_aio,file.set-state.0.state=1,file.set-state.0.new_state=2"
        if name == "ours":
            outcomes.append(verdicts(vmm_io(options, commands, "--image-opts", ok=False)))
        else:
            outcomes.append(verdicts(qemu_io(options, commands, "--image-opts", ok=False)))
    assert outcomes[0] and outcomes[0] == outcomes[1]


def test_config_file_and_name(tmp_path):
    rules, image = tmp_path / "rules", tmp_path / "x.qcow2"
    rules.write_text('[inject-error]\nevent = "cluster_alloc"\nerrno = "28"\nonce = "on"\n')
    qemu_img("create", "-q", "-f", "qcow2", image, "4M")
    _, out, _ = vmm_io(f"blkdebug:{rules}:{image}", ["write 0 64k", "write 64k 64k"], ok=False)
    assert "write failed: No space left" in out and "wrote 65536/65536 bytes at offset 65536" in out
    qemu_img("check", "-q", image)
    code, _, err = vmm_img("info", f"blkdebug:{image}", ok=False)
    assert code == 1 and "requires both config file and image path" in err
    assert "virtual size: 4 MiB" in vmm_img("info", f"blkdebug::{image}")[1]


def test_delay(tmp_path):
    image = tmp_path / "x.raw"
    qemu_img("create", "-q", "-f", "raw", image, "1M")
    options = f"driver=delay,write-latency-ns=1000000,file.driver=file,file.filename={image}"
    vmm_io(options, ["aio_write -q -P 1 0 4k", "aio_write -q -P 2 4k 4k", "aio_flush",
                     "read -q -P 1 0 4k", "read -q -P 2 4k 4k"], "--image-opts")
