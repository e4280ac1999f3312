# SPDX-License-Identifier: Apache-2.0
# Serves iperf3 at addr=A/BITS of the kernel command line: what tests/bench/net_lab.py measures.
# files: /usr/bin/iperf3
for t in $(cat /proc/cmdline); do
	case $t in addr=*) addr=${t#addr=} ;; esac
done
ip link set lo up
ip link set eth0 up
ip addr add "$addr" dev eth0
(while :; do iperf3 -s >/dev/null 2>&1; done) &
sleep 1; echo "NET-READY"
sleep 10000
