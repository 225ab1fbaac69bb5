#!/bin/bash
# build-package.sh ROOT PAYLOAD: builds PAYLOAD/tree as a Debian package in ROOT, a Debian that stays
# as it is, with the wheels in PAYLOAD/wheels; into PAYLOAD/out. As root, in namespaces of its own.
set -euo pipefail
root=$1 payload=$2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/mnt"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/mnt/build"
mount --bind "$payload" "$root/mnt/build"
env -i PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 HOME=/tmp \
    PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/build/wheels PIP_ROOT_USER_ACTION=ignore \
    chroot "$root" /bin/sh -euc 'umask 022; cd /mnt/build/tree
        dpkg-checkbuilddeps -I # build-essential: nothing is compiled
        dpkg-buildpackage --build=binary --no-check-builddeps --no-sign
        mv ../*.deb ../out'
