"""Reads a domain's XML: its disks, its owner, and what its buses could still take. Pure.

libvirt keeps two documents of a domain, the live and the persistent one; each is read into a
:class:`DomainXml`, and both together into the model's Guest.

Free slots are counted in the live XML, as libvirt would place a hot-plugged disk:

* On a PCIe machine (q35) a virtio disk takes a root port (or a switch's downstream port) with
  nothing on its bus. A pcie-to-pci-bridge sits on a port itself, and its conventional slots are
  not given to virtio disks. Ports can't be added to a running guest.
* On a conventional machine (i440fx) it takes a slot of pci-root or of a pci-bridge.
* A SCSI disk takes a unit of a virtio-scsi controller; without a free one a controller is
  added, and that takes a PCI slot.

A guest that isn't live has no limit that could be known: libvirt adds ports and controllers to a
persistent XML as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from attachd.errors import AttachdError
from attachd.guest.failures import refused
from attachd.model import Bus, Guest, GuestDisk, GuestState, Mode, disk_alias

UNITS_PER_CONTROLLER = 256

_NOVA_NAMESPACE = "{http://openstack.org/xmlns/libvirt/nova/"
_SOURCE_ATTRIBUTES = ("dev", "file", "name", "dir", "path", "volume")
_PCIE_PORTS = frozenset({"pcie-root-port", "pcie-switch-downstream-port"})
_PCI_BUSES = frozenset({"pci-root", "pci-bridge"})
_VIRTIO_SCSI = frozenset({"virtio-scsi", "virtio-transitional", "virtio-non-transitional"})

_SLOTS_PER_PCI_BUS = frozenset(range(1, 32))  # slot 0 belongs to the bus itself
_PIIX3_SLOT = 1  # of the first pci-root: the ISA bridge, which no XML shows


@dataclass(frozen=True, kw_only=True)
class FoundDisk:
    """A disk of one of the two documents, with its own XML."""

    disk: GuestDisk
    xml: str


@dataclass(frozen=True, kw_only=True)
class ScsiPlace:
    """An address on a virtio-scsi controller; ``new_controller``: it has to be added first."""

    controller: int
    unit: int
    new_controller: bool = False


@dataclass(frozen=True)
class DomainXml:
    """One document of a domain."""

    root: ET.Element = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> DomainXml:
        """Raises guest-refused, naming the path, where the XML isn't what libvirt documents."""
        try:
            # It comes from libvirt, which made it itself.
            root = ET.fromstring(text)  # noqa: S314
        except ET.ParseError as exc:
            raise _unreadable("/", f"not well-formed: {exc}") from exc
        if root.tag != "domain":
            raise _unreadable("/", f"the root element is <{root.tag}>, not <domain>")
        return cls(root)

    @property
    def guest_id(self) -> str:
        """The domain's UUID."""
        return self._text("uuid")

    @property
    def name(self) -> str:
        """The domain's name."""
        return self._text("name")

    @property
    def live(self) -> bool:
        """Is this the document of a running domain? Only such a one has an id."""
        return "id" in self.root.attrib

    @property
    def nova_owned(self) -> bool:
        """Has Nova, of whatever version, put its metadata here?"""
        return any(
            element.tag.startswith(_NOVA_NAMESPACE)
            for element in self.root.iterfind("./metadata/*")
        )

    def disks(self) -> tuple[GuestDisk, ...]:
        """All disks, CD-ROM and floppy drives included: they hold their target names, too."""
        return tuple(disk for disk, _ in self._disks())

    def find(self, volume_id: str, *, source: str | None = None) -> FoundDisk | None:
        """The volume's disk: by attachd's alias, else by its serial, else by its ``source``."""
        disks = tuple(self._disks())
        by_alias = (pair for pair in disks if pair[0].alias == disk_alias(volume_id))
        by_serial = (pair for pair in disks if pair[0].serial == volume_id)
        by_source = (pair for pair in disks if source is not None and pair[0].source == source)
        for disk, element in (*by_alias, *by_serial, *by_source):
            return FoundDisk(disk=disk, xml=ET.tostring(element, encoding="unicode"))
        return None

    def free_pci_slots(self) -> int | None:
        """What a hot-plugged virtio device could take; None for a machine without PCI."""
        controllers = {
            index: controller.get("model", "")
            for index, controller in self._controllers("pci").items()
        }
        if not controllers:
            return None
        used = set(self._pci_slots())
        if "pcie-root" in controllers.values():
            used_buses = {bus for bus, _ in used}
            return len(self._hotplug_ports() - used_buses)
        used.add((0, _PIIX3_SLOT))
        return sum(
            len(_SLOTS_PER_PCI_BUS - {slot for bus, slot in used if bus == index})
            for index, model in controllers.items()
            if model in _PCI_BUSES
        )

    def free_slots(self) -> Mapping[Bus, int | None]:
        """Free slots by bus; None: no limit is known."""
        if not self.live:
            return {Bus.VIRTIO: None, Bus.SCSI: None}
        pci = self.free_pci_slots()
        units = sum(UNITS_PER_CONTROLLER - len(used) for used in self.used_scsi_units().values())
        room_for_controller = pci is None or pci > 0
        scsi = units or (UNITS_PER_CONTROLLER if room_for_controller else 0)
        return {Bus.VIRTIO: pci, Bus.SCSI: scsi}

    def used_scsi_units(self) -> Mapping[int, frozenset[int]]:
        """The units taken on each virtio-scsi controller, at bus 0 and target 0."""
        controllers = {
            index
            for index, controller in self._controllers("scsi").items()
            if controller.get("model") in _VIRTIO_SCSI
        }
        taken = list(self._scsi_addresses())
        return {
            index: frozenset(unit for controller, unit in taken if controller == index)
            for index in sorted(controllers)
        }

    def scsi_controllers(self) -> frozenset[int]:
        """The indexes of all SCSI controllers, of whatever model."""
        return frozenset(self._controllers("scsi"))

    # --- the elements ---------------------------------------------------------------------

    def _text(self, tag: str) -> str:
        text = self.root.findtext(tag)
        if not text:
            raise _unreadable(f"/domain/{tag}", "missing")
        return text

    def _disks(self) -> Iterator[tuple[GuestDisk, ET.Element]]:
        for number, element in enumerate(self.root.iterfind("./devices/disk"), start=1):
            yield _disk(element, path=f"/domain/devices/disk[{number}]"), element

    def _controllers(self, kind: str) -> dict[int, ET.Element]:
        path = f"/domain/devices/controller[@type='{kind}']"
        return {
            _number(element, "index", path): element
            for element in self.root.iterfind(f"./devices/controller[@type='{kind}']")
        }

    def _hotplug_ports(self) -> frozenset[int]:
        return frozenset(
            index
            for index, controller in self._controllers("pci").items()
            if controller.get("model") in _PCIE_PORTS
            and controller.find("./target[@hotplug='off']") is None
        )

    def _pci_slots(self) -> Iterator[tuple[int, int]]:
        """(bus, slot) of every device. A hostdev's source has the host's address: not that."""
        for address in self.root.iterfind("./devices/*/address[@type='pci']"):
            path = "/domain/devices/*/address[@type='pci']"
            yield _number(address, "bus", path), _number(address, "slot", path)

    def _scsi_addresses(self) -> Iterator[tuple[int, int]]:
        """(controller, unit) of every SCSI disk and passed-through SCSI device."""
        devices = [
            *(d for d in self.root.iterfind("./devices/disk") if _bus(d) == Bus.SCSI),
            *self.root.iterfind("./devices/hostdev[@type='scsi']"),
        ]
        path = "/domain/devices/*/address[@type='drive']"
        for address in (d.find("./address[@type='drive']") for d in devices):
            if (
                address is None
                or address.get("bus", "0") != "0"
                or address.get("target", "0") != "0"
            ):
                continue
            yield _number(address, "controller", path), _number(address, "unit", path)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The documents of a domain as they were at one moment; None where it has no such one.

    ``saved``: the one in its save image, which is its live one when it is started.
    """

    live: DomainXml | None
    config: DomainXml | None
    saved: DomainXml | None = None
    paused: bool = False

    @property
    def guest(self) -> Guest:
        """The model's view of it. Raises guest-refused where the XML can't be read."""
        first = self.live or self.config
        if first is None:
            raise _unreadable("/", "neither a live nor a persistent XML")
        return Guest(
            guest_id=first.guest_id,
            name=first.name,
            state=self._state,
            persistent=self.config is not None,
            nova_owned=any(document.nova_owned for document in self.documents),
            live_disks=self.live.disks() if self.live else (),
            config_disks=self.config.disks() if self.config else (),
            saved_disks=self.saved.disks() if self.saved else None,
            free_slots=first.free_slots(),
        )

    @property
    def documents(self) -> tuple[DomainXml, ...]:
        """Those of them that libvirt can change, the live one first."""
        return tuple(document for document in (self.live, self.config) if document)

    @property
    def _state(self) -> GuestState:
        if self.live is None:
            return GuestState.SHUTOFF
        return GuestState.PAUSED if self.paused else GuestState.RUNNING


def scsi_place(documents: Sequence[DomainXml]) -> ScsiPlace:
    """An address that is free in all these documents, on a new controller if need be."""
    used = [document.used_scsi_units() for document in documents]
    common = set(used[0]).intersection(*used[1:])
    for controller in sorted(common):
        taken = frozenset().union(*(units[controller] for units in used))
        for unit in range(UNITS_PER_CONTROLLER):
            if unit not in taken:
                return ScsiPlace(controller=controller, unit=unit)
    indexes = frozenset().union(*(document.scsi_controllers() for document in documents))
    new = next(index for index in range(len(indexes) + 1) if index not in indexes)
    return ScsiPlace(controller=new, unit=0, new_controller=True)


def _disk(element: ET.Element, *, path: str) -> GuestDisk:
    target = element.find("target")
    if target is None or not target.get("dev"):
        raise _unreadable(f"{path}/target/@dev", "missing")
    alias = element.find("alias")
    return GuestDisk(
        target=target.get("dev", ""),
        bus=target.get("bus", ""),
        serial=element.findtext("serial"),
        alias=alias.get("name") if alias is not None else None,
        source=_source(element),
        mode=Mode.RO if element.find("readonly") is not None else Mode.RW,
    )


def _source(element: ET.Element) -> str | None:
    source = element.find("source")
    if source is None:
        return None  # an empty drive
    return next((source.get(name) for name in _SOURCE_ATTRIBUTES if source.get(name)), None)


def _bus(disk: ET.Element) -> str | None:
    target = disk.find("target")
    return target.get("bus") if target is not None else None


def _number(element: ET.Element, attribute: str, path: str) -> int:
    """libvirt writes PCI addresses in hexadecimal (0x0a), everything else in decimal."""
    text = element.get(attribute, "")
    try:
        return int(text, 0)
    except ValueError as exc:
        raise _unreadable(f"{path}/@{attribute}", f"not a number: {text!r}") from exc


def _unreadable(path: str, why: str) -> AttachdError:
    return refused(
        "The guest's XML can't be read.",
        f"{path}: {why}",
        touched=False,
        resolution="Look at it with virsh dumpxml, and at its persistent form with --inactive.",
    )
