# SPDX-License-Identifier: Apache-2.0
"""Guest memory that the user names: what the guest wrote is in the file that was given."""
import os
import socket

import pytest

from conftest import HELLO, needs_kvm


@needs_kvm
@pytest.mark.parametrize("how", [
    ["-object", "memory-backend-file,id=ram,size=32M,share=on,mem-path=FILE", "-machine",
     "memory-backend=ram"],
    ["-object", '{"qom-type":"memory-backend-file","id":"ram","size":33554432,"share":true,'
     '"mem-path":"FILE","prealloc":true,"x-use-canonical-path-for-ramblock-id":false}', "-m", "32",
     "-numa", "node,memdev=ram"],
])
def test_a_file_is_the_guests_memory(vmm, tmp_path, how):
    ram = tmp_path / "ram"
    with vmm("-nodefaults", "-serial", "stdio", "-kernel", HELLO,
             *(a.replace("FILE", str(ram)) for a in how)) as vm:
        vm.expect("hello")
        assert os.path.getsize(ram) == 32 << 20
        with open(ram, "rb") as f:
            f.seek(1 << 20)
            assert b"hello" in f.read(1 << 20)  # the kernel's own text


@needs_kvm
@pytest.mark.parametrize("memory, said", [
    ("memory-backend-ram,id=ram,size=32M", "cannot be shared with a vhost-user back end"),
    ("memory-backend-memfd,id=ram,size=32M,share=off", "cannot be shared"),
    ("memory-backend-memfd,id=ram,size=32M", None),
])
def test_vhost_user_wants_memory_that_is_shared(vmm, tmp_path, memory, said):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with vmm("-nodefaults", "-serial", "stdio", "-kernel", HELLO, "-object", memory, "-machine",
                 "memory-backend=ram", "-chardev", f"socket,id=c,path={path}", "-netdev",
                 "vhost-user,id=n,chardev=c") as vm:
            vm.expect(said or "hello")
