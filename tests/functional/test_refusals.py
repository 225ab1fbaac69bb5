"""What is refused leaves the four worlds as they were, says its code, and exits 3 or 4."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.functional.lab import Cloud, Guest, Host, Worlds

NOVA = """
<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
<nova:name>server</nova:name></nova:instance></metadata>
"""


@pytest.fixture
def refused(host: Host) -> Iterator[Callable[..., None]]:
    """Asserts that a command is refused with a code and an exit status, and touches nothing."""

    def check(code: str, status: int, *argv: str) -> None:
        sessions, disks, _ = host.leftovers()
        result = host.attachctl(*argv)
        assert result.code == code
        assert result.status == status
        assert "Traceback" not in result.err
        assert host.leftovers() == (sessions, disks, [])

    yield check


@pytest.mark.cloud
def test_names_that_lead_nowhere_or_twice(
    refused: Callable[..., None], guest: Guest, volume: str, new_volume: Callable[..., str]
) -> None:
    refused("guest-not-found", 3, "attach", "no-such-guest", volume)
    refused("guest-not-found", 3, "attach", str(uuid.uuid4()), volume)
    refused("volume-not-found", 3, "attach", guest.name, "no-such-volume")
    refused("volume-not-found", 3, "attach", guest.name, str(uuid.uuid4()))
    name = f"twin-{uuid.uuid4()}"
    new_volume(name=name)
    new_volume(name=name)
    refused("volume-ambiguous", 3, "attach", guest.name, name)
    refused("not-attached", 4, "detach", guest.name, volume)
    refused("attachment-not-found", 3, "show", str(uuid.uuid4()))
    refused("operation-not-found", 3, "operation", "show", str(uuid.uuid4()))


@pytest.mark.cloud
@pytest.mark.parametrize("status", ["error", "reserved", "attaching"])
def test_a_volume_in_another_state(
    refused: Callable[..., None], cloud: Cloud, guest: Guest, volume: str, status: str
) -> None:
    cloud.set_status(volume, status)
    try:
        refused("volume-not-available", 4, "attach", guest.name, volume)
        assert cloud.status(volume) == status
    finally:
        cloud.set_status(volume, "available")


@pytest.mark.cloud
def test_a_volume_reserved_by_someone_else(
    refused: Callable[..., None], cloud: Cloud, guest: Guest, volume: str
) -> None:
    theirs = cloud.block.create_attachment(volume, instance=str(uuid.uuid4()), connector=None)
    refused("volume-not-available", 4, "attach", guest.name, volume)
    assert [a["id"] for a in cloud.attachments(volume)] == [theirs.id]
    cloud.block.delete_attachment(theirs)


def test_an_encrypted_volume(
    refused: Callable[..., None], host: Host, guest: Guest, volume: str
) -> None:
    update = "UPDATE cinder.volumes SET encryption_key_id = {} WHERE id = '" + volume + "'"
    host.do("mariadb", "-e", update.format("uuid()"))
    refused("volume-encrypted", 4, "attach", guest.name, volume)
    host.do("mariadb", "-e", update.format("NULL"))


@pytest.mark.cloud
@pytest.mark.parametrize("name", ["vd", "sda", "vdA", "vdaaa", "../vdb", "vd b", "/dev/disk/vdb"])
def test_a_malformed_device_name(
    refused: Callable[..., None], guest: Guest, volume: str, name: str
) -> None:
    refused("device-name-invalid", 4, "attach", guest.name, volume, "--device", name)


@pytest.mark.cloud
def test_a_guest_without_a_free_port(
    refused: Callable[..., None], new_guest: Callable[..., Guest], volume: str
) -> None:
    refused("no-free-slot", 4, "attach", new_guest("--ports", "0").name, volume)


@pytest.mark.cloud
def test_novas_guest_unless_overridden(
    refused: Callable[..., None],
    host: Host,
    cloud: Cloud,
    worlds: Worlds,
    new_guest: Callable[..., Guest],
    volume: str,
) -> None:
    novas = new_guest("--stopped")
    xml = host.domain_xml(novas.name).replace("<memory ", f"{NOVA}<memory ", 1)
    host.do("virsh", "define", "/dev/stdin", stdin=xml)
    refused("nova-owned", 4, "attach", novas.name, volume)

    attached = host.attachctl("attach", novas.name, volume, "--override-nova", "-f", "json")
    assert attached.status == 0, attached.err
    (record,) = cloud.attachments(volume)
    guest_id = host.do("virsh", "domuuid", novas.name).strip()
    assert record["instance"] != guest_id
    assert uuid.UUID(record["instance"]).version == 5
    assert host.attachctl("detach", novas.name, volume).status == 0
    worlds.assert_nothing_left(volume, novas)


@pytest.mark.cloud
@pytest.mark.parametrize(
    "argv",
    [
        ("attach",),
        ("attach", "guest", "volume", "--bus", "ide"),
        ("attach", "guest", "volume", "--timeout", "soon"),
        ("attahc", "guest", "volume"),
        ("list", "-f", "xml"),
    ],
)
def test_usage(host: Host, argv: tuple[str, ...]) -> None:
    result = host.attachctl(*argv)
    assert result.status == 2
    assert "usage" in result.err.lower()
    assert "Traceback" not in result.err


def test_a_member_of_the_group_comes_in(host: Host) -> None:
    member = f"member{uuid.uuid4().hex[:6]}"
    host.do("useradd", "--groups", "attachd", member)
    try:
        assert host.run("runuser", "-u", member, "--", "attachctl", "list").status == 0
    finally:
        host.do("userdel", member)


def test_a_stopped_daemon(host: Host) -> None:
    with host.stopped("attachd.service"):
        result = host.attachctl("list")
    assert (result.status, result.code) == (6, "daemon-unreachable")
    assert host.attachctl("list").status == 0
