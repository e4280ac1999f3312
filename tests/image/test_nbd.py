# SPDX-License-Identifier: Apache-2.0
"""NBD: our server with everybody's clients, our client with everybody's servers."""
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import VMM_IMG, Model, assert_quiet, needs_qemu, qemu_img, qemu_io, run, vmm_img, vmm_io

pytestmark = needs_qemu
MiB = 1 << 20

needs_nbdinfo = pytest.mark.skipif(not shutil.which("nbdinfo"), reason="libnbd-bin is not installed")
needs_nbdkit = pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not installed")
needs_certtool = pytest.mark.skipif(not shutil.which("certtool"),
                                    reason="gnutls-bin is not installed")


@pytest.fixture
def folder(tmp_path_factory):
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("n")


class Server:
    """A server in the background on a unix socket or (port) on TCP; ended with the test."""

    def __init__(self, argv, path=None, port=None, ready=None):
        self.path, self.port = path, port
        if path and os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not self.listens():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, "no socket"
            time.sleep(0.02)

    def listens(self):
        if self.path:
            with open("/proc/net/unix") as f:
                return any(line.split()[3] == "00010000" and line.split()[-1] == self.path for line in f)
        with open("/proc/net/tcp") as f:
            return any(line.split()[3] == "0A" and
                       int(line.split()[1].split(":")[1], 16) == self.port for line in f.readlines()[1:])

    def uri(self, export="", scheme="nbd"):
        if self.path:
            return f"{scheme}+unix:///{export}?socket={self.path}"
        return f"{scheme}://127.0.0.1:{self.port}/{export}"

    def options(self, **more):
        more = {"driver": "nbd", "server.type": "unix", "server.path": self.path, **more} if self.path \
            else {"driver": "nbd", "server.type": "inet", "server.host": "127.0.0.1",
                  "server.port": self.port, **more}
        return ",".join(f"{k}={v}" for k, v in more.items())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """At SIGTERM: the exit code, and what it said."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, err

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.kill()
        self.process.communicate()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def our_server(folder, image, *options, port=None, name="s"):
    where = ("-p", port, "-b", "127.0.0.1") if port else ("-k", f"{folder}/{name}")
    return Server([VMM_IMG, "nbd", *where, "-t", "-e", "0", *options, image],
                  None if port else f"{folder}/{name}", port)


def qemu_server(folder, image, *options, port=None, name="q"):
    where = ("-p", port, "-b", "127.0.0.1") if port else ("-k", f"{folder}/{name}")
    return Server(["qemu-nbd", *where, "-t", "-e", "8", "--discard=unmap", *options, image],
                  None if port else f"{folder}/{name}", port)


def nbdkit_server(folder, *argv, name="n"):
    return Server(["nbdkit", "-f", "-U", f"{folder}/{name}", *argv], f"{folder}/{name}")


def pattern(size, seed=1):
    """Data, zeroes, and data that is all the same."""
    out = bytearray(size)
    for at in range(0, size, 192 << 10):
        n = min(64 << 10, size - at)
        out[at:at + n] = bytes((at >> 16) + i * seed & 255 for i in range(256)) * (n // 256)
    return out


@pytest.fixture
def disk(folder):
    path = folder / "disk.raw"
    path.write_bytes(pattern(5 * MiB))
    return path


@pytest.fixture
def twin(folder):
    """The same, for comparing while the other one is locked."""
    path = folder / "twin.raw"
    path.write_bytes(pattern(5 * MiB))
    return path


# Our server

@needs_nbdinfo
def test_what_is_told(folder, disk):
    with our_server(folder, disk, "-f", "raw", "-x", "a/b", "-D", "a disk", "-A") as s:
        told = json.loads(run("nbdinfo", "--json", s.uri("a/b"))[1])
        export = told["exports"][0]
        assert told["protocol"] == "newstyle-fixed" and told["structured"]
        assert export["export-name"] == "a/b" and export["description"] == "a disk"
        assert export["export-size"] == 5 * MiB
        assert export["contexts"] == ["base:allocation", "qemu:allocation-depth"]
        assert not export["is_read_only"]
        for what in ["cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"]:
            assert export["can_" + what], what
        assert (export["block_size_minimum"], export["block_size_preferred"],
                export["block_size_maximum"]) == (1, 4096, 32 * MiB)
        assert run("nbdinfo", s.uri("other"), ok=False)[0] != 0
        # Both lists have the same text.
        ours = vmm_img("nbd", "-L", "-k", s.path)[1]
        assert ours == run("qemu-nbd", "-L", "-k", s.path)[1]
        assert "qemu:allocation-depth" in ours
    with our_server(folder, disk, "-f", "raw", "-r", "-e", "1") as s:
        export = json.loads(run("nbdinfo", "--json", s.uri())[1])["exports"][0]
        assert export["is_read_only"] and not export["can_trim"] and not export["can_multi_conn"]
        assert vmm_io(s.uri(), ["write 0 512"], "-f", "raw", ok=False)[0] != 0


@needs_nbdinfo
def test_maps_and_copies(folder, disk):
    """nbdcopy opens many connections; sparse reads and block status must agree with the data."""
    top, base = folder / "top.qcow2", folder / "base.qcow2"
    vmm_img("convert", "-f", "raw", "-O", "qcow2", disk, base)
    vmm_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, top)
    vmm_io(top, ["write -q -P 7 1M 64k", "write -q -z 2M 1M"])
    expect = bytearray(disk.read_bytes())
    expect[MiB:MiB + 65536] = b"\7" * 65536
    expect[2 * MiB:3 * MiB] = bytes(MiB)
    with our_server(folder, top, "-A", "-r") as s:
        run("nbdcopy", s.uri(), folder / "copy")
        assert (folder / "copy").read_bytes() == expect
        (folder / "zeroed").write_bytes(b"\1" * len(expect))
        run("nbdcopy", s.uri(), folder / "zeroed")
        assert (folder / "zeroed").read_bytes() == expect
        for context in ["base:allocation", "qemu:allocation-depth"]:
            with qemu_server(folder, top, "-A", "-f", "qcow2", "-r", name="q" + context[0]) as q:
                theirs = json.loads(run("nbdinfo", "--json", f"--map={context}", q.uri())[1])
            ours = json.loads(run("nbdinfo", "--json", f"--map={context}", s.uri())[1])
            assert spans(ours) == spans(theirs)


def spans(extents):
    """Neighbours of the same type as one."""
    out = []
    for e in extents:
        if out and out[-1][1] == e["type"]:
            out[-1][2] += e["length"]
        else:
            out.append([e["offset"], e["type"], e["length"]])
    return out


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_random_operations_on_our_server(folder, fmt):
    image, size = folder / "a", 4 * MiB + 1536
    vmm_img("create", "-q", "-f", fmt, image, size)
    model = Model(size, seed=3)
    with our_server(folder, image, "-f", fmt, "--discard=unmap") as s:
        for _ in range(3):
            assert_quiet(qemu_io(s.uri(), model.commands(40), "-f", "raw"))
            assert_quiet(vmm_io(s.uri(), model.commands(40), "-f", "raw"))
        assert_quiet(vmm_io(s.uri(), model.reads(0, size), "-f", "raw"))
        assert s.end() == (0, "")
    expect = folder / "model"
    expect.write_bytes(model.data)
    qemu_img("compare", "-f", fmt, "-F", "raw", image, expect)
    if fmt == "qcow2":
        qemu_img("check", image)


def test_views(folder, disk):
    """-o, -s, -l, --image-opts, and a size that is no multiple of anything."""
    data = disk.read_bytes()
    with our_server(folder, disk, "-f", "raw", "-o", "1M", name="o") as s:
        vmm_img("convert", "-f", "raw", "-O", "raw", s.uri(), folder / "o.raw")
        assert (folder / "o.raw").read_bytes() == data[MiB:]
    with our_server(folder, disk, "-f", "raw", "-s", name="t") as s:
        assert_quiet(vmm_io(s.uri(), ["write -q -P 9 0 1M", "flush", "read -q -P 9 0 1M"], "-f", "raw"))
    assert disk.read_bytes() == data
    snap = folder / "snap.qcow2"
    vmm_img("convert", "-f", "raw", "-O", "qcow2", disk, snap)
    vmm_img("snapshot", "-c", "one", snap)
    vmm_io(snap, ["write -q -P 9 0 5M"])
    with our_server(folder, snap, "-l", "one", name="l") as s:
        vmm_img("compare", "-f", "raw", "-F", "raw", s.uri(), disk)
        assert vmm_io(s.uri(), ["write 0 512"], "-f", "raw", ok=False)[0] != 0
    options = f"driver=raw,size=1M,offset=2M,file.driver=file,file.filename={disk}"
    with our_server(folder, options, "--image-opts", name="i") as s:
        vmm_img("convert", "-f", "raw", "-O", "raw", s.uri(), folder / "i.raw")
        assert (folder / "i.raw").read_bytes() == data[2 * MiB:3 * MiB]
    odd = folder / "odd"
    odd.write_bytes(data[:70001])
    with our_server(folder, odd, "-f", "raw", name="d") as s:
        qemu_img("convert", "-f", "raw", "-O", "raw", s.uri(), folder / "d.raw")
        assert (folder / "d.raw").read_bytes() == data[:70001] + bytes(70144 - 70001)


@needs_nbdinfo
def test_bitmaps(folder):
    """What was written since a bitmap was made, told to everybody who asks."""
    image = folder / "a.qcow2"
    context = "qemu:dirty-bitmap:b 1"
    vmm_img("create", "-q", "-f", "qcow2", image, "4M")
    vmm_img("bitmap", "--add", image, "b 1")
    assert_quiet(vmm_io(image, ["write -q 1M 64k", "write -q 3M 100k"]))
    dirty = [[0, 0, MiB], [MiB, 1, 65536], [MiB + 65536, 0, 2 * MiB - 65536], [3 * MiB, 1, 131072],
             [3 * MiB + 131072, 0, MiB - 131072]]
    for start in our_server, qemu_server:
        with start(folder, image, "-f", "qcow2", "-B", "b 1") as s:
            assert spans(json.loads(run("nbdinfo", "--json", f"--map={context}", s.uri())[1])) == dirty
            told = json.loads(vmm_img("map", "--output=json", "--image-opts",
                                      s.options(**{"x-dirty-bitmap": context}))[1])
            assert [[e["start"], int(not e["data"]), e["length"]] for e in told] == dirty
            code, _, err = vmm_img("info", "--image-opts", s.options(**{"x-dirty-bitmap": context + "2"}),
                                   ok=False)
            assert code == 1 and "not found" in err
            assert s.end()[0] == 0
    with our_server(folder, image, "-f", "qcow2", "-B", "b 1") as s:
        assert_quiet(vmm_io(s.uri(), ["write -q 0 64k"], "-f", "raw"))
        assert spans(json.loads(run("nbdinfo", "--json", f"--map={context}", s.uri())[1]))[0] == [0, 1, 65536]
        assert s.end()[0] == 0
    qemu_img("check", image)
    for options, why in [(("-B", "none"), "not found"), (("-o", "1M", "-B", "b 1"), "not found")]:
        code, _, err = vmm_img("nbd", "--fork", "-k", folder / "s", "-f", "qcow2", *options, image, ok=False)
        assert code == 1 and why in err


def test_ends_with_the_last_client(folder, disk):
    pid, path = folder / "pid", folder / "s"
    vmm_img("nbd", "--fork", "--pid-file", pid, "-k", path, "-f", "raw", disk)
    # The parent has returned: everything is there.
    number = int(pid.read_text())
    assert path.exists()
    qemu_img("info", "-f", "raw", f"nbd+unix:///?socket={path}")
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{number}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not pid.exists() and not path.exists()
    code, _, err = vmm_img("nbd", "--fork", "-k", path, folder / "missing", ok=False)
    assert code == 1 and "No such file" in err and len(err.splitlines()) == 1


def test_one_client_at_a_time(folder, disk):
    """With -e 1 the second waits until the first has gone."""
    with our_server(folder, disk, "-f", "raw", "-e", "1") as s:
        first = Client(s.path)
        first.go()
        second = socket.socket(socket.AF_UNIX)
        second.connect(s.path)
        second.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.recv(18)
        first.close()
        second.settimeout(10)
        assert second.recv(18).startswith(b"NBDMAGIC")
        second.close()


@needs_nbdinfo
def test_socket_activation(folder, disk):
    """nbdcopy makes the socket and starts the server."""
    run("nbdcopy", "--", "[", VMM_IMG, "nbd", "-r", "-f", "raw", disk, "]", folder / "copy")
    assert (folder / "copy").read_bytes() == disk.read_bytes()


def test_refusals(folder, disk):
    for argv, why in [(("-c", "/dev/nbd0", disk), "not supported"), (("-d", "/dev/nbd0"), "not supported"),
                      (("--tls-authz", "x", disk), "not supported"),
                      (("--tls-creds", "none", disk), "No TLS credentials with id 'none'"),
                      (("-k", "rel", disk), "must be absolute"), (("-p", "70000", disk), "Invalid port"),
                      (("-L", disk), "incompatible with a file name"), ((), "number of arguments"),
                      (("--tls-hostname", "x", disk), "only supported with list mode"),
                      (("-e", "-1", disk), "Invalid shared device number"),
                      (("-k", str(folder) + "/" + "x" * 120, "-f", "raw", disk), "too long"),
                      (("-f", "raw", "-o", "1T", "-k", folder / "s", disk), "cannot be greater")]:
        code, out, err = vmm_img("nbd", *argv, ok=False)
        assert code == 1 and why in err and len(err.strip().splitlines()) == 1, (argv, err)


# Hostile clients

class Client:
    """A client that says what it likes."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(10)
        self.s.connect(path)
        assert self.read(16) == b"NBDMAGICIHAVEOPT"
        self.read(2)
        self.s.sendall(struct.pack(">I", 3))

    def read(self, n):
        out = b""
        while len(out) < n:
            more = self.s.recv(n - len(out))
            if not more:
                raise EOFError
            out += more
        return out

    def option(self, code, data=b"", length=None):
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", code, len(data) if length is None else length) + data)

    def reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.read(20))
        assert magic == 0x3e889045565a9
        return kind, self.read(length)

    def go(self, name=b""):
        self.option(7, struct.pack(">I", len(name)) + name + b"\0\0")
        while True:
            kind, data = self.reply()
            if kind == 1:
                return
            assert kind == 3, hex(kind)

    def request(self, kind, offset=0, length=0, flags=0, cookie=7, data=b"", magic=0x25609513):
        self.s.sendall(struct.pack(">IHHQQI", magic, flags, kind, cookie, offset, length) + data)

    def simple(self):
        magic, error, cookie = struct.unpack(">IIQ", self.read(16))
        assert magic == 0x67446698
        return error, cookie

    def is_closed(self):
        try:
            return self.s.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.s.close()


def test_hostile_clients(folder, disk):
    """Whatever one does, it loses its connection at most; another one's goes on."""
    with our_server(folder, disk, "-f", "raw") as s:
        good = Client(s.path)
        good.go()

        def fresh(go=True):
            c = Client(s.path)
            if go:
                c.go()
            return c

        # Handshake
        c = socket.socket(socket.AF_UNIX)
        c.connect(s.path)
        c.sendall(b"GET / HTTP/1.0\r\n\r\n")
        c.settimeout(10)
        while c.recv(100):
            pass
        c.close()
        c = fresh(False)
        c.s.sendall(b"x" * 4000)
        assert_closed(c)
        for data in [b"", b"\0", b"\0\0\0\5ab", b"\xff" * 6, b"\0\0\0\0\xff\xff", b"\0\0\0\0\0\1"]:
            c = fresh(False)
            c.option(7, data)
            assert c.reply()[0] == 0x80000003
            c.go()
            c.close()
        c = fresh(False)
        c.option(10, struct.pack(">III", 0, 0xffffffff, 0))  # more queries than bytes
        assert c.reply()[0] == 0x80000003  # before structured replies
        c.option(8)
        assert c.reply()[0] == 1
        c.option(10, struct.pack(">III", 0, 0xffffffff, 0))
        assert c.reply()[0] == 0x80000003
        c.option(99, b"z" * 100)
        assert c.reply()[0] == 0x80000001
        c.option(3, b"z" * 100000)  # too long, skipped
        assert c.reply()[0] == 0x80000009
        c.option(5)
        assert c.reply()[0] == 0x80000002  # no TLS here
        c.go()
        c.close()
        c = fresh(False)
        c.option(7, b"", length=0xffffffff)
        assert_closed(c)
        c = fresh(False)
        c.option(1, b"no such export")
        assert_closed(c)
        # Requests
        c = fresh()
        c.request(0, magic=0x12345678)
        assert_closed(c)
        c = fresh()
        for kind, offset, length, flags, error in [
                (0, 5 * MiB, 1, 0, 22), (0, 2**64 - 1, 2, 0, 22), (0, 0, 33 * MiB, 0, 22),
                (9, 0, 0, 0, 22), (65535, 0, 0, 0, 22), (3, 1, 0, 0, 22), (0, 0, 512, 0x8000, 22),
                (4, 5 * MiB - 1, 2, 0, 28), (6, 2**63, 2**31, 0, 28), (7, 0, 512, 0, 22),
                (5, 0, 33 * MiB, 0, 22), (0, 0, 512, 4, 22)]:
            c.request(kind, offset, length, flags)
            assert c.simple() == (error, 7), (kind, offset, length)
        c.request(1, 5 * MiB, 4, data=b"\0\0\0\0")  # its payload is taken and thrown away
        assert c.simple() == (28, 7)
        c.request(1, 0, 40 * MiB)
        assert c.simple() == (22, 7)
        chunk = bytes(MiB)
        for _ in range(40):
            c.s.sendall(chunk)
        c.request(3)
        assert c.simple() == (0, 7)
        c.close()
        # A write of which half comes; a reader that never reads; a hundred who say nothing.
        c = fresh()
        c.request(1, 0, 8 * MiB, data=b"half")
        c.close()
        c = fresh()
        for i in range(200):
            c.s.setblocking(False)
            try:
                c.request(0, 0, 5 * MiB, cookie=i)
            except BlockingIOError:
                break
        idle = [fresh(False) for _ in range(100)]
        good.request(0, 0, 4096)
        assert good.simple() == (0, 7)
        assert good.read(4096) == disk.read_bytes()[:4096]
        # What they can make it hold is bounded: 64 MiB for the greedy one.
        with open(f"/proc/{s.process.pid}/status") as f:
            peak = next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
        if "san" not in VMM_IMG:
            assert peak < 200 * 1024, peak
        for c in idle:
            c.close()
        c.close()
        good.close()
        assert s.end() == (0, "")


def assert_closed(client):
    try:
        while client.s.recv(4096):
            pass
    except ConnectionError:
        pass
    client.close()


def test_plain_bytes_before_tls(folder, disk, keys):
    """What comes behind NBD_OPT_STARTTLS in the clear is nobody's word."""
    with our_server(folder, disk, "-f", "raw", "--object",
                    f"tls-creds-psk,id=t,dir={keys},endpoint=server", "--tls-creds", "t") as s:
        c = Client(s.path)
        for code, data in [(3, b""), (7, b"\0\0\0\0\0\0"), (8, b"")]:
            c.option(code, data)
            assert c.reply()[0] == 0x80000005
        c.s.sendall(b"IHAVEOPT" + struct.pack(">II", 5, 0) + b"IHAVEOPT" + struct.pack(">II", 3, 0))
        assert c.reply()[0] == 1
        assert c.is_closed()
        c.close()
        c = Client(s.path)
        c.option(1, b"")
        assert c.is_closed()
        c.close()


# Our client

def servers(folder, image, fmt="raw"):
    """Every kind of server there is, each on the image."""
    yield lambda: our_server(folder, image, "-f", fmt, "--discard=unmap")
    yield lambda: qemu_server(folder, image, "-f", fmt)
    if fmt == "raw" and shutil.which("nbdkit"):
        yield lambda: nbdkit_server(folder, "file", image)


def test_random_operations_on_all_servers(folder):
    image, size = folder / "a.raw", 3 * MiB + 512
    image.write_bytes(bytes(size))
    model = Model(size, seed=4)
    for start in servers(folder, image):
        with start() as s:
            assert_quiet(vmm_io(s.uri(), model.commands(60), "-f", "raw"))
            assert_quiet(vmm_io(s.uri(), model.reads(0, size), "-r", "-f", "raw"))
    assert image.read_bytes() == model.data


def test_names_of_servers(folder, disk):
    port = free_port()
    size = "virtual size: 5 MiB"
    with our_server(folder, disk, "-f", "raw", "-x", "x y", "-r", port=port) as s:
        for name in [s.uri("x%20y"), f"nbd:127.0.0.1:{port}:exportname=x y", f"nbd://localhost:{port}/x y",
                     'json:{"driver":"raw","file":{"driver":"nbd","export":"x y","server":'
                     f'{{"type":"inet","host":"127.0.0.1","port":"{port}"}}}}}}']:
            assert size in vmm_img("info", name)[1], name
            if " " not in name or "=" in name:
                assert size in qemu_img("info", name)[1], name
        for options in [f"driver=nbd,host=127.0.0.1,port={port},export=x y", s.options(export="x y")]:
            assert size in vmm_img("info", "--image-opts", options)[1]
    with our_server(folder, disk, "-f", "raw", "-r") as s:
        for name in [s.uri(), f"nbd:unix:{s.path}"]:
            assert size in vmm_img("info", name)[1], name
        assert size in vmm_img("info", "--image-opts", f"driver=nbd,path={s.path}")[1]
        top = folder / "top.qcow2"
        vmm_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", s.uri(), top)
        vmm_img("compare", "-F", "raw", top, disk)
        qemu_img("compare", "-F", "raw", top, disk)


def test_bad_names_of_servers(folder, disk):
    for name in ["nbd:", "nbd:host", "nbd:unix:", "nbd://h:port/", "nbd://[::1/", "nbd://h/%zz", "nbd://h/%00",
                 "nbd+unix:///x", "nbd+unix://h/x?socket=/s", "nbd://h/x#f", "nbd://h/x?what=1",
                 "nbd://u@h/", "nbd://127.0.0.1:99999/", f"nbd:unix:{folder}/none",
                 "nbd+unix:///?socket=" + "x" * 200, "nbds+unix:///?socket=/none"]:
        code, _, err = vmm_img("info", name, ok=False)
        assert code == 1 and len(err.strip().splitlines()) == 1, (name, err)
    for options in ["driver=nbd", "driver=nbd,host=h,path=/p", "driver=nbd,path=/p,bogus=1",
                    "driver=nbd,server.type=vsock,server.cid=1,server.port=1", "driver=nbd,path=/p,tls-creds=no",
                    "driver=nbd,path=/p,export=" + "x" * 5000, "driver=nbd,path=/p,reconnect-delay=-1"]:
        code, _, err = vmm_img("info", "--image-opts", options, ok=False)
        assert code == 1 and len(err.strip().splitlines()) == 1, (options, err)


@pytest.mark.parametrize("which", [0, 1])
def test_convert_from_and_to(folder, disk, which):
    """Raw over NBD is raw; a qcow2 file is a qcow2 file over NBD as well."""
    target = folder / "target.raw"
    target.write_bytes(b"\xff" * (5 * MiB))
    with list(servers(folder, target))[which]() as s:
        vmm_img("convert", "-n", "-f", "raw", "-O", "raw", disk, s.uri())
        vmm_img("compare", "-f", "raw", "-F", "raw", disk, s.uri())
        vmm_img("convert", "-f", "raw", "-O", "qcow2", s.uri(), folder / "c.qcow2")
    assert target.read_bytes() == disk.read_bytes()
    qemu_img("compare", "-F", "raw", folder / "c.qcow2", disk)
    image = folder / "inside.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", "-o", "preallocation=falloc", image, "5M")
    model = Model(5 * MiB, seed=5)
    with list(servers(folder, image))[which]() as s:
        vmm_img("convert", "-n", "-f", "raw", "-O", "qcow2", disk, s.uri())
        vmm_img("compare", "-f", "raw", "-F", "qcow2", disk, s.uri())
        model.data[:] = disk.read_bytes()
        assert_quiet(vmm_io(s.uri(), model.commands(60), "-f", "qcow2"))
        vmm_img("check", "-f", "qcow2", s.uri())
        vmm_img("snapshot", "-l", s.uri())
    expect = folder / "model"
    expect.write_bytes(model.data)
    qemu_img("check", image)
    qemu_img("compare", "-F", "raw", image, expect)


def test_convert_makes_nothing_there(folder, disk):
    """Without -n an export that is large enough takes a raw image; nothing else."""
    small, large = folder / "small", folder / "large"
    small.write_bytes(bytes(MiB))
    large.write_bytes(b"\xff" * (6 * MiB))
    with our_server(folder, small, "-f", "raw") as s:
        code, _, err = vmm_img("convert", "-f", "raw", "-O", "raw", disk, s.uri(), ok=False)
        assert code == 1 and "The export has" in err
    with our_server(folder, large, "-f", "raw") as s:
        code, _, err = vmm_img("convert", "-f", "raw", "-O", "qcow2", disk, s.uri(), ok=False)
        assert code == 1 and "-n" in err
        vmm_img("convert", "-f", "raw", "-O", "raw", disk, s.uri())
    assert large.read_bytes()[:5 * MiB] == disk.read_bytes()


def test_sparseness_comes_through(folder):
    """What the server knows to be a hole is one here, and is not read."""
    image = folder / "a.qcow2"
    vmm_img("create", "-q", "-f", "qcow2", image, "1T")
    vmm_io(image, ["write -q -P 1 500G 64k"])
    for start in servers(folder, image, "qcow2"):
        with start() as s:
            extents = json.loads(vmm_img("map", "-f", "raw", "--output=json", s.uri())[1])
            theirs = json.loads(qemu_img("map", "-f", "raw", "--output=json", s.uri())[1])
            assert extents == theirs
            vmm_img("convert", "-f", "raw", "-O", "qcow2", s.uri(), folder / "b.qcow2")
        vmm_img("compare", image, folder / "b.qcow2")


@needs_nbdkit
def test_weak_servers(folder):
    """Whole blocks only, no zeroes, no FUA, no block status, oldstyle, an odd size."""
    size = 2 * MiB
    image = folder / "a.raw"
    weak = ["--filter=nozero", "--filter=fua", "--filter=blocksize-policy", "file", image,
            "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K",
            "blocksize-error-policy=error"]
    sectors = ["--filter=blocksize-policy", "file", image, "blocksize-minimum=512", "blocksize-preferred=4096",
               "blocksize-maximum=1M", "blocksize-error-policy=error"]
    for argv in [weak, ["--no-sr", "file", image], sectors]:
        image.write_bytes(bytes(size))
        model = Model(size, seed=len(argv))
        with nbdkit_server(folder, *argv) as s:
            assert_quiet(vmm_io(s.uri(), model.commands(60), "-f", "raw"))
            assert_quiet(vmm_io(s.uri(), model.reads(0, size), "-f", "raw"))
            vmm_img("map", "-f", "raw", s.uri())
        assert image.read_bytes() == model.data, argv
    image.write_bytes(pattern(70001 // 256 * 256) + b"tail of it"[:70001 % 256])
    odd = image.stat().st_size
    for argv in [["--oldstyle"], ["--mask-handshake=0"], []]:
        with nbdkit_server(folder, *argv, "file", image) as s:
            vmm_img("convert", "-f", "raw", "-O", "raw", s.uri(), folder / "o.raw")
            assert (folder / "o.raw").read_bytes() == image.read_bytes() + bytes(-odd % 512)
    with nbdkit_server(folder, "file", image) as s:
        last = odd // 512 * 512
        assert_quiet(vmm_io(s.uri(), [f"write -q -z {last} 512", f"read -q -P 0 {last} 512"], "-f", "raw"))
        assert vmm_io(s.uri(), [f"write -P 1 {last} 512"], "-f", "raw", ok=False)[1] == \
            "write failed: No space left on device\n"
    assert image.stat().st_size == odd


@needs_nbdkit
def test_errors_of_servers(folder):
    image = folder / "a.raw"
    image.write_bytes(bytes(MiB))
    with nbdkit_server(folder, "--filter=error", "file", image, "error-pwrite=ENOSPC", "error-rate=100%",
                       "error-pread-rate=0%") as s:
        assert vmm_io(s.uri(), ["write 0 512"], "-f", "raw", ok=False)[1] == \
            "write failed: No space left on device\n"
    with nbdkit_server(folder, "-r", "file", image) as s:
        code, _, err = vmm_io(s.uri(), ["write 0 512"], "-f", "raw", ok=False)
        assert code == 1 and "read-only" in err
        assert_quiet(vmm_io(s.uri(), ["read -q -P 0 0 512"], "-r", "-f", "raw"))


# Servers that end

def talk(process):
    """vmm-img io has its image open once it has answered."""
    process.stdin.write("length\n")
    process.stdin.flush()
    assert process.stdout.readline() == "5 MiB\n"


def test_killed_server(folder, disk):
    """Without reconnect-delay every request fails at once; nothing hangs."""
    with our_server(folder, disk, "-f", "raw") as s:
        p = subprocess.Popen([VMM_IMG, "io", "-f", "raw", s.uri()], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        talk(p)
        s.kill()
        out, err = p.communicate("sleep 100\nread 0 512\nwrite 0 512\nflush\n", timeout=20)
        assert "read failed: Input/output error" in out and "write failed: Input/output error" in out
        assert p.returncode == 1


@pytest.mark.parametrize("tls", [False, True])
def test_reconnects(folder, disk, keys, tls):
    """Requests wait for the server's return and are carried out then; none is lost."""
    server, client, options = [], [], {}
    if tls:
        server = ["--object", f"tls-creds-psk,id=t,dir={keys},endpoint=server", "--tls-creds", "t"]
        client = ["--object", f"tls-creds-psk,id=t,dir={keys},endpoint=client"]
        options = {"tls-creds": "t"}
    s = our_server(folder, disk, "-f", "raw", *server)
    try:
        commands = [f"aio_write -q -P {i % 255 + 1} {i * 4096} 4096" for i in range(1000)]
        p = subprocess.Popen([VMM_IMG, "io", *client, "--image-opts",
                              s.options(**{"reconnect-delay": 30, **options})],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        talk(p)
        p.stdin.write("\n".join(commands[:400]) + "\n")
        p.stdin.flush()
        s.kill()
        p.stdin.write("\n".join(commands[400:]) + "\naio_flush\nflush\n")
        p.stdin.flush()
        time.sleep(0.2)
        s = our_server(folder, disk, "-f", "raw", *server)
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0 and not out, (out, err)
        assert "the connection is lost" in err and "connected again" in err
        assert s.end()[0] == 0
    finally:
        s.kill()
    data = disk.read_bytes()
    for i in range(1000):
        assert data[i * 4096:i * 4096 + 4096] == bytes([i % 255 + 1]) * 4096, i


def test_gives_up_reconnecting(folder, disk):
    with our_server(folder, disk, "-f", "raw") as s:
        p = subprocess.Popen([VMM_IMG, "io", "--image-opts", s.options(**{"reconnect-delay": 1})],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        talk(p)
        s.kill()
        start = time.monotonic()
        out, err = p.communicate("sleep 100\nread 0 512\nread 0 512\n", timeout=60)
        assert out.count("read failed: Input/output error") == 2
        assert 0.5 < time.monotonic() - start < 40


def test_open_timeout(folder, disk):
    """A server that comes a moment later is waited for."""
    path = f"{folder}/s"
    p = subprocess.Popen([VMM_IMG, "info", "--image-opts", f"driver=nbd,path={path},open-timeout=20"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    with our_server(folder, disk, "-f", "raw"):
        out, err = p.communicate(timeout=30)
    assert p.returncode == 0, err
    start = time.monotonic()
    assert vmm_img("info", "--image-opts", f"driver=nbd,path={path}.none,open-timeout=1", ok=False)[0] == 1
    assert time.monotonic() - start < 40


class Liar:
    """A server that answers requests with whatever it is told to; an address as Server's."""

    def __init__(self, path, answer, size=MiB, flags=0x0d, greeting=None):
        self.path, self.answer, self.size, self.flags, self.greeting = path, answer, size, flags, greeting
        self.s = socket.socket(socket.AF_UNIX)
        self.s.bind(path)
        self.s.listen(10)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(c,), daemon=True).start()

    def talk(self, c):
        with contextlib.suppress(OSError), c, c.makefile("rwb") as f:
            try:
                f.write(self.greeting or b"NBDMAGICIHAVEOPT\0\3")
                f.flush()
                f.read(4)
                while not self.greeting:
                    _, option, n = struct.unpack(">QII", f.read(16))
                    f.read(n)
                    head = struct.pack(">QI", 0x3e889045565a9, option)
                    if option == 7:
                        f.write(head + struct.pack(">IIHQH", 3, 12, 0, self.size, self.flags))
                        f.write(head + struct.pack(">II", 1, 0))
                    else:
                        f.write(head + struct.pack(">II", 0x80000001, 0))
                    f.flush()
                    if option == 7:
                        break
                while True:
                    request = f.read(28)
                    if len(request) < 28:
                        return
                    answer = self.answer(struct.unpack(">IHHQQI", request))
                    if answer is None:
                        return
                    f.write(answer)
                    f.flush()
            except (OSError, struct.error):
                pass

    def close(self):
        self.s.close()
        os.unlink(self.path)


@pytest.mark.parametrize("answer", [
    lambda r: None,                                        # hangs up
    lambda r: b"\xff" * 16,                                # no reply
    lambda r: struct.pack(">IIQ", 0x67446698, 0, r[3] + 1),    # another one's
    lambda r: struct.pack(">IIQ", 0x67446698, 0, r[3])[:9],    # not even whole: waits for more
    lambda r: struct.pack(">IHHQI", 0x668e33ef, 1, 1, r[3], 9) + bytes(9),  # not agreed on
    lambda r: struct.pack(">IIQ", 0x67446698, 4711, r[3]),     # an unknown error
], ids=["hangup", "garbage", "cookie", "half", "chunk", "error"])
def test_lying_servers(folder, answer):
    liar = Liar(f"{folder}/l", answer)
    image = f"driver=nbd,path={folder}/l"
    half = answer((0, 0, 0, 7, 0, 0)) == struct.pack(">IIQ", 0x67446698, 0, 7)[:9]
    try:
        p = subprocess.Popen([VMM_IMG, "io", "--image-opts", image], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = p.communicate("read 0 512\n", timeout=1 if half else 60)
            assert "read failed: " in out and p.returncode == 1
        except subprocess.TimeoutExpired:
            # Half an answer is no mistake yet; the server's end is.
            p.kill()
            p.communicate()
            assert half
    finally:
        liar.close()


def test_lying_greetings(folder):
    for i, (greeting, size) in enumerate([(b"NBDMAGIC" + b"\0" * 10, MiB), (b"HTTP/1.0 400 Bad", MiB), (b"x", MiB),
                                          (None, 2**64 - 1), (None, 2**63 - 1)]):
        liar = Liar(f"{folder}/g{i}", lambda r: None, size=size, greeting=greeting)
        p = subprocess.Popen([VMM_IMG, "info", "--image-opts", f"driver=nbd,path={folder}/g{i}"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        short = greeting and len(greeting) < 18  # more may come
        try:
            out, err = p.communicate(timeout=0.5 if short else 60)
            assert p.returncode == 1 and len(err.strip().splitlines()) == 1
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            assert short
        finally:
            liar.close()


# TLS

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, a server called localhost, nbd.example and 127.0.0.1, and a client."""
    top = tmp_path_factory.mktemp("x509")

    def certtool(*argv):
        subprocess.run(["certtool", *map(str, argv)], check=True, capture_output=True, cwd=top)

    def template(name, *lines):
        (top / f"{name}.tmpl").write_text("\n".join([*lines, "expiration_days=36500"]) + "\n")
        certtool("--generate-privkey", "--key-type=ecdsa", "--outfile", f"{name}-key.pem")

    template("ca", "cn=tests", "ca", "cert_signing_key")
    certtool("--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.tmpl", "--outfile",
             "ca-cert.pem")
    template("server", "cn=server", "tls_www_server", "signing_key", "encryption_key", "dns_name=localhost",
             "dns_name=nbd.example", "ip_address=127.0.0.1")
    template("client", "cn=client", "tls_www_client", "signing_key", "encryption_key")
    for name in ["server", "client"]:
        certtool("--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey",
                 "ca-key.pem", "--load-privkey", f"{name}-key.pem", "--template", f"{name}.tmpl", "--outfile",
                 f"{name}-cert.pem")
    return top


@pytest.fixture
def keys(folder):
    (folder / "keys").mkdir()
    (folder / "keys" / "keys.psk").write_text("other:0011\nqemu:00112233445566778899aabbccddeeff\n")
    return folder / "keys"


def x509(where, end):
    return ["--object", f"tls-creds-x509,id=tls0,dir={where},endpoint={end}"]


@needs_certtool
@pytest.mark.parametrize("ours", ["server", "client", "both"])
def test_x509(folder, disk, twin, certificates, ours):
    port = free_port()
    start = qemu_server if ours == "client" else our_server
    with start(folder, disk, "-f", "raw", *x509(certificates, "server"), "--tls-creds", "tls0", port=port) as s:
        tool = qemu_img if ours == "server" else vmm_img
        tool("compare", *x509(certificates, "client"), "--image-opts", s.options(**{"tls-creds": "tls0"}),
             f"driver=raw,file.driver=file,file.filename={twin}")
        if ours == "server" and shutil.which("nbdcopy"):
            run("nbdcopy", s.uri(scheme="nbds") + f"?tls-certificates={certificates}", folder / "copy")
            assert (folder / "copy").read_bytes() == disk.read_bytes()
        listed = run("qemu-nbd" if ours == "server" else VMM_IMG, *([] if ours == "server" else ["nbd"]), "-L",
                     *x509(certificates, "client"), "--tls-creds", "tls0", "-b", "127.0.0.1", "-p", port)[1]
        assert "exports available: 1" in listed
        # Who does not speak TLS is not served.
        code, _, err = vmm_img("info", s.uri(), ok=False)
        assert code == 1 and "TLS" in err


@needs_certtool
def test_x509_refusals(folder, disk, certificates):
    """Other names, other authorities, no certificate, a server's where a client's should be."""
    port = free_port()
    wrong = folder / "wrong"
    wrong.mkdir()
    shutil.copy(certificates / "ca-cert.pem", wrong)
    none = folder / "none"
    shutil.copytree(wrong, none)
    shutil.copy(certificates / "server-cert.pem", wrong / "client-cert.pem")
    shutil.copy(certificates / "server-key.pem", wrong / "client-key.pem")
    with our_server(folder, disk, "-f", "raw", *x509(certificates, "server"), "--tls-creds", "tls0",
                    port=port) as s:
        for hostname, ok in [("nbd.example", True), ("localhost", True), ("evil.example", False)]:
            code, _, err = vmm_img("info", *x509(certificates, "client"), "--image-opts",
                                   s.options(**{"tls-creds": "tls0", "tls-hostname": hostname}), ok=False)
            assert (code == 0) == ok and (ok or "does not match" in err), err
        for where in [wrong, none]:
            assert vmm_img("info", *x509(where, "client"), "--image-opts", s.options(**{"tls-creds": "tls0"}),
                           ok=False)[0] == 1
        code, _, err = vmm_img("info", s.uri(scheme="nbds"), ok=False)
        assert code == 1 and "NOT trusted" in err
        code, _, err = vmm_img("info", *x509(certificates, "server"), "--image-opts",
                               s.options(**{"tls-creds": "tls0"}), ok=False)
        assert code == 1 and "client endpoint" in err
        vmm_img("info", *x509(certificates, "client"), "--image-opts", s.options(**{"tls-creds": "tls0"}))
    with our_server(folder, disk, "-f", "raw", *x509(certificates, "server"), "--tls-creds", "tls0") as s:
        code, _, err = vmm_img("info", *x509(certificates, "client"), "--image-opts",
                               s.options(**{"tls-creds": "tls0"}), ok=False)
        assert code == 1 and "No hostname" in err
        vmm_img("info", *x509(certificates, "client"), "--image-opts",
                s.options(**{"tls-creds": "tls0", "tls-hostname": "localhost"}))
    # A key in a file that a password protects.
    shutil.copytree(certificates, folder / "locked")
    run("certtool", "--to-p8", "--load-privkey", certificates / "server-key.pem", "--password", "sesame",
        "--outfile", folder / "locked" / "server-key.pem")
    for password, ok in [("sesame", True), ("wrong", False)]:
        code, _, err = vmm_img("info", "--object", f"secret,id=s,data={password}", "--object",
                               f"tls-creds-x509,id=t,dir={folder}/locked,endpoint=server,passwordid=s", disk,
                               ok=False)
        assert (code == 0) == ok, err
    with our_server(folder, disk, "-f", "raw", "--object",
                    f"tls-creds-x509,id=tls0,dir={certificates},endpoint=server,verify-peer=off", "--tls-creds",
                    "tls0", port=free_port()) as s:
        vmm_img("info", *x509(none, "client"), "--image-opts", s.options(**{"tls-creds": "tls0"}))


@pytest.mark.parametrize("ours", ["server", "client", "both"])
def test_psk(folder, disk, twin, keys, ours):
    start = qemu_server if ours == "client" else our_server
    with start(folder, disk, "-f", "raw", "--object", f"tls-creds-psk,id=tls0,dir={keys},endpoint=server",
               "--tls-creds", "tls0") as s:
        tool = qemu_img if ours == "server" else vmm_img
        files = f"driver=raw,file.driver=file,file.filename={twin}"
        tool("compare", "--object", f"tls-creds-psk,id=tls0,dir={keys}", "--image-opts",
             s.options(**{"tls-creds": "tls0"}), files)
        if ours == "server":
            return
        (folder / "bad").mkdir()
        (folder / "bad" / "keys.psk").write_text("qemu:ff112233445566778899aabbccddeeff\n")
        assert vmm_img("info", "--object", f"tls-creds-psk,id=tls0,dir={folder}/bad", "--image-opts",
                       s.options(**{"tls-creds": "tls0"}), ok=False)[0] == 1
    # The other side has no TLS at all.
    with start(folder, disk, "-f", "raw", name="plain") as s:
        code, _, err = vmm_img("info", "--object", f"tls-creds-psk,id=tls0,dir={keys}", "--image-opts",
                               s.options(**{"tls-creds": "tls0"}), ok=False)
        assert code == 1 and "refuses TLS" in err


def test_random_operations_through_tls(folder, keys):
    image, size = folder / "a.raw", 3 * MiB
    image.write_bytes(bytes(size))
    model = Model(size, seed=6)
    with our_server(folder, image, "-f", "raw", "--object", f"tls-creds-psk,id=t,dir={keys},endpoint=server",
                    "--tls-creds", "t", "--discard=unmap") as s:
        for _ in range(2):
            assert_quiet(vmm_io(s.options(**{"tls-creds": "t"}), model.commands(50), "--object",
                                f"tls-creds-psk,id=t,dir={keys}", "--image-opts"))
            assert_quiet(qemu_io(s.options(**{"tls-creds": "t"}), model.commands(50), "--object",
                                 f"tls-creds-psk,id=t,dir={keys},endpoint=client", "--image-opts"))
        assert s.end() == (0, "")
    assert image.read_bytes() == model.data


def test_credentials_that_are_not(folder, keys):
    for what, why in [(f"tls-creds-psk,id=t,dir={folder}/no", "No such file"), ("tls-creds-psk,id=t", "Missing 'dir'"),
                      (f"tls-creds-psk,id=t,dir={keys},username=nobody", "not found"),
                      (f"tls-creds-psk,id=t,dir={keys},endpoint=both", "endpoint"),
                      (f"tls-creds-psk,id=t,dir={keys},priority=NONSENSE", "priority"),
                      (f"tls-creds-psk,id=t,dir={keys},bogus=1", "bogus"),
                      (f"tls-creds-psk,dir={keys}", "'id' is missing"),
                      (f"tls-creds-x509,id=t,dir={folder},endpoint=server", "No such file"),
                      ("tls-creds-anon,id=t", "not supported")]:
        code, _, err = vmm_img("info", "--object", what, "x", ok=False)
        assert code == 1 and why in err and len(err.strip().splitlines()) == 1, err
