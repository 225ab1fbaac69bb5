#!/bin/bash
# Makes the directory it lies in (site/, bin/, systemd/, etc/) the attachd of the lab's host, and
# starts it. Done by hand what pip would do: pip alone takes half a minute on an emulated CPU.
set -euo pipefail
cd "$(dirname "$0")"
python=/opt/attachd/bin/python3
site=$(echo /opt/attachd/lib/python3*/site-packages)
units=/etc/systemd/system
hook=libvirt/hooks/qemu.d/attachd
kept=/var/lib/attachd-kept

# What install-package.sh put there goes, but for its configuration and its journal.
leave_the_package() {
    systemctl stop attachd.service attachd.socket
    mkdir -m 0700 "$kept"
    mv /var/lib/attachd "$kept/state"
    mv /etc/attachd "$kept/configuration"
    dpkg --purge attachd
}

take_back() {
    rm -rf /var/lib/attachd /etc/attachd
    mv "$kept/state" /var/lib/attachd
    mv "$kept/configuration" /etc/attachd
    rmdir "$kept"
    chown -R attachd:attachd /var/lib/attachd
    chgrp attachd /etc/attachd/attachd.conf
}

if cmp --quiet "etc/$hook" "/etc/$hook"; then hooked=yes; else hooked=no; fi
if [ "$(dpkg-query --show --showformat '${db:Status-Status}' attachd 2>/dev/null)" = installed ]; then
    leave_the_package
fi
rm -rf "$site"/attachd "$site"/attachd-*.dist-info
cp -r site/. "$site/"
install -m 0755 -t /opt/attachd/bin bin/*
ln -sf /opt/attachd/bin/attachd /opt/attachd/bin/attachctl /usr/local/bin/
"$python" -m compileall -q "$site/attachd"
find systemd -maxdepth 1 -type f \( -name '*.service' -o -name '*.socket' \) \
    -exec install -m 0644 -t "$units" {} +
for dropins in systemd/*.d; do
    case $dropins in
    */sysusers.d | */tmpfiles.d) install -m 0644 -t "/usr/lib/${dropins##*/}" "$dropins"/*.conf ;;
    *) install -D -m 0644 -t "$units/${dropins##*/}" "$dropins"/*.conf ;;
    esac
done
install -D -m 0755 "etc/$hook" "/etc/$hook"
if [ $hooked = no ]; then
    systemctl try-restart libvirtd.service # which looks for hooks at its start only
fi
systemd-sysusers
if [ -e "$kept" ]; then
    take_back
fi
systemd-tmpfiles --create
systemctl daemon-reload
systemctl --quiet enable attachd.socket attachd.service
systemctl reset-failed attachd.service attachd.socket 2>/dev/null || true
systemctl start attachd.socket
if ! systemctl restart attachd.service; then
    journalctl --no-pager --unit attachd.service --lines 60 >&2
    exit 1
fi
