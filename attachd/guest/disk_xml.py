"""Writes the XML of what is plugged into a guest. Pure.

Raw, without the host's page cache and with native AIO, so that what the guest has flushed is on
the volume; named by the device's identity path, never by a kernel name (law 2).
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from attachd.guest.domain_xml import ScsiPlace
from attachd.model import DiskSpec, Mode


def disk_xml(disk: DiskSpec, place: ScsiPlace | None = None) -> str:
    """The disk; a SCSI disk has its place, any other is placed by libvirt."""
    root = ET.Element("disk", type="block", device="disk")
    driver = {"name": "qemu", "type": "raw", "cache": "none", "io": "native"}
    if disk.discard:
        driver["discard"] = "unmap"
    ET.SubElement(root, "driver", driver)
    ET.SubElement(root, "source", dev=disk.source)
    ET.SubElement(root, "target", dev=disk.target, bus=disk.bus.value)
    if disk.mode is Mode.RO:
        ET.SubElement(root, "readonly")
    if disk.shareable:
        ET.SubElement(root, "shareable")
    if disk.iotune:
        iotune = ET.SubElement(root, "iotune")
        for name, limit in sorted(disk.iotune.items()):
            ET.SubElement(iotune, name).text = str(limit)
    ET.SubElement(root, "serial").text = disk.serial
    ET.SubElement(root, "alias", name=disk.alias)
    if place is not None:
        ET.SubElement(
            root,
            "address",
            type="drive",
            controller=str(place.controller),
            bus="0",
            target="0",
            unit=str(place.unit),
        )
    return ET.tostring(root, encoding="unicode")


def controller_xml(place: ScsiPlace) -> str:
    """The virtio-scsi controller that a place needs; libvirt alone might choose another model."""
    root = ET.Element("controller", type="scsi", index=str(place.controller), model="virtio-scsi")
    return ET.tostring(root, encoding="unicode")


def persistent_xml(live_disk: str) -> str:
    """A live disk's XML as its guest's persistent XML can take it.

    What libvirt adds to a running disk is left out, and so is its PCI address, which another
    device may have there.
    """
    # libvirt made it, and domain_xml has read it before.
    root = ET.fromstring(live_disk)  # noqa: S314
    for tag in ("backingStore", "privateData"):
        for element in root.findall(tag):
            root.remove(element)
    for address in root.findall("./address[@type='pci']"):
        root.remove(address)
    for source in root.findall("source"):
        source.attrib.pop("index", None)
    return ET.tostring(root, encoding="unicode")
