#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vmm-img beside qemu-img, by turns. `tests/bench/run block`.

    tests/bench/block.py [-r RUNS] [-d DIR]... [-s MiB] [STEP]...

    convert   raw to qcow2 and back
    compress  convert -c, and reading what it made
    requests  4 KiB at depth 64, reads and writes into allocated clusters
    allocate  64 KiB writes into new clusters, in the directory and with the guest's bytes thrown away
    check     a full image of 100 GiB
    idle      opening an image of 1 TiB, and the memory of a process that has it open

For every DIR (default: /dev/shm and /var/tmp): seconds and processor time of each, medians with the
least and the most, and how many times as fast vmm-img is.
"""
import argparse
import os
import random
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VMM_IMG = f"{TOP}/build/vmm-img"
MiB = 1 << 20


def timed(argv, out=None):
    """Seconds, processor seconds, and what it printed. A new target each time."""
    if out and os.path.exists(out):
        os.unlink(out)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, text


def line(name, unit, theirs, ours, faster_is_less=True):
    def show(values):
        return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"  {name:40} qemu-img {show(theirs):26} vmm-img {show(ours):26} {unit}  "
          f"{ratio if faster_is_less else 1 / ratio:.2f}", flush=True)


def side_by_side(name, runs, args, out=None, rate=None, before=None):
    """args: for (qemu-img, vmm-img). rate: requests, told as a rate of what the tool says itself."""
    wall, cpu = ([], []), ([], [])
    for run in range(runs + 1):
        for i, tool in enumerate(["qemu-img", VMM_IMG]):
            if before:
                before()
            seconds, processor, text = timed([tool, *args[i]], out)
            if rate:
                seconds = rate / float(re.search(r"in ([\d.]+) seconds", text)[1]) / 1000
            if run:
                wall[i].append(seconds)
                cpu[i].append(processor / (rate or 1e6) * 1e6)
    line(name, "k/s" if rate else "s", *wall, faster_is_less=not rate)
    line("  processor", "us each" if rate else "s", *cpu)


def fill(path, size, seed=1):
    """A quarter is noise, a third repeats itself, a fifth is zero, the rest holes."""
    rng = random.Random(seed)
    words = [rng.randbytes(64) for _ in range(4096)]
    with open(path, "wb") as f:
        f.truncate(size)
        for at in range(0, size, MiB):
            what = rng.random()
            if what < 0.8:
                f.seek(at)
            if what < 0.35:
                f.write(b"".join(rng.choices(words, k=MiB // 64)))
            elif what < 0.6:
                f.write(rng.randbytes(MiB))
            elif what < 0.8:
                f.write(bytes(MiB))


def programs(path, size):
    """What a root file system has: the host's own libraries and programs."""
    with open(path, "wb") as f:
        for folder in ["/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/share"]:
            for name in sorted(os.listdir(folder)):
                file = f"{folder}/{name}"
                if f.tell() < size and os.path.isfile(file):
                    with open(file, "rb") as g:
                        shutil.copyfileobj(g, f)
        f.truncate(size)


def convert(tmp, runs, size):
    raw, qcow2, out = f"{tmp}/raw", f"{tmp}/qcow2", f"{tmp}/out"
    fill(raw, size)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
    for name, args in [("raw to qcow2", ["-f", "raw", "-O", "qcow2", raw]),
                       ("raw to qcow2, -W", ["-W", "-f", "raw", "-O", "qcow2", raw]),
                       ("qcow2 to raw", ["-f", "qcow2", "-O", "raw", qcow2]),
                       ("qcow2 to raw, -W", ["-W", "-f", "qcow2", "-O", "raw", qcow2])]:
        side_by_side(name, runs, [["convert", *args, out]] * 2, out)


def compress(tmp, runs, size):
    raw, out = f"{tmp}/programs", f"{tmp}/out"
    programs(raw, size // 4)
    for kind in ["zlib", "zstd"]:
        side_by_side(f"raw to qcow2, -c, {kind}", max(runs // 2, 1),
                     [["convert", "-c", "-o", f"compression_type={kind}", "-f", "raw", "-O", "qcow2",
                       raw, out]] * 2, out)
        lengths = []
        for tool in ["qemu-img", VMM_IMG]:
            subprocess.run([tool, "convert", "-c", "-o", f"compression_type={kind}", "-f", "raw", "-O",
                            "qcow2", raw, out], check=True)
            lengths.append(os.path.getsize(out))
        print(f"    the image: {lengths[1] / lengths[0]:.3f} of qemu-img's length")
        subprocess.run(["qemu-img", "convert", "-c", "-o", f"compression_type={kind}", "-f", "raw", "-O",
                        "qcow2", raw, f"{tmp}/packed"], check=True)
        side_by_side(f"compressed qcow2 to raw, {kind}", runs,
                     [["convert", "-f", "qcow2", "-O", "raw", f"{tmp}/packed", out]] * 2, out)


def requests(tmp, runs, size):
    raw, qcow2 = f"{tmp}/r.raw", f"{tmp}/r.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", "-o", "preallocation=full", raw,
                    str(size // 2)], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", qcow2,
                    str(size // 2)], check=True)
    for fmt, image in [("raw", raw), ("qcow2", qcow2)]:
        for what in [[], ["-w"]]:
            verb = "writes" if what else "reads"
            args = ["bench", "-c", "200000", "-d", "64", "-s", "4096", "-S", str(37 * 4096), "-f", fmt,
                    *what]
            side_by_side(f"4 KiB {verb}, depth 64, {fmt}, as it comes", runs, [[*args, image]] * 2,
                         rate=200000)
            side_by_side(f"4 KiB {verb}, depth 64, {fmt}, best engines", runs,
                         [[*args, "-t", "none", "-i", "native", image]] * 2, rate=200000)


def allocate(tmp, runs, size):
    image, count = f"{tmp}/a.img", size // 65536
    bench = ["bench", "-w", "-d", "64", "-s", "65536"]

    def create(*options):
        if os.path.exists(image):
            os.unlink(image)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options], check=True)

    for what, args in [("as it comes", []), ("best engines", ["-t", "none", "-i", "native"])]:
        side_by_side(f"64 KiB allocating writes, {what}", runs,
                     [[*bench, "-c", str(count), "-f", "qcow2", *args, image]] * 2, rate=count,
                     before=lambda: create(image, str(size)))
    # A table entry for each request, and a data file that takes everything and keeps nothing.
    count, null = 500000, f"data-file.driver=null-co,data-file.size={500000 << 16}"
    for what, aio in [("as it comes", ("threads", "io_uring")), ("io_uring", ("io_uring", "io_uring"))]:
        side_by_side(f"64 KiB allocating writes, null data, {what}", runs,
                     [[*bench, "-c", str(count), "--image-opts",
                       f"driver=qcow2,file.driver=file,file.aio={a},file.filename={image},{null}"] for a in aio],
                     rate=count, before=lambda: create("-o", f"data_file={tmp}/a.data", image, str(count << 16)))


def check(tmp, runs, size):
    image = f"{tmp}/full"
    for options, length in [("", "100G"), (",cluster_size=4k", "20G")]:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata" + options,
                        image, length], check=True)
        side_by_side(f"check, {length}, full{options}", runs, [["check", "-q", image]] * 2)


def idle(tmp, runs, size):
    image, anonymous = f"{tmp}/1T", ([], [])
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1T"], check=True)
    side_by_side("opening 1 TiB (info), the whole process", runs, [["info", image]] * 2)
    for _ in range(runs):
        for i, tool in enumerate([["qemu-io"], [VMM_IMG, "io"]]):
            p = subprocess.Popen([*tool, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            p.stdin.write("length\n")
            p.stdin.flush()
            while "1 TiB" not in p.stdout.readline():
                pass
            time.sleep(0.2)
            with open(f"/proc/{p.pid}/smaps_rollup") as f:
                anonymous[i].append(int(re.search(r"^Anonymous: +(\d+) kB", f.read(), re.M)[1]) / 1000)
            p.communicate("quit\n")
    line("anonymous memory, 1 TiB open", "MB", *anonymous)


STEPS = {"convert": convert, "compress": compress, "requests": requests, "allocate": allocate, "check": check,
         "idle": idle}


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("-r", dest="runs", type=int, default=7)
    p.add_argument("-d", dest="dirs", action="append")
    p.add_argument("-s", dest="size", type=int, default=512)
    p.add_argument("steps", nargs="*", default=list(STEPS))
    a = p.parse_args(argv)
    for where in a.dirs or ["/dev/shm", "/var/tmp"]:
        with tempfile.TemporaryDirectory(dir=where) as tmp:
            print(f"\nvmm-img and qemu-img in {where}: medians (least to most), times as fast")
            for step in a.steps:
                STEPS[step](tmp, a.runs, a.size * MiB)


if __name__ == "__main__":
    main()
