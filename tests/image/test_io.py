# SPDX-License-Identifier: Apache-2.0
"""vmm-img io against qemu-io: the same commands say and do the same."""
import os
import re

import pytest

from conftest import needs_qemu, qemu_io, run, vmm_img, vmm_io

pytestmark = needs_qemu

TIMES = re.compile(r"[\d:.]+(?: sec)? \([^)]*sec\)|,[\d:.]+,[\d.]+,[\d.]+$", re.M)


def both(tmp_path, commands, *options, fmt="qcow2", size="4M"):
    """Outputs and exit codes of both, on an image each."""
    out = []
    for who in ["qemu-io", "vmm-img"]:
        image = tmp_path / who / "image"
        image.parent.mkdir(exist_ok=True)
        if not image.exists():
            vmm_img("create", "-q", "-f", fmt, image, size)
        argv = [a for c in commands for a in ("-c", c)]
        if who == "vmm-img":
            code, stdout, err = vmm_img("io", *options, "-f", fmt, *argv, image, ok=False)
        else:
            code, stdout, err = qemu_io(image, commands, *options, "-f", fmt, ok=False)
        out.append((code, TIMES.sub("T", stdout).splitlines(),
                    [line.replace("qemu-io: ", "vmm-img: ") for line in err.splitlines()]))
    return out


CASES = {
    "patterns": ["write -P 5 0 64k", "read -P 6 0 4k", "read -P 5 0 64k", "read -P 5 -s 512 -l 512 0 4k",
                 "read -P 7 -s 512 -l 100 0 4k", "read -v 0 40", "read -C 0 4k", "write -C 0 512", "discard -C 0 64k"],
    "vectors": ["writev -P 3 64k 1k 2k", "readv -P 3 64k 512 512", "readv -v 64k 8 8", "readv -P 4 64k 1k 1k"],
    "aio": ["aio_write -P 4 0 4k", "aio_flush", "aio_read -P 4 0 4k", "aio_flush", "aio_write -z 0 4k", "aio_flush",
            "aio_read -v 0 16", "aio_flush", "aio_read 8M 1k", "aio_flush", "aio_write 8M 1k"],
    "aio mismatch": ["aio_read -P 3 0 4k", "aio_flush"],
    "compressed": ["write -c -P 2 128k 64k", "write -c 0 1000", "write -c 100 64k", "read -P 2 128k 64k"],
    "zero": ["write -P 1 0 256k", "write -z 64k 64k", "write -z -u 128k 64k", "write -u 0 1k", "write -z -P 1 0 1k",
             "aio_write -z 0 1k 1k", "map", "alloc 0 1M", "alloc 64k", "alloc 64k 128k"],
    "numbers": ["read x 1", "read 1 x", "write 0 3G", "writev 0 3G", "read 8M 1k", "write -f 8M 1k", "sleep x",
                "alloc x", "alloc 0 x", "alloc 8M", "truncate x", "discard x 1", "discard 8M 1"],
    "counts": ["read 0", "aio_write 0", "readv 0", "discard 0", "sleep", "map x", "alloc", "bogus", "length x", "flush x"],
    "sizes": ["length", "truncate 8M", "length", "truncate 8193k", "length"],
    "info": ["write 0 64k", "info", "map", "length"],
    "open": ["close", "read 0 1", "close", "help foo", "quit", "read 0 1"],
    "reopen": ["reopen -r", "write 0 1k", "discard 0 1k", "truncate 1M", "reopen -w", "write 0 1k", "reopen -c none",
               "reopen -c foo", "reopen -r -w", "read 0 1k", "write 512 512", "flush"],
    "flags": ["write -n 0 64k", "write -z -n 0 64k", "write -z -n -u 64k 64k", "read -P 0 0 128k", "write -b -z 0 1k",
              "write -f -c 0 64k", "write -b -c 0 64k", "write -b -f 0 64k", "write -c -z 0 64k", "write -n -u 0 1k",
              "aio_read -i 0 1k", "aio_write -i 0 1k", "aio_write -i x y", "write -b -c -P 3 0 64k", "read -b -P 3 0 64k"],
    "vm state": ["read -b -P 0 0 64k", "write -b -P 7 0 64k", "write -b 100 512", "write -b 512 100", "read -b 512 100",
                 "read -b -P 7 0 64k", "read -b -P 0 64k 64k", "write -b -P 9 10M 128k", "read -b -P 9 10M 128k",
                 "read -b -P 0 5M 128k", "write -b -P 8 512 1k", "read -b -P 7 0 512", "read -b -P 8 512 1k", "read -b -P 7 1536 1k",
                 "read -P 0 0 4M", "write -b 1000T 512", "read -b 1000T 512", "map", "write -P 1 0 4M", "length"],
    "range": ["read -P 1 -s 1k -l 1 0 1k", "write -s /etc/passwd 0 1k", "write -P 1 -s /etc/passwd 0 1k", "sleep 10"],
}


@pytest.mark.parametrize("case", CASES)
def test_as_qemu(tmp_path, case):
    theirs, ours = both(tmp_path, CASES[case])
    if case in ("info", "open"):
        theirs[1][:] = [line for line in theirs[1] if not line.startswith("help")]
    assert ours == theirs
    qemu = tmp_path / "qemu-io" / "image"
    run("qemu-img", "compare", qemu, tmp_path / "vmm-img" / "image", ok=case != "range")


def test_vm_state_of_the_other(tmp_path):
    both(tmp_path, ["write -P 1 0 4M", "write -b -P 7 1M 64k"])
    for who, other in ("qemu-io", vmm_io), ("vmm-img", qemu_io):
        image = tmp_path / who / "image"
        run("qemu-img", "check", image)
        vmm_img("check", image)
        other(image, ["read -q -b -P 7 1M 64k", "write -q -b -P 8 1M 512", "read -q -P 1 0 4M"])
        run("qemu-img", "check", image)
        # What is on its way to a snapshot goes away with the disk's size.
        vmm_img("resize", "-q", image, "1G")
        run("qemu-img", "check", image)
        qemu_io(image, ["read -q -P 1 0 4M", "read -q -P 0 4M 1020M"])


def test_vm_state_stays_out_of_the_disk(tmp_path):
    """Neither a bitmap nor a longer backing file nor zeroes at a cluster's end have to do with it."""
    base, image = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"\x55" * (2 << 20))
    vmm_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image, "64k")
    vmm_img("bitmap", "--add", "-g", "64k", image, "b")
    vmm_io(image, ["write -q -b -P 1 0 64k", "write -q -b -P 0 0 512", "read -q -b -P 0 0 512",
                   "read -q -b -P 1 512 65024", "read -q -b -P 0 64k 1M", "read -q -P 85 0 64k"])
    run("qemu-img", "check", image)
    theirs = qemu_io(image, ["read -q -b -P 0 0 512", "read -q -b -P 1 512 65024"])
    assert theirs[1] == ""
    raw = tmp_path / "x.raw"
    vmm_img("create", "-q", "-f", "raw", raw, "1M")
    assert vmm_img("io", "-f", "raw", "-c", "write -b 0 512", raw, ok=False)[1] == \
        qemu_io(raw, ["write -b 0 512"], "-f", "raw", ok=False)[1]


def test_breakpoints(tmp_path):
    image = tmp_path / "image"
    spec = "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename="
    commands = ["break write_aio A", "aio_write -q -P 3 0 64k", "wait_break A", "resume A", "aio_flush", "resume A",
                "break nothing A", "break flush_to_disk C", "remove_break C", "remove_break C", "flush",
                "read -q -P 3 0 64k", "break read_aio B", "aio_read -q -P 3 0 4k", "wait_break B", "remove_break B",
                "aio_flush", "break x", "resume"]
    out = []
    for who in ["qemu-io", "vmm-img"]:
        vmm_img("create", "-q", "-f", "qcow2", image, "1M")
        argv = ["--image-opts"] + [a for c in commands for a in ("-c", c)] + [f"{spec}{image}"]
        out.append(run("qemu-io", *argv, ok=False) if who == "qemu-io" else vmm_img("io", *argv, ok=False))
    assert out[0] == out[1]
    assert "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n" in out[0][1]
    assert vmm_img("io", "-c", "break write_aio A", image, ok=False)[1] == qemu_io(image, ["break write_aio A"], ok=False)[1]
    # What is still suspended at the end goes on, rather than to be waited for.
    assert vmm_img("io", "--image-opts", "-c", "break write_aio A", "-c", "aio_write -q -P 5 0 64k", "-c", "wait_break A",
                   "-c", "close", "-c", f"open {image}", "-c", "read -q -P 5 0 64k", f"{spec}{image}",
                   ok=False)[0] == 0


def test_raw_as_qemu(tmp_path):
    theirs, ours = both(tmp_path, ["info", "map", "write 0 64k", "map", "alloc 0 1M", "write -z 0 512", "read 2M 1",
                                   "write -c 0 64k"], fmt="raw", size="1M")
    assert ours == theirs


def test_read_only_as_qemu(tmp_path):
    theirs, ours = both(tmp_path, ["write 0 1", "truncate 1", "discard 0 1", "read 0 1", "aio_write 0 1"], "-r")
    assert ours == theirs


def test_program_options(tmp_path):
    for options in [["-t", "foo"], ["-d", "foo"], ["-i", "foo"]]:
        theirs, ours = both(tmp_path, ["read -q 0 1"], *options)
        assert ours == theirs
    image = tmp_path / "vmm-img" / "image"
    assert vmm_img("io", "-c", f"open -r {image}", "-c", "read -q 0 1", "-c", f"open {image}", ok=False)[2] == \
        "file open already, try 'help close'\n"
    spec = f"driver=qcow2,file.driver=file,file.filename={image}"
    assert vmm_img("io", "-c", f"open -o {spec}", "-c", "write -q 0 512", "-c", "close")[1:] == ("", "")
    out = vmm_img("io", "-c", "help", "-c", "help read")[1]
    for command in ["read", "write", "aio_read", "aio_write", "aio_flush", "map", "alloc", "truncate", "reopen", "quit"]:
        assert re.search(rf"^{command} .*-- ", out, re.M)
    before = image.read_bytes()
    for options, commands in (["-s"], []), ([], ["close", f"open -s {image}"]):
        argv = [a for c in [*commands, "write -q -P 9 0 64k", "read -q -P 9 0 64k"] for a in ("-c", c)]
        assert vmm_img("io", *options, "-f", "qcow2", *argv, image)[1] == ""
    assert image.read_bytes() == before
    vmm_img("io", "-m", "-t", "none", "-c", "write -q -P 4 0 64k", "-c", "read -q -P 4 0 64k", image)
    vmm_img("io", "-c", "reopen -o lazy-refcounts=on", "-c", "reopen -o lazy-refcounts=off", "-c", "write -q 0 1", image)
    assert vmm_img("io", "-c", "reopen -o nothing=on", "-c", "read -q 0 1", image, ok=False)[0] == 1
    code, _, err = vmm_img("io", tmp_path / "nope", ok=False)
    assert code == 1 and err.startswith(f"vmm-img: can't open device {tmp_path}/nope: Could not open ")
