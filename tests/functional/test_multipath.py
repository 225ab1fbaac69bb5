"""A volume on both of the target's portals, and one path cut at a time under the guest's load."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

MEGABYTES = 4
GIB = 1024**3
PORTALS = ("127.0.0.1", "127.0.0.2")
"""Of each of the lab's targets; see target_secondary_ip_addresses in its cinder.conf."""


@pytest.fixture(scope="module")
def multipathd(host: Host) -> Iterator[None]:
    """It runs, as it doesn't otherwise in the lab."""
    host.do("modprobe", "dm-multipath")
    host.do("systemctl", "start", "multipathd.service")
    yield
    host.do("systemctl", "stop", "multipathd.socket", "multipathd.service")
    assert host.do("multipath", "-l") == ""


@pytest.fixture
def on_maps(host: Host, multipathd: None) -> Iterator[None]:
    """attachd makes maps."""
    with host.option("brick", "multipath", "on"):
        yield


def maps(host: Host) -> list[str]:
    """The names of the multipath maps, by device-mapper."""
    listed = host.do("dmsetup", "ls", "--target", "multipath").splitlines()
    return [line.split()[0] for line in listed if line.startswith("3")]


def active_paths(host: Host, map_name: str) -> int:
    """How many of a map's paths device-mapper finds in order."""
    return len(re.findall(r" \d+:\d+ A ", host.do("dmsetup", "status", map_name)))


@pytest.mark.usefixtures("on_maps")
def test_the_guests_io_goes_on_over_the_other_path(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> None:
    assert host.attachctl("connector", "-f", "json").json["multipath"] is True
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.err
    disk = worlds.assert_attached(guest, volume, attached.json)
    wwn = attached.json["wwn"]
    assert attached.json["host_path"] == f"/dev/disk/by-id/dm-uuid-mpath-{wwn}"
    assert len([line for line in host.sessions() if volume in line]) == len(PORTALS)
    (name,) = maps(host)
    assert active_paths(host, name) == len(PORTALS)
    written = guest.write(disk, MEGABYTES)

    for portal in PORTALS:
        with guest.writing(disk):
            with faults.portal_cut(host, portal):
                eventually("a path is lost", lambda: active_paths(host, name) == 1)
                audit = host.attachctl("audit")
                assert audit.status == 0, audit.out
            eventually("it is back", lambda: active_paths(host, name) == len(PORTALS))
    assert guest.checksum(disk, MEGABYTES) == written

    with faults.portal_cut(host, PORTALS[0]):
        eventually("a path is lost", lambda: active_paths(host, name) == 1)
        detached = host.attachctl("detach", guest.name, volume)
        assert detached.status == 0, detached.err
    worlds.assert_nothing_left(volume, guest)
    assert maps(host) == []
    assert f"/{wwn}/" not in host.do("cat", "/etc/multipath/wwids")  # at most as a comment


@pytest.mark.exhaustive
@pytest.mark.usefixtures("on_maps")
def test_a_map_grows(host: Host, cloud: Cloud, worlds: Worlds, guest: Guest) -> None:
    volume = cloud.volume()
    try:
        attached = host.attachctl("attach", guest.name, volume, "-f", "json")
        assert attached.status == 0, attached.err
        disk = worlds.assert_attached(guest, volume, attached.json)
        extended = host.attachctl("extend", guest.name, volume, "2")
        assert extended.status == 0, extended.err
        assert int(host.do("blockdev", "--getsize64", attached.json["host_path"])) == 2 * GIB
        assert guest.size(disk) == 2 * GIB
        detached = host.attachctl("detach", guest.name, volume)
        assert detached.status == 0, detached.err
        worlds.assert_nothing_left(volume, guest)
        assert maps(host) == []
    finally:
        cloud.delete(volume)


def test_required_where_multipathd_does_not_run(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    nobody = host.stopped("multipathd.socket", "multipathd.service", masked=True)
    with nobody, host.option("brick", "multipath", "require"):
        refused = host.attachctl("attach", guest.name, volume)
        assert (refused.status, refused.code) == (4, "iscsi-unavailable")
        assert "multipathd" in refused.err
    worlds.assert_nothing_left(volume, guest)
