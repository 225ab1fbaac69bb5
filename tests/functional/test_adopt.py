"""Release and adopt on the real worlds: neither changes anything but attachd's own memory."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

pytestmark = pytest.mark.cloud

MEGABYTES = 4


@pytest.fixture
def attachment(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> Iterator[dict[str, Any]]:
    """Of a volume that is attached to the guest; a test takes it off, and nothing is left of it."""
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    yield attached.json
    if cloud.status(volume) != "available":  # the test failed on its way
        host.attachctl("adopt", guest.name, volume)
        host.attachctl("detach", guest.name, volume)
    worlds.assert_nothing_left(volume, guest)


def release(host: Host, guest: Guest, volume: str) -> None:
    """Release it; attachd knows nothing of it then, and misses nothing."""
    released = host.attachctl("release", guest.name, volume)
    assert released.status == 0, released.err
    assert host.attachctl("list", "-f", "json").json == []
    assert_audited(host)


def adopt(host: Host, guest: Guest, volume: str) -> dict[str, Any]:
    """Adopt it; the worlds agree then."""
    adopted = host.attachctl("adopt", guest.name, volume, "-f", "json")
    assert adopted.status == 0, adopted.err
    assert_audited(host)
    document: dict[str, Any] = adopted.json
    assert (document["state"], document["adopted"]) == ("attached", True)
    return document


def detach(host: Host, guest: Guest, volume: str) -> None:
    """Detach it."""
    detached = host.attachctl("detach", guest.name, volume)
    assert detached.status == 0, detached.err


def assert_audited(host: Host) -> None:
    """The four worlds agree."""
    audited = host.attachctl("audit")
    assert audited.status == 0, audited.out + audited.err


def test_what_is_released_stays_in_use_and_is_adopted_back(
    host: Host,
    worlds: Worlds,
    guest: Guest,
    new_volume: Callable[..., str],
    attachment: dict[str, Any],
) -> None:
    volume = attachment["volume_id"]
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)

    release(host, guest, volume)
    assert worlds.assert_attached(guest, volume, attachment) == disk
    assert guest.checksum(disk, MEGABYTES) == written
    refused = host.attachctl("detach", guest.name, volume)
    assert (refused.status, refused.code) == (4, "not-attached")

    wrong = host.attachctl("adopt", guest.name, new_volume())
    assert (wrong.status, wrong.code) == (4, "worlds-disagree")
    adopted = adopt(host, guest, volume)
    told = ("attachment_id", "device", "serial", "bus", "mode", "host_path", "wwn")
    assert {name: adopted[name] for name in told} == {name: attachment[name] for name in told}
    assert worlds.assert_attached(guest, volume, adopted) == disk
    again = host.attachctl("adopt", guest.name, volume)
    assert (again.status, again.code) == (4, "already-attached")

    detach(host, guest, volume)
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)


def test_a_disk_that_virsh_attached_is_adopted(
    host: Host, worlds: Worlds, guest: Guest, attachment: dict[str, Any]
) -> None:
    """It has neither serial nor alias, and its source is another name of the device."""
    volume, device = attachment["volume_id"], attachment["device"]
    disk = worlds.assert_attached(guest, volume, attachment)
    written = guest.write(disk, MEGABYTES)
    release(host, guest, volume)

    source = another_name(host, attachment["host_path"])
    nameless = (
        "<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>"
        f"<source dev='{source}'/><target dev='{device}' bus='virtio'/></disk>"
    )
    virsh(host, "detach-device", guest, nameless)
    eventually("the guest let go", lambda: volume not in host.domain_xml(guest.name))
    assert guest.disk_with_serial(volume) is None
    nothing = host.attachctl("adopt", guest.name, volume)
    assert (nothing.status, nothing.code) == (4, "not-attached")
    virsh(host, "attach-device", guest, nameless)
    eventually("the guest reads its bytes", lambda: written in checksums(guest))

    adopted = adopt(host, guest, volume)
    assert (adopted["device"], adopted["serial"]) == (device, None)
    assert adopted["host_path"] == attachment["host_path"]
    assert written in checksums(guest)

    detach(host, guest, volume)
    for inactive in (False, True):
        assert source not in host.domain_xml(guest.name, inactive=inactive)
    worlds.assert_nothing_left(volume, guest)


def another_name(host: Host, path: str) -> str:
    """Another of udev's names of the device, by its identity; the same where it has only one."""
    found = host.script(
        f"for link in /dev/disk/by-id/*; do [ $link -ef {path} ] && echo $link; done; true\n"
    ).split()
    assert path in found
    return next((name for name in found if name != path), path)


def virsh(host: Host, verb: str, guest: Guest, xml: str) -> None:
    """Let virsh change both XMLs of a running guest."""
    host.script(
        "file=$(mktemp)\n"
        f"printf %s {shlex.quote(xml)} >$file\n"
        f"virsh {verb} {guest.name} $file --live --config </dev/null\n"
        "rm $file\n"
    )


def checksums(guest: Guest) -> str:
    """Of the first megabytes of each virtio disk that the guest sees."""
    return guest.do(
        "sh",
        "-c",
        "for disk in /sys/block/vd*; do [ -e $disk ] || continue; "
        f"dd if=/dev/${{disk##*/}} bs=1M count={MEGABYTES} 2>/dev/null | sha256sum; done",
    )
