#!/bin/bash
# assemble.sh ROOT PAYLOAD: configures the unpacked packages in ROOT from within. Runs as root in
# namespaces of its own (mounts, processes, network), so that nothing of it outlives it.
set -euo pipefail
root=$1 payload=$2
cp -r "$payload" "$root/lab-build"
cp -r --no-preserve=ownership "$payload/files/." "$root/"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
env -i PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 HOME=/root \
    chroot "$root" /bin/bash /lab-build/configure.sh
mv "$root/lab-build/out" "$payload/out"
rm -r "$root/lab-build"
