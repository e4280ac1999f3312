# SPDX-License-Identifier: Apache-2.0
# Prints what hardware the guest sees, then does what test= on the kernel command line says.
# modules: button evdev
# whatever is typed, without an echo
commands() {
	stty -echo
	while read -r line; do eval "$line"; done
}
echo "GUEST-UP"
echo "cpus $(nproc) mem $(awk '/MemTotal/ { print $2 }' /proc/meminfo)"
grep -E 'System RAM' /proc/iomem | tail -n 1
for t in $(cat /proc/cmdline); do
	case $t in
	test=*) test=${t#test=} ;;
	addr=*) addr=${t#addr=} ;;
	esac
done
case ${test:-} in
reboot) # the count lies on the disk
	n=$(dd if=/dev/vda bs=1 count=1 2>/dev/null); n=${n:-0}
	echo "BOOT number $n"
	[ "$n" -ge 3 ] && { echo DONE; poweroff -f; }
	printf %d $((n + 1)) | dd of=/dev/vda bs=1 count=1 conv=notrunc,fsync 2>/dev/null
	reboot -f ;;
button)
	# a press is one event record on the power button's device
	for d in /sys/class/input/event*; do
		[ "$(cat $d/device/name)" = "Power Button" ] && button=/dev/input/${d##*/}
	done
	exec 3<$button
	echo "BUTTON-WAIT"
	dd bs=24 count=1 <&3 >/dev/null 2>&1
	echo "BUTTON-PRESSED" ;;
topology)
	for c in /sys/devices/system/cpu/cpu[0-9]*; do
		echo "CPU ${c##*cpu} package $(cat $c/topology/physical_package_id) die $(cat $c/topology/die_id) core $(cat $c/topology/core_id) threads $(cat $c/topology/thread_siblings_list)"
	done
	echo "online $(cat /sys/devices/system/cpu/online)" ;;
serial)
	exec 3<>/dev/ttyS1 # a port that nobody has open loses what comes in
	for p in 0 1 2 3; do echo "this is ttyS$p" >/dev/ttyS$p; done
	read -r line <&3; echo "ttyS1 said $line" >/dev/ttyS2 ;;
disk)
	mke2fs /dev/vda >/dev/null
	mount -t ext4 /dev/vda /mnt && i=0
	while [ $i -lt 20 ]; do dd if=/dev/urandom of=/mnt/f$i bs=64k count=8 2>/dev/null; i=$((i + 1)); done
	(cd /mnt && md5sum f*) ; rm /mnt/f3; umount /mnt; echo "DISK-WRITTEN" ;;
steps) # each write is on the disk before it is told
	i=0
	while :; do
		head -c 65536 /dev/zero | tr '\0' "\\$(printf %o $((i % 200 + 33)))" |
			dd of=/dev/vda bs=64k seek=$((i % 2000)) conv=notrunc,fsync 2>/dev/null
		echo "STEP $i"; i=$((i + 1))
	done ;;
diskcheck)
	mount -t ext4 -o ro /dev/vda /mnt && (cd /mnt && md5sum f*); umount /mnt; echo "DISK-READ" ;;
rng)
	cat /sys/class/misc/hw_random/rng_current; dd if=/dev/hwrng bs=16 count=1 2>/dev/null | wc -c ;;
net) # an address by DHCP, or addr=A/BITS; then whatever comes to port 7 goes back
	ip link set eth0 up
	if [ -n "$addr" ]; then
		ip addr add "$addr" dev eth0
	else
		cat >/tmp/dhcp <<-'S'
		#!/bin/busybox sh
		[ "$1" = bound ] || exit 0
		ip addr add $ip/$mask dev eth0; ip route add default via $router
		echo "nameserver $dns" >/etc/resolv.conf
		echo "DHCP $ip/$mask via $router dns $dns"
		S
		chmod +x /tmp/dhcp
		udhcpc -i eth0 -n -q -s /tmp/dhcp >/dev/console 2>&1
		ping -c 1 -W 20 10.0.2.2 >/dev/null && echo "PING-OK"
	fi
	echo "carrier $(cat /sys/class/net/eth0/carrier) mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)"
	for p in 7 8 9 10; do (while :; do nc -l -p $p -e cat; done) & done
	sleep 1; echo "NET-READY"
	(while [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 1; done; echo "LINK-DOWN"
	while [ "$(cat /sys/class/net/eth0/carrier)" = 0 ]; do sleep 1; done; echo "LINK-UP") &
	commands ;;
panic) echo c >/proc/sysrq-trigger ;;
triple) echo "TRIPLE-NOW"; reboot -f ;; # with reboot=t on the command line
hang) echo "HANGING"; while :; do :; done ;;
dmi)
	for f in sys_vendor product_name product_serial product_uuid board_vendor chassis_vendor bios_vendor; do
		echo "$f=$(cat /sys/class/dmi/id/$f 2>/dev/null)"; done ;;
pci)
	for d in /sys/bus/pci/devices/*; do echo "PCI ${d##*/} $(cat $d/vendor) $(cat $d/device) irq $(cat $d/irq)"; done
	grep -E 'virtio|acpi|rtc|ttyS' /proc/interrupts ;;
shell) echo SHELL-READY; commands ;;
esac
