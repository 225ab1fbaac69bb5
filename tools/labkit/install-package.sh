#!/bin/bash
# Makes the Debian package in the directory it lies in the attachd of the lab's host; what install.sh
# put there goes. The configuration, the journal and what is attached stay.
set -euo pipefail
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive
units=/etc/systemd/system
hook=/etc/libvirt/hooks/qemu.d/attachd

leave_the_wheel() {
    local site
    site=$(echo /opt/attachd/lib/python3*/site-packages)
    systemctl --quiet disable --now attachd.service attachd.socket
    rm -rf "$units"/attachd.{service,socket} "$units"/{libvirt-guests.service,machine-.scope}.d
    rm -rf "$site"/attachd "$site"/attachd-*.dist-info "$hook"
    rm -f {/opt/attachd,/usr/local}/bin/{attachd,attachctl}
}

if [ -e "$hook" ]; then hooked=yes; else hooked=no; fi
if [ -e "$units/attachd.service" ]; then
    leave_the_wheel
fi
dpkg --force-confold --install ./*.deb
rm -f ./*.deb /etc/attachd/attachd.conf.dpkg-dist
if [ $hooked = no ]; then
    systemctl try-restart libvirtd.service # which looks for hooks at its start only
fi
if ! systemctl is-active --quiet attachd.service; then
    journalctl --no-pager --unit attachd.service --lines 60 >&2
    exit 1
fi
