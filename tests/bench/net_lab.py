#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stock Linux guest's network under vmm and under QEMU, by turns, with iperf3 and ping. Inside the
lab: `tests/bench/run net-lab`.

    tests/bench/net_lab.py [-r RUNS] [-t SECONDS] [-n ROUNDS] [NETWORK]...

    tap     a tap without vhost: TCP both ways, small UDP packets both ways, round trips
    vhost   a tap with vhost: TCP both ways
    user    user mode: TCP both ways through a forwarded port

Every guest serves RUNS runs of each kind; medians with the least and the most over all rounds.
"""
import argparse
import json
import os
import re
import statistics
import subprocess

from net import PROGRAMS, Teller

CACHE = os.environ.get("VMM_CACHE", os.path.expanduser("~/.cache/vmm"))
PORT = 5201
NETWORKS = {
    "tap": ("tap,id=n,ifname=bench0,script=no,downscript=no,vhost=off", "192.168.77.2"),
    "vhost": ("tap,id=n,ifname=bench0,script=no,downscript=no,vhost=on", "192.168.77.2"),
    "user": (f"user,id=n,hostfwd=tcp:127.0.0.1:{PORT}-:{PORT}", "10.0.2.15"),
}


def iperf(address, seconds, *args):
    """The receiver's sum, in iperf3's words."""
    p = subprocess.run(["iperf3", "-c", address, "-t", str(seconds), "-J", "--connect-timeout", "20000",
                        *args], capture_output=True, text=True, timeout=seconds + 60)
    report = json.loads(p.stdout)
    if "error" in report:
        raise RuntimeError(f"iperf3 {' '.join(args)}: {report['error']}")
    return report["end"]


def tcp(address, seconds, *args):
    """Mbit/s."""
    return iperf(address, seconds, "-O", "1", *args)["sum_received"]["bits_per_second"] / 1e6


def udp(address, seconds, *args):
    """Thousands of packets of 64 bytes a second that arrive."""
    s = iperf(address, seconds, "-u", "-b", "0", "-l", "22", *args)["sum"]
    return (s["packets"] - s["lost_packets"]) / s["seconds"] / 1000


def round_trip(address, count):
    """Microseconds, on average."""
    text = subprocess.run(["ping", "-q", "-i", "0.02", "-c", str(count), address], check=True,
                          capture_output=True, text=True).stdout
    return float(re.search(r"= [\d.]+/([\d.]+)/", text)[1]) * 1000


def kinds(network, address, seconds):
    """{what: (how, unit, whether less is better)}"""
    if network == "user":
        address = "127.0.0.1"
    all_kinds = {
        "TCP to the guest": (lambda: tcp(address, seconds), "Mbit/s", False),
        "TCP from the guest": (lambda: tcp(address, seconds, "-R"), "Mbit/s", False),
    }
    if network == "tap":
        all_kinds["UDP to the guest"] = (lambda: udp(address, seconds), "thousands/s", False)
        all_kinds["UDP from the guest"] = (lambda: udp(address, seconds, "-R"), "thousands/s", False)
        all_kinds["round trip"] = (lambda: round_trip(address, 100), "us", True)
    return all_kinds


def measure(program, network, runs, seconds):
    """{what: figures}"""
    netdev, address = NETWORKS[network]
    with Teller([*PROGRAMS[program], "-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512",
                 "-cpu", "host", "-kernel", f"{CACHE}/kernel-cloud/vmlinuz", "-initrd",
                 f"{CACHE}/guests/iperf.img", "-append", f"console=ttyS0 quiet addr={address}/24", "-netdev",
                 netdev, "-device", "virtio-net-pci,netdev=n,romfile="]) as vm:
        vm.wait("NET-READY")
        figures = {}
        for what, (how, _, _) in kinds(network, address, seconds).items():
            figures[what] = [how() for _ in range(runs)]
            print(f"    {program:5} {network:5} {what:20} " +
                  " ".join(f"{f:.1f}" for f in figures[what]), flush=True)
        return figures


def compare(network, rounds, runs, seconds):
    figures = {}
    for _ in range(rounds):
        for program in PROGRAMS:
            for what, values in measure(program, network, runs, seconds).items():
                figures.setdefault(what, {}).setdefault(program, []).extend(values)
    for what, (_, unit, less) in kinds(network, "", seconds).items():
        by = figures[what]
        shown = "   ".join(f"{name} {statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f})"
                           for name, v in by.items())
        ratio = statistics.median(by["vmm"]) / statistics.median(by["QEMU"])
        print(f"  {network:5} {what:20} {shown}   {unit}   {ratio:.2f}"
              f"{' (less is better)' if less else ''}", flush=True)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("-r", dest="runs", type=int, default=2)
    p.add_argument("-t", dest="seconds", type=int, default=3)
    p.add_argument("-n", dest="rounds", type=int, default=1)
    p.add_argument("networks", nargs="*", default=list(NETWORKS))
    a = p.parse_args(argv)
    subprocess.run(["ip", "tuntap", "add", "bench0", "mode", "tap", "vnet_hdr"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "192.168.77.1/24", "dev", "bench0"], check=True)
        subprocess.run(["ip", "link", "set", "bench0", "up"], check=True)
        print("a stock guest's network in the lab: medians (least to most), times as much")
        for network in a.networks:
            compare(network, a.rounds, a.runs, a.seconds)
    finally:
        subprocess.run(["ip", "link", "del", "bench0"], check=True)


if __name__ == "__main__":
    main()
