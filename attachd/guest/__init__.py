"""The guest world: libvirt's domains and their disks. The only room that imports libvirt."""

from __future__ import annotations

from attachd.guest.guests import LibvirtGuests

__all__ = ["LibvirtGuests"]
