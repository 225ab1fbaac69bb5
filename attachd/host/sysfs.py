"""What the kernel knows: iSCSI sessions, their LUNs and block devices. Reads /sys, nothing else.

By strings, not by pathlib: an audit reads some twenty files for every volume of the host.

Each answer is a fresh look. What vanishes between two reads is gone; any other error means that
nobody looked, and raises Unreachable. Kernel names (sdX) and numbers are reused by the next volume,
so an answer is to be used at once and never remembered.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from attachd.errors import Code, Unreachable, World
from attachd.host.vpd import wwn_of
from attachd.model import Target
from attachd.portal import split_portal

_SECTOR = 512
_PAGE = 4096
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.ENXIO})
_MAP = "mpath"
_SESSION = re.compile(r"session(\d+)")
_LUN = re.compile(r"\d+:\d+:\d+:(\d+)")


@dataclass(frozen=True, kw_only=True)
class Session:
    """An iSCSI session; ``portals`` are those it was told and those it was led to."""

    sid: int
    iqn: str
    portals: frozenset[tuple[str, int]]

    def is_to(self, target: Target) -> bool:
        """Is this a session with the target, through its portal?"""
        return self.iqn == target.iqn and split_portal(target.portal) in self.portals


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block device, by the name that the kernel has for it now."""

    name: str
    size_bytes: int

    @property
    def path(self) -> str:
        """Its kernel path."""
        return f"/dev/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Device(Block):
    """A LUN's block device. ``wwn`` is what the kernel read when it found the device."""

    sid: int | None
    lun: int
    wwn: str | None


@dataclass(frozen=True, kw_only=True)
class Map(Block):
    """A multipath map; ``wwid`` as udev spells a WWN, ``devices`` the names of its paths.

    ``title`` is what device-mapper calls it.
    """

    title: str
    wwid: str
    devices: frozenset[str]


class Sysfs:
    """Readers of one /sys (``root``, so that tests can build their own)."""

    def __init__(self, *, root: Path = Path("/sys")) -> None:
        self._root = root

    def sessions(self) -> tuple[Session, ...]:
        """Every session, whatever its state: a failed one comes back by itself."""
        return tuple(self._session(sid, iqn) for sid, iqn in self._session_names())

    def sessions_with(self, targets: Iterable[Target]) -> tuple[tuple[Session, Target], ...]:
        """The sessions with any of these targets, each with its target.

        Of all others, of which a host may have hundreds, no more than the name is read.
        """
        targets = tuple(targets)
        return tuple(_with(targets, self._sessions_by_iqn({target.iqn for target in targets})))

    def session_devices(self, session: Session) -> tuple[Device, ...]:
        """The block devices of a session's LUNs."""
        base = f"{self._root}/class/iscsi_session/session{session.sid}/device"
        names = (
            name
            for target in _names(base)
            if target.startswith("target")
            for lun in _names(f"{base}/{target}")
            if _LUN.fullmatch(lun)
            for name in _names(f"{base}/{target}/{lun}/block")
        )
        found = (self.device(name) for name in names)
        return tuple(device for device in found if device is not None)

    def lun_devices(self, targets: Iterable[Target]) -> tuple[Device, ...]:
        """The block devices behind these targets' LUNs."""
        return _behind(self.sessions_with(targets), self.session_devices)

    def each_luns_devices(
        self, connections: Iterable[Iterable[Target]]
    ) -> tuple[tuple[Device, ...], ...]:
        """For each its :meth:`lun_devices`, by one look at the sessions of all."""
        wanted = [tuple(targets) for targets in connections]
        sessions = self._sessions_by_iqn({target.iqn for ts in wanted for target in ts})
        devices_of = functools.cache(self.session_devices)
        return tuple(_behind(_with(targets, sessions), devices_of) for targets in wanted)

    def device(self, name: str) -> Device | None:
        """A SCSI disk by its kernel name; None: there is none."""
        base = f"{self._root}/block/{name}"
        try:
            # A link to its place: .../session1/target2:0:0/2:0:0:0/block/sda
            link = os.readlink(base)
            *place, _, _ = link.split("/")
            lun = _LUN.fullmatch(place[-1]) if place else None
            if lun is None:
                return None
            # By the place: the name may be another disk's by now.
            disk = os.path.join(f"{self._root}/block", link)
            sectors = int(_text(f"{disk}/size"))
        except OSError as exc:
            _check_gone(exc, base)
            return None
        sid = next((int(m[1]) for part in place if (m := _SESSION.fullmatch(part))), None)
        return Device(
            name=name,
            sid=sid,
            lun=int(lun[1]),
            size_bytes=sectors * _SECTOR,
            wwn=_wwn(f"{disk}/device"),
        )

    def answers(self, device: Device) -> bool:
        """May the device answer: is its session logged in? The kernel blocks what it can't send."""
        if device.sid is None:
            return True
        path = f"{self._root}/class/iscsi_session/session{device.sid}/state"
        try:
            return _text(path) == "LOGGED_IN"
        except OSError as exc:
            _check_gone(exc, path)
            return True

    def devices_with(self, wwn: str) -> tuple[Device, ...]:
        """Every SCSI disk of this host with that WWN."""
        blocks = f"{self._root}/block"
        found = (self.device(n) for n in self._disks() if _wwn(f"{blocks}/{n}/device") == wwn)
        return tuple(device for device in found if device is not None and device.wwn == wwn)

    def local_disks(self) -> frozenset[str]:
        """The names of the SCSI disks that no iSCSI session brought."""
        found = map(self.device, self._disks())
        return frozenset(each.name for each in found if each is not None and each.sid is None)

    def _disks(self) -> Iterator[str]:
        return (name for name in _names(f"{self._root}/block") if name.startswith("sd"))

    def holders(self, name: str) -> tuple[str, ...]:
        """The block devices that rest on this one or on a partition of it (dm, md)."""
        base = f"{self._root}/block/{name}"
        parts = [f"{base}/{each}" for each in _names(base) if each.startswith(name)]
        return tuple(holder for part in (base, *parts) for holder in _names(f"{part}/holders"))

    def map(self, name: str) -> Map | None:
        """A multipath map by its kernel name; None: there is none of that name."""
        base = f"{self._root}/block/{name}"
        try:
            kind, _, wwid = _text(f"{base}/dm/uuid").partition("-")
            title, sectors = _text(f"{base}/dm/name"), int(_text(f"{base}/size"))
        except OSError as exc:
            _check_gone(exc, base)
            return None
        if kind != _MAP:
            return None
        # The kernel keeps a link to a disk that is gone until the table is loaded anew.
        slaves = f"{base}/slaves"
        devices = frozenset(each for each in _names(slaves) if _is_there(f"{slaves}/{each}"))
        return Map(
            name=name,
            title=title,
            wwid=wwid,
            devices=devices,
            size_bytes=sectors * _SECTOR,
        )

    def maps_over(self, devices: Iterable[Device]) -> tuple[Map, ...]:
        """The maps that have any of these devices for a path."""
        names = {holder for device in devices for holder in self.holders(device.name)}
        found = (self.map(name) for name in sorted(names))
        return tuple(each for each in found if each is not None)

    def maps_of(self, wwid: str) -> tuple[Map, ...]:
        """The maps of this WWN, with paths or without."""
        names = _names(f"{self._root}/block")
        found = (self.map(name) for name in names if name.startswith("dm-"))
        return tuple(each for each in found if each is not None and each.wwid == wwid)

    def map_partitions(self, a_map: Map) -> tuple[str, ...]:
        """The names of the devices that kpartx made of the partitions in a map."""
        return tuple(name for name in self.holders(a_map.name) if self._is_partition(name, a_map))

    def _is_partition(self, name: str, a_map: Map) -> bool:
        path = f"{self._root}/block/{name}/dm/uuid"
        try:
            uuid = _text(path)
        except OSError as exc:
            _check_gone(exc, path)
            return False
        part, _, whole = uuid.partition("-")
        return part.startswith("part") and whole == f"{_MAP}-{a_map.wwid}"

    def _session_names(self) -> Iterator[tuple[int, str]]:
        """Number and IQN of each session."""
        directory = f"{self._root}/class/iscsi_session"
        for name in _names(directory):
            if (match := _SESSION.fullmatch(name)) is None:
                continue
            path = f"{directory}/{name}/targetname"
            try:
                iqn = _text(path)
            except OSError as exc:
                _check_gone(exc, path)
                continue
            yield int(match[1]), iqn

    def _sessions_by_iqn(self, iqns: Set[str]) -> dict[str, list[Session]]:
        found: dict[str, list[Session]] = {}
        for sid, iqn in self._session_names():
            if iqn in iqns:
                found.setdefault(iqn, []).append(self._session(sid, iqn))
        return found

    def _session(self, sid: int, iqn: str) -> Session:
        return Session(sid=sid, iqn=iqn, portals=frozenset(self._portals(sid)))

    def _portals(self, sid: int) -> Iterator[tuple[str, int]]:
        base = f"{self._root}/class/iscsi_session/session{sid}/device"
        for name in _names(base):
            if not name.startswith("connection"):
                continue
            connection = f"{base}/{name}/iscsi_connection/{name}"
            for prefix in ("persistent_", ""):
                try:
                    address = _text(f"{connection}/{prefix}address")
                    port = _text(f"{connection}/{prefix}port")
                except OSError as exc:
                    # While it isn't connected a connection has no current address (ENOTCONN).
                    if exc.errno != errno.ENOTCONN:
                        _check_gone(exc, connection)
                    continue
                if port.isdigit():
                    yield split_portal(f"{address}:{port}")


def _with(
    targets: Iterable[Target], sessions: Mapping[str, Iterable[Session]]
) -> Iterator[tuple[Session, Target]]:
    """``sessions``: by IQN."""
    for target in targets:
        for session in sessions.get(target.iqn, ()):
            if session.is_to(target):
                yield session, target


def _behind(
    sessions: Iterable[tuple[Session, Target]],
    devices_of: Callable[[Session], Iterable[Device]],
) -> tuple[Device, ...]:
    return tuple(
        device
        for session, target in sessions
        for device in devices_of(session)
        if device.lun == target.lun
    )


def _wwn(place: str) -> str | None:
    path = f"{place}/vpd_pg83"
    try:
        return wwn_of(_bytes(path))
    except OSError as exc:
        # The kernel says EINVAL where the device has no such page.
        if exc.errno != errno.EINVAL:
            _check_gone(exc, path)
        return None


def _names(directory: str) -> list[str]:
    """What is in a directory, in order; nothing where there is none."""
    # Path.glob answers an unreadable directory with nothing at all; this raises.
    try:
        return sorted(os.listdir(directory))
    except OSError as exc:
        _check_gone(exc, directory)
        return []


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as exc:
        _check_gone(exc, path)
        return False
    return True


def _text(path: str) -> str:
    return _bytes(path).decode().strip()


def _bytes(path: str) -> bytes:
    """An attribute: the kernel gives no more than a page of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _PAGE)
    finally:
        os.close(descriptor)


def _check_gone(exc: OSError, path: str) -> None:
    """Raise Unreachable unless the error says that the thing is gone."""
    if exc.errno not in _GONE:
        raise Unreachable(
            Code.ISCSI_UNAVAILABLE,
            "The kernel's list of block devices can't be read.",
            details=f"{path}: {exc.strerror}",
            world=World.HOST,
            touched=False,
        ) from exc
