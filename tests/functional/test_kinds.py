"""The kinds of attachments beside the plain one: shared, limited, of a guest that passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional import faults
from tests.functional.lab import Cloud, Guest, Host, Worlds, eventually

MEGABYTES = 4
LIMIT = 1024 * 1024
"""Bytes a second."""


def attach(host: Host, guest: Guest, volume: str, *options: str) -> dict[str, Any]:
    result = host.attachctl("attach", guest.name, volume, *options, "-f", "json")
    assert result.status == 0, result.err
    attachment: dict[str, Any] = result.json
    return attachment


def detach(host: Host, guest: Guest, volume: str) -> None:
    result = host.attachctl("detach", guest.name, volume)
    assert result.status == 0, result.err


# --- a saved guest ------------------------------------------------------------------------------


def test_a_saved_guest_keeps_its_disk_until_it_goes_on(
    host: Host, worlds: Worlds, cloud: Cloud, guest: Guest, new_volume: Callable[..., str]
) -> None:
    """It goes on with the disk of its save image, whatever its persistent XML says by then."""
    volume, other = new_volume(), new_volume()
    shown = attach(host, guest, volume)
    disk = worlds.assert_attached(guest, volume, shown)
    written = guest.write(disk, MEGABYTES)

    host.do("virsh", "managedsave", guest.name)

    refused = host.attachctl("detach", guest.name, volume)
    assert (refused.status, refused.code) == (4, "guest-saved")
    assert cloud.status(volume) == "in-use"
    eventually("the host has nothing of it", lambda: host.scsi_disks() == [])
    refused = host.attachctl("attach", guest.name, other)
    assert (refused.status, refused.code) == (4, "guest-saved")

    host.do("virsh", "start", guest.name)

    assert guest.checksum(worlds.assert_attached(guest, volume, shown), MEGABYTES) == written
    detach(host, guest, volume)
    worlds.assert_nothing_left(volume, guest)


# --- multiattach -------------------------------------------------------------------------------


@pytest.fixture
def shared(cloud: Cloud) -> Iterator[str]:
    with cloud.volume_type(extra_specs={"multiattach": "<is> True"}) as kind:
        volume = cloud.volume(volume_type=kind)
        yield volume
        cloud.delete(volume)


@pytest.mark.cloud
def test_two_guests_and_somebody_else_share_a_volume(
    *,
    host: Host,
    worlds: Worlds,
    cloud: Cloud,
    guest: Guest,
    new_guest: Callable[..., Guest],
    shared: str,
) -> None:
    other = new_guest()
    with cloud.used_elsewhere(shared):
        first, second = attach(host, guest, shared), attach(host, other, shared)
        assert first["host_path"] == second["host_path"]
        assert sum(shared in session for session in host.sessions()) == 1
        for each in (guest, other):
            xml = host.domain_xml(each.name)
            disk = xml[: xml.index(f"<serial>{shared}</serial>")].rpartition("<disk ")[2]
            assert "<shareable/>" in disk
            assert "cache='none'" in disk
        ids = {attachment["id"] for attachment in cloud.attachments(shared)}
        assert {first["attachment_id"], second["attachment_id"]} < ids
        mine, theirs = guest.disk_with_serial(shared), other.disk_with_serial(shared)
        assert mine is not None
        assert theirs is not None
        written = guest.write(mine, MEGABYTES)
        assert other.checksum(theirs, MEGABYTES) == written
        audit = host.attachctl("audit")
        assert audit.status == 0, audit.out

        running = [
            host.attachctl_in_background("detach", each.name, shared) for each in (guest, other)
        ]
        outputs = [process.communicate(timeout=600) for process in running]
        assert [process.returncode for process in running] == [0, 0], outputs
        assert not any(shared in session for session in host.sessions())
        assert cloud.status(shared) == "in-use"
    worlds.assert_nothing_left(shared, guest, other)


# --- QoS ---------------------------------------------------------------------------------------


def seconds_to_read(guest: Guest, disk: str) -> float:
    """Of the first megabytes, by the guest's own clock."""
    began, ended = guest.do(
        "sh",
        "-c",
        "echo 3 > /proc/sys/vm/drop_caches; cut -d' ' -f1 /proc/uptime; "
        f"dd if=/dev/{disk} of=/dev/null bs=64k count={MEGABYTES * 16} 2>/dev/null; "
        "cut -d' ' -f1 /proc/uptime",
    ).split()
    return float(ended) - float(began)


@pytest.mark.cloud
def test_the_front_end_qos_limits_the_guest(
    host: Host, worlds: Worlds, cloud: Cloud, guest: Guest, volume: str
) -> None:
    attach(host, guest, volume)
    plain = guest.disk_with_serial(volume)
    assert plain is not None
    unlimited = seconds_to_read(guest, plain)
    detach(host, guest, volume)
    with cloud.volume_type(qos={"total_bytes_sec": str(LIMIT)}) as kind:
        slow = cloud.volume(volume_type=kind)
        attach(host, guest, slow, "--bus", "scsi")
        assert f"<total_bytes_sec>{LIMIT}</total_bytes_sec>" in host.domain_xml(guest.name)
        disk = guest.scsi_disk(slow)
        limited = seconds_to_read(guest, disk)
        detach(host, guest, slow)
        worlds.assert_nothing_left(slow, guest)
        cloud.delete(slow)
    # The bucket lets a tenth of a second's bytes through at once.
    assert limited > MEGABYTES - 1
    assert limited > 1.5 * unlimited


# --- discard -------------------------------------------------------------------------------------

USED = 64
"""Megabytes."""


def megabytes_used(host: Host, volume_id: str) -> float:
    """What a thin volume of 1 GiB holds, by LVM."""
    name = f"cinder-volumes/volume-{volume_id}"
    return float(host.do("lvs", "--noheadings", "-o", "data_percent", name)) * 1024 / 100


@pytest.mark.exhaustive
def test_what_the_guest_discards_leaves_the_thin_volume(
    host: Host, worlds: Worlds, guest: Guest, volume: str
) -> None:
    # Cinder says that its volumes can be discarded; LIO doesn't offer it of itself.
    files = "/sys/kernel/config/target/core/iblock_*/$IQN/attrib/emulate_tpu"
    with faults.after_each_export(host, f"for file in {files}; do echo 1 > $file; done"):
        attach(host, guest, volume, "--bus", "scsi")
    xml = host.domain_xml(guest.name)
    disk_xml = xml[: xml.index(f"<serial>{volume}</serial>")].rpartition("<disk ")[2]
    assert "discard='unmap'" in disk_xml
    disk = guest.scsi_disk(volume)
    guest.do("dd", "if=/dev/urandom", f"of=/dev/{disk}", "bs=1M", f"count={USED}", "conv=fsync")
    full = megabytes_used(host, volume)
    assert full >= USED - 1
    guest.do("blkdiscard", f"/dev/{disk}")
    assert megabytes_used(host, volume) <= full - USED + 1
    detach(host, guest, volume)
    worlds.assert_nothing_left(volume, guest)


# --- transient guests --------------------------------------------------------------------------


@pytest.mark.cloud
def test_what_a_transient_guest_had_is_taken_off_at_its_end(
    host: Host, worlds: Worlds, new_guest: Callable[..., Guest], volume: str
) -> None:
    passing = new_guest("--stopped")
    host.script(
        f"virsh dumpxml {passing.name} > /root/passing.xml; virsh undefine {passing.name}; "
        "virsh create /root/passing.xml; rm /root/passing.xml"
    )
    table = host.attachctl("attach", passing.name, volume)
    assert table.status == 0, table.err
    assert "The guest is transient" in table.out
    (attachment,) = host.api("attachments")["attachments"]
    assert attachment["persistent"] is False
    worlds.assert_attached_transient(passing, volume, attachment)
    host.do("virsh", "destroy", passing.name)
    eventually("it is taken off", lambda: not host.api("attachments")["attachments"])
    eventually("nothing is open", lambda: not host.open_operations())
    worlds.assert_nothing_left(volume)


# --- the connector -----------------------------------------------------------------------------


@pytest.mark.cloud
def test_the_connector_is_this_hosts(host: Host) -> None:
    shown = host.attachctl("connector", "-f", "json")
    assert shown.status == 0, shown.err
    name = host.do("cat", "/etc/iscsi/initiatorname.iscsi")
    assert f"InitiatorName={shown.json['initiator']}" in name
