# SPDX-License-Identifier: Apache-2.0
# The same guest with the stock generic kernel, which has drivers for network cards that are not
# virtio.
# script: report.sh
# kernel: generic
# modules: e1000e button evdev
