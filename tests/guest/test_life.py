# SPDX-License-Identifier: Apache-2.0
"""The program from outside: mistakes, terminals, daemons, monitors. The guest is firmware without a
disk, which every /dev/kvm can run."""
import json
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import time

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VMM = next(p for p in (os.environ.get("VMM"), f"{TOP}/build-san/vmm", f"{TOP}/build/vmm")
           if p and os.path.exists(p))

needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm")


def vmm(*args, **kw):
    return subprocess.run([VMM, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, **kw)


@pytest.mark.parametrize("args, message", [
    (["-nografic"], "-nografic: unknown option; did you mean '-nographic'?"),
    (["-vnc", ":1"], "-vnc: not supported by this build"),
    (["-m", "lots"], "-m lots: "),
    (["-smp", "4,sockets=3"], "-smp 4,sockets=3: "),
    (["-machine", "pc"], "-machine pc: "),
    (["-append", "x"], "-append x: "),
    (["-nic", "usre"], "-nic usre: "),
    (["-drive", "if=virtio"], "-drive if=virtio: "),
    (["-serial", "bogus"], "-serial bogus: "),
    (["-serial", "unix:/nonexistent/s,server=on,wait=off"],
     "-serial unix:/nonexistent/s,server=on,wait=off: cannot listen on"),
    (["-chardev", "file,id=f,path=/nonexistent/f"], "-chardev file,id=f,path=/nonexistent/f: "),
    (["-chardev", "null,id=a,colour=red"], "has no option 'colour'"),
    (["-monitor", "unix:/nonexistent"], "cannot connect to unix:/nonexistent"),
    (["-cloud-init", "user-data=/nonexistent"],
     "-cloud-init user-data=/nonexistent: cannot read user-data"),
    (["-pidfile", "/nonexistent/pid"], "-pidfile /nonexistent/pid: cannot make it"),
    (["-D", "/nonexistent/log"], "-D /nonexistent/log: "),
])
def test_mistakes(args, message):
    r = vmm(*args)
    assert r.returncode == 1
    assert r.stdout == ""
    assert r.stderr.startswith("vmm: ") and r.stderr.count("\n") == 1
    assert message in r.stderr


@needs_kvm
@pytest.mark.parametrize("args, message", [
    (["-drive", "file=/nonexistent"], "-drive file=/nonexistent: "),
    (["-device", "virtio-blq-pci"], "virtio-blk-pci"),
    (["-device", "virtio-rng-pci,adr=5"], "adr"),
    (["-device", "virtio-blk-pci,drive=none"], "none"),
    (["-cpu", "pentium-0"], "pentium-0"),
    (["-kernel", "/nonexistent"], "/nonexistent"),
    (["-bios", "/nonexistent"], "/nonexistent"),
    (["-m", "60T"], ""),
])
def test_mistakes_with_machine(args, message):
    r = vmm(*args)
    assert r.returncode == 1
    errors = [line for line in r.stderr.splitlines() if "warning:" not in line]
    assert len(errors) == 1 and errors[0].startswith("vmm: ") and message in errors[0]


@pytest.mark.parametrize("question", ["-h", "--help", "-version", "--version", "-M help",
                                      "-cpu help", "-device help", "-device virtio-blk-pci,help",
                                      "-chardev help", "-object help", "-d help",
                                      "--help-manual"])
def test_questions(question):
    r = vmm(*question.split())
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout


class Terminal:
    """vmm on a terminal of its own, as its session's foreground program."""

    def __init__(self, *args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen([VMM, "-nographic", "-m", "64", *args], stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave,
                                        start_new_session=True)

    def type(self, data):
        os.write(self.master, data)

    def expect(self, data, seconds=30):
        end = time.monotonic() + seconds
        while data not in self.text:
            left = end - time.monotonic()
            assert left > 0, f"no {data} in {self.text}"
            if select.select([self.master], [], [], left)[0]:
                self.text += os.read(self.master, 65536)
        self.text = self.text[self.text.index(data) + len(data):]

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def end(self):
        status = self.process.wait(30)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return status


@needs_kvm
def test_terminal_escape():
    t = Terminal("-S")
    t.type(b"\x01h")
    t.expect(b"C-a x")
    assert t.is_raw()
    t.type(b"\x01c")
    t.expect(b"(vmm) ")
    t.type(b"info status\r")
    t.expect(b"VM status: paused (prelaunch)\r")
    t.type(b"c\r")
    t.type(b"info status\r")
    t.expect(b"VM status: running\r")
    t.type(b"\x03\x01c\x01x")  # Ctrl-C is no signal
    t.expect(b"vmm: terminated")
    assert t.end() == 0


@needs_kvm
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_terminal_signals(sig):
    t = Terminal()
    t.type(b"\x01h")
    t.expect(b"C-a x")
    t.process.send_signal(sig)
    assert t.end() == 0


@needs_kvm
def test_terminal_stop():
    """SIGTSTP gives the terminal back, SIGCONT takes it again."""
    t = Terminal("-S")
    t.type(b"\x01h")
    t.expect(b"C-a x")
    t.process.send_signal(signal.SIGTSTP)
    os.waitid(os.P_PID, t.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert termios.tcgetattr(t.slave) == t.before
    t.process.send_signal(signal.SIGCONT)
    # Its session has no controlling terminal here: it is in no foreground, and stays away.
    t.process.send_signal(signal.SIGTERM)
    assert t.end() == 0


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rw", encoding="utf-8")
        self.greeting = self.receive()

    def receive(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, command, **arguments):
        """The reply, and the names of the events before it."""
        events = []
        self.file.write(json.dumps({"execute": command, "arguments": arguments, "id": 1}) + "\n")
        self.file.flush()
        while True:
            answer = self.receive()
            assert answer is not None
            if "event" not in answer:
                assert answer.pop("id") == 1
                return answer, events
            events.append(answer["event"])


def runs(number):
    try:
        with open(f"/proc/{number}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@needs_kvm
def test_daemon(tmp_path):
    qmp, serial, pid = tmp_path / "qmp", tmp_path / "serial", tmp_path / "pid"
    user = tmp_path / "user-data"
    user.write_text("#cloud-config\n")
    args = ["-daemonize", "-pidfile", str(pid), "-qmp", f"unix:{qmp},server=on,wait=off",
            "-serial", f"unix:{serial},server,nowait", "-monitor", "none", "-display", "none",
            "-m", "64", "-S", "-name", "web,process=vm-web", "-cloud-init", f"user-data={user}"]
    r = vmm(*args)
    assert r.returncode == 0, r.stderr
    number = int(pid.read_text())
    try:
        with open(f"/proc/{number}/comm") as f:
            assert f.read() == "vm-web\n"
        assert os.readlink(f"/proc/{number}/cwd") == "/"
        second = vmm(*args)
        assert second.returncode == 1 and "another process holds it" in second.stderr
        q = Qmp(qmp)
        assert q.ask("query-status")[0]["error"]["class"] == "CommandNotFound"
        assert q.ask("qmp_capabilities") == ({"return": {}}, [])
        assert q.ask("query-status")[0]["return"]["status"] == "prelaunch"
        assert q.ask("query-name")[0]["return"] == {"name": "web"}
        disk, = q.ask("query-block")[0]["return"]
        assert disk["device"] == "cloud-init" and disk["inserted"]["ro"]
        assert q.ask("cont") == ({"return": {}}, ["RESUME"])
        assert q.ask("stop") == ({"return": {}}, ["STOP"])
        assert q.ask("system_reset") == ({"return": {}}, ["RESET"])
        assert q.ask("quit") == ({"return": {}}, ["SHUTDOWN"])
        while q.receive() is not None:
            pass
    finally:
        for _ in range(600):
            if not runs(number):
                break
            time.sleep(0.05)
        else:
            os.kill(number, signal.SIGKILL)
            pytest.fail("it did not end")
    assert sorted(os.listdir(tmp_path)) == ["user-data"]


def test_daemon_fails(tmp_path):
    pid = tmp_path / "pid"
    r = vmm("-daemonize", "-pidfile", str(pid), "-drive", "file=/nonexistent", "-display", "none",
            "-serial", f"unix:{tmp_path}/s,server=on,wait=off")
    assert r.returncode == 1
    assert r.stderr.startswith("vmm: ")
    for _ in range(100):
        if not os.listdir(tmp_path):
            break
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []


@needs_kvm
def test_wait_is_ended(tmp_path):
    """A server that waits for its client hears signals."""
    path = tmp_path / "s"
    p = subprocess.Popen([VMM, "-display", "none", "-serial", f"unix:{path},server=on"],
                         stderr=subprocess.PIPE, text=True)
    assert "waiting for a connection" in p.stderr.readline()
    assert path.exists()
    p.send_signal(signal.SIGTERM)
    p.communicate(timeout=30)
    assert p.returncode == 1
    assert not path.exists()


@needs_kvm
@pytest.mark.parametrize("how", ["server=on,wait=off", "reconnect=1"])
def test_a_vhost_user_server_is_waited_for(tmp_path, how):
    """Whichever side listens: without its server a card cannot say what it is able to."""
    path = str(tmp_path / "s")
    p = subprocess.Popen([VMM, "-cpu", "host", "-nodefaults", "-display", "none", "-S",
                          "-chardev", f"socket,id=c,path={path},{how}", "-netdev",
                          "vhost-user,id=n,chardev=c"], stderr=subprocess.PIPE, text=True)
    try:
        assert "waiting for a connection on c" in p.stderr.readline()
        with socket.socket(socket.AF_UNIX) as s:
            if "server" in how:
                s.connect(path)
            else:
                s.bind(path)
                s.listen()
            assert "netdev n has no peer" in p.stderr.readline()  # it has started
            p.send_signal(signal.SIGTERM)
            p.communicate(timeout=30)
        assert p.returncode == 0
    finally:
        p.kill()


@needs_kvm
def test_pty_and_file(tmp_path):
    log = tmp_path / "log"
    p = subprocess.Popen([VMM, "-display", "none", "-m", "64", "-S", "-serial", "pty", "-serial",
                          f"file:{log}", "-serial", "null", "-serial", "none"],
                         stdout=subprocess.PIPE, text=True)
    line = p.stdout.readline()
    assert line.startswith("char device redirected to /dev/pts/")
    assert line.endswith(" (label serial0)\n")
    for _ in range(200):
        if log.exists():
            break
        time.sleep(0.05)
    assert log.exists()
    p.terminate()
    p.communicate(timeout=30)
    assert p.returncode == 0
