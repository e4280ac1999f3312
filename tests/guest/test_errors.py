# SPDX-License-Identifier: Apache-2.0
"""The user's mistakes: each is one line on standard error and exit status 1."""
import os
import shutil
import struct
import subprocess
import tempfile

import pytest

from conftest import HELLO, needs_kvm
from vmtest import VMM, vmm_img


def refused(*args, wrapper=(), program=VMM):
    """What the program says when it refuses to start."""
    p = subprocess.run([*wrapper, program, *map(str, args)], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=20)
    assert p.returncode == 1, (p.returncode, p.stdout, p.stderr)
    assert p.stdout == ""
    assert p.stderr.startswith("vmm: ") and p.stderr.count("\n") == 1, p.stderr
    return p.stderr[len("vmm: "):-1]


@pytest.mark.parametrize("args, said", [
    # options
    ("-drvie file=x", "-drvie: unknown option; did you mean '-drive'?"),
    ("--nograhpic", "unknown option; did you mean '-nographic'?"),
    ("-qqqqqq", "unknown option (-h lists them)"),
    ("-m", "an argument is missing"),
    # properties
    ("-smp cors=4", "did you mean 'cores'?"),
    ("-machine q35,kernal_irqchip=split", "did you mean 'kernel_irqchip'?"),
    ("-m szie=1G", "did you mean 'size'?"),
    ("-name x,debug-treads=on", "did you mean 'debug-threads'?"),
    # values
    ("-machine q36", "did you mean 'q35'?"),
    ("-machine q35,kernel_irqchip=spilt", "'on' or 'split', not 'spilt'"),
    ("-accel tcg", "use kvm"),
    ("-drive file=x,if=virtoi", "did you mean 'virtio'?"),
    ("-boot x", "not a boot device"),
    ("-rtc base=yesterday", "base is utc"),
    ("-uuid 1", "not a UUID"),
    ("-serial tcp:localhost:99999,server=on,wait=off", "65535"),
    ("-object iothraed,id=a", "did you mean 'iothread'?"),
    ("-serial flie:x", "unknown back end"),
    ("-d bogus", "no log item"),
    # sizes
    ("-m 0", "without memory"),
    ("-m 1P", "at most 64 TiB"),
    ("-m -5", "not '-5'"),
    ("-m 12x", "not '12x'"),
    ("-m 99999999999999999999", "expects a size"),
    ("-m 128M,slots=2", "slots needs maxmem"),
    ("-smp 0", "greater than zero"),
    ("-smp 100000", "too many"),
    ("-smp -1", "expects a number"),
    ("-smp 4,sockets=3", "is not maxcpus"),
    ("-smp cpus=4,maxcpus=2", "more than maxcpus"),
    # networks
    ("-netdev usr,id=a", "did you mean 'user'?"),
    ("-netdev user", "-netdev user: Parameter 'id' is missing"),
    ("-netdev user,id=a,guestfdw=x", "did you mean 'guestfwd'?"),
    ("-netdev user,id=a -netdev user,id=a", "Duplicate ID 'a' for netdev"),
    ("-netdev user,id=a,smb=/tmp", "Invalid parameter 'smb'"),
    ("-nic user,mac=52:54:00", "no Ethernet address"),
    ("-nic user,mac=33:33:00:00:00:01", "multicast"),
    ("-nic vde", "'vde' is not supported"),
    ("-net nic -net nic -net user", "hubs are not supported"),
    ("-net nic,mac=x", "did you mean 'macaddr'?"),
    # combinations
    ("-append quiet", "-kernel"),
    ("-initrd x", "-kernel"),
    ("-serial chardev:none-such", "there is no chardev"),
    ("-cloud-init meta-data=x", "user-data=FILE is missing"),
    ("-nographic -daemonize", "cannot be used with -daemonize"),
])
def test_on_the_command_line(args, said):
    assert said in refused(*args.split())


@needs_kvm
@pytest.mark.parametrize("args, said", [
    ("-device virtio-blk-pcy", "did you mean 'virtio-blk-pci'?"),
    ("-device virtio-rng-pci,maxbytes=1", "did you mean 'max-bytes'?"),
    ("-device virtio-rng-pci,addr=99", "not '99'"),
    ("-device virtio-rng-pci,bus=pcie.7", "pcie.7"),
    ("-device virtio-rng-pci,addr=3 -device virtio-rng-pci,addr=3", "in use"),
    ("-device virtio-blk-pci", "drive property not set"),
    ("-device virtio-blk-pci,drive=none-such", "can't find value 'none-such'"),
    ("-drive file=/nonexistent/x", "No such file or directory"),
    ("-drive file=/,format=raw", "Is a directory"),
    ("-drive file=x,format=qcow5", "did you mean 'qcow2'?"),
    ("-drive if=pflash,file=/nonexistent/x", "No such file or directory"),
    ("-cdrom /nonexistent/x", "No such file or directory"),
    ("-kernel /nonexistent/x", "No such file or directory"),
    ("-kernel /", "not a regular file"),
    ("-kernel /dev/null", "not a regular file"),
    ("-bios /nonexistent/x", "No such file or directory"),
    ("-bios /etc/passwd", "not a firmware image"),
    ("-m 512K", "at least 1 MiB"),
    ("-cpu host,phys-bits=40 -m 60T", "40 address bits"),
    ("-fw_cfg name=opt/a,file=/nonexistent/x", "-fw_cfg"),
    ("-fw_cfg name=etc/e820,string=a", "-fw_cfg etc/e820: duplicate"),
    ("-fw_cfg name=etc/acpi/tables,string=a", "-fw_cfg etc/acpi/tables: duplicate"),
    ("-smbios file=/nonexistent/x", "cannot open"),
    ("-smbios file=FIFO", "not a regular file"),
    ("-bios FIFO", "not a firmware image"),
    ("-chardev null,id=a -serial chardev:a -serial chardev:a", "-serial chardev:a: chardev 'a' is in use"),
    ("-global virtio-rng-pci.max-bytes=x -device virtio-rng-pci",
     "-global virtio-rng-pci.max-bytes=x: "),
    ("-global ICH9-LPC.nosuch=1", "-global ICH9-LPC.nosuch=1: "),
    ("-cloud-init user-data=/nonexistent/x", "No such file or directory"),
    ("-serial unix:/nonexistent/x,server=on,wait=off", "cannot listen"),
    ("-serial file:/nonexistent/x", "No such file or directory"),
    ("-pidfile /nonexistent/x", "-pidfile /nonexistent/x: "),
    ("-D /nonexistent/x", "cannot write there"),
    ("-netdev user,id=a,net=10.0.2.0/99", "a mask has 4 to 32 bits"),
    ("-netdev user,id=a,hostfwd=tcp::1", "-netdev user,id=a,hostfwd=tcp::1: Invalid host forwarding"),
    ("-netdev user,id=a,guestfwd=tcp:10.0.2.100:7-chardev:no", "there is no chardev 'no'"),
    ("-netdev user,id=a,host=1.1.1.1", "host is not in the network"),
    ("-object filter-dump,id=f,file=/tmp/x,netdev=no", "there is no netdev 'no'"),
    ("-netdev user,id=a -object filter-dump,id=f,netdev=a,file=/nonexistent/x", "cannot write"),
    ("-netdev user,id=a -object filter-dump,id=f,netdev=a,fiel=x", "did you mean 'file'?"),
    ("-cpu haswall", "haswall"),
    ("-machine memory-backend=none", "there is no memory backend 'none'"),
    ("-m 64M -numa node,memdev=a -object memory-backend-ram,id=a,size=32M",
     "-m 64M: memory backend 'a' has 32M"),
    ("-object memory-backend-ram,id=a,size=32M,policy=bind", "host-nodes must be set for policy bind"),
    ("-mem-path /nonexistent/x", "-mem-path /nonexistent/x: mem-path /nonexistent/x: No such"),
    ("-cpu host,+avxx", "did you mean 'avx'?"),
])
def test_with_what_is_named(args, said, tmp_path):
    if "FIFO" in args:
        os.mkfifo(tmp_path / "fifo")
        args = args.replace("FIFO", str(tmp_path / "fifo"))
    if "-cpu" not in args:
        args = "-cpu host " + args
    assert said in refused(*args.split())


def run_elsewhere(tmp, program=VMM):
    """A copy of the program where anybody may run it."""
    os.chmod(tmp, 0o755)
    return shutil.copy(program, os.path.join(tmp, "vmm"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_no_right_to_kvm():
    if not os.path.exists("/dev/kvm") or os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        pytest.skip("/dev/kvm is everybody's, or nobody's")
    with tempfile.TemporaryDirectory() as tmp:
        said = refused("-S", program=run_elsewhere(tmp), wrapper=[
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    assert "no right to use /dev/kvm" in said


def test_no_kvm():
    without_dev = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /dev && exec \"$0\" \"$@\""]
    if subprocess.run([*without_dev, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces")
    said = refused("-S", "-display", "none", "-serial", "none", "-monitor", "none",
                   wrapper=without_dev)
    assert "there is no /dev/kvm" in said


def bzimage(size=8192, sectors=1, paragraphs=1000, init_size=0x100000):
    """The beginning of a Linux kernel, as far as a loader looks at it."""
    k = bytearray(size)
    k[0x1f1] = sectors
    struct.pack_into("<I", k, 0x1f4, paragraphs)
    struct.pack_into("<H", k, 0x1fe, 0xaa55)
    k[0x201] = 0x6a
    k[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", k, 0x206, 0x20f)
    k[0x211] = 1
    struct.pack_into("<I", k, 0x214, 0x100000)
    struct.pack_into("<I", k, 0x22c, 0x7fffffff)
    struct.pack_into("<I", k, 0x230, 0x200000)
    k[0x234] = 1
    k[0x235] = 21
    struct.pack_into("<H", k, 0x236, 1)
    struct.pack_into("<I", k, 0x238, 2047)
    struct.pack_into("<Q", k, 0x258, 0x1000000)
    struct.pack_into("<I", k, 0x260, init_size)
    return bytes(k)


@needs_kvm
class TestKernels:
    def test_empty(self, tmp_path):
        k = tmp_path / "k"
        k.write_bytes(b"")
        assert "not a kernel" in refused("-cpu", "host", "-kernel", k)

    def test_text(self, tmp_path):
        k = tmp_path / "k"
        k.write_text("#!/bin/sh\n" * 1000)
        assert "not a kernel" in refused("-cpu", "host", "-kernel", k)

    def test_truncated(self, tmp_path):
        k = tmp_path / "k"
        k.write_bytes(bzimage(paragraphs=100000))
        assert "truncated kernel" in refused("-cpu", "host", "-kernel", k)

    def test_truncated_elf(self, tmp_path):
        k = tmp_path / "k"
        data = open(HELLO, "rb").read()
        k.write_bytes(data[:data.index(b"hello")])
        assert "truncated" in refused("-cpu", "host", "-kernel", k)

    def test_needs_more_memory(self, tmp_path):
        k = tmp_path / "k"
        k.write_bytes(bzimage(paragraphs=(8192 - 1024) // 16, init_size=512 << 20))
        assert "needs more memory" in refused("-cpu", "host", "-m", "64", "-kernel", k)

    def test_initrd_too_big(self, tmp_path):
        i = tmp_path / "initrd"
        with open(i, "wb") as f:
            f.truncate(1 << 30)
        assert "too big" in refused("-cpu", "host", "-m", "64", "-kernel", HELLO, "-initrd", i)

    def test_command_line_too_long(self, tmp_path):
        k = tmp_path / "k"
        k.write_bytes(bzimage(paragraphs=(8192 - 1024) // 16))
        assert "too long" in refused("-cpu", "host", "-kernel", k, "-append", "x" * 3000)


@needs_kvm
class TestImages:
    def test_not_an_image(self, tmp_path):
        image = tmp_path / "a"
        image.write_bytes(b"QFI" + bytes(1 << 20))
        said = refused("-cpu", "host", "-drive", f"file={image},format=qcow2")
        assert "Image is not in qcow2 format" in said

    def test_truncated(self, tmp_path):
        image = tmp_path / "a"
        vmm_img("create", "-q", "-f", "qcow2", image, "10M")
        os.truncate(image, 300)
        assert "lies outside of the file" in refused("-cpu", "host", "-drive", f"file={image}")

    def test_marked_corrupt(self, tmp_path):
        image = tmp_path / "a"
        vmm_img("create", "-q", "-f", "qcow2", image, "10M")
        with open(image, "r+b") as f:
            f.seek(72)
            f.write(struct.pack(">Q", 2))
        assert "corrupt" in refused("-cpu", "host", "-drive", f"file={image}")

    def test_without_its_backing_file(self, tmp_path):
        base, image = tmp_path / "base", tmp_path / "a"
        vmm_img("create", "-q", "-f", "qcow2", base, "10M")
        vmm_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, image)
        base.unlink()
        assert str(base) in refused("-cpu", "host", "-drive", f"file={image}")

    def test_unknown_property(self, tmp_path):
        image = tmp_path / "a"
        vmm_img("create", "-q", "-f", "qcow2", image, "10M")
        said = refused("-cpu", "host", "-drive", f"file={image},cahce=none")
        assert "Invalid parameter 'cahce' (did you mean 'cache'?)" in said

    @pytest.mark.parametrize("fmt", ["raw", "qcow2"])
    def test_locked(self, tmp_path, vmm, fmt):
        image = tmp_path / "a"
        vmm_img("create", "-q", "-f", fmt, image, "10M")
        drive = f"file={image},format={fmt}"
        first = vmm("-S", "-drive", drive, "-display", "none", "-monitor", "stdio")
        first.expect(r"\(qemu\)|\(vmm\)")
        assert 'Failed to get "write" lock' in refused("-cpu", "host", "-drive", drive)
        # whoever only reads may not either, since the first may write at any moment
        assert "lock" in refused("-cpu", "host", "-drive", drive + ",readonly=on")
        if shutil.which("qemu-io"):
            p = subprocess.run(["qemu-io", "-f", fmt, "-c", "write 0 512", image],
                               capture_output=True, text=True)
            assert p.returncode and 'Failed to get "write" lock' in p.stderr
        first.type("quit\n")
        assert first.end() == 0
        vmm("-S", "-drive", drive, "-display", "none", "-monitor", "stdio").expect(r"\(")
