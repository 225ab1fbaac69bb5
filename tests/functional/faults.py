"""Real parts, broken on purpose for a while, and mended again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.functional.lab import Host, eventually

CINDER_PORT = 8776
PROXY_PORT = 18776
LIBVIRT = ("libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd.service")
ISCSID = ("iscsid.socket", "iscsid.service")


@contextmanager
def cinder_that_fails(host: Host, *faults: dict[str, Any]) -> Iterator[None]:
    """attachd's requests to Cinder go through the faulty proxy; each fault must be met."""
    tag = uuid.uuid4().hex[:8]
    place, unit, table = f"/run/faulty-{tag}", f"faulty-{tag}", f"faulty_{tag}"
    lines = "\n".join(
        json.dumps({"method": "POST", "path": "", "body": "", "times": 1, **fault})
        for fault in faults
    )
    source = (Path(__file__).parent / "faulty_proxy.py").read_text()
    host.do("mkdir", place)
    host.do("sh", "-c", f"cat > {place}/proxy.py", stdin=source)
    host.do("sh", "-c", f"cat > {place}/faults", stdin=lines)
    host.do(
        *("systemd-run", "--quiet", "--unit", unit, "python3", f"{place}/proxy.py"),
        *(str(PROXY_PORT), str(CINDER_PORT), f"{place}/faults"),
    )
    try:
        eventually(
            "the proxy answers",
            lambda: host.run("curl", "-s", f"http://127.0.0.1:{PROXY_PORT}/").status == 0,
        )
        host.script(
            f"nft add table ip {table}\n"
            f"nft add chain ip {table} output '{{ type nat hook output priority -100; }}'\n"
            f"nft add rule ip {table} output meta skuid attachd tcp dport {CINDER_PORT} "
            f"redirect to :{PROXY_PORT}\n"
        )
        # A connection that attachd keeps open wouldn't be concerned.
        host.do("ss", "--kill", "--tcp", "dport", "=", f":{CINDER_PORT}")
        yield
        used = set(host.run("cat", f"{place}/faults.used").out.split())
        assert used == {str(number) for number in range(len(faults))}, "not every fault was met"
    finally:
        host.run("nft", "delete", "table", "ip", table)
        host.run("systemctl", "stop", unit)
        host.run("rm", "-r", place)


@contextmanager
def at_cinders(host: Host, request: dict[str, Any], script: str, **when: bool) -> Iterator[None]:
    """A shell script runs in the host while attachd waits for Cinder's answer to a request.

    ``behind=True``: when Cinder has done it.
    """
    with cinder_that_fails(host, {**request, "script": script, **when}):
        yield


@contextmanager
def hung(host: Host, unit: str) -> Iterator[None]:
    """All processes of a unit do nothing for a while; its sockets stay open."""
    host.do("systemctl", "start", unit)
    host.do("systemctl", "kill", "--signal=STOP", unit)
    try:
        yield
    finally:
        host.do("systemctl", "kill", "--signal=CONT", unit)


@contextmanager
def held_open(host: Host, device: str) -> Iterator[None]:
    """Some process of the host has a device open for a while."""
    unit = f"holder-{uuid.uuid4().hex[:8]}"
    host.do(
        *("systemd-run", "--quiet", "--unit", unit, "sh", "-c"),
        f"exec sleep infinity <{device}",
    )
    try:
        yield
    finally:
        host.do("systemctl", "stop", unit)


@contextmanager
def on_a_pool_that_fills_up(host: Host, volume_id: str, *, megabytes: int) -> Iterator[None]:
    """A volume lies for a while in a thin pool of its own, which has room for so much only.

    Cinder's own pool is left alone: to fill it would take the machine's disk. What is behind the
    volume's device is exchanged under the target, which has it open; reads see zeroes meanwhile.
    """
    group, tag = "cinder-volumes", uuid.uuid4().hex[:8]
    pool, thin = f"full-{tag}", f"thin-{tag}"
    name, table = host.script(
        f"lvcreate --quiet --yes --size {megabytes}M --thinpool {pool} --errorwhenfull y {group} "
        ">&2\n"
        f"lvcreate --quiet --yes --virtualsize 1G --name {thin} --thinpool {pool} {group} >&2\n"
        f"device=$(readlink -f /dev/{group}/*{volume_id})\n"
        "name=$(dmsetup info --columns --noheadings -o name $device)\n"
        "echo $name; dmsetup table $name\n"
    ).splitlines()
    sectors = table.split()[1]
    try:
        _exchange(host, name, f"0 {sectors} linear /dev/{group}/{thin} 0")
        yield
    finally:
        _exchange(host, name, table)
        host.do("lvremove", "--quiet", "--yes", f"{group}/{thin}", f"{group}/{pool}")


def _exchange(host: Host, name: str, table: str) -> None:
    """Give a device-mapper device another table, what is under way on it finished first.

    One that is gone meanwhile (Cinder may deactivate a volume) gets LVM's own when it comes back.
    """
    there = f"dmsetup info {name} >/dev/null 2>&1"
    change = f"dmsetup load {name}; dmsetup resume {name}"
    host.do("sh", "-euc", f"if {there}; then {change}; fi", stdin=table + "\n")


@contextmanager
def packets(host: Host, port: int, verdict: str) -> Iterator[None]:
    """TCP to a port of this host is met with ``drop`` or ``reject`` for a while."""
    table = f"packets_{uuid.uuid4().hex[:8]}"
    answer = "reject with tcp reset" if verdict == "reject" else "drop"
    host.script(
        f"nft add table inet {table}\n"
        f"nft add chain inet {table} input '{{ type filter hook input priority 0; }}'\n"
        f"nft add rule inet {table} input tcp dport {port} {answer}\n"
    )
    try:
        yield
    finally:
        host.do("nft", "delete", "table", "inet", table)


@contextmanager
def portal_cut(host: Host, address: str) -> Iterator[None]:
    """Every packet to and from one address of the storage is lost for a while."""
    table = f"portal_{uuid.uuid4().hex[:8]}"
    host.script(
        f"nft add table ip {table}\n"
        f"nft add chain ip {table} input '{{ type filter hook input priority 0; }}'\n"
        f"nft add rule ip {table} input ip daddr {address} tcp dport 3260 drop\n"
        f"nft add rule ip {table} input ip saddr {address} tcp sport 3260 drop\n"
    )
    try:
        yield
    finally:
        host.do("nft", "delete", "table", "ip", table)


@contextmanager
def after_each_export(host: Host, script: str) -> Iterator[None]:
    """A shell script runs in the host after each of Cinder's exports, with ``$IQN`` set.

    It stands behind cinder-rtstool, the program by which Cinder makes its LIO targets, when that
    has let in this host's initiator: what attachd then connects to is what the script made of it.
    It is mounted over the program, which stays as it is.
    """
    tool, place = "/usr/bin/cinder-rtstool", f"/var/tmp/after-export-{uuid.uuid4().hex[:8]}"
    wrapper = f"""#!/bin/sh
{place}/tool "$@"
status=$?
if [ "$1" = add-initiator ] && [ $status = 0 ]; then
    IQN=$2
    export IQN
    sh -eu >{place}/log 2>&1 <<'END'
{script}
END
fi
exit $status
"""
    host.script(f"mkdir -m 755 {place}\ncp -p {tool} {place}/tool")
    host.do("sh", "-c", f"cat > {place}/wrapper && chmod 755 {place}/wrapper", stdin=wrapper)
    host.do("mount", "--bind", f"{place}/wrapper", tool)
    try:
        yield
        assert host.run("test", "-e", f"{place}/log").status == 0, "nothing was exported"
    finally:
        host.do("umount", tool)
        host.do("rm", "-r", place)


ANOTHER_DISK = """
set -e
tpg=$(ls -d /sys/kernel/config/target/iscsi/*{volume}/tpgt_1)
fileio=/sys/kernel/config/target/core/fileio_77
mkdir -p $fileio/other
truncate -s 1G /var/tmp/other.img
echo -n fd_dev_name=/var/tmp/other.img,fd_dev_size=1073741824 > $fileio/other/control
echo 1 > $fileio/other/enable
readlink -f $(find $tpg/lun/lun_0 -maxdepth 1 -type l) > /root/own-store
for acl in $tpg/acls/*; do rm $(find $acl/lun_0 -maxdepth 1 -type l); rmdir $acl/lun_0; done
rm $(find $tpg/lun/lun_0 -maxdepth 1 -type l)
ln -s $fileio/other $tpg/lun/lun_0/other
for acl in $tpg/acls/*; do mkdir $acl/lun_0; ln -s $tpg/lun/lun_0 $acl/lun_0/mapped; done
"""
ITS_OWN_DISK = """
set -e
tpg=$(ls -d /sys/kernel/config/target/iscsi/*{volume}/tpgt_1)
for acl in $tpg/acls/*; do rm $(find $acl/lun_0 -maxdepth 1 -type l); rmdir $acl/lun_0; done
rm $(find $tpg/lun/lun_0 -maxdepth 1 -type l)
ln -s $(cat /root/own-store) $tpg/lun/lun_0/own
for acl in $tpg/acls/*; do mkdir $acl/lun_0; ln -s $tpg/lun/lun_0 $acl/lun_0/mapped; done
rmdir /sys/kernel/config/target/core/fileio_77/other /sys/kernel/config/target/core/fileio_77
rm /var/tmp/other.img /root/own-store
"""


@contextmanager
def another_disk_behind_its_lun(host: Host, volume_id: str) -> Iterator[None]:
    """Behind the same portal, target and number the storage has another disk for a while."""
    host.script(ANOTHER_DISK.format(volume=volume_id))
    try:
        yield
    finally:
        host.script(ITS_OWN_DISK.format(volume=volume_id))


@contextmanager
def moved_away(host: Host, path: str, *, to: str) -> Iterator[None]:
    """A file isn't where it was for a while."""
    host.do("mv", path, to)
    try:
        yield
    finally:
        host.do("mv", to, path)


@contextmanager
def changed(host: Host, path: str, script: str) -> Iterator[None]:
    """A shell script changes a file (``$FILE``) or its marks; then all are as they were."""
    kept = f"/root/{Path(path).name}.{uuid.uuid4().hex[:8]}"
    host.do("cp", "-p", path, kept)
    try:
        host.do("env", f"FILE={path}", "sh", "-euc", script)
        yield
    finally:
        host.do("cp", "-p", kept, path)
        host.do("rm", kept)


@contextmanager
def owned(host: Host, path: str, *, owner: str, mode: str) -> Iterator[None]:
    """A file or directory is somebody else's, with another mode, for a while."""
    was = host.do("stat", "-c", "%U:%G %a", path).split()
    host.script(f"chown {owner} {path}\nchmod {mode} {path}\n")
    try:
        yield
    finally:
        host.script(f"chown {was[0]} {path}\nchmod {was[1]} {path}\n")


@contextmanager
def nova_compute(host: Host, *, lock_path: str) -> Iterator[None]:
    """What looks like nova-compute runs for a while: its name, its unit, its configuration."""
    program, unit, directory = "/usr/local/bin/nova-compute", "nova-compute", "/etc/nova"
    settings = f"[oslo_concurrency]\nlock_path = {lock_path}\n"
    try:
        host.do("cp", "/usr/bin/sleep", program)
        host.do("mkdir", "-p", directory)
        host.do("sh", "-c", f"cat > {directory}/nova.conf", stdin=settings)
        host.do("systemd-run", "--quiet", "--unit", unit, program, "infinity")
        yield
    finally:
        host.run("systemctl", "stop", unit)
        host.run("rm", "-r", program, directory)
