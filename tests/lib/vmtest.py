# SPDX-License-Identifier: Apache-2.0
"""A guest under test: starts the program, reads what the guest prints, types, waits for its end.

VMM names the program (default: build/vmm of this tree), VMM_CONSOLES a folder for what guests print.
Waits are long, since the lab is slow; they end a hung guest, they measure nothing.
"""
import json
import os
import re
import select
import signal
import socket
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VMM = os.environ.get("VMM") or f"{TOP}/build/vmm"
VMM_IMG = os.environ.get("VMM_IMG") or f"{TOP}/build/vmm-img"
CACHE = os.environ.get("VMM_CACHE", os.path.expanduser(
    os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "vmm")))
IS_QEMU = "qemu" in os.path.basename(VMM)


class Hung(AssertionError):
    pass


class Vm:
    """The guest's console is the process's standard input and output (-nographic or -serial stdio
    in args)."""

    def __init__(self, *args, env=None):
        self.args = [VMM, *map(str, args)]
        if IS_QEMU:
            self.args[1:1] = ["-machine", "q35,accel=kvm", "-nic", "none"]
        self.start = time.monotonic()
        self.process = subprocess.Popen(self.args, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=env)
        self.text = ""
        self.seen = 0
        self.log = None
        if os.environ.get("VMM_CONSOLES"):
            test = re.sub(r"\W+", "-", os.environ.get("PYTEST_CURRENT_TEST", "guest").split("::")[-1])
            self.log = open(f"{os.environ['VMM_CONSOLES']}/{test}{self.process.pid}.log", "wb",
                            buffering=0)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()
        if self.log:
            self.log.close()

    def _read(self, deadline):
        left = max(0, deadline - time.monotonic())
        if not select.select([self.process.stdout], [], [], left)[0]:
            return None
        data = os.read(self.process.stdout.fileno(), 65536)
        if self.log:
            self.log.write(data)
        self.text += data.decode(errors="replace").replace("\r", "")
        return data

    def expect(self, pattern, limit=300):
        """Waits until pattern is printed (after what earlier calls found); the match."""
        deadline = time.monotonic() + limit
        regex = re.compile(pattern, re.M)
        while True:
            m = regex.search(self.text, self.seen)
            if m:
                self.seen = m.end()
                return m
            data = self._read(deadline)
            if data is None or (data == b"" and not regex.search(self.text, self.seen)):
                why = "its output ended" if data == b"" else f"not within {limit} s"
                raise Hung(f"'{pattern}' did not come: {why}. Last output:\n{self.text[-3000:]}")

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def shell(self, command, limit=300):
        """What a command prints in a guest that does what is typed, without an echo."""
        self.type(f"{command}; echo \"ENDED-$?-\"\n")
        seen = self.seen
        status = self.expect(r"ENDED-(\d+)-$", limit)
        said = self.text[seen:status.start()]
        assert status[1] == "0", f"'{command}' failed with {status[1]}: {said}"
        return said

    def end(self, limit=300):
        """Waits until the process has ended; its status."""
        deadline = time.monotonic() + limit
        while True:
            data = self._read(deadline)
            if data is None:
                raise Hung(f"still running after {limit} s. Last output:\n{self.text[-3000:]}")
            if data == b"":
                return self.process.wait(timeout=max(1, deadline - time.monotonic()))

    def signal(self, number):
        self.process.send_signal(number)


class Qmp:
    def __init__(self, path, limit=30):
        deadline = time.monotonic() + limit
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.file = self.socket.makefile("rw")
        self.events = []
        self.greeting = json.loads(self.file.readline())
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.file.write(json.dumps(request) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "event" in reply:
                self.events.append(reply)
            elif "return" in reply:
                return reply["return"]
            else:
                raise RuntimeError(reply["error"])

    def wait_event(self, name, limit=60):
        self.socket.settimeout(limit)
        while True:
            for i, e in enumerate(self.events):
                if e["event"] == name:
                    return self.events.pop(i)
            self.events.append(json.loads(self.file.readline()))

    def close(self):
        self.file.close()
        self.socket.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def vmm_img(*args):
    return subprocess.run([VMM_IMG if not IS_QEMU else "qemu-img", *map(str, args)], check=True,
                          capture_output=True, text=True).stdout


def overlay(tmp_path, base, name="overlay.qcow2"):
    """A writable qcow2 on top of base, which stays as it is."""
    path = tmp_path / name
    vmm_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path)
    return path
