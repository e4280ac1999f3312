# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

from vmtest import CACHE, Vm  # noqa: E402


def pytest_collection_modifyitems(config, items):
    """Whole images first: what takes longest must not come last."""
    items.sort(key=lambda item: "test_cloud" not in item.nodeid)


@pytest.fixture(scope="session")
def kernel():
    return f"{CACHE}/kernel-cloud/vmlinuz"


@pytest.fixture
def boot(kernel):
    """Boots the small guest (guests/report.sh) directly: boot("test=...", arguments...)."""
    running = []

    def start(append="", *args, memory="256M", serial=True, kernel=kernel, guest="report"):
        console = ["-nographic"] if serial else []
        vm = Vm("-m", memory, "-kernel", kernel, "-initrd", f"{CACHE}/guests/{guest}.img",
                "-append", f"console=ttyS0 quiet panic=-1 {append}", *console, *args)
        running.append(vm)
        return vm

    yield start
    for vm in running:
        vm.__exit__()


@pytest.fixture
def generic(boot):
    """The same with the stock generic kernel and guests/disc.sh."""
    return lambda append, *args: boot(append, "-cpu", "host", *args, guest="disc",
                                      kernel=f"{CACHE}/kernel-generic/vmlinuz")
