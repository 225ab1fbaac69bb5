"""The XML of what is plugged in, field by field."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from attachd.guest.disk_xml import controller_xml, disk_xml, persistent_xml
from attachd.guest.domain_xml import DomainXml, ScsiPlace
from attachd.model import Bus, DiskSpec, Mode
from tests.unit.guest import domains_xml as xmls

DISK = DiskSpec(
    volume_id=xmls.VOLUME,
    source="/dev/disk/by-id/wwn-0x6001405f",
    target="vdb",
    bus=Bus.VIRTIO,
    mode=Mode.RW,
)


def parsed(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 - our own


def test_a_virtio_disk() -> None:
    assert disk_xml(DISK) == (
        '<disk type="block" device="disk">'
        '<driver name="qemu" type="raw" cache="none" io="native" />'
        '<source dev="/dev/disk/by-id/wwn-0x6001405f" />'
        '<target dev="vdb" bus="virtio" />'
        f"<serial>{xmls.VOLUME}</serial>"
        f'<alias name="ua-{xmls.VOLUME}" />'
        "</disk>"
    )


def test_discard_only_where_the_backend_has_it() -> None:
    driver = parsed(disk_xml(replace(DISK, discard=True))).find("driver")
    assert driver is not None
    assert driver.get("discard") == "unmap"


def test_readonly_only_where_asked_for() -> None:
    assert parsed(disk_xml(replace(DISK, mode=Mode.RO))).find("readonly") is not None
    assert parsed(disk_xml(DISK)).find("readonly") is None


def test_a_shared_disk_says_so_and_stays_without_a_cache() -> None:
    shared = parsed(disk_xml(replace(DISK, shareable=True)))
    assert shared.find("shareable") is not None
    driver = shared.find("driver")
    assert driver is not None
    assert driver.get("cache") == "none"
    assert parsed(disk_xml(DISK)).find("shareable") is None


def test_each_limit_of_the_qos() -> None:
    limits = {"total_iops_sec": 100, "read_bytes_sec_max": 2_000_000}
    iotune = parsed(disk_xml(replace(DISK, iotune=limits))).find("iotune")
    assert iotune is not None
    assert {limit.tag: int(limit.text or "") for limit in iotune} == limits
    assert parsed(disk_xml(DISK)).find("iotune") is None


def test_a_scsi_disk_has_its_place() -> None:
    disk = replace(DISK, bus=Bus.SCSI, target="sda")
    address = parsed(disk_xml(disk, ScsiPlace(controller=1, unit=17))).find("address")
    assert address is not None
    assert address.attrib == {
        "type": "drive",
        "controller": "1",
        "bus": "0",
        "target": "0",
        "unit": "17",
    }


def test_a_controller_names_its_model() -> None:
    xml = controller_xml(ScsiPlace(controller=2, unit=0, new_controller=True))
    assert parsed(xml).attrib == {"type": "scsi", "index": "2", "model": "virtio-scsi"}


def test_no_value_breaks_out_of_its_place() -> None:
    disk = replace(DISK, source="/dev/a'/><evil x=\"&", target="<b>")
    root = parsed(disk_xml(disk))
    assert [child.tag for child in root] == ["driver", "source", "target", "serial", "alias"]
    source = root.find("source")
    assert source is not None
    assert source.get("dev") == disk.source


def test_a_live_disk_for_the_persistent_xml() -> None:
    found = DomainXml.parse(xmls.domain(xmls.OUR_DISK)).find(xmls.VOLUME)
    assert found is not None
    root = parsed(persistent_xml(found.xml))
    assert [child.tag for child in root] == ["driver", "source", "target", "serial", "alias"]
    source = root.find("source")
    assert source is not None
    assert source.attrib == {"dev": "/dev/disk/by-id/wwn-0x6001405f"}


def test_a_live_scsi_disk_keeps_its_unit() -> None:
    found = DomainXml.parse(
        xmls.domain(xmls.scsi(3).replace("scsi0-0-0-3", f"ua-{xmls.VOLUME}"))
    ).find(xmls.VOLUME)
    assert found is not None
    address = parsed(persistent_xml(found.xml)).find("address")
    assert address is not None
    assert address.get("unit") == "3"
