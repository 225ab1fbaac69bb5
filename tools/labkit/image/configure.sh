#!/bin/bash
# Turns the bare packages into an OpenStack host; runs inside the image (chroot) at build time,
# natively, since the same through the emulated machine takes many times as long.
# Expects /lab-build with this directory's scripts, wheels/ and authorized_key; leaves in
# /lab-build/out what the outer machine needs.
set -euo pipefail
umask 022
build=/lab-build out=/lab-build/out
mkdir -p "$out"
kernel=$(cd /lib/modules && echo *)

say() { echo "lab: $*"; }
secret() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }

ADMIN_PASSWORD=$(secret) CINDER_PASSWORD=$(secret) ATTACHD_PASSWORD=$(secret)
DEMO_PASSWORD=$(secret) DATABASE_PASSWORD=$(secret)
export ADMIN_PASSWORD CINDER_PASSWORD ATTACHD_PASSWORD DEMO_PASSWORD

database_url() { # NAME
    echo "mysql+pymysql://$1:$DATABASE_PASSWORD@localhost/$1?unix_socket=/run/mysqld/mysqld.sock"
}

replace() { # OWNER FILE: stdin becomes the file, never readable by others
    local file=$2
    install -m 0640 -o root -g "$1" /dev/null "$file"
    cat >"$file"
}

tune_uwsgi() { # FILE: one process instead of eight, and no AppArmor
    sed -i -e 's/^processes = .*/processes = 1/' -e 's/^threads = .*/threads = 8/' \
        -e '/^apparmor-profile/d' -e 's/^plugins = .*/plugins = python3/' "$1"
}

write_keystone_conf() {
    replace keystone /etc/keystone/keystone.conf <<EOF
[DEFAULT]
log_dir = /var/log/keystone
[cache]
enabled = true
backend = dogpile.cache.memory
[database]
connection = $(database_url keystone)
[fernet_tokens]
key_repository = /etc/keystone/fernet-keys
[oslo_policy]
policy_dirs = /etc/keystone/policy.d
[token]
provider = fernet
expiration = 86400
EOF
    tune_uwsgi /etc/keystone/keystone-uwsgi.ini
    # uWSGI closes each connection without saying so; a client that reuses it gets a reset.
    echo 'add-header = Connection: close' >>/etc/keystone/keystone-uwsgi.ini
}

write_cinder_conf() {
    replace cinder /etc/cinder/cinder.conf <<EOF
[DEFAULT]
auth_strategy = keystone
my_ip = 127.0.0.1
transport_url = rabbit://guest:guest@127.0.0.1:5672/
enabled_backends = lvm
report_interval = 5
rpc_response_timeout = 30
quota_volumes = -1
quota_snapshots = -1
quota_gigabytes = -1
[lvm]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
volume_backend_name = lvm
volume_group = cinder-volumes
lvm_type = thin
lvm_suppress_fd_warnings = true
target_protocol = iscsi
target_helper = lioadm
target_ip_address = 127.0.0.1
# For hosts that ask for several paths (multipath); all others get the first one.
target_secondary_ip_addresses = 127.0.0.2
report_discard_supported = true
use_chap_auth = true
volume_clear = none
[database]
connection = $(database_url cinder)
[keystone_authtoken]
auth_type = password
auth_url = http://127.0.0.1:5000/v3
www_authenticate_uri = http://127.0.0.1:5000/v3
username = cinder
password = $CINDER_PASSWORD
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = RegionOne
service_token_roles = service
service_token_roles_required = true
[service_user]
send_service_user_token = true
auth_type = password
auth_url = http://127.0.0.1:5000/v3
username = cinder
password = $CINDER_PASSWORD
project_name = service
user_domain_name = Default
project_domain_name = Default
[oslo_concurrency]
lock_path = /var/lock/cinder
[oslo_policy]
policy_dirs = /etc/cinder/policy.d
EOF
    tune_uwsgi /etc/cinder/cinder-api-uwsgi.ini
    # Whatever the packages' own services write at boot, the root wrapper is ours: see the script.
    mv /usr/bin/cinder-rootwrap /usr/bin/cinder-rootwrap.real
    install -m 0755 "$build/rootwrap.sh" /usr/bin/cinder-rootwrap
    mv /usr/bin/cinder-rtstool /usr/bin/cinder-rtstool.real
    install -m 0755 "$build/rtstool.sh" /usr/bin/cinder-rtstool
    install -m 0755 "$build/rtstool-server.py" /usr/local/sbin/lab-rtstool-server
}

with_database() { # COMMAND...: MariaDB on its socket alone, for the time of the command
    install -d -o mysql -g mysql /run/mysqld
    mariadbd --user=mysql --skip-networking --innodb-flush-log-at-trx-commit=0 &
    local pid=$!
    mariadb-admin --wait=60 --silent ping
    "$@"
    mariadb-admin shutdown
    wait "$pid"
}

fill_databases() {
    local name
    for name in keystone cinder; do
        mariadb <<EOF
CREATE DATABASE $name CHARACTER SET utf8mb4;
CREATE USER $name@localhost IDENTIFIED BY '$DATABASE_PASSWORD';
GRANT ALL ON $name.* TO $name@localhost;
EOF
    done
    say "keystone: schema, keys, catalogue"
    setpriv --reuid keystone --regid keystone --init-groups keystone-manage db_sync
    keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone
    keystone-manage credential_setup --keystone-user keystone --keystone-group keystone
    OS_BOOTSTRAP_PASSWORD=$ADMIN_PASSWORD keystone-manage bootstrap \
        --bootstrap-region-id RegionOne \
        --bootstrap-public-url http://127.0.0.1:5000/v3/ \
        --bootstrap-internal-url http://127.0.0.1:5000/v3/ \
        --bootstrap-admin-url http://127.0.0.1:5000/v3/
    ip link set lo up
    uwsgi_python3 --http-socket 127.0.0.1:5000 --ini /etc/keystone/keystone-uwsgi.ini &
    local pid=$!
    curl --silent --show-error --fail --output /dev/null --retry 60 --retry-delay 1 \
        --retry-connrefused http://127.0.0.1:5000/v3
    python3 "$build/catalogue.py"
    kill "$pid"
    wait "$pid" || true
    rm /var/log/keystone/* # written by root, while the service is not
    say "cinder: schema"
    setpriv --reuid cinder --regid cinder --init-groups cinder-manage db sync
}

make_initrd() { # FILE INIT MODULE...: busybox, the modules with all they need, and an init
    local file=$1 init=$2 tree path
    shift 2
    tree=$(mktemp -d)
    mkdir -p "$tree/bin" "$tree/modules"
    cp /bin/busybox "$tree/bin/"
    ln -s busybox "$tree/bin/sh"
    install -m 0755 "$init" "$tree/init"
    modprobe --set-version "$kernel" --all --show-depends "$@" | awk '$1 == "insmod" {print $2}' |
        awk '!seen[$0]++' | while read -r path; do
            busybox xzcat "$path" >"$tree/modules/$(basename "$path" .xz)"
            basename "$path" .xz >>"$tree/modules/order"
        done
    (cd "$tree" && find . | busybox cpio -o -H newc 2>/dev/null | zstd -q -19 -o "$file" --force)
    rm -r "$tree"
}

make_kernels() {
    install -d /usr/share/lab
    cp "/boot/vmlinuz-$kernel" /usr/share/lab/vmlinuz
    make_initrd /usr/share/lab/guest.initrd "$build/guest-init.sh" \
        virtio_pci virtio_blk virtio_scsi sd_mod virtio_console button evdev
    make_initrd "$out/machine.initrd" "$build/machine-init.sh" virtio_pci virtio_blk ext4
    cp /usr/share/lab/vmlinuz /usr/share/lab/guest.initrd "$out/"
    rm /boot/initrd.img-* /boot/vmlinuz-*
}

make_qemu() { # for the outer machine: this very QEMU runs the lab, whatever distribution is there
    local tree=$out/qemu name
    mkdir -p "$tree/lib" "$tree/share"
    for name in qemu-system-x86_64 qemu-img; do
        cp "/usr/bin/$name" "$tree/"
        ldd "/usr/bin/$name" | awk '$2 == "=>" {print $3}' | xargs cp -L -n -t "$tree/lib"
    done
    cp -L /lib64/ld-linux-x86-64.so.2 "$tree/lib/loader"
    cp -L /usr/share/seabios/bios-256k.bin /usr/share/qemu/*vapic.bin \
        /usr/share/qemu/linuxboot*.bin /usr/share/qemu/pvh.bin "$tree/share/"
}

make_attachd() { # its Python, complete but for its own wheel; and its configuration
    local packages=/usr/lib/python3/dist-packages site
    python3 -m venv /opt/attachd
    site=$(echo /opt/attachd/lib/python3*/site-packages)
    # libvirt-python has no wheels: Debian's own build of it, with the metadata pip looks for.
    cp -r "$packages"/libvirt*.py "$packages"/libvirtmod*.so "$packages"/libvirt_python-*info \
        "$site/"
    rm -f "$site"/libvirtmod_lxc* "$site/libvirt_lxc.py"
    /opt/attachd/bin/pip install --quiet --no-index --find-links "$build/wheels" \
        --requirement "$build/requirements.txt"
    ln -s /opt/attachd/bin/attachd /opt/attachd/bin/attachctl /usr/local/bin/
    groupadd --system attachd
    install -d -m 0755 /etc/attachd
    replace attachd /etc/attachd/attachd.conf <<EOF
[cinder]
auth_type = password
auth_url = http://127.0.0.1:5000/v3
username = attachd
password = $ATTACHD_PASSWORD
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = RegionOne
# a little longer than Cinder's rpc_response_timeout here
orphan_timeout = 45
EOF
}

set_up_access() {
    install -d -m 0700 /root/.ssh
    install -m 0600 "$build/authorized_key" /root/.ssh/authorized_keys
    rm -f /etc/ssh/ssh_host_*
    ssh-keygen -q -t ed25519 -N '' -C lab -f /etc/ssh/ssh_host_ed25519_key
    echo "attachd-lab $(cat /etc/ssh/ssh_host_ed25519_key.pub)" >"$out/known_hosts"
    usermod --password '*' root # no password fits, yet not locked: sshd refuses locked accounts
}

cloud() { # USER PASSWORD PROJECT: one entry of clouds.yaml
    cat <<EOF
{"region_name": "RegionOne", "identity_api_version": "3", "auth": {
    "auth_url": "http://127.0.0.1:5000/v3", "username": "$1", "password": "$2",
    "project_name": "$3", "user_domain_name": "Default", "project_domain_name": "Default"}}
EOF
}

write_clouds() { # in YAML's JSON subset, which needs no library to be read
    replace root "$out/clouds.yaml" <<EOF
{"clouds": {
"lab": $(cloud admin "$ADMIN_PASSWORD" admin),
"demo": $(cloud demo "$DEMO_PASSWORD" demo)
}}
EOF
}

choose_services() {
    echo "InitiatorName=$(iscsi-iname)" >/etc/iscsi/initiatorname.iscsi
    chmod 0600 /etc/iscsi/initiatorname.iscsi
    systemctl --quiet enable lab-volume-group.service lab-rtstool.service \
        systemd-networkd.service ssh.service \
        iscsid.socket open-iscsi.service libvirtd.service libvirt-guests.service
    systemctl --quiet disable multipathd.service multipathd.socket
    systemctl --quiet mask \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
        logrotate.timer systemd-tmpfiles-clean.timer systemd-networkd-wait-online.service \
        e2scrub_reap.service lvm2-monitor.service systemd-pstore.service systemd-timesyncd.service \
        getty@tty1.service serial-getty@ttyS0.service apparmor.service ssh.socket \
        systemd-hwdb-update.service systemd-update-utmp.service systemd-binfmt.service \
        ldconfig.service systemd-firstboot.service systemd-journal-catalog-update.service \
        systemd-machine-id-commit.service netplan-configure.service console-setup.service \
        keyboard-setup.service systemd-networkd-persistent-storage.service
    systemctl --quiet set-default multi-user.target
    systemd-machine-id-setup
    touch /etc/.updated /var/.updated
    rm -f /etc/libvirt/qemu/networks/autostart/default.xml
}

say "keys and services"
set_up_access
choose_services
say "attachd's Python"
make_attachd
say "kernels, QEMU"
make_kernels
make_qemu
say "configuration and databases"
write_keystone_conf
write_cinder_conf
with_database fill_databases
write_clouds
rm -f /etc/resolv.conf
say "configured"
