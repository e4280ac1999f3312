# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

from vmtest import TOP, Vm  # noqa: E402

HELLO = f"{TOP}/build/tests/guest/hello-pvh"


def kvm_works():
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
        return True
    except OSError:
        return False


needs_kvm = pytest.mark.skipif(not kvm_works(), reason="no /dev/kvm, or no right to it")


@pytest.fixture
def vmm():
    """Starts the program: vmm(arguments...); whatever still runs at the end is killed."""
    running = []

    def start(*args, **kw):
        vm = Vm("-cpu", "host", *args, **kw)
        running.append(vm)
        return vm

    yield start
    for vm in running:
        vm.__exit__()
