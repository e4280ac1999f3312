# SPDX-License-Identifier: Apache-2.0
# Initial file system for the stock generic kernel: drivers for SATA CD-ROMs, then the cloud image's
# own system, whose cloud kernel has none.
# kernel: generic
# modules: ahci sr_mod sd_mod isofs ext4 crc32c_generic crc32c-intel button evdev
mkdir -p /root
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vda3 ] && break; sleep 1; done
# the volume's name, where ISO 9660 has it
echo "SEED-DEVICE $(ls /dev/sr0) $(dd if=/dev/sr0 bs=8 skip=4101 count=1 2>/dev/null)"
mount -t ext4 /dev/vda3 /root
for d in proc sys dev; do mount --move /$d /root/$d; done
exec switch_root /root /sbin/init
