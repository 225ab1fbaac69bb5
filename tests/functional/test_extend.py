"""An attached volume grows under a running guest, which sees it without a reboot."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

pytestmark = pytest.mark.cloud

MEGABYTES = 4
GIB = 1024**3


def test_a_running_guest_sees_its_volume_grow(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, new_volume: Callable[..., str]
) -> None:
    volume = new_volume(name=f"test-extend-{uuid.uuid4()}")  # not for another test: it grows
    early = host.attachctl("extend", guest.name, volume, "2")
    assert (early.status, early.code) == (4, "not-attached")
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    assert attached.json["size_gib"] == 1
    disk = worlds.assert_attached(guest, volume, attached.json)
    assert guest.size(disk) == GIB
    written = guest.write(disk, MEGABYTES)

    # By attachd, through all worlds.
    extended = host.attachctl("extend", guest.name, volume, "2", "-f", "json")
    assert extended.status == 0, extended.out + extended.err
    assert extended.json["size_gib"] == 2
    assert cloud.size(volume) == (2, "in-use")
    path = attached.json["host_path"]
    assert int(host.do("blockdev", "--getsize64", path)) == 2 * GIB
    eventually("the guest sees it", lambda: guest.size(disk) == 2 * GIB, patience=60)
    assert guest.checksum(disk, MEGABYTES) == written
    end = f"if=/dev/urandom of=/dev/{disk} bs=1M count=1 seek=2047 conv=fsync"
    guest.do("sh", "-c", f"dd {end} 2>/dev/null")
    (listed,) = host.attachctl("list", "--guest", guest.name, "-f", "json").json
    assert (listed["size_gib"], listed["state"]) == (2, "attached")
    for size in ("1", "2"):
        refused = host.attachctl("extend", guest.name, volume, size)
        assert (refused.status, refused.code) == (4, "size-invalid")

    # Beyond the project's quota: Cinder says no, and everything is as before.
    with cloud.quota(gigabytes=2):
        refused = host.attachctl("extend", guest.name, volume, "3")
        assert (refused.status, refused.code) == (4, "cinder-refused"), refused.err
    assert cloud.size(volume) == (2, "in-use")
    assert host.attachctl("audit").status == 0

    # By somebody else, in Cinder alone: the audit finds it, and its repair goes through.
    cloud.extend(volume, 3)
    audited = host.attachctl("audit", "-f", "json")
    assert audited.status == 5, audited.out + audited.err
    (finding,) = audited.json
    assert (finding["code"], finding["repair"]) == ("size-differs", "extend")
    assert finding["volume_id"] == volume
    assert guest.size(disk) == 2 * GIB
    repaired = host.attachctl("audit", "--repair")
    assert (repaired.status, repaired.out) == (0, "The four worlds agree.\n"), repaired.err
    assert repaired.err.startswith("extend of volume")
    eventually("the guest sees it", lambda: guest.size(disk) == 3 * GIB, patience=60)
    assert guest.checksum(disk, MEGABYTES) == written

    worlds.assert_attached(guest, volume, attached.json)
    assert host.attachctl("detach", guest.name, volume).status == 0
    worlds.assert_nothing_left(volume, guest)
