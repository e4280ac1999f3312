# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))

from vmtest import CACHE, Vm  # noqa: E402


# The lab's emulator is not perfect. Tests that passed before its machine died are not run again.
PASSED = os.environ.get("VMM_LAB_PASSED")


def pytest_configure(config):
    config.addinivalue_line("markers", "whole_image: a cloud image through its own boot loader, "
                            "many minutes in the lab: tests/lab/check -m whole_image")


def pytest_collection_modifyitems(config, items):
    if PASSED and os.path.exists(PASSED):
        with open(PASSED) as f:
            done = set(f.read().split("\n"))
        config.hook.pytest_deselected(items=[i for i in items if i.nodeid in done])
        items[:] = [i for i in items if i.nodeid not in done]


def pytest_runtest_logreport(report):
    if PASSED and report.when == "call" and report.passed and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(PASSED, "a") as f:
            f.write(report.nodeid + "\n")


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
