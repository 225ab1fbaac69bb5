"""The host's life: guests stop and start, the host reboots or loses power; the disks come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually, run_lab

MEGABYTES = 4


def start(guest: Guest) -> None:
    """As a user would; it is up when this returns."""
    result = guest.start()
    assert result.status == 0, result.out + result.err


def attached(host: Host, guest: Guest, volume: str) -> dict[str, object]:
    """Attach, and what attachd says of it."""
    result = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert result.status == 0, result.err
    attachment: dict[str, object] = result.json
    return attachment


@pytest.mark.cloud
def test_a_guest_that_starts_gets_its_session_back(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest("--stopped")
    attachment = attached(host, guest, volume)
    (session,) = [line for line in host.sessions() if volume in line]
    host.do("iscsiadm", "-m", "node", "-T", session.split()[3], "--logout")
    assert not [line for line in host.sessions() if volume in line]
    start(guest)
    worlds.assert_attached(guest, volume, attachment)
    assert host.attachctl("audit").status == 0
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


def test_a_guest_does_not_start_with_another_volumes_device(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    """libvirt's hook says no: QEMU couldn't know. It starts when the volume is behind it again."""
    guest = new_guest("--stopped")
    attachment = attached(host, guest, volume)
    with faults.another_disk_behind_its_lun(host, volume):
        started = guest.start()
        assert started.status != 0
        assert "another volume's" in started.err
        assert host.do("virsh", "domstate", guest.name).strip() == "shut off"
    eventually("nothing is open", lambda: not host.open_operations())
    assert host.attachctl("audit", "--repair").status == 0  # the watch may have fenced it
    start(guest)
    worlds.assert_attached(guest, volume, attachment)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.cloud
def test_a_guest_that_ends_leaves_no_session_on_the_host(
    host: Host, cloud: Cloud, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    guest = new_guest()
    attachment = attached(host, guest, volume)
    host.do("timeout", "60", "virsh", "destroy", guest.name)
    eventually(
        "it is disconnected", lambda: not [line for line in host.sessions() if volume in line]
    )
    eventually("nothing is open", lambda: not host.open_operations())
    assert cloud.status(volume) == "in-use"
    assert host.attachctl("audit").status == 0
    start(guest)
    worlds.assert_attached(guest, volume, attachment)
    assert len([line for line in host.sessions() if volume in line]) == 1
    host.do("timeout", "60", "virsh", "destroy", guest.name)
    assert host.attachctl("detach", guest.name, volume).status == 0  # at once: it waits its turn
    worlds.assert_nothing_left(volume, guest)


@pytest.mark.cloud
def test_a_start_and_an_attach_at_the_same_moment(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], new_volume: Callable[..., str]
) -> None:
    """The hook waits for nothing that waits for libvirt: neither holds up the other."""
    guest = new_guest("--stopped")
    first, second = new_volume(), new_volume()
    attached(host, guest, first)
    shell = host.attachctl_in_background("attach", guest.name, second)
    start(guest)
    out, err = shell.communicate(timeout=600)
    assert shell.returncode == 0, out + err
    for attachment in host.attachctl("list", "--guest", guest.name, "-f", "json").json:
        worlds.assert_attached(guest, attachment["volume_id"], attachment)
    for volume in (first, second):
        assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(first, guest)


def assert_guests_stopped_first(host: Host, volume: str) -> None:
    """The guest's end had its volume disconnected before attachd stopped."""
    listed = host.attachctl("operation", "list", "-f", "json").json
    ended = [o["state"] for o in listed if (o["kind"], o["volume"]) == ("disconnect", volume)]
    assert ended == ["done"]
    log = host.do("journalctl", "-b", "-1", "-u", "attachd", "-o", "cat")
    assert log.index("disconnect is done") < log.rindex("attachd stopped")


@pytest.mark.parametrize("verb", ["reboot", "crash"])
def test_a_persistent_attachment_outlives_the_host(
    host: Host,
    cloud: Cloud,
    worlds: Worlds,
    new_guest: Callable[..., Guest],
    volume: str,
    verb: str,
) -> None:
    guest = new_guest()
    attachment = attached(host, guest, volume)
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)

    result = run_lab(verb, timeout=900)
    assert result.status == 0, result.out + result.err
    eventually("attachd is back", lambda: host.attachctl("list").status == 0)
    assert cloud.status(volume) == "in-use"
    if verb == "reboot":
        assert_guests_stopped_first(host, volume)
    start(guest)
    disk = worlds.assert_attached(guest, volume, attachment)
    assert guest.checksum(disk, MEGABYTES) == written
    assert host.attachctl("audit").status == 0
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)
