#!/bin/sh
# The lab's host: load what the root disk needs, mount it, hand over to systemd.
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 -o rw,noatime /dev/vda /root
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
