"""Is this device the volume? (law 2)

os-brick takes whatever sits at a session's LUN. A guest must never see another volume's bytes, so
before the plug everything that tells devices apart is compared: session and LUN with Cinder's
connection, the device's own answer with what the kernel remembers, WWN and size with what was
recorded; of a multipath map all of its paths. Nothing here changes anything. The answer names the
device by its WWN, never by a kernel name, which is another volume's after a reboot.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import tenacity

from attachd.errors import AttachdError, Code, Unreachable, World
from attachd.host import inquiries
from attachd.host.brick import (
    Execute,
    FailedToDropPrivileges,
    PrivsepTimeout,
    ProcessExecutionError,
)
from attachd.host.polling import rising
from attachd.host.sysfs import Block, Device, Map, Sysfs
from attachd.host.vpd import wwn_of
from attachd.model import MAP_PREFIX, Connection, HostDevice

LOG = logging.getLogger(__name__)

_SCSI_ID = ("/lib/udev/scsi_id", "--page=0x83", "--whitelisted")
_INQUIRY_SECONDS = 60
# The helper stops the command at its timeout; one that can't be stopped is not waited for either.
_HELPER_MARGIN = 10
# OSError: the helper died meanwhile.
_NOT_RUN = (ProcessExecutionError, PrivsepTimeout, FailedToDropPrivileges, OSError)

Inquire = Callable[[str], str]
"""A device's WWN from a fresh INQUIRY of VPD page 0x83, in udev's spelling."""


def inquiry(execute: Execute) -> Inquire:
    """An :data:`Inquire` that asks through udev's scsi_id, as root."""

    def inquire(path: str) -> str:
        try:
            answer, _ = execute(
                *_SCSI_ID,
                f"--device={path}",
                run_as_root=True,
                timeout=_INQUIRY_SECONDS,
                _wrap_timeout=_INQUIRY_SECONDS + _HELPER_MARGIN,
            )
        except _NOT_RUN as exc:
            raise _no_answer(path) from exc
        return answer.strip()

    return inquire


InquireAll = Callable[[Sequence[str]], Mapping[str, str]]
"""The WWN of each of these devices, by a fresh INQUIRY. One that gives no answer is left out."""


def inquiry_of_all(execute: Execute) -> InquireAll:
    """An :data:`InquireAll` that asks by one process, as root."""

    def inquire(paths: Sequence[str]) -> Mapping[str, str]:
        if not paths:
            return {}
        try:
            answer, _ = execute(
                *(sys.executable, "-I", "-S", inquiries.__file__, *paths),
                run_as_root=True,
                timeout=_INQUIRY_SECONDS,
                _wrap_timeout=_INQUIRY_SECONDS + _HELPER_MARGIN,
            )
            pages = inquiries.read(answer)
        except (*_NOT_RUN, ValueError) as exc:
            LOG.info("%d devices can't be asked by one process: %s", len(paths), type(exc).__name__)
            return {}
        wwns = ((path, wwn_of(page)) for path, page in pages.items())
        return {path: wwn for path, wwn in wwns if wwn is not None}

    return inquire


class Identity:
    """Proves a device's identity; ``udev_timeout``: seconds for udev to make its links."""

    def __init__(
        self, *, sysfs: Sysfs, inquire: Inquire, udev_timeout: float, dev: Path = Path("/dev")
    ) -> None:
        self._sysfs = sysfs
        self._inquire = inquire
        self._udev_timeout = udev_timeout
        self._dev = dev

    def identify(
        self, path: str, connection: Connection, *, size_bytes: int, expected_wwn: str | None
    ) -> HostDevice:
        """The device at ``path`` as a HostDevice.

        Raises wrong-device with what was expected and what is there, connect-failed where udev
        gives it no name, Unreachable where it doesn't answer.
        """
        a_map, devices = self._map_and_paths(Path(path).name, connection)
        if not devices:
            raise _wrong(path, "a SCSI disk, or a map of such", "none")
        for device in devices:
            self._check_place(device, connection)
        wwn = self._check_wwn(devices, expected_wwn)
        if a_map is not None and a_map.wwid != wwn:
            raise _wrong(a_map.path, f"a map of WWN {wwn}", f"WWN {a_map.wwid}")
        whole: tuple[Block, ...] = (a_map, *devices) if a_map else devices
        smallest = min(each.size_bytes for each in whole)
        if smallest < size_bytes:
            raise _wrong(path, f"at least {size_bytes} bytes", f"{smallest} bytes")
        self._check_alone(path, wwn, connection)
        found = (
            self._identity_path([a_map], _map_names(wwn))
            if a_map
            else self._identity_path(devices, _disk_names(wwn))
        )
        return HostDevice(path=str(found), wwn=wwn, size_bytes=smallest)

    def _map_and_paths(
        self, name: str, connection: Connection
    ) -> tuple[Map | None, tuple[Device, ...]]:
        """A map and its paths; a disk that multipathd has taken stands for its map.

        Without a map every disk of the LUN: udev's one name for them may lead to any.
        """
        disk = self._sysfs.device(name)
        maps = self._sysfs.maps_over([disk]) if disk else ()
        a_map = maps[0] if maps else self._sysfs.map(name)
        if a_map is not None:
            paths = (self._sysfs.device(each) for each in sorted(a_map.devices))
            return a_map, tuple(path for path in paths if path is not None)
        if disk is None:
            return None, ()
        beside = self._sysfs.lun_devices(connection.targets)
        return None, (disk, *(each for each in beside if each.name != disk.name))

    def fresh_wwn(self, device: Device) -> str:
        """What the device itself says of its WWN, now. Raises Unreachable where it can't."""
        if not self._sysfs.answers(device):
            raise _no_answer(device.path)
        return self._inquire(device.path)

    def check_wwn(self, device: Device, expected_wwn: str) -> None:
        """Raise wrong-device unless the device itself says that it has this WWN."""
        fresh = self.fresh_wwn(device)
        if fresh != expected_wwn:
            raise _wrong(device.path, f"WWN {expected_wwn}", f"WWN {fresh}")

    def fresh_wwns(self, devices: Sequence[Device]) -> dict[Device, str]:
        """What each device itself says of its WWN, now: of those that answer.

        Raises Unreachable where there are some and none answers.
        """
        told: dict[Device, str] = {}
        silence: Unreachable | None = None
        for device in devices:
            try:
                told[device] = self.fresh_wwn(device)
            except Unreachable as exc:
                silence = exc
        if silence is not None and not told:
            raise silence
        return told

    def check_own(self, devices: Sequence[Device], expected_wwn: str) -> None:
        """Raise wrong-device unless each is the volume.

        A path that is down can't be asked; while another one answers, what the kernel read when it
        found the device has to do. Raises Unreachable where none answers.
        """
        told = self.fresh_wwns(devices)
        for device in devices:
            wwn = told.get(device, device.wwn)
            if wwn != expected_wwn:
                raise _wrong(device.path, f"WWN {expected_wwn}", f"WWN {wwn}")

    def leading_to(self, device: HostDevice, paths: Iterable[str]) -> frozenset[str]:
        """Those of these paths that lead to the device, or to a path of its map.

        None outside of /dev is looked at: what it lies on may hang.
        """
        node = Path(device.path).resolve()
        a_map = self._sysfs.map(node.name)
        nodes = {node, *(self._dev / name for name in (a_map.devices if a_map else ()))}
        own = {str(each) for each in nodes}
        below = (path for path in paths if path.startswith(f"{self._dev}/"))
        return frozenset(p for p in below if p == device.path or os.path.realpath(p) in own)

    def _check_place(self, device: Device, connection: Connection) -> None:
        for session, target in self._sysfs.sessions_with(connection.targets):
            if session.sid == device.sid and target.lun == device.lun:
                return
        places = ", ".join(f"{t.portal} {t.iqn} LUN {t.lun}" for t in connection.targets)
        own = [s.iqn for s in self._sysfs.sessions() if s.sid == device.sid]
        raise _wrong(device.path, places, f"{own[0]} LUN {device.lun}" if own else "no session")

    def _check_wwn(self, devices: Sequence[Device], expected_wwn: str | None) -> str:
        wwn = devices[0].wwn
        if wwn is None:
            raise _wrong(devices[0].path, "a worldwide identifier (NAA or EUI-64)", "none")
        self.check_own(devices, wwn)
        if expected_wwn is not None and wwn != expected_wwn:
            raise _wrong(devices[0].path, f"WWN {expected_wwn}", f"WWN {wwn}")
        return wwn

    def _check_alone(self, path: str, wwn: str, connection: Connection) -> None:
        own = {each.name for each in self._sysfs.lun_devices(connection.targets)}
        strangers = [d for d in self._sysfs.devices_with(wwn) if d.name not in own]
        if strangers:
            names = ", ".join(stranger.path for stranger in strangers)
            raise _wrong(path, f"WWN {wwn} for itself", f"{names} with the same WWN")

    def _identity_path(self, proven: Sequence[Block], spellings: Sequence[str]) -> Path:
        """udev's name for the WWN, once it leads to what was proven."""
        device, led_to = proven[0], {each.name for each in proven}
        names = [self._dev / "disk/by-id" / spelling for spelling in spellings]
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda found: found is None),
            stop=tenacity.stop_after_delay(self._udev_timeout),
            wait=rising,
            retry_error_callback=lambda _: None,
        )
        found: Path | None = waiting(
            lambda: next((n for n in names if _leads_to(n) in led_to), None)
        )
        if found is not None:
            return found
        others = [f"{name} -> {_leads_to(name)}" for name in names if name.exists()]
        if others:
            raise _wrong(device.path, f"{names[0]} to lead to it", ", ".join(others))
        raise AttachdError(
            Code.CONNECT_FAILED,
            f"udev made no identity path for {device.path}.",
            details=f"None of {', '.join(map(str, names))} is there after "
            f"{self._udev_timeout:g} s.",
            resolution="See that udev runs: udevadm info --query=all --name=" + device.path,
            touched=False,
        )


def _disk_names(wwn: str) -> tuple[str, ...]:
    return (f"wwn-0x{wwn[1:]}", f"scsi-{wwn}")


def _map_names(wwn: str) -> tuple[str, ...]:
    """Never a name that a single path of it might have, too."""
    return (f"{MAP_PREFIX}{wwn}",)


def _leads_to(link: Path) -> str | None:
    return link.resolve().name if link.is_symlink() else None


def _wrong(path: str, expected: str, found: str) -> AttachdError:
    return AttachdError(
        Code.WRONG_DEVICE,
        f"{path} is not the device that was asked for.",
        details=f"Expected {expected}; found {found}.",
        resolution="Compare the backend's exports with this host's sessions: iscsiadm -m session "
        "-P 3. A device left over from an earlier export must be removed first.",
        touched=False,
    )


def _no_answer(path: str) -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        f"{path} does not answer an INQUIRY.",
        resolution="See that its target is reachable: iscsiadm -m session -P 3.",
        world=World.HOST,
        touched=False,
    )
