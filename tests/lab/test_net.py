# SPDX-License-Identifier: Apache-2.0
"""Networks of a stock Linux guest: user mode, taps with and without the kernel's vhost-net."""
import os
import random
import socket
import subprocess

import pytest

from vmtest import Qmp


def echoed(address, port, size=1 << 20):
    """What goes to the guest comes back, byte for byte."""
    data = random.Random(size).randbytes(size)
    back = b""
    with socket.create_connection((address, port), timeout=60) as s:
        s.setblocking(False)
        sent = 0
        while len(back) < size:
            if sent < size:
                try:
                    sent += s.send(data[sent:sent + 65536])
                except BlockingIOError:
                    pass
            try:
                back += s.recv(65536)
            except BlockingIOError:
                pass
    return back == data


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("legacy", ["off", "on"])
def test_user_mode(boot, tmp_path, legacy):
    """An address by DHCP, the gateway answers, a forwarded port, packets in a file, the link."""
    port, pcap = free_port(), tmp_path / "net.pcap"
    vm = boot("test=net", "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:7", "-device",
              f"virtio-net-pci,netdev=n,mac=52:54:00:01:02:03,disable-modern={legacy},disable-legacy=off",
              "-object", f"filter-dump,id=d,netdev=n,file={pcap}", "-qmp",
              f"unix:{tmp_path}/qmp,server=on,wait=off")
    vm.expect(r"DHCP 10\.0\.2\.15/24 via 10\.0\.2\.2 dns 10\.0\.2\.3")
    vm.expect("PING-OK")
    vm.expect("carrier 1 mac 52:54:00:01:02:03 mtu 1500")
    vm.expect("NET-READY")
    assert echoed("127.0.0.1", port)
    q = Qmp(f"{tmp_path}/qmp")
    q.call("set_link", name="n", up=False)
    vm.expect("LINK-DOWN")
    q.call("set_link", name="n", up=True)
    vm.expect("LINK-UP")
    assert echoed("127.0.0.1", port, 5000)
    q.call("quit")
    assert vm.end() == 0
    text = subprocess.run(["tcpdump", "-nn", "-r", pcap, "udp port 67 or icmp"], check=True,
                          capture_output=True, text=True).stdout
    assert "BOOTP/DHCP, Reply" in text and "ICMP echo reply" in text


@pytest.mark.parametrize("vhost,queues", [("off", 1), ("off", 4), ("on", 1), ("on", 4)])
def test_tap(boot, tmp_path, vhost, queues):
    """With all offloads between the host's stack and the guest's."""
    tap, net = f"tap{os.getpid()}", os.getpid() % 200 + 20
    multi = ["multi_queue"] if queues > 1 else []
    subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap", *multi], check=True)
    try:
        subprocess.run(["ip", "addr", "add", f"192.168.{net}.1/24", "dev", tap], check=True)
        subprocess.run(["ip", "link", "set", tap, "up"], check=True)
        vm = boot(f"test=net addr=192.168.{net}.2/24", "-smp", "2", "-netdev",
                  f"tap,id=n,ifname={tap},script=no,downscript=no,vhost={vhost},queues={queues}",
                  "-device", f"virtio-net-pci,netdev=n,mq={'on' if queues > 1 else 'off'}",
                  "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off")
        vm.expect("NET-READY")
        assert echoed(f"192.168.{net}.2", 7, 4 << 20)
        q = Qmp(f"{tmp_path}/qmp")
        q.call("system_reset")  # rings and offloads from the start again
        vm.expect("NET-READY")
        assert echoed(f"192.168.{net}.2", 7)
        q.call("quit")
        assert vm.end() == 0
    finally:
        subprocess.run(["ip", "link", "del", tap], check=True)
