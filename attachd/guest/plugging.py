"""Plugs a disk into a guest: into both XMLs in one call, or into the one where it is missing.

libvirt takes a call for both documents as a whole: where the live half fails, the persistent one
stays as it was. The guest is read before the call, so that a dead connection is met while nothing
has left, and after it, because only the XML proves what happened; a disk that is there already is
left alone.

A virtio-scsi controller that had to be added stays, as libvirt's own do: an empty one is
harmless, the next SCSI disk uses it, and taking it out could race with that disk.
"""

from __future__ import annotations

import logging

from attachd.errors import AttachdError, Code, Unreachable
from attachd.guest.disk_xml import controller_xml, disk_xml
from attachd.guest.domain_xml import DomainXml, Reading, ScsiPlace, scsi_place
from attachd.guest.domains import Domains, Layer
from attachd.guest.failures import refused, saved, touching
from attachd.model import Bus, DiskSpec

LOG = logging.getLogger(__name__)

_NOTHING = Layer(0)


class Plugging:
    """Plugs disks; keeps nothing between calls."""

    def __init__(self, *, domains: Domains) -> None:
        self._domains = domains

    def plug(self, guest_id: str, disk: DiskSpec) -> None:
        """Complete what is missing of the disk in the guest's XMLs, and prove it.

        Raises guest-refused with libvirt's words, ``touched`` by what the XML shows then;
        guest-not-found; guest-saved; Unreachable with ``touched=True`` where an answer was lost.
        """
        reading = self._reading(guest_id)
        present = _present(reading, disk)
        missing = _documents(reading) & ~present
        if not missing:
            return
        if reading.saved is not None:
            raise saved(reading.saved.name)
        place = _place(reading, missing) if disk.bus is Bus.SCSI else None
        controller_added = False
        if place is not None and place.new_controller:
            self._domains.attach(guest_id, controller_xml(place), missing)
            controller_added = True
        try:
            self._domains.attach(guest_id, disk_xml(disk, place), missing)
        except Unreachable as exc:
            exc.touched = exc.touched or controller_added
            raise
        except AttachdError as refusal:
            now_missing, now_present = self._look_again(guest_id, disk)
            if now_missing:
                refusal.touched = controller_added or bool(now_present & ~present)
                raise
            # An earlier call, of a process that died, was still under way in libvirt.
            LOG.info("%s had got %s already: %s", guest_id, disk.alias, refusal.problem.details)
            return
        still_missing, _ = self._look_again(guest_id, disk)
        if still_missing:
            raise refused(
                "libvirt took the disk, but the guest's XML doesn't show it.",
                f"{disk.alias} in {guest_id}",
                touched=True,
            )

    def _look_again(self, guest_id: str, disk: DiskSpec) -> tuple[Layer, Layer]:
        """Where the disk is missing, and where it is."""
        with touching():
            reading = self._reading(guest_id)
            present = _present(reading, disk)
        return _documents(reading) & ~present, present

    def _reading(self, guest_id: str) -> Reading:
        reading = self._domains.read(guest_id)
        if reading is None:
            raise AttachdError(
                Code.GUEST_NOT_FOUND,
                "There is no such guest.",
                details=guest_id,
                resolution="virsh list --all shows the guests of this host.",
                touched=False,
            )
        return reading


def _documents(reading: Reading) -> Layer:
    """The documents that this guest has."""
    live = Layer.LIVE if reading.live else _NOTHING
    config = Layer.CONFIG if reading.config else _NOTHING
    return live | config


def _present(reading: Reading, disk: DiskSpec) -> Layer:
    """Those of them that show the disk."""
    live = Layer.LIVE if reading.live and _has(reading.live, disk) else _NOTHING
    config = Layer.CONFIG if reading.config and _has(reading.config, disk) else _NOTHING
    return live | config


def _has(document: DomainXml, disk: DiskSpec) -> bool:
    found = document.find(disk.volume_id)
    if found is None:
        return False
    if found.disk.source != disk.source:
        raise refused(
            "The guest has this volume's disk already, but from another device.",
            f"{found.disk.target}: {found.disk.source}, not {disk.source}",
            touched=False,
            resolution="Detach it first.",
        )
    return True


def _place(reading: Reading, layers: Layer) -> ScsiPlace:
    wanted = ((Layer.LIVE, reading.live), (Layer.CONFIG, reading.config))
    return scsi_place([document for layer, document in wanted if document and layer & layers])
