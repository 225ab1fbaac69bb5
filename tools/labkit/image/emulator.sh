#!/bin/sh
# Runs in a small Debian of its own: /qemu becomes all that QEMU needs to run on any other Linux.
set -eu
mkdir -p /qemu/lib /qemu/share
for name in qemu-system-x86_64 qemu-img; do
    cp "/usr/bin/$name" /qemu/
    ldd "/usr/bin/$name" | awk '$2 == "=>" {print $3}' | xargs cp -L -n -t /qemu/lib
done
cp -L /lib64/ld-linux-x86-64.so.2 /qemu/lib/loader
cp -L /usr/share/seabios/bios-256k.bin /usr/share/qemu/*vapic.bin \
    /usr/share/qemu/linuxboot*.bin /usr/share/qemu/pvh.bin /qemu/share/
