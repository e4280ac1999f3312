# SPDX-License-Identifier: Apache-2.0
"""A stock kernel started directly (-kernel, -initrd, -append): what it finds, how it ends."""
import re
import signal
import socket
import subprocess

import pytest

from vmtest import CACHE, Qmp, vmm_img


def test_boots_and_powers_off(boot):
    vm = boot("", "-cpu", "host")
    vm.expect("GUEST-UP")
    vm.expect(r"cpus 1 mem 2\d{5}$")
    assert vm.end() == 0


def test_four_cpus_with_their_topology(boot):
    vm = boot("test=topology", "-cpu", "host", "-smp", "4,sockets=2,cores=1,threads=2")
    seen = {}
    for _ in range(4):
        m = vm.expect(r"CPU (\d+) package (\d+) die (\d+) core (\d+) threads (\S+)\n")
        seen[int(m[1])] = (int(m[2]), m[5])
    assert seen == {0: (0, "0-1"), 1: (0, "0-1"), 2: (1, "2-3"), 3: (1, "2-3")}
    vm.expect("online 0-3")
    assert vm.end() == 0


def test_a_pvh_kernel_with_memory_above_the_hole(boot):
    """The same kernel as an ELF file, which is entered by its PVH note."""
    vm = boot("", "-cpu", "host", memory="4608M", kernel=f"{CACHE}/kernel-cloud/vmlinux")
    m = vm.expect(r"cpus 1 mem (\d+)$\n")
    assert int(m[1]) > 4200000
    vm.expect(r"^100000000-[0-9a-f]+ : System RAM")
    assert vm.end() == 0


def test_interrupt_controllers_outside_of_the_kernel(boot, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(32 << 20))
    vm = boot("test=disk", "-cpu", "host", "-machine", "q35,kernel_irqchip=split", "-smp", "2",
              "-drive", f"file={disk},format=raw,if=virtio")
    vm.expect("cpus 2 ")
    vm.expect("DISK-WRITTEN")
    assert vm.end() == 0
    subprocess.run(["e2fsck", "-fn", disk], check=True)


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
    before = disk.read_bytes()
    vm = boot("test=reboot", "-cpu", "host", "-no-reboot", "-drive",
              f"file={disk},format=raw,if=virtio,snapshot=on")
    vm.expect("BOOT number 0")
    assert vm.end() == 0
    assert "BOOT number 1" not in vm.text
    assert disk.read_bytes() == before


def test_the_power_button(boot, tmp_path):
    qmp = tmp_path / "qmp"
    vm = boot("test=button", "-cpu", "host", "-qmp", f"unix:{qmp},server=on,wait=off")
    vm.expect("BUTTON-WAIT")
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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_flushed_outlives_the_process(boot, tmp_path, end):
    disk = tmp_path / "disk.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", disk, "200M")
    vm = boot("test=steps", "-cpu", "host", "-drive", f"file={disk},if=virtio")
    vm.expect("STEP 20$")
    vm.signal(end)
    status = vm.end()
    assert status == (0 if end == signal.SIGTERM else -signal.SIGKILL)
    # 3 is for leaked clusters, which a killed process may leave
    check = subprocess.run(["qemu-img", "check", disk], capture_output=True, text=True)
    assert check.returncode in ((0,) if end == signal.SIGTERM else (0, 3)), check.stdout
    last = max(int(n) for n in re.findall(r"STEP (\d+)$", vm.text, re.M))
    reads = "\n".join(f"read -q -P {i % 200 + 33} {i * 65536} 65536" for i in range(last + 1))
    out = subprocess.run(["qemu-io", "-r", "-f", "qcow2", disk], input=reads + "\n", text=True,
                         check=True, capture_output=True)
    assert "failed" not in out.stdout and not out.stderr, (out.stdout[-500:], out.stderr[-500:])


def test_a_disc_is_changed(generic, tmp_path):
    """An AHCI disk and CD-ROM drive: a mounted disc stays, then the guest gets another one."""
    discs, qmp = [], tmp_path / "qmp"
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"this is disc {name}\n")
        iso = tmp_path / f"{name}.iso"
        subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-volid", name, "-output", iso,
                        tmp_path / name], check=True, capture_output=True)
        discs.append(iso)
    disk = tmp_path / "disk.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", disk, "64M")
    vm = generic("test=disc", "-drive", f"file={discs[0]},media=cdrom,if=ide,id=cd", "-drive",
                 f"file={disk},if=ide,id=hd", "-qmp", f"unix:{qmp},server=on,wait=off")
    vm.expect("DISC this is disc one")
    q = Qmp(str(qmp))
    assert {d["device"]: d["locked"] for d in q.call("query-block")}["cd"]
    with pytest.raises(RuntimeError, match="is locked"):
        q.call("eject", device="cd")
    vm.type("\n")
    vm.expect("DISK-DONE")
    q.call("eject", device="cd")
    assert "inserted" not in {d["device"]: d for d in q.call("query-block")}["cd"]
    q.call("blockdev-change-medium", device="cd", filename=str(discs[1]))
    vm.type("\n")
    vm.expect("DISC this is disc two")
    q.close()
    assert vm.end() == 0
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


SPLIT = ("-machine", "q35,kernel_irqchip=split", "-cpu", "host")


def test_split_irqchip(boot, tmp_path):
    """The board's own I/O APIC: edges of the serial port, the level of the power button's SCI."""
    qmp = tmp_path / "qmp"
    vm = boot("test=button", *SPLIT, "-smp", "2", "-qmp", f"unix:{qmp},server=on,wait=off")
    vm.expect("cpus 2")
    vm.expect("BUTTON-WAIT")
    q = Qmp(str(qmp))
    q.call("system_powerdown")
    vm.expect("BUTTON-PRESSED")
    q.close()
    assert vm.end() == 0


def test_split_irqchip_pic(boot, tmp_path):
    """The board's own 8259s at LINT0: all interrupts, the disk's shared level among them."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(64 << 20))
    vm = boot("noapic pci=nomsi test=disk", *SPLIT, "-drive",
              f"file={disk},format=raw,if=virtio")
    vm.expect("DISK-WRITTEN")
    assert vm.end() == 0
    subprocess.run(["e2fsck", "-fn", disk], check=True)
