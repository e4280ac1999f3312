# SPDX-License-Identifier: Apache-2.0
"""A stock kernel started directly (-kernel, -initrd, -append): what it finds, how it ends."""
import hashlib
import re
import signal
import socket
import subprocess

from vmtest import IS_QEMU, Qmp, vmm_img


def test_boots_and_powers_off(boot):
    vm = boot("", "-cpu", "host")
    vm.expect("GUEST-UP")
    vm.expect(r"cpus 1 mem 2\d{5}$")
    assert vm.end() == 0


def test_four_cpus_with_their_topology(boot):
    vm = boot("test=topology", "-cpu", "host", "-smp", "4,sockets=2,cores=1,threads=2")
    seen = {}
    for _ in range(4):
        m = vm.expect(r"CPU (\d+) package (\d+) die (\d+) core (\d+) threads (\S+)")
        seen[int(m[1])] = (int(m[2]), m[5])
    assert seen == {0: (0, "0-1"), 1: (0, "0-1"), 2: (1, "2-3"), 3: (1, "2-3")}
    vm.expect("online 0-3")
    assert vm.end() == 0


def test_memory_above_the_hole(boot):
    vm = boot("", "-cpu", "host", memory="4608M")
    m = vm.expect(r"cpus 1 mem (\d+)$\n")
    assert int(m[1]) > 4200000
    vm.expect(r"^100000000-[0-9a-f]+ : System RAM")
    assert vm.end() == 0


def test_three_reboots(boot, tmp_path):
    disk = tmp_path / "count.raw"
    disk.write_bytes(b"0" + bytes((1 << 20) - 1))
    vm = boot("test=reboot", "-cpu", "host", "-drive", f"file={disk},format=raw,if=virtio")
    for n in range(4):
        vm.expect(f"BOOT number {n}")
    vm.expect("DONE")
    assert vm.end() == 0
    assert disk.read_bytes()[:1] == b"3"


def test_no_reboot_ends_the_process(boot, tmp_path):
    disk = tmp_path / "count.raw"
    disk.write_bytes(b"0" + bytes((1 << 20) - 1))
    vm = boot("test=reboot", "-cpu", "host", "-no-reboot", "-drive",
              f"file={disk},format=raw,if=virtio")
    vm.expect("BOOT number 0")
    assert vm.end() == 0
    assert "BOOT number 1" not in vm.text


def test_the_power_button(boot, tmp_path):
    qmp = tmp_path / "qmp"
    vm = boot("test=button", "-cpu", "host", "-qmp", f"unix:{qmp},server=on,wait=off")
    vm.expect(r"BUTTON-WAIT.*event0")
    q = Qmp(str(qmp))
    q.call("system_powerdown")
    assert q.wait_event("POWERDOWN")
    vm.expect("BUTTON-PRESSED")
    e = q.wait_event("SHUTDOWN")
    assert e["data"] == {"guest": True, "reason": "guest-shutdown"}
    q.close()
    assert vm.end() == 0


def test_four_serial_ports(boot, tmp_path):
    files = [tmp_path / f"s{i}" for i in range(4)]
    vm = boot("test=serial", "-cpu", "host", "-serial", "stdio", "-serial",
              f"unix:{files[1]},server=on,wait=off", "-serial", f"file:{files[2]}", "-serial",
              f"file:{files[3]}", "-display", "none", serial=False)
    vm.expect("GUEST-UP")
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(files[1]))
    vm.expect("this is ttyS0")
    said = b""
    while b"\n" not in said:
        said += s.recv(100)
    assert said.strip() == b"this is ttyS1"
    s.sendall(b"hello there\n")
    assert vm.end() == 0
    assert "ttyS1 said hello there" in files[2].read_text()
    assert "this is ttyS3" in files[3].read_text()


def test_a_disk_written_and_read_again(boot, tmp_path):
    disk = tmp_path / "disk.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", disk, "64M")
    sums = []
    for what, mark in (("disk", "DISK-WRITTEN"), ("diskcheck", "DISK-READ")):
        vm = boot(f"test={what}", "-cpu", "host", "-drive", f"file={disk},if=virtio")
        vm.expect(mark)
        assert vm.end() == 0
        sums.append(dict(reversed(x) for x in re.findall(r"^([0-9a-f]{32})  (f\d+)$", vm.text, re.M)))
    assert len(sums[0]) == 20 and len(sums[1]) == 19
    assert all(sums[0][f] == s for f, s in sums[1].items())
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    subprocess.run(["e2fsck", "-fn", raw], check=True)


def test_random_numbers(boot):
    vm = boot("test=rng", "-cpu", "host", "-device", "virtio-rng-pci")
    vm.expect("virtio_rng")
    vm.expect("^16$")
    assert vm.end() == 0


def test_a_panicking_guest_reboots_or_stops(boot):
    vm = boot("test=panic", "-cpu", "host", "-no-reboot")
    vm.expect("Kernel panic")
    assert vm.end() == 0


def test_a_hung_guest_is_ended_by_a_signal(boot):
    vm = boot("test=hang", "-cpu", "host")
    vm.expect("HANGING")
    vm.signal(signal.SIGTERM)
    assert vm.end() == 0


def test_a_triple_fault_resets(boot):
    vm = boot("test=triple reboot=t", "-cpu", "host", "-no-reboot")
    vm.expect("TRIPLE-NOW")
    assert vm.end() == 0
