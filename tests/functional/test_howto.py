"""The guides' and the reference's commands, typed by root on the lab's host as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.functional import faults
from tests.functional.conftest import LAB_DIRECTORY
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually, run_lab
from tests.pages import PROJECT, Command, typed_on

TREE = "/root/tree"
FOR_PIP = ("attachd", "etc", "systemd", "tools", "pyproject.toml", "README.md", "LICENSE")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/usr/share/python-wheels"}
"""The lab has no network, and all that attachd needs; pip builds with Debian's setuptools."""


def type_them(
    host: Host, typed: Iterable[Command], *, names: dict[str, str] | None = None, begin: str = ""
) -> str:
    """Type commands in one shell, with these names in their places; all that is printed."""
    lines = (command.with_names(names or {}).typed() for command in typed)
    result = host.run("bash", "-s", stdin="exec 2>&1\n" + begin + "".join(lines), timeout=1800)
    assert result.status == 0, result.out
    return result.out


@pytest.mark.parametrize(
    "name",
    [
        "howto/multipath",
        "reference/api",
        "reference/doctor",
        "reference/numbers",
    ],
)
def test_a_page_without_names(host: Host, name: str) -> None:
    assert type_them(host, typed_on(name))


def test_a_directory_for_shared_locks(host: Host) -> None:
    try:
        type_them(host, typed_on("explanation/locks"))
        made = host.do("stat", "-c", "%G %a", "/var/lib/os-brick").strip()
        assert made == "os-brick 2770"
        assert "os-brick" in host.do("id", "-nG", "attachd").split()
    finally:
        host.script("rm -rf /var/lib/os-brick; groupdel -f os-brick")


def test_devstacks_attach(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    type_them(host, typed_on("howto/devstack"), names={"GUEST": guest.name, "VOLUME": volume})
    result = host.attachctl("detach", guest.name, volume)
    assert result.status == 0, result.err
    worlds.assert_nothing_left(volume, guest)


def test_when_something_is_wrong(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    typed = typed_on("howto/recovery")
    resume = next(n for n, command in enumerate(typed) if "operation resume" in command.line)
    result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert result.status == 0, result.err
    with faults.held_open(host, result.json["host_path"]):
        stuck = host.attachctl("detach", guest.name, volume)
        assert stuck.status == 5, stuck.out + stuck.err
        ((operation,),) = [[o["operation_id"] for o in host.open_operations()]]
    type_them(host, typed[resume : resume + 1], names={"OPERATION": operation})
    assert host.state_of(operation) == "done"
    worlds.assert_nothing_left(volume, guest)
    told = type_them(host, typed[:resume] + typed[resume + 1 :], names={"OPERATION": operation})
    assert told.count("The four worlds agree.") == 3


# --- a host of one's own -------------------------------------------------------------------------


def test_the_host_is_made_ready(host: Host) -> None:
    (packages, *_) = typed_on("howto/standalone")
    assert packages.line.startswith("apt install")
    type_them(host, [packages])  # in the lab they are, and there is no network for another


def test_the_roles_of_attachds_user_in_cinder(host: Host, cloud: Cloud) -> None:
    """The command before them asks a terminal for a password: the user is made otherwise."""
    roles = [c for c in typed_on("howto/standalone") if c.line.startswith("openstack role")]
    access = json.loads((LAB_DIRECTORY / "clouds.yaml").read_text())["clouds"]["lab"]["auth"]
    begin = _exported({f"OS_{name.upper()}": str(value) for name, value in access.items()})
    identity: Any = cloud.connection.identity
    user = identity.create_user(name=f"test-{uuid.uuid4().hex[:8]}")
    try:
        type_them(host, roles, names={" attachd ": f" {user.name} "}, begin=begin)
        where = identity.find_project("service")
        for role in map(identity.find_role, ("admin", "service")):
            assert identity.validate_user_has_project_role(where, user, role)
    finally:
        identity.delete_user(user)


def _exported(variables: dict[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


@contextmanager
def without_attachd(host: Host) -> Iterator[None]:
    """The lab's host as if it never had attachd, but for its dependencies; then as it was."""
    conf = "/etc/attachd/attachd.conf"
    host.script(
        "systemctl --quiet disable --now attachd.service attachd.socket\n"
        f"cp -p {conf} /root/attachd.conf.kept\n"
        "rm -rf /etc/attachd /etc/libvirt/hooks/qemu.d/attachd /etc/systemd/system/attachd.*\n"
        "rm -rf /etc/systemd/system/libvirt-guests.service.d /etc/systemd/system/machine-.scope.d\n"
        "rm -f /usr/lib/sysusers.d/attachd.conf /usr/lib/tmpfiles.d/attachd.conf\n"
        "rm -rf /opt/attachd/lib/python3*/site-packages/attachd*\n"
        "rm -f /opt/attachd/bin/attach* /usr/local/bin/attach*\n"
        "systemctl daemon-reload\n"
    )
    try:
        yield
    finally:
        host.script(
            f"install -D -m 0640 -g attachd /root/attachd.conf.kept {conf}\n"
            f"rm -rf /root/attachd.conf.kept {TREE} /opt/attachd/share\n"
            "rm -f /etc/sysusers.d/attachd.conf /etc/tmpfiles.d/attachd.conf\n"
        )
        pushed = run_lab("push", timeout=1800)
        assert pushed.status == 0, pushed.out + pushed.err


def credentials() -> list[str]:
    """The options that the page says are to be set."""
    page = (PROJECT / "docs/howto/standalone.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```ini\n\[cinder\]\n(.*?)^```$", page, re.M | re.S)
    return [line.partition(" = ")[0] for line in block.splitlines()]


def test_an_installation_by_hand(host: Host, worlds: Worlds, guest: Guest, volume: str) -> None:
    typed = typed_on("howto/standalone")
    lines = [command.line for command in typed]
    first, then = (
        lines.index("python3 -m venv /opt/attachd"),
        lines.index("systemctl daemon-reload"),
    )
    with without_attachd(host):
        host.do("mkdir", TREE)
        host.carry(TREE, FOR_PIP)
        type_them(host, typed[first:then], begin=_exported(OFFLINE) + f"cd {TREE}\n")
        assert host.run("attachctl", "--help").status == 0
        man = host.do("sh", "-c", "ls /usr/share/man/man?/attach*")
        assert len(man.split()) == 3
        for option in credentials():
            host.script(
                f"value=$(crudini --get /root/attachd.conf.kept cinder {option})\n"
                f'crudini --set /etc/attachd/attachd.conf cinder {option} "$value"\n'
            )
        told = type_them(host, typed[then:], names={"GUEST": guest.name, "VOLUME": volume})
        assert "This host is fit" in told
        assert "The four worlds agree." in told
        worlds.assert_nothing_left(volume, guest)
        eventually("nothing is open", lambda: not host.open_operations())
