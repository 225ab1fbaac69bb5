"""The old style on real parts: os-reserve, os-initialize_connection, os-attach."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds

MEGABYTES = 2
_TARGET = "/sys/kernel/config/target/iscsi/iqn.2010-10.org.openstack:volume-{volume}"


@pytest.fixture(scope="module", autouse=True)
def _old_style(host: Host) -> Iterator[None]:
    with host.option("cinder", "attach_flow", "volume-actions"):
        yield


def admitted(host: Host, volume_id: str) -> list[str]:
    """The initiators that the volume's target lets in; none where there is no target."""
    acls = f"{_TARGET.format(volume=volume_id)}/tpgt_1/acls"
    return host.script(f"[ ! -d {acls} ] || ls {acls}").split()


def test_an_old_style_attachment_and_its_detach(
    host: Host, cloud: Cloud, worlds: Worlds, guest: Guest, volume: str
) -> None:
    attached = host.attachctl("attach", guest.name, volume, "-f", "json")
    assert attached.status == 0, attached.out + attached.err
    disk = worlds.assert_attached(guest, volume, attached.json)
    (attachment,) = cloud.attachments(volume)
    assert not attachment["connection_info"], "the new style would keep it there"
    assert len(admitted(host, volume)) == 1
    written = guest.write(disk, MEGABYTES)
    assert guest.checksum(disk, MEGABYTES) == written

    detached = host.attachctl("detach", guest.name, volume)
    assert detached.status == 0, detached.out + detached.err
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)
    assert host.run("test", "-e", _TARGET.format(volume=volume)).status == 1, "it is exported still"


def test_an_os_attach_that_is_refused_is_rolled_back(
    host: Host, worlds: Worlds, guest: Guest, new_volume: Callable[..., str]
) -> None:
    """Without an attachment Cinder's old style leaves the target; but it lets in nobody."""
    volume = new_volume()
    fault = {"method": "POST", "path": "/action", "body": "os-attach", "status": 400}
    with faults.cinder_that_fails(host, fault):
        failed = host.attachctl("attach", guest.name, volume)
    assert (failed.status, failed.code) == (1, "cinder-refused"), failed.out + failed.err
    assert guest.disk_with_serial(volume) is None
    worlds.assert_nothing_left(volume, guest)
    assert admitted(host, volume) == []
