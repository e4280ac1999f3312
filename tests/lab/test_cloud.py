# SPDX-License-Identifier: Apache-2.0
"""A whole Debian cloud image: from its own boot loader under both firmwares, with its seed on each
bus, to the end of cloud-init, and out again."""
import json
import os
import shutil
import signal
import subprocess

import pytest

from vmtest import CACHE, IS_QEMU, Vm, free_port, overlay, vmm_img

IMAGE = f"{CACHE}/debian-cloud.qcow2"
OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"

# In the lab, UEFI needs the mended emulator.
needs_ovmf = pytest.mark.skipif(
    not os.path.exists(OVMF_CODE) or
    ("LAB" in os.environ and not os.path.exists(f"{CACHE}/lab/qemu/qemu-system-x86_64")),
    reason="no OVMF, or no emulator that can run it")

USER_DATA = """#cloud-config
password: debian
chpasswd: {expire: false}
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
runcmd:
- [sh, -c, 'echo "SEEDED by $(grep -o "DataSource[^\\"]*" /run/cloud-init/status.json)" >/dev/ttyS0']
- [sh, -c, 'echo "HOST $(hostname) CPUS $(nproc) ROOT $(findmnt -no SOURCE /)" >/dev/ttyS0']
- [sh, -c, 'echo kept >/root/mark; sync']
"""
# The image's network is networkd's, which nothing else starts.
NETWORK_UP = """- [systemctl, start, systemd-networkd, ssh]
- [sh, -c, 'until ip -4 route | grep -q default; do sleep 1; done; echo "NETWORK $(ip -4 -o addr show scope global | grep -o "[0-9.]*/[0-9]*") $(ip -4 route show default)" >/dev/ttyS0']
"""
POWER_OFF = "power_state: {mode: poweroff, delay: now, timeout: 5}\n"


def write_seed(tmp_path, then=POWER_OFF):
    (tmp_path / "user-data").write_text(USER_DATA + then)
    (tmp_path / "meta-data").write_text("instance-id: test-1\nlocal-hostname: testhost\n")
    return tmp_path / "user-data", tmp_path / "meta-data"


def seed_iso(tmp_path, then=POWER_OFF):
    user, meta = write_seed(tmp_path, then)
    iso = tmp_path / "seed.iso"
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock",
                    "-output", iso, user, meta], check=True, capture_output=True)
    return iso


def check_image(disk):
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)


def check_root(disk, tmp_path):
    """The root file system is clean, and what the guest wrote is in it."""
    raw = tmp_path / "whole.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    table = subprocess.run(["sfdisk", "-J", raw], check=True, capture_output=True, text=True).stdout

    start = json.loads(table)["partitiontable"]["partitions"][2]["start"]
    root = f"{raw}?offset={start * 512}"
    subprocess.run(["e2fsck", "-fn", root], check=True, capture_output=True)
    out = subprocess.run(["debugfs", "-R", "cat /root/mark", root], check=True,
                         capture_output=True, text=True).stdout
    raw.unlink()
    assert out.strip() == "kept"


def test_from_its_own_grub_under_seabios(tmp_path):
    """The seed as media=cdrom without if=; a login, a reboot from there, the power button."""
    disk = overlay(tmp_path, IMAGE)
    iso = seed_iso(tmp_path, "")
    cdrom = f"file={iso},media=cdrom" if not IS_QEMU else f"file={iso},if=virtio,readonly=on,format=raw"
    vm = Vm("-m", "1G", "-smp", "2", "-cpu", "host", "-drive", f"file={disk},if=virtio", "-drive",
            cdrom, "-nographic")
    with vm:
        vm.expect("Loading Linux", 120)
        vm.expect("Linux version", 600)
        vm.expect("SEEDED by .*NoCloud", 1200)
        vm.expect(r"HOST testhost CPUS 2 ROOT /dev/vda3")
        vm.type("\n")
        vm.expect("testhost login:", 1200)
        vm.type("debian\n")
        vm.expect("Password:")
        vm.type("debian\n")
        vm.expect(r"debian@testhost:~\$")
        vm.type("sudo reboot\n")
        vm.expect("Loading Linux", 600)
        vm.expect("Linux version", 600)
        vm.expect("testhost login:", 1200)
        vm.type("\x01c")
        vm.expect(r"\((vmm|qemu)\) ")
        vm.type("system_powerdown\n\x01c")
        assert vm.end(300) == 0
    check_image(disk)
    check_root(disk, tmp_path)


@needs_ovmf
def test_under_ovmf_with_a_variable_store(tmp_path):
    """UEFI: the image's own boot loader; a boot entry that the guest makes survives a restart."""
    disk = overlay(tmp_path, IMAGE)
    code, variables = tmp_path / "code.fd", tmp_path / "vars.fd"
    shutil.copy(OVMF_CODE, code)
    shutil.copy(OVMF_VARS, variables)
    user, meta = write_seed(tmp_path)
    before = variables.read_bytes()
    args = ["-m", "1G", "-cpu", "host", "-drive",
            f"if=pflash,format=raw,unit=0,readonly=on,file={code}", "-drive",
            f"if=pflash,format=raw,unit=1,file={variables}", "-drive", f"file={disk},if=virtio",
            "-nographic"]
    if IS_QEMU:
        args += ["-drive", f"file={seed_iso(tmp_path)},if=virtio,readonly=on,format=raw"]
    else:
        args += ["-cloud-init", f"user-data={user},meta-data={meta}"]
    with Vm(*args) as vm:
        vm.expect("Linux version", 400)
        vm.expect(r"efi: EFI v2", 60)
        vm.expect("SEEDED by .*NoCloud", 1200)
        assert vm.end(300) == 0
    after = variables.read_bytes()
    assert after != before and len(after) == len(before)
    check_image(disk)
    check_root(disk, tmp_path)


NETWORK = """version: 2
ethernets:
  inside:
    match: {macaddress: "52:54:00:0a:0b:0c"}
    addresses: [10.0.2.77/24]
    gateway4: 10.0.2.2
"""


def test_direct_boot_with_seeds_in_memory_and_smbios(tmp_path):
    """-cloud-init has the user data, the network and a key to log in with, the serial number
    (ds=nocloud...) the host's name."""
    disk = overlay(tmp_path, IMAGE)
    user, _ = write_seed(tmp_path, NETWORK_UP)
    network, key, port = tmp_path / "network", tmp_path / "key", free_port()
    network.write_text(NETWORK)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with Vm("-m", "1G", "-smp", "2", "-cpu", "host", "-drive", f"file={disk},if=virtio",
            "-kernel", f"{CACHE}/vmlinuz", "-initrd", f"{CACHE}/initrd.img", "-append",
            "root=/dev/vda3 console=ttyS0", "-cloud-init",
            f"user-data={user},network-config={network},ssh-key={key}.pub", "-smbios",
            "type=1,serial=ds=nocloud;h=bysmbios;i=iid-7", "-nographic", "-nic",
            f"user,mac=52:54:00:0a:0b:0c,hostfwd=tcp:127.0.0.1:{port}-10.0.2.77:22") as vm:
        vm.expect("SEEDED by .*NoCloud", 1200)
        vm.expect(r"HOST bysmbios CPUS 2 ROOT /dev/vda3")
        vm.expect(r"NETWORK 10\.0\.2\.77/24 default via 10\.0\.2\.2 ")
        out = subprocess.run(["ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no",
                              "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectionAttempts=100",
                              "debian@127.0.0.1", "hostname; sudo systemctl --no-block poweroff"],
                             check=True, capture_output=True, text=True, timeout=600).stdout
        assert out == "bysmbios\n"
        assert vm.end(600) == 0
    check_image(disk)
    check_root(disk, tmp_path)


def test_a_seed_on_a_sata_cdrom(tmp_path):
    """The stock generic kernel, whose AHCI and CD-ROM drivers find the seed."""
    disk = overlay(tmp_path, IMAGE)
    iso = seed_iso(tmp_path)
    with Vm("-m", "1G", "-cpu", "host", "-drive", f"file={disk},if=virtio", "-drive",
            f"file={iso},media=cdrom,if=ide", "-kernel", f"{CACHE}/kernel-generic/vmlinuz",
            "-initrd", f"{CACHE}/guests/cdseed.img", "-append", "console=ttyS0", "-nographic") as vm:
        vm.expect("SEED-DEVICE /dev/sr0 cidata")
        vm.expect("SEEDED by .*NoCloud", 1200)
        assert vm.end(300) == 0
    check_image(disk)


@pytest.mark.parametrize("firmware", ["seabios", "split", pytest.param("ovmf", marks=needs_ovmf)])
def test_a_rescue_disc_boots(tmp_path, firmware):
    """A grub-mkrescue ISO on the SATA CD-ROM drive, which SeaBIOS finds last, after an empty disk."""
    args = ["-m", "512M", "-cpu", "host", "-nographic", "-drive",
            f"file={CACHE}/guests/rescue.iso,media=cdrom,if=ide,readonly=on"]
    if firmware == "split":
        args += ["-machine", "q35,kernel_irqchip=split"]
    if firmware == "seabios":
        args += ["-cpu", "qemu64", "-drive", "driver=null-co,size=1M,if=virtio", "-boot", "dc"]
    if firmware == "ovmf":
        variables = tmp_path / "vars.fd"
        shutil.copy(OVMF_VARS, variables)
        args += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}", "-drive",
                 f"if=pflash,format=raw,unit=1,file={variables}"]
    with Vm(*args) as vm:
        vm.expect(r"rescue disc on \(cd0|rescue disc on \(hd", 600)
        vm.expect("grub> ")
        if firmware == "ovmf":  # it reads the serial port as well: each gets some of what is typed
            vm.signal(signal.SIGTERM)
        else:
            vm.type("halt\n")
        assert vm.end() == 0


@needs_ovmf
def test_pxe_under_ovmf(tmp_path):
    """A UEFI program by TFTP, through the card's own ROM."""
    config, tftp = tmp_path / "grub.cfg", tmp_path / "tftp"
    tftp.mkdir()
    config.write_text('echo "this came by TFTP"\nsleep 1000\n')
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-c", config, "-p", "/", "-o",
                    tftp / "boot.efi", "echo", "sleep"], check=True)
    variables = tmp_path / "vars.fd"
    shutil.copy(OVMF_VARS, variables)
    with Vm("-m", "512M", "-cpu", "host", "-nographic", "-drive",
            f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}", "-drive",
            f"if=pflash,format=raw,unit=1,file={variables}", "-netdev",
            f"user,id=n,ipv6=off,tftp={tftp},bootfile=boot.efi", "-device",
            "virtio-net-pci,netdev=n,bootindex=0") as vm:
        vm.expect("iPXE", 600)
        vm.expect("this came by TFTP", 600)
        vm.signal(signal.SIGTERM)
        assert vm.end() == 0
