"""The DevStack plugin in the lab's host, called as DevStack calls it.

The phases, the functions and their order are DevStack's (devstack/harness.sh beside this file); the
host, its systemd, libvirt, Keystone and Cinder are real. What it can't prove: that DevStack's own
functions do what the harness's do, that its packages can be installed, that pip finds attachd's
dependencies on the net, and that a Cinder as DevStack configures it gets on with attachd.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.lab import Cloud, Guest, Host, Worlds

MEGABYTES = 4
STACK = "/opt/stack"
CHECKOUT = f"{STACK}/attachd"
CARRIED = (
    *("attachd", "devstack", "etc", "systemd", "pyproject.toml", "README.md"),
    "tests/functional/devstack",
)
HARNESS = f"{CHECKOUT}/tests/functional/devstack"
VENV = f"{STACK}/data/attachd-venv"
LOCK = f"{STACK}/data/os_brick/os-brick-connect_volume"
UNITS = ("attachd.service", "attachd.socket")

OWN = " ".join(
    (
        *("etc/attachd", "etc/libvirt/hooks/qemu.d/attachd"),
        *(f"etc/systemd/system/{unit}" for unit in UNITS),
        "etc/systemd/system/multi-user.target.wants/attachd.service",
        "etc/systemd/system/sockets.target.wants/attachd.socket",
        "etc/systemd/system/libvirt-guests.service.d/attachd.conf",
        "etc/systemd/system/machine-.scope.d/attachd.conf",
        *("usr/local/bin/attachd", "usr/local/bin/attachctl"),
    )
)
"""What the lab's own attachd has where the plugin puts its files."""
ASIDE = "/root/attachd-aside.tar"
SET_ASIDE = f"""
cd /
systemctl stop {" ".join(UNITS)}
own=$(for path in {OWN}; do [ ! -e $path ] && [ ! -L $path ] || echo $path; done)
tar -cpf {ASIDE} $own
rm -rf $own
systemctl daemon-reload
"""
BRING_BACK = f"""
cd /
systemctl stop {" ".join(UNITS)} 2>/dev/null || true
rm -rf etc/systemd/system/attachd.*.d
tar -xpf {ASIDE}
rm {ASIDE}
systemctl daemon-reload
systemctl try-restart libvirtd.service
systemctl reset-failed {" ".join(UNITS)} 2>/dev/null || true
systemctl start attachd.service
"""

# As DevStack's own tools/create-stack-user.sh does it.
ADD_STACK_USER = f"""
groupadd stack
useradd --gid stack --shell /bin/bash --home-dir {STACK} --create-home stack
chmod 0755 {STACK}
echo 'stack ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/50_stack_sh
chmod 0440 /etc/sudoers.d/50_stack_sh
mkdir {CHECKOUT}
"""
REMOVE_STACK_USER = f"""
systemctl stop {" ".join(UNITS)} 2>/dev/null || true
userdel --force --remove stack 2>/dev/null || true
groupdel stack 2>/dev/null || true
rm -rf {STACK} /etc/sudoers.d/50_stack_sh
"""
LEFT = f"""
for place in /etc/attachd /etc/systemd/system /etc/libvirt/hooks /usr/local/bin {STACK}/data; do
    [ ! -e $place ] || find $place -name '*attachd*' -o -name attachctl
done
"""


@pytest.fixture
def bare_host(host: Host) -> Iterator[None]:
    """The host has no attachd for a while; the lab's own is there again behind the test."""
    host.script(SET_ASIDE)
    try:
        yield
    finally:
        host.script(BRING_BACK)


@pytest.fixture
def free_name(cloud: Cloud) -> Iterator[None]:
    """Keystone has no user attachd for a while: the lab's own has another name."""
    identity: Any = cloud.connection.identity
    own = identity.find_user("attachd", ignore_missing=False).id
    identity.update_user(own, name="attachd-aside")
    try:
        yield
    finally:
        if made := identity.find_user("attachd"):
            identity.delete_user(made.id)
        identity.update_user(own, name="attachd")


@pytest.fixture
def devstack(
    host: Host, cloud: Cloud, bare_host: None, free_name: None
) -> Iterator[Callable[[str], None]]:
    """Runs stack.sh, unstack.sh or clean.sh, as far as they concern the plugin."""
    admin = {"auth": cloud.connection.config.get_auth_args(), "region_name": "RegionOne"}
    host.script(ADD_STACK_USER)
    try:
        host.carry(CHECKOUT, CARRIED)
        password = secrets.token_urlsafe(12)
        for name, text in (
            ("clouds.yaml", json.dumps({"clouds": {"lab": admin}})),
            ("localrc", f"SERVICE_PASSWORD={password}\nHARNESS_PYTHON=/opt/attachd/bin/python\n"),
        ):
            host.do("sh", "-c", f"umask 077; cat > {HARNESS}/{name}", stdin=text)
        host.do("chown", "-R", "stack:stack", CHECKOUT)

        def run(mode: str) -> None:
            as_stack = ("env", f"--chdir={STACK}", "sudo", "-H", "-u", "stack")
            done = host.run(*as_stack, "bash", f"{HARNESS}/harness.sh", mode, timeout=1800)
            assert done.status == 0, (done.out + done.err)[-8000:]

        yield run
        if host.run("test", "-e", "/etc/systemd/system/attachd.service").status == 0:
            run("clean")  # the test failed on its way
    finally:
        host.script(REMOVE_STACK_USER)


def attached(host: Host, guest: Guest, volume: str) -> dict[str, Any]:
    """Attach, and what attachd says of it."""
    result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert result.status == 0, result.err
    attachment: dict[str, Any] = result.json
    return attachment


def assert_stacked(host: Host) -> None:
    """It runs from the checkout, as the user who stacks, for that user and root alone."""
    pid = host.do("systemctl", "show", "-P", "MainPID", "attachd.service").strip()
    assert host.do("ps", "-o", "user=", "-p", pid).strip() == "stack"
    assert f"{VENV}/bin/attachd" in host.do("ps", "-o", "args=", "-p", pid)
    code = host.do(f"{VENV}/bin/python", "-c", "import attachd; print(attachd.__file__)")
    assert code.strip() == f"{CHECKOUT}/attachd/__init__.py"
    for unit in UNITS:
        host.do("systemctl", "is-enabled", unit)
    assert host.do("stat", "-c", "%a %U", "/etc/attachd/attachd.conf").split() == ["600", "stack"]
    host.do("sudo", "-H", "-u", "stack", "attachctl", "list")
    others = host.run("runuser", "-u", "nobody", "--", "attachctl", "list")
    assert (others.status, others.code) == (4, "permission-denied")


def assert_locks_are_shared(host: Host) -> None:
    """In either order: who runs as stack opens attachd's lock file, and makes the next one."""
    assert host.do("stat", "-c", "%U", LOCK).strip() == "stack"
    as_cinder = ("sudo", "-u", "stack", "sh", "-c")
    host.do(*as_cinder, f": >> {LOCK}")
    host.do(*as_cinder, f"rm {LOCK}; umask 022; : > {LOCK}")


def assert_connected_nowhere(host: Host, cloud: Cloud, guest: Guest, volume: str) -> None:
    """By the worlds that are there when attachd isn't."""
    assert cloud.status(volume) == "available"
    assert cloud.attachments(volume) == []
    assert not [line for line in host.sessions() if volume in line]
    for inactive in (False, True):
        assert volume not in host.domain_xml(guest.name, inactive=inactive)
    assert guest.disk_with_serial(volume) is None


@pytest.mark.timeout(3600)
def test_stacked_twice_unstacked_and_cleaned(
    *,
    host: Host,
    cloud: Cloud,
    worlds: Worlds,
    devstack: Callable[[str], None],
    new_guest: Callable[..., Guest],
    volume: str,
) -> None:
    devstack("stack")
    assert_stacked(host)

    # The daemon that the plugin configured attaches, and its hook reconnects.
    guest = new_guest("--stopped")
    attachment = attached(host, guest, volume)
    (session,) = [line for line in host.sessions() if volume in line]
    host.do("iscsiadm", "-m", "node", "-T", session.split()[3], "--logout")
    started = guest.start()
    assert started.status == 0, started.err
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)
    assert_locks_are_shared(host)

    # A second stack.sh takes off what there is, and begins anew.
    devstack("stack")
    assert_stacked(host)
    assert host.api("operations")["operations"] == []
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)

    attachment = attached(host, guest, volume)
    disk = worlds.assert_attached(guest, volume, attachment)
    assert guest.checksum(disk, MEGABYTES) == written
    audit = host.attachctl("audit")
    assert audit.status == 0, audit.out

    devstack("unstack")
    assert_connected_nowhere(host, cloud, guest, volume)
    assert host.run("systemctl", "is-active", *UNITS).status != 0
    assert host.run("systemctl", "is-enabled", *UNITS).status != 0

    devstack("clean")
    assert host.script(LEFT) == ""
