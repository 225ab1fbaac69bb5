"""Does anybody on this host still use a volume's devices? Asked before they are taken away.

A device that is a path of the volume's own multipath map is held by that map: then the map's users
count. Any other device-mapper device over it is somebody's (a guest's LVM that the host activated,
which os-brick would take for a map).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tenacity

from attachd.errors import AttachdError, Code
from attachd.host import openers
from attachd.host.commands import Commands
from attachd.host.polling import rising
from attachd.host.sysfs import Device, Map, Sysfs


@dataclass(frozen=True)
class Holders:
    """``release_timeout``: seconds that a closing process may still hold a device."""

    sysfs: Sysfs
    release_timeout: float

    def check_released(self, devices: Sequence[Device], commands: Commands) -> None:
        """Raise still-in-use while anybody holds one of a volume's devices, or its map."""
        maps = self.own_maps(devices)
        own = frozenset(each.name for each in maps)
        for device in devices:
            self._wait_for(device.name, own, commands)
        for each in maps:
            self.check_map_released(each, commands)

    def check_map_released(self, a_map: Map, commands: Commands) -> None:
        """Raise still-in-use while anybody holds a map, or what kpartx made of its partitions."""
        partitions = self.sysfs.map_partitions(a_map)
        self._wait_for(a_map.name, frozenset(partitions), commands)
        for name in partitions:
            self._wait_for(name, frozenset(), commands)

    def own_maps(self, devices: Iterable[Device]) -> tuple[Map, ...]:
        """The maps over these devices that are of the devices' own WWN."""
        devices = tuple(devices)
        wwns = {device.wwn for device in devices}
        return tuple(each for each in self.sysfs.maps_over(devices) if each.wwid in wwns)

    def _wait_for(self, name: str, own: frozenset[str], commands: Commands) -> None:
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(bool),
            stop=tenacity.stop_after_delay(self.release_timeout),
            wait=rising,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else "",
        )
        held_by: str = waiting(lambda: self._held_by(name, own, commands))
        if held_by:
            raise AttachdError(
                Code.STILL_IN_USE,
                f"/dev/{name} is still in use on this host.",
                details=f"Held by {held_by}.",
                resolution="Close it there, then resume the operation.",
                touched=False,
            )

    def _held_by(self, name: str, own: frozenset[str], commands: Commands) -> str:
        """``own``: what may hold it, and is looked at by itself."""
        holding = self.sysfs.holders(name)
        holders = [f"/dev/{holder}" for holder in holding if holder not in own]
        answer = commands.as_root(sys.executable, "-I", "-S", openers.__file__, f"/dev/{name}")
        claimed, opened_by = openers.read(answer)
        holders += opened_by
        if claimed and not holding and not holders:
            holders.append("the kernel (a mount or swap)")
        return ", ".join(holders)
