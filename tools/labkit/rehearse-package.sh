#!/bin/bash
# rehearse-package.sh ROOT PLACE OLD NEW JOURNAL: in a copy of the Debian ROOT below PLACE, installs
# the package OLD, upgrades it to NEW while a volume is attached by JOURNAL, and removes and purges
# it. Fails where a step doesn't go as it should, or where anything is left.
# As root, in namespaces of its own. No systemd runs there: what units do is the lab's to show.
set -euo pipefail
root=$1 place=$2 old=$3 new=$4 journal=$5
copy=$place/root
cp -a "$root" "$copy"
cp "$old" "$copy/old.deb"
cp "$new" "$copy/new.deb"
cp "$journal" "$copy/journal.db"
mount -t proc proc "$copy/proc"
mount --rbind /dev "$copy/dev"
mount -t tmpfs tmpfs "$copy/tmp"
env -i PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive \
    chroot "$copy" /bin/bash -s <<'EOF'
set -euo pipefail
conf=/etc/attachd/attachd.conf
state=/var/lib/attachd

say() { echo "--- $*"; }
fail() { echo "not so: $*" && exit 1; }
# What it depends on beside Python isn't here.
package() { dpkg --force-depends "$@"; }
status() { dpkg-query --show --showformat '${db:Status-Abbrev}' attachd 2>/dev/null || true; }
everything() { # but dpkg's own memory
    find / -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /tmp -o -path /proc \
        -o -path /dev \) -prune -o -print | sort
    sort /etc/passwd /etc/group
}

groupadd --system libvirt # libvirt's own package made it
touch /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid- /etc/.pwd.lock
everything >/tmp/before

say install
package --install /old.deb
[ "$(stat -c '%U:%G %a' $conf)" = 'root:attachd 640' ] || fail "$conf belongs to $(ls -l $conf)"
[ "$(stat -c '%U:%G %a' $state)" = 'attachd:attachd 700' ] || fail "$state: $(ls -ld $state)"
id --groups --name attachd | grep -qw libvirt || fail "attachd isn't in libvirt's group"
for unit in multi-user.target.wants/attachd.service sockets.target.wants/attachd.socket; do
    [ -e "/etc/systemd/system/$unit" ] || fail "$unit isn't enabled"
done
attachctl --help | grep -q '^usage: attachctl'
attachctl --version
! XDG_CACHE_HOME=/tmp attachd 2>/tmp/said || fail "it started without credentials"
grep '^config-invalid: ' /tmp/said || fail "it said $(cat /tmp/said)"

say upgrade
echo '# mine' >>$conf
install -o attachd -g attachd -m 0600 /journal.db $state/journal.db
sum=$(sha256sum <$state/journal.db)
package --install /new.deb
[ "$(sha256sum <$state/journal.db)" = "$sum" ] || fail "the journal was changed"
[ "$(tail -n 1 $conf)" = '# mine' ] || fail "$conf was changed"
[ "$(stat -c '%U:%G %a' $conf)" = 'root:attachd 640' ] || fail "$conf belongs to $(ls -l $conf)"
! ls /etc/attachd | grep -v '^attachd.conf$' || fail "the upgrade left files beside $conf"

say "remove while a volume is attached"
! package --remove attachd 2>/tmp/said || fail "it was removed"
cat /tmp/said
grep -q 'attachctl detach' /tmp/said || fail "no resolution was told"
grep -q '^web .* attached$' /tmp/said || fail "the attachment wasn't named"
[ "$(status)" = 'ri ' ] || fail "its status is $(status)" # wished for, not done

say "remove while the journal can't be read"
echo nonsense >$state/journal.db
! package --remove attachd || fail "it was removed"

say remove
rm $state/journal.db
package --remove attachd
[ "$(status)" = 'rc ' ] || fail "its status is $(status)"
[ -e $conf ] || fail "$conf is gone"
[ ! -e /usr/lib/attachd ] || fail "/usr/lib/attachd is left"
/etc/libvirt/hooks/qemu.d/attachd web prepare begin - </dev/null || fail "the hook keeps guests off"

say purge
touch $conf.mine $state/journal.db.schema-1 # ours as well
package --purge attachd
everything >/tmp/after
diff /tmp/before /tmp/after || fail "it is as it was before"
say done
EOF
