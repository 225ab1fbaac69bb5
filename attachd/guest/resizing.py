"""Tells a live guest that its disk's device has grown.

QEMU takes the size from the device itself, so the same size told twice does no harm. A guest that
isn't live learns it when it starts.
"""

from __future__ import annotations

import logging

from attachd.errors import AttachdError, Unreachable
from attachd.guest.domain_xml import DomainXml
from attachd.guest.domains import Domains
from attachd.guest.failures import refused, touching

LOG = logging.getLogger(__name__)


class Resizing:
    """Resizes disks; keeps nothing between calls."""

    def __init__(self, *, domains: Domains) -> None:
        self._domains = domains

    def resize(self, guest_id: str, volume_id: str, size_bytes: int, *, source: str | None) -> None:
        """Raises guest-refused with libvirt's words; Unreachable as :class:`Domains` does."""
        live = self._live(guest_id)
        if live is None:
            return
        found = live.find(volume_id, source=source)
        if found is None:
            raise refused(
                "The guest's live XML doesn't have the disk.",
                f"volume {volume_id} in {guest_id}",
                touched=False,
            )
        try:
            self._domains.resize(guest_id, found.disk.target, size_bytes)
        except Unreachable:
            raise
        except AttachdError as refusal:
            with touching():
                live = self._live(guest_id)
            if live is not None:
                raise
            LOG.info("%s ended while its disk was resized: %s", guest_id, refusal.problem.details)

    def _live(self, guest_id: str) -> DomainXml | None:
        reading = self._domains.read(guest_id)
        return reading.live if reading is not None else None
