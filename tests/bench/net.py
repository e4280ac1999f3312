#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small packets of a guest of our own (net-guest.c) under vmm and under QEMU, by turns.

    tests/bench/net.py [-r RUNS] [-t SECONDS] [-v] [STEP]...

    dgram-send, dgram-receive     a unix datagram socket, packets.c at the other end
    tap-send, tap-receive         a tap without vhost; the host drops what comes, packets.c floods

Thousands of UDP packets of 64 bytes a second that arrive, medians with the least and the most, and how
many times as many vmm's guest has. As root.
"""
import argparse
import contextlib
import os
import re
import select
import statistics
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GUEST = f"{TOP}/build/tests/bench/net-guest"
PACKETS = f"{TOP}/build/tests/bench/packets"
TAP = f"vmmbench{os.getpid() % 10000}"
WARM = 0.5
PROGRAMS = {
    "vmm": [os.environ.get("VMM") or f"{TOP}/build/vmm"],
    "QEMU": ["qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-no-user-config"],
}
MACHINE = ["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "128", "-device",
           "virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,rx_queue_size=1024,romfile="]


class Teller:
    """A process that prints lines; how fast the number grows that it counts."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.text = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def line(self, limit=120):
        deadline = time.monotonic() + limit
        while b"\n" not in self.text:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise RuntimeError(f"{self.process.args[0]}: silent for {limit} s: {self.text!r}")
            data = os.read(self.process.stdout.fileno(), 4096)
            if not data:
                raise RuntimeError(f"{self.process.args[0]} ended: {self.text!r}")
            self.text += data
        line, self.text = self.text.split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def wait(self, word):
        line = self.line()
        while word not in line:  # firmware talks, too
            line = self.line()
        return line

    def rates(self, seconds):
        """Numbers of a "count" line, each a second."""
        def read():
            line = self.wait("count ")
            return time.monotonic(), [int(n) for n in re.findall(r"\d+", line)]
        start = time.monotonic()
        at, first = read()
        while at < start + WARM:
            at, first = read()
        end, last = at, first
        while end < at + seconds:
            end, last = read()
        return [(b - a) / (end - at) for a, b in zip(first, last)]


def guest(program, netdev, append):
    return Teller([*PROGRAMS[program], *MACHINE, "-netdev", netdev, "-kernel", GUEST, "-append", append])


def dgram(program, tmp, way, seconds):
    ours, theirs = f"{tmp}/{program}.guest", f"{tmp}/{program}.peer"
    netdev = f"dgram,id=n,local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"
    with contextlib.ExitStack() as stack:
        def start(teller):
            stack.enter_context(teller)
            teller.wait("ready")
            return teller
        if way == "send":
            sink = start(Teller([PACKETS, "sink", theirs, ours]))
            start(guest(program, netdev, way))
            return sink.rates(seconds)
        vm = start(guest(program, netdev, way))
        start(Teller([PACKETS, "source", theirs, ours]))
        return vm.rates(seconds)


def tap_received():
    with open(f"/sys/class/net/{TAP}/statistics/rx_packets") as f:
        return time.monotonic(), int(f.read())


def tap(program, tmp, way, seconds):
    netdev = f"tap,id=n,ifname={TAP},script=no,downscript=no,vhost=off"
    with guest(program, netdev, way) as vm:
        vm.wait("ready")
        if way == "send":
            time.sleep(WARM)
            (start, first), _, (end, last) = tap_received(), time.sleep(seconds), tap_received()
            return [(last - first) / (end - start)]
        with Teller([PACKETS, "flood"]):
            return vm.rates(seconds)


def compare(step, runs, seconds, verbose):
    how, way = step.split("-")
    figures = {program: [] for program in PROGRAMS}
    with tempfile.TemporaryDirectory() as tmp:
        for _ in range(runs):
            for program in PROGRAMS:
                rates = (tap if how == "tap" else dgram)(program, tmp, way, seconds)
                figures[program].append(rates[0] / 1000)
                if verbose:
                    print(f"    {program:5} " + " ".join(f"{r:.0f}" for r in rates), flush=True)
    shown = "   ".join(f"{name} {statistics.median(v):.0f} ({min(v):.0f} to {max(v):.0f})"
                       for name, v in figures.items())
    ratio = statistics.median(figures["vmm"]) / statistics.median(figures["QEMU"])
    print(f"  {step:14} {shown}   thousands/s   {ratio:.2f}", flush=True)


STEPS = ["dgram-send", "dgram-receive", "tap-send", "tap-receive"]


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("-r", dest="runs", type=int, default=5)
    p.add_argument("-t", dest="seconds", type=float, default=2)
    p.add_argument("-v", dest="verbose", action="store_true")
    p.add_argument("steps", nargs="*", default=STEPS)
    a = p.parse_args(argv)
    subprocess.run(["ip", "tuntap", "add", TAP, "mode", "tap", "vnet_hdr"], check=True)
    try:
        with open(f"/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6", "w") as f:
            f.write("1")
        for what in ["address add 10.0.0.2/24", "link set up", "neighbour add 10.0.0.1 lladdr 52:54:00:00:00:01"]:
            subprocess.run(["ip", *what.split(), "dev", TAP], check=True)
        print("packets of a guest of our own: medians (least to most), times as many")
        for step in a.steps:
            compare(step, a.runs, a.seconds, a.verbose)
    finally:
        subprocess.run(["ip", "link", "del", TAP], check=True)


if __name__ == "__main__":
    main()
