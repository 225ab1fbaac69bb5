"""Every cell of what is read out of a domain's XML."""

from __future__ import annotations

import pytest

from attachd.errors import AttachdError, Code
from attachd.guest.domain_xml import DomainXml, Reading, ScsiPlace, scsi_place
from attachd.model import Bus, GuestDisk, GuestState, Mode
from tests.unit.guest import domains_xml as xmls


def parse(text: str) -> DomainXml:
    return DomainXml.parse(text)


def virtio(text: str) -> int | None:
    return parse(text).free_slots()[Bus.VIRTIO]


def scsi(text: str) -> int | None:
    return parse(text).free_slots()[Bus.SCSI]


# --- the guest ----------------------------------------------------------------------------


def test_a_running_guest_with_both_documents() -> None:
    config = xmls.domain(xmls.OUR_DISK, live=False)
    guest = Reading(live=parse(xmls.Q35), config=parse(config)).guest
    assert (guest.guest_id, guest.name) == (xmls.UUID, "web")
    assert (guest.state, guest.persistent, guest.nova_owned) == (GuestState.RUNNING, True, False)
    assert [d.target for d in guest.live_disks] == ["vda", "sda", "vdb"]
    assert [d.target for d in guest.config_disks] == ["vdb"]
    assert guest.free_slots[Bus.VIRTIO] == 2


@pytest.mark.parametrize(
    ("live", "config", "paused", "state", "persistent"),
    [
        (True, True, False, GuestState.RUNNING, True),
        (True, True, True, GuestState.PAUSED, True),
        (True, False, False, GuestState.RUNNING, False),
        (False, True, False, GuestState.SHUTOFF, True),
    ],
)
def test_states(
    live: bool, config: bool, paused: bool, state: GuestState, persistent: bool
) -> None:
    guest = Reading(
        live=parse(xmls.domain("")) if live else None,
        config=parse(xmls.domain("", live=False)) if config else None,
        paused=paused,
    ).guest
    assert (guest.state, guest.persistent) == (state, persistent)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_novas_guests_are_known(version: str) -> None:
    other = "<app:tag xmlns:app='http://example.org/app'>nova</app:tag>"
    owned = parse(xmls.domain("", live=False, metadata=other + xmls.nova(version)))
    assert owned.nova_owned
    assert not parse(xmls.domain("", metadata=other)).nova_owned
    assert Reading(live=parse(xmls.domain("")), config=owned).guest.nova_owned


def test_disks_of_all_kinds() -> None:
    disks = parse(
        xmls.domain(xmls.SYSTEM_DISK + xmls.CDROM + xmls.OUR_DISK + xmls.NETWORK_DISK)
    ).disks()
    assert disks == (
        GuestDisk(
            target="vda",
            bus="virtio",
            alias="virtio-disk0",
            source="/var/lib/libvirt/images/web.qcow2",
        ),
        GuestDisk(target="sda", bus="sata", alias="sata0-0-0", mode=Mode.RO),
        GuestDisk(
            target="vdb",
            bus="virtio",
            serial=xmls.VOLUME,
            alias=f"ua-{xmls.VOLUME}",
            source="/dev/disk/by-id/wwn-0x6001405f",
        ),
        GuestDisk(
            target="vdc",
            bus="virtio",
            serial="volume-of-someone-else",
            alias="virtio-disk2",
            source="volumes/volume-1",
        ),
    )


def test_another_hands_disk_is_found_by_its_source_behind_those_with_our_names() -> None:
    source = "/var/lib/libvirt/images/web.qcow2"
    document = parse(xmls.domain(xmls.SYSTEM_DISK + xmls.OUR_DISK))
    found = document.find("another-volume", source=source)
    assert found is not None
    assert found.disk.target == "vda"
    ours = document.find(xmls.VOLUME, source=source)
    assert ours is not None
    assert ours.disk.target == "vdb"
    assert parse(xmls.domain(xmls.CDROM)).find("another-volume") is None


def test_a_disk_is_found_by_our_alias_else_by_its_serial() -> None:
    other_alias = xmls.OUR_DISK.replace(f"ua-{xmls.VOLUME}", "virtio-disk7").replace("vdb", "vdx")
    found = parse(xmls.domain(other_alias + xmls.OUR_DISK)).find(xmls.VOLUME)
    assert found is not None
    assert found.disk.target == "vdb"
    found = parse(xmls.domain(other_alias)).find(xmls.VOLUME)
    assert found is not None
    assert (found.disk.target, found.disk.alias) == ("vdx", "virtio-disk7")
    assert f"<serial>{xmls.VOLUME}</serial>" in found.xml
    assert parse(xmls.domain(xmls.SYSTEM_DISK + xmls.NETWORK_DISK)).find(xmls.VOLUME) is None


# --- free slots ---------------------------------------------------------------------------


def test_q35_counts_ports_with_nothing_behind_them() -> None:
    # 9 ports; on 1 to 6 and 9 something sits, the bridge among it; 7 is the host's number only.
    assert virtio(xmls.Q35) == 2


@pytest.mark.parametrize("ports", [0, 1, 4])
def test_q35_with_so_many_free_ports(ports: int) -> None:
    assert virtio(xmls.domain(xmls.PCIE_ROOT + xmls.SATA + xmls.root_ports(1, ports))) == ports


def test_a_port_without_hotplug_is_none() -> None:
    ports = xmls.root_ports(1, 2).replace("chassis='2'", "chassis='2' hotplug='off'")
    assert virtio(xmls.domain(xmls.PCIE_ROOT + ports)) == 1


def test_a_switch_brings_its_downstream_ports() -> None:
    switch = (
        f"<controller type='pci' index='2' model='pcie-switch-upstream-port'>{xmls.pci(1)}"
        "</controller>"
        + "".join(
            f"<controller type='pci' index='{i}' model='pcie-switch-downstream-port'>"
            f"{xmls.pci(2, i)}</controller>"
            for i in (3, 4)
        )
    )
    assert virtio(xmls.domain(xmls.PCIE_ROOT + xmls.root_ports(1, 1) + switch)) == 2


def test_i440fx_counts_slots_of_the_root_and_of_its_bridges() -> None:
    # The root: 31 slots less PIIX3, video, network, bridge. The bridge: 31 less one disk.
    assert virtio(xmls.I440FX) == 27 + 30


def test_a_machine_without_pci_has_no_known_limit() -> None:
    ccw = (
        "<controller type='virtio-serial' index='0'><address type='ccw' cssid='0xfe'/></controller>"
    )
    assert virtio(xmls.domain(ccw)) is None
    assert scsi(xmls.domain(ccw)) == 256


def test_a_guest_that_is_not_live_has_no_known_limit() -> None:
    slots = parse(xmls.domain(xmls.PCIE_ROOT, live=False)).free_slots()
    assert slots == {Bus.VIRTIO: None, Bus.SCSI: None}


def test_scsi_counts_the_units_of_virtio_scsi_controllers() -> None:
    ports = xmls.PCIE_ROOT + xmls.root_ports(1, 2)
    assert scsi(xmls.domain(ports + xmls.scsi(0, 2))) == 254
    two = xmls.scsi(0) + xmls.scsi(5, controller=1, bus=2)
    assert scsi(xmls.domain(ports + two)) == 255 + 255


@pytest.mark.parametrize(("ports", "free"), [(0, 0), (1, 256)])
def test_scsi_without_a_controller_needs_a_slot_for_one(ports: int, free: int) -> None:
    assert scsi(xmls.domain(xmls.PCIE_ROOT + xmls.root_ports(1, ports))) == free


def test_other_controllers_and_drives_are_not_scsi() -> None:
    # A SATA drive's address looks like a SCSI disk's; an LSI controller can't be hot-plugged on.
    devices = xmls.PCIE_ROOT + xmls.root_ports(1, 1) + xmls.CDROM
    assert scsi(xmls.domain(devices + xmls.scsi(model="lsilogic"))) == 0
    assert scsi(xmls.domain(devices + xmls.scsi())) == 256


def test_a_passed_through_scsi_device_takes_a_unit() -> None:
    hostdev = (
        "<hostdev mode='subsystem' type='scsi'>"
        "<source><adapter name='scsi_host0'/><address bus='0' target='0' unit='9'/></source>"
        "<address type='drive' controller='0' bus='0' target='0' unit='0'/></hostdev>"
    )
    document = parse(xmls.domain(xmls.PCIE_ROOT + xmls.scsi() + hostdev))
    assert scsi_place([document]) == ScsiPlace(controller=0, unit=1)


def test_a_scsi_place_is_free_in_all_documents() -> None:
    live = parse(xmls.domain(xmls.scsi(0, 1)))
    config = parse(xmls.domain(xmls.scsi(2), live=False))
    assert scsi_place([live]) == ScsiPlace(controller=0, unit=2)
    assert scsi_place([config]) == ScsiPlace(controller=0, unit=0)
    assert scsi_place([live, config]) == ScsiPlace(controller=0, unit=3)


def test_a_scsi_place_on_a_new_controller() -> None:
    bare = parse(xmls.domain(""))
    with_one = parse(xmls.domain(xmls.scsi(), live=False))
    with_lsi = parse(xmls.domain(xmls.scsi(model="lsilogic")))
    assert scsi_place([bare]) == ScsiPlace(controller=0, unit=0, new_controller=True)
    assert scsi_place([bare, with_one]) == ScsiPlace(controller=1, unit=0, new_controller=True)
    assert scsi_place([with_lsi]) == ScsiPlace(controller=1, unit=0, new_controller=True)


def test_a_scsi_place_on_the_second_controller() -> None:
    full = "".join(
        f"<hostdev type='scsi'><address type='drive' controller='0' unit='{unit}'/></hostdev>"
        for unit in range(256)
    )
    devices = xmls.scsi() + full + xmls.scsi(0, controller=1, bus=2)
    assert scsi_place([parse(xmls.domain(devices))]) == ScsiPlace(controller=1, unit=1)


# --- what isn't as libvirt documents it ---------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "/"),
        ("<domain", "/"),
        ("no XML at all", "/"),
        ("<network/>", "/"),
        ("<domain id='1'/>", "/domain/uuid"),
        (f"<domain id='1'><uuid>{xmls.UUID}</uuid></domain>", "/domain/name"),
        (f"<domain id='1'><uuid>{xmls.UUID}</uuid><name/></domain>", "/domain/name"),
        (
            xmls.domain(xmls.SYSTEM_DISK + "<disk type='file'/>"),
            "/domain/devices/disk[2]/target/@dev",
        ),
        (
            xmls.domain("<disk type='file'><target bus='virtio'/></disk>"),
            "/domain/devices/disk[1]/target/@dev",
        ),
        (
            xmls.domain("<controller type='pci' model='pcie-root'/>"),
            "/domain/devices/controller[@type='pci']/@index",
        ),
        (
            xmls.domain(xmls.PCIE_ROOT + "<sound><address type='pci' bus='x' slot='0'/></sound>"),
            "/domain/devices/*/address[@type='pci']/@bus",
        ),
        (
            xmls.domain(xmls.scsi(0).replace("unit='0'", "")),
            "/domain/devices/*/address[@type='drive']/@unit",
        ),
    ],
)
def test_what_is_unreadable_is_named(text: str, path: str) -> None:
    with pytest.raises(AttachdError) as caught:
        _ = Reading(live=parse(text), config=None).guest
    assert caught.value.code == Code.GUEST_REFUSED
    assert caught.value.problem.details.startswith(f"{path}: ")
    assert not caught.value.touched


def test_a_domain_without_any_document() -> None:
    with pytest.raises(AttachdError):
        _ = Reading(live=None, config=None).guest
