# SPDX-License-Identifier: Apache-2.0
"""Ceph RBD without a cluster: the wait for one ends, and what is wrong is said."""
import time

import pytest

from conftest import vmm_img

NO_CLUSTER = r":conf=/dev/null:mon_host=127.0.0.1\:1:client_mount_timeout=1:rados_mon_op_timeout=1"


@pytest.fixture(autouse=True)
def built():
    if " rbd" not in vmm_img("--help")[1]:
        pytest.skip("built without librbd's headers")


def test_no_cluster():
    start = time.monotonic()
    code, _, err = vmm_img("info", "rbd:pool/image" + NO_CLUSTER, ok=False)
    assert code == 1 and ("error connecting" in err or "Could not load" in err)
    code, _, err = vmm_img("create", "-f", "rbd", "rbd:pool/image" + NO_CLUSTER, "1G", ok=False)
    assert code == 1 and ("error connecting" in err or "Could not load" in err)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name,what", [("rbd:pool", "rbd:POOL/IMAGE"), ("rbd:pool/", "empty"),
                                       ("rbd:pool/image:conf", "has no value")])
def test_names(name, what):
    code, _, err = vmm_img("info", name, ok=False)
    assert code == 1 and what in err
