# SPDX-License-Identifier: Apache-2.0
"""Image tests: the block layer, driven by vmm-img, against qemu-img and qemu-io.

VMM_IMG names another binary (a sanitised one, say)."""
import os
import random
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VMM_IMG = os.environ.get("VMM_IMG", os.path.join(ROOT, "build", "vmm-img"))

needs_qemu = pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-utils is not installed")


def run(*argv, ok=True, stdin=None):
    """Runs a program; its exit code, standard output and standard error."""
    p = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, text=True,
                       timeout=120)
    if ok:
        assert p.returncode == 0, f"{argv}: {p.returncode}\n{p.stdout[-2000:]}{p.stderr[-2000:]}"
    return p.returncode, p.stdout, p.stderr


def vmm_img(*argv, **kw):
    return run(VMM_IMG, *argv, **kw)


def vmm_io(image, commands, *options, ok=True):
    """Commands go in by standard input, so that there may be thousands."""
    return vmm_img("io", *options, image, stdin="\n".join(commands) + "\n", ok=ok)


def qemu_img(*argv, **kw):
    return run("qemu-img", *argv, **kw)


def qemu_io(image, commands, *options, **kw):
    argv = []
    for c in commands:
        argv += ["-c", c]
    return run("qemu-io", *options, *argv, image, **kw)


PATTERNS = [bytes([byte]) * 65536 for byte in range(256)]


class Model:
    """What a disk should hold, and random commands that change both."""

    def __init__(self, size, seed, data=None):
        self.data = bytearray(size) if data is None else bytearray(data)
        self.size = size
        self.random = random.Random(seed)

    def span(self, most=None):
        r = self.random
        unit = r.choice([1, 512, 512, 4096, 4096, 65536])
        length = min(r.randrange(1, 1 + max(1, r.choice([4096, 65536, most or 300000]) // unit)) * unit,
                     self.size)
        at = r.randrange(0, (self.size - length) // unit + 1) * unit
        return at, length

    def fill(self, at, length, byte):
        self.data[at:at + length] = bytes([byte]) * length

    def commands(self, count, discards=True):
        """Random writes and the like; reads check what the model knows."""
        out = []
        for _ in range(count):
            what = self.random.random()
            at, length = self.span()
            if what < 0.45:
                byte = self.random.randrange(1, 256)
                aio = self.random.choice(["write", "write", "write -f", "aio_write"])
                out.append(f"{aio} -q -P {byte} {at} {length}")
                if aio == "aio_write":
                    out.append("aio_flush")
                self.fill(at, length, byte)
            elif what < 0.65:
                out.append(f"write -q -z {self.random.choice(['', '-u'])} {at} {length}")
                self.fill(at, length, 0)
            elif what < 0.72 and discards:
                # What a discard leaves is anybody's guess until it is written again.
                out.append(f"discard -q {at} {length}")
                byte = self.random.randrange(1, 256)
                out.append(f"write -q -P {byte} {at} {length}")
                self.fill(at, length, byte)
            elif what < 0.77:
                out.append("flush")
            else:
                out += self.reads(at, length, most=4)
        return out

    def write(self, path):
        """Into a new file, zeroes as holes."""
        with open(path, "wb") as f:
            for at in range(0, self.size, 65536):
                piece = self.data[at:at + 65536]
                if piece != PATTERNS[0][:len(piece)]:
                    f.seek(at)
                    f.write(piece)
            f.truncate(self.size)

    def reads(self, at, length, most=None):
        """read -P for each run of equal bytes."""
        out, end = [], at + length
        while at < end and (most is None or len(out) < most):
            byte = self.data[at]
            run_end = at
            while run_end < end:
                piece = self.data[run_end:min(run_end + 65536, end)]
                step = len(piece)
                while step > 512 and piece[:step] != PATTERNS[byte][:step]:
                    step //= 4  # lstrip() looks at each byte
                if piece[:step] == PATTERNS[byte][:step]:
                    run_end += step
                    continue
                piece = piece[:step]
                same = len(piece) - len(piece.lstrip(bytes([byte])))
                run_end += same
                if same < len(piece):
                    break
            out.append(f"read -q -P {byte} {at} {run_end - at}")
            at = run_end
        return out


def assert_quiet(result):
    """All commands worked and every pattern was right."""
    code, out, err = result
    assert code == 0 and not out and not err, (out[-2000:], err[-2000:])


def assert_same(image, model, tmp_path, fmt="qcow2"):
    """qemu-img finds the image clean, and both it and ours read what the model has."""
    if fmt == "qcow2":
        qemu_img("check", image)
        vmm_img("check", image)
    expect = tmp_path / "model.raw"
    model.write(expect)
    qemu_img("compare", "-f", fmt, "-F", "raw", image, expect)
    reads = model.reads(0, model.size, most=3000)
    if len(reads) < 3000:
        assert_quiet(vmm_io(image, reads, "-r", "-f", fmt))
    else:  # data that was not made of patterns
        vmm_img("compare", "-f", fmt, "-F", "raw", image, expect)
