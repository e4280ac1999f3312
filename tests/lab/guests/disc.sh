# SPDX-License-Identifier: Apache-2.0
# The stock generic kernel, which has AHCI: a disk and a CD-ROM drive on it.
# kernel: generic
# modules: ahci sr_mod sd_mod isofs ext4 crc32c_generic crc32c-intel
echo "GUEST-UP"
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/sr0 ] && [ -e /dev/sda ] && break; sleep 1; done
mount -t iso9660 -o ro /dev/sr0 /mnt && echo "DISC $(cat /mnt/*)"
read -r line
umount /mnt
mke2fs /dev/sda >/dev/null
mount -t ext4 /dev/sda /mnt && dd if=/dev/urandom of=/mnt/f bs=64k count=64 2>/dev/null
md5sum /mnt/f; umount /mnt; echo "DISK-DONE"
read -r line
mount -t iso9660 -o ro /dev/sr0 /mnt && echo "DISC $(cat /mnt/*)"
umount /mnt
