# SPDX-License-Identifier: Apache-2.0
"""Networks of a stock Linux guest: user mode, taps with and without the kernel's vhost-net, guests
among themselves, other processes as back ends."""
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from vmtest import CACHE, Qmp, Vm, free_port

in_lab = pytest.mark.skipif("LAB" not in os.environ, reason="changes this host's configuration")


def echoed(address, port, size=1 << 20):
    """What goes to the guest comes back, byte for byte."""
    data = random.Random(size + port).randbytes(size)
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
                piece = s.recv(65536)
                if not piece:
                    return False
                back += piece
            except BlockingIOError:
                pass
    return back == data


def echoed_at_once(address, ports, size):
    """The same over several connections side by side."""
    good = []
    threads = [threading.Thread(target=lambda p=p: good.append(echoed(address, p, size)))
               for p in ports]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return good == [True] * len(ports)


def run(*command, **kw):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True,
                          **kw).stdout


@contextlib.contextmanager
def name_server():
    """The lab's only one: it says 192.0.2.7 for every name."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.53", 53))

    def serve():
        while True:
            question, client = s.recvfrom(512)
            if not question:
                return
            end = question.index(b"\0", 12) + 5
            is_a = question[end - 4:end - 2] == b"\0\1"
            answer = b"\xc0\x0c" + struct.pack(">HHIH4s", 1, 1, 60, 4, bytes([192, 0, 2, 7]))
            s.sendto(question[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0) +
                     question[12:end] + (answer if is_a else b""), client)

    thread = threading.Thread(target=serve)
    thread.start()
    with open("/etc/resolv.conf", "w", encoding="ascii") as f:
        f.write("nameserver 127.0.0.53\n")
    try:
        yield
    finally:
        s.sendto(b"", s.getsockname())
        thread.join()
        s.close()


@pytest.mark.parametrize("legacy", ["off", "on"])
def test_user_mode(boot, tmp_path, legacy):
    """An address by DHCP, the gateway answers, names, a forwarded port, packets in a file, the
    link."""
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
    if legacy == "off" and "LAB" in os.environ:
        with name_server():
            assert "192.0.2.7" in vm.shell("nslookup some.name.test")
    q = Qmp(f"{tmp_path}/qmp")
    q.call("set_link", name="n", up=False)
    vm.expect("LINK-DOWN")
    q.call("set_link", name="n", up=True)
    vm.expect("LINK-UP")
    assert echoed("127.0.0.1", port, 5000)
    q.call("quit")
    assert vm.end() == 0
    text = run("tcpdump", "-nn", "-r", pcap, "udp port 67 or icmp")
    assert "BOOTP/DHCP, Reply" in text and "ICMP echo reply" in text
    if legacy == "off":
        read_with_tshark(pcap)


def read_with_tshark(pcap):
    """Which protocols are in it, and that none of the packets is cut or malformed."""
    out = run("tshark", "-n", "-r", pcap, "-T", "fields", "-e", "frame.protocols", "-e",
              "frame.len", "-e", "frame.cap_len", "-e", "_ws.malformed")
    packets = [line.split("\t") for line in out.splitlines()]
    seen = {p for packet in packets for p in packet[0].split(":")}
    assert {"arp", "dhcp", "icmp", "tcp"} <= seen
    assert all(p[1] == p[2] for p in packets)
    assert not any(p[3] for p in packets)


def interrupts(vm):
    """How often each queue of received packets has told of some."""
    text = vm.shell("grep -E 'virtio[0-9]+-input' /proc/interrupts")
    return [sum(int(n) for n in re.findall(r" (\d+)(?= )", line.split(":", 1)[1]))
            for line in text.splitlines() if "input" in line]


@pytest.mark.parametrize("irq", ["msix", "intx"])
def test_e1000e(boot, tmp_path, irq):
    """The stock driver: an address, the gateway, bytes both ways through large segments, the link."""
    port = free_port()
    vm = boot("test=net" + (" pci=nomsi" if irq == "intx" else ""), "-nic", f"user,model=e1000e,mac=52:54:00:01:02:03,id=n,hostfwd=tcp:127.0.0.1:{port}-:7",
              "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off", guest="wired",
              kernel=f"{CACHE}/kernel-generic/vmlinuz")
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
    q.call("system_reset")  # the card from the start again
    vm.expect("NET-READY")
    assert echoed("127.0.0.1", port, 100000)
    q.call("quit")
    assert vm.end() == 0


@pytest.mark.parametrize("vhost,queues,mtu", [("off", 1, 1500), ("off", 4, 9000), ("on", 1, 9000),
                                              ("on", 4, 1500)])
def test_tap(boot, tmp_path, vhost, queues, mtu):
    """With all offloads between the host's stack and the guest's; jumbo frames; all queues."""
    tap, net = f"tap{os.getpid()}", os.getpid() % 200 + 20
    guest = f"192.168.{net}.2"
    multi = ["multi_queue"] if queues > 1 else []
    run("ip", "tuntap", "add", tap, "mode", "tap", *multi)
    try:
        run("ip", "addr", "add", f"192.168.{net}.1/24", "dev", tap)
        run("ip", "link", "set", tap, "up", "mtu", mtu)
        vm = boot(f"test=net addr={guest}/24", "-smp", queues, "-netdev",
                  f"tap,id=n,ifname={tap},script=no,downscript=no,vhost={vhost},queues={queues}",
                  "-device", f"virtio-net-pci,netdev=n,mq={'on' if queues > 1 else 'off'}"
                  f"{',host_mtu=9000' if mtu == 9000 else ''}",
                  "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off")
        vm.expect(f"carrier 1 mac [0-9a-f:]+ mtu {mtu}")
        vm.expect("NET-READY")
        assert echoed(guest, 7, 4 << 20)
        run("ping", "-c", 3, "-W", 20, "-s", mtu - 100, "-M", "do", guest)
        if queues > 1:
            assert vm.shell("ls -d /sys/class/net/eth0/queues/rx-*").count("rx-") == queues
            assert echoed_at_once(guest, (7, 8, 9, 10), 1 << 20)
            used = [n for n in interrupts(vm) if n]
            assert len(used) > 1, used
        q = Qmp(f"{tmp_path}/qmp")
        if (vhost == "on") == (queues > 1):
            q.call("system_reset")  # rings and offloads from the start again
            vm.expect("NET-READY")
            assert echoed(guest, 7)
        q.call("quit")
        assert vm.end() == 0
    finally:
        run("ip", "link", "del", tap)


@contextlib.contextmanager
def bridge(mtu):
    """A bridge that the helper of Debian's QEMU may put taps on."""
    name, acl = f"br{os.getpid()}", "/etc/qemu/bridge.conf"
    run("ip", "link", "add", name, "mtu", mtu, "type", "bridge")
    run("ip", "link", "set", name, "up")
    os.makedirs(os.path.dirname(acl), exist_ok=True)
    with open(acl, "a", encoding="ascii") as f:
        f.write(f"allow {name}\n")
    try:
        yield name
    finally:
        run("ip", "link", "del", name)


@in_lab
def test_two_guests(boot, tmp_path):
    """On one stream, one pair of datagram sockets, one multicast group and one bridge: they ping
    each other and fetch a file both ways; then one of them is killed."""
    stream, d1, d2 = (tmp_path / n for n in ("s", "d1", "d2"))
    group = ("-netdev", f"socket,id=m,mcast=230.0.0.1:{free_port()},localaddr=127.0.0.1")
    with bridge(9000) as br:
        ends = [("-netdev", f"stream,id=s,server=on,addr.type=unix,addr.path={stream}",
                 "-netdev", f"dgram,id=d,local.type=unix,local.path={d1},remote.type=unix,"
                 f"remote.path={d2}", *group, "-netdev", f"bridge,id=b,br={br}"),
                ("-netdev", f"stream,id=s,server=off,addr.type=unix,addr.path={stream},reconnect=1",
                 "-netdev", f"dgram,id=d,local.type=unix,local.path={d2},remote.type=unix,"
                 f"remote.path={d1}", *group, "-netdev", f"tap,id=b,br={br}")]
        guests = []
        for i, end in enumerate(ends):
            cards = []
            for j, net in enumerate("sdmb"):
                cards += ["-device", f"virtio-net-pci,netdev={net},mac=52:54:00:00:0{j}:0{i}"
                          f"{',host_mtu=9000' if net == 'b' else ''}"]
            guests.append(boot("test=shell", *end, *cards, "-qmp",
                               f"unix:{tmp_path}/qmp{i},server=on,wait=off"))
        for i, vm in enumerate(guests):
            vm.expect("SHELL-READY")
            vm.shell(f"for n in 0 1 2 3; do ip addr add 10.9.$n.{i + 1}/24 dev eth$n; "
                     "ip link set eth$n up; done; "
                     "head -c 2000000 /dev/urandom >/tmp/f; httpd -p 80 -h /tmp")
        one, two = guests
        sums = [vm.shell("md5sum </tmp/f").split()[0] for vm in guests]
        assert sums[0] != sums[1]
        for n in range(4):
            one.shell(f"ping -c 2 -W 20 10.9.{n}.2")
            assert two.shell(f"wget -qO- http://10.9.{n}.1/f | md5sum").split()[0] == sums[0]
            assert one.shell(f"wget -qO- http://10.9.{n}.2/f | md5sum").split()[0] == sums[1]
        assert one.shell("cat /sys/class/net/eth3/mtu").strip() == "9000"
        two.shell("ping -c 2 -W 20 -s 8900 10.9.3.1")
        reassembled = one.shell("awk '/^Ip:/ { print $15 }' /proc/net/snmp").split()
        assert reassembled == ["ReasmReqds", "0"]

        q = Qmp(f"{tmp_path}/qmp1")
        q.call("set_link", name="b", up=False)
        two.shell("while [ $(cat /sys/class/net/eth3/carrier) = 1 ]; do usleep 10000; done")
        two.shell("! ping -c 1 -W 1 10.9.3.1")
        q.call("set_link", name="b", up=True)
        two.shell("while [ $(cat /sys/class/net/eth3/carrier) = 0 ]; do usleep 10000; done")
        two.shell("ping -c 1 -W 20 10.9.3.1")

        one.signal(signal.SIGKILL)
        assert one.end() == -signal.SIGKILL
        two.shell("while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 10000; done")
        two.shell("! ping -c 1 -W 1 10.9.1.1")  # the host refuses what nobody takes
        assert two.shell("cat /sys/class/net/eth1/carrier").strip() == "1"
        q.call("quit")
        assert two.end() == 0


@contextlib.contextmanager
def process(*command):
    """Runs beside the test; process.kill() ends it as a crash would."""
    p = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield p
    finally:
        p.kill()
        p.wait()
        p.stdin.close()


def passt(path, port):
    """User mode of another project: DHCP, and the host's port is the guest's port 7."""
    return process("passt", "-f", "-s", path, "-i", "passt0", "-t", f"127.0.0.1/{port}:7")


def dpdk(path):
    """testpmd, which serves the guest's queues and answers ARP and pings."""
    return process("dpdk-testpmd", "-l", "0,1", "--no-huge", "-m", "128", "--no-pci",
                   "--file-prefix", path.name, "--vdev", f"net_vhost0,iface={path},queues=2", "--",
                   "--forward-mode=icmpecho", "--rxq=2", "--txq=2", "--total-num-mbufs=4096")


@in_lab
def test_back_ends_of_others(boot, tmp_path):
    """passt at a stream's other end, DPDK's testpmd behind vhost-user; both are killed and come
    back."""
    port, vhost = free_port(), tmp_path / f"vhost{os.getpid()}"
    stream = pathlib.Path(tempfile.mkdtemp()) / "passt"
    stream.parent.chmod(0o777)  # it runs as nobody
    run("ip", "link", "add", "passt0", "type", "veth", "peer", "name", "passt1")
    try:
        run("ip", "addr", "add", "198.51.100.2/24", "dev", "passt0")
        for dev in ("passt0", "passt1"):
            run("ip", "link", "set", dev, "up")
        run("ip", "route", "add", "default", "via", "198.51.100.1")
        talk_to_others(boot, tmp_path, port, stream, vhost)
    finally:
        run("ip", "link", "del", "passt0")
        shutil.rmtree(stream.parent)


def wait_for_sockets(*paths):
    deadline = time.monotonic() + 120
    while not all(p.exists() for p in paths):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def talk_to_others(boot, tmp_path, port, stream, vhost):
    with passt(stream, port) as p, dpdk(vhost) as t:
        wait_for_sockets(stream, vhost)
        vm = boot("test=net addr=198.51.100.2/24", "-smp", 2, "-object",
                  "memory-backend-memfd,id=mem,size=256M,share=on", "-machine", "memory-backend=mem",
                  "-netdev", f"stream,id=p,server=off,addr.type=unix,addr.path={stream},reconnect=1",
                  "-device", "virtio-net-pci,netdev=p", "-chardev",
                  f"socket,id=c,path={vhost},reconnect=1", "-netdev",
                  "vhost-user,id=v,chardev=c,queues=2", "-device", "virtio-net-pci,netdev=v,mq=on",
                  "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off")
        vm.expect("NET-READY")
        assert "lease of 198.51.100.2 obtained" in vm.shell("udhcpc -i eth0 -n -q -s /bin/true 2>&1")
        assert echoed("127.0.0.1", port)
        vm.shell("ip addr add 10.9.0.1/24 dev eth1; ip link set eth1 up")
        vm.shell("ping -c 3 -W 20 10.9.0.2")
        vm.shell("ping -c 3 -W 20 -s 1400 10.9.0.3")
        p.kill()
        t.kill()
        for n in (0, 1):
            vm.shell(f"while [ $(cat /sys/class/net/eth{n}/carrier) = 1 ]; do usleep 10000; done")
        p.wait()
        t.wait()
    for path in (stream, vhost):
        path.unlink(missing_ok=True)
    with passt(stream, port), dpdk(vhost):
        for n in (0, 1):
            vm.shell(f"while [ $(cat /sys/class/net/eth{n}/carrier) = 0 ]; do usleep 10000; done")
        assert echoed("127.0.0.1", port, 5000)
        vm.shell("ping -c 3 -W 20 10.9.0.2")
        q = Qmp(f"{tmp_path}/qmp")
        q.call("quit")
        assert vm.end() == 0


def say_program(text):
    """16-bit code for 0:7c00 that says text on the serial port, and returns to what loaded it."""
    code = bytes.fromhex("0e 1f fc"      # push cs; pop ds; cld
                         "be 1e 7c"      # mov si, text
                         "ac 84 c0"      # next: lodsb; test al, al
                         "74 11"         # jz done
                         "88 c3"         # mov bl, al
                         "ba fd 03"      # mov dx, 3fd
                         "ec a8 20"      # wait: in al, dx; test al, 20
                         "74 fb"         # jz wait
                         "b2 f8 88 d8 ee"  # mov dl, f8; mov al, bl; out dx, al
                         "eb ea"         # jmp next
                         "31 c0 cb")     # done: xor ax, ax; retf
    at = 0x7c00 + len(code)
    return code[:4] + struct.pack("<H", at) + code[6:] + text.encode() + b"\0"


@pytest.mark.parametrize("card", ["virtio-net-pci", "e1000e"])
def test_pxe_under_seabios(tmp_path, card):
    """iPXE's ROM fetches a script, and what that names, from user mode's TFTP. (iPXE sleeps in 32-bit
    protected mode, from where a KVM that only has page tables cannot deliver an interrupt: the
    machine resets there, under QEMU as well.)"""
    tftp = tmp_path / "tftp"
    tftp.mkdir()
    (tftp / "boot.ipxe").write_text("#!ipxe\nchain say.0\n")
    (tftp / "say.0").write_bytes(say_program("this came by TFTP\r\n"))
    with Vm("-m", "256M", "-cpu", "host", "-nographic", "-netdev",
            f"user,id=n,tftp={tftp},bootfile=boot.ipxe", "-device",
            f"{card},netdev=n,bootindex=0") as vm:
        vm.expect("iPXE")
        vm.expect("this came by TFTP")
        vm.signal(signal.SIGTERM)
        assert vm.end() == 0
