"""FakeHost: attachd's Host Protocol before a kernel's and a target's rules, in memory.

A storage exports LUNs, a session with a target is shared by its LUNs, each LUN's device has a WWN
and a size, a held device stays. It is linked to a FakeCinder by nothing but the values of its
connections: with ``exports_all`` (the default) a LUN that nobody exported is there when it is asked
for, large enough for any volume and with a WWN of its own.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.model import (
    Chap,
    Connection,
    Connector,
    DevicesSeen,
    HostDevice,
    HostSession,
    Target,
)

TIB = 1024**4
GUARD_SECONDS = 60
LOGIN_SECONDS = 50.0
METHODS = frozenset(
    {
        *("check", "connector", "guard", "connect", "identify", "leading_to", "disconnect"),
        *(
            "settle",
            "paths",
            "wwns",
            "look_at",
            "sessions",
            "present",
            "check_extend",
            "extend",
            "sizes",
        ),
    }
)

BY_THE_HELPER = METHODS - {"guard", "leading_to", "paths", "sessions", "present", "sizes"}


@dataclass(frozen=True, kw_only=True)
class Lun:
    """What a storage exports behind a target's LUN."""

    wwn: str
    size_bytes: int = TIB
    chap: Chap | None = None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that arrived: the method, and the volume or the device that it was about."""

    method: str
    subject: str = ""


@dataclass(kw_only=True)
class _Device:
    """A block device: ``found`` is the LUN as the kernel saw it, which a storage may replace."""

    name: str
    target: Target
    found: Lun
    held_by: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Late:
    """What a call that was given up does later; ``waited_for``: its process knows of it."""

    volume_id: str
    effect: Callable[[], object]
    waited_for: bool


@dataclass(kw_only=True)
class _Trouble:
    failures: dict[str, deque[AttachdError]] = field(default_factory=lambda: defaultdict(deque))
    lost: dict[str, deque[AttachdError]] = field(default_factory=lambda: defaultdict(deque))
    interludes: dict[str, deque[Callable[[], object]]] = field(
        default_factory=lambda: defaultdict(deque)
    )


class FakeHost:
    """Fulfils ``attachd.operations.ports.Host``; thread-safe.

    ``calls`` has every call in order; ``usable`` is False where iscsid is masked, ``has_lsscsi``
    where lsscsi is missing; the portals in ``dead_portals`` answer nobody; ``guarded`` has the
    services whose guard is held now. A call that was given up by a process that lives on is waited
    for by the volume's next one (law 7).
    """

    def __init__(self, *, exports_all: bool = True, host: str = "fake-host") -> None:
        self.calls: list[Call] = []
        self.usable = True
        self.has_lsscsi = True
        self.dead_portals: set[str] = set()
        self.guarded: set[str] = set()
        self.properties = {"host": host, "ip": "192.0.2.20", "initiator": f"iqn.test:{host}"}
        self._exports_all = exports_all
        self._luns: dict[Target, Lun] = {}
        self._sessions: set[tuple[str, str]] = set()
        self._devices: dict[str, _Device] = {}
        self._trouble = _Trouble()
        self._helper_alive = True
        self._orphans: dict[str, deque[BaseException]] = defaultdict(deque)
        self._late: list[_Late] = []
        self._lock = threading.RLock()
        self._guards: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def log_in_without_a_scan(self, target: Target) -> None:
        """For tests: somebody has a session with the target, and no device of it."""
        with self._lock:
            self._sessions.add((target.portal, target.iqn))

    # --- for tests: the storage -------------------------------------------------------------

    def export(
        self,
        target: Target,
        *,
        size_bytes: int = TIB,
        wwn: str | None = None,
        chap: Chap | None = None,
    ) -> str:
        """Put a LUN behind ``target``, instead of one that is there; return its WWN."""
        with self._lock:
            lun = Lun(wwn=wwn or _wwn_of(target), size_bytes=size_bytes, chap=chap)
            self._luns[target] = lun
            return lun.wwn

    def withdraw(self, target: Target) -> None:
        """The storage exports it no more; a device that is there stays, as in a kernel."""
        with self._lock:
            self._luns.pop(target, None)

    def grow(self, target: Target, size_bytes: int) -> None:
        """The storage extends a LUN; a device has its old size until it is rescanned."""
        with self._lock:
            self._luns[target] = replace(self._luns[target], size_bytes=size_bytes)

    # --- for tests: the host ----------------------------------------------------------------

    @contextmanager
    def held(self, device: str, *, by: str = "4711 (qemu)") -> Iterator[None]:
        """A process holds the device (kernel or identity path) open."""
        with self._lock:
            found = self._find(device)
            found.held_by.add(by)
        try:
            yield
        finally:
            found.held_by.discard(by)

    @property
    def devices(self) -> tuple[HostDevice, ...]:
        """The devices that are there."""
        with self._lock:
            return tuple(_host_device(device) for device in self._devices.values())

    @property
    def logins(self) -> frozenset[tuple[str, str]]:
        """Portal and IQN of each session."""
        with self._lock:
            return frozenset(self._sessions)

    def reboot(self) -> None:
        """Sessions and devices are gone, and with them those who held them."""
        with self._lock:
            self._sessions.clear()
            self._devices.clear()

    def fail_next(
        self,
        method: str,
        error: AttachdError | None = None,
        *,
        times: int = 1,
        after_effect: bool = False,
    ) -> None:
        """The next ``times`` calls of ``method`` raise ``error``: in place of it or behind it.

        Without an error: Unreachable iscsi-unavailable, ``touched`` as it is behind the effect.
        """
        failure = error or _unavailable(touched=after_effect)
        with self._lock:
            trouble = self._trouble.lost if after_effect else self._trouble.failures
            trouble[_known(method)].extend([failure] * times)

    def stop(self) -> None:
        """The privileged helper is gone: what needs it does nothing, sysfs is read still."""
        self._helper_alive = False

    def start(self) -> None:
        """There is a helper again."""
        self._helper_alive = True

    def orphan_next_login(self, error: BaseException) -> None:
        """The next connect raises ``error``; its session and device come only later.

        When it is waited for (``settle``; where ``error`` ends no process, by the volume's next
        call, too), or else when :meth:`land` is called.
        """
        with self._lock:
            self._orphans["connect"].append(error)

    def orphan_next_removal(self, error: BaseException) -> None:
        """The same for a disconnect: what it takes away goes only later."""
        with self._lock:
            self._orphans["disconnect"].append(error)

    def land(self) -> None:
        """What was put off happens now."""
        with self._lock:
            late, self._late = self._late, []
            for each in late:
                each.effect()

    def before_next(self, method: str, interlude: Callable[[], object]) -> None:
        """Call ``interlude()`` when the next ``method`` arrives, outside of any lock."""
        with self._lock:
            self._trouble.interludes[_known(method)].append(interlude)

    # --- the Protocol -----------------------------------------------------------------------

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where iscsid is masked."""
        with self._call("check"):
            if not self.usable:
                raise _unavailable(touched=False)

    def connector(self) -> Connector:
        """The connector's properties."""
        with self._call("connector"):
            return dict(self.properties)

    @contextmanager
    def guard(
        self, *, shared_targets: bool | None, service_uuid: str | None, wait: bool = True
    ) -> Iterator[None]:
        """Exclusive for a service, unless its volumes certainly share no target."""
        service = service_uuid or "unknown"
        with self._call("guard", service):
            pass
        if shared_targets is False:
            yield
            return
        if not self._guards[service].acquire(timeout=GUARD_SECONDS if wait else 0):
            raise AttachdError(Code.DEADLINE_EXCEEDED, "The backend is busy.", touched=False)
        self.guarded.add(service)
        try:
            yield
        finally:
            self.guarded.discard(service)
            self._guards[service].release()

    def connect(self, volume_id: str, connection: Connection, *, mapped: bool | None = None) -> str:
        """A device for the first target that answers; one that is there stays as it is."""
        with self._call("connect", volume_id):
            self._await_left_behind(volume_id)
            if connection.protocol != "iscsi":
                raise Refused(Code.PROTOCOL_UNSUPPORTED, "Only iSCSI.")
            there = self._devices_of(connection)
            if there:
                return f"/dev/{there[0].name}"
            alive = [t for t in connection.targets if t.portal not in self.dead_portals]
            if not alive:
                raise _connect_failed("No portal answers.", touched=False)
            self._perhaps_later(
                "connect", volume_id, partial(self._log_in, alive[0], connection.chap)
            )
            return f"/dev/{self._log_in(alive[0], connection.chap).name}"

    def identify(
        self, device: str, connection: Connection, *, size_bytes: int, expected_wwn: str | None
    ) -> HostDevice:
        """Place, fresh WWN, recorded WWN, size, and nobody else with that WWN."""
        with self._call("identify", device):
            found = self._find(device)
            if found.target not in connection.targets:
                raise _wrong_device(f"{device} is {found.target}")
            fresh = self._luns.get(found.target)
            if fresh is None:
                raise _unavailable(touched=False)
            if fresh.wwn != found.found.wwn or expected_wwn not in (None, fresh.wwn):
                raise _wrong_device(f"{device} has WWN {fresh.wwn}")
            if found.found.size_bytes < size_bytes:
                raise _wrong_device(f"{device} has {found.found.size_bytes} bytes")
            twins = [d for d in self._devices.values() if d.found.wwn == fresh.wwn]
            if any(twin.target not in connection.targets for twin in twins):
                raise _wrong_device(f"{device} is not the only one with WWN {fresh.wwn}")
            return _host_device(found)

    def leading_to(self, device: HostDevice, paths: Iterable[str]) -> frozenset[str]:
        """Its identity paths and its kernel path do."""
        with self._call("leading_to", device.path):
            kernel = f"/dev/{self._find(device.path).name}"
            by_scsi = f"/dev/disk/by-id/scsi-{device.wwn}"
            return frozenset(paths) & {device.path, kernel, by_scsi}

    def disconnect(
        self,
        volume_id: str,
        connection: Connection,
        *,
        expected_wwn: str | None,
        given_up: bool = False,
    ) -> None:
        """Its devices, then the sessions that no other LUN uses."""
        with self._call("disconnect", volume_id):
            self._await_left_behind(volume_id)
            for device in self._devices_of(connection):
                self._check_removable(device, expected_wwn, given_up=given_up)
            self._perhaps_later("disconnect", volume_id, partial(self._take_away, connection))
            self._take_away(connection)

    def silent(self, connection: Connection) -> bool:
        """Where the target has the LUN no more."""
        with self._call("silent"):
            return any(d.target not in self._luns for d in self._devices_of(connection))

    def check_extend(self) -> None:
        """Raise Unreachable iscsi-unavailable where lsscsi is missing."""
        with self._call("check_extend"):
            if not self.has_lsscsi:
                raise _unavailable(touched=False)

    def extend(
        self, volume_id: str, connection: Connection, *, expected_wwn: str, size_bytes: int
    ) -> int | None:
        """The kernel looks again at what is too small, and is this volume."""
        with self._call("extend", volume_id):
            self._await_left_behind(volume_id)
            devices = self._devices_of(connection)
            for device in devices:
                self._check_wwn(device, expected_wwn)
            for device in devices:
                if device.found.size_bytes < size_bytes:
                    if not self.has_lsscsi:
                        raise _unavailable(touched=False)
                    now = self._luns[device.target].size_bytes
                    device.found = replace(device.found, size_bytes=now)
            smallest = min((device.found.size_bytes for device in devices), default=None)
            if smallest is not None and smallest < size_bytes:
                raise AttachdError(Code.EXTEND_FAILED, f"It has {smallest} bytes still.")
            return smallest

    def sizes(self, connection: Connection) -> tuple[int, ...]:
        """As the kernel saw them."""
        with self._call("sizes"):
            return tuple(device.found.size_bytes for device in self._devices_of(connection))

    def settle(self, volume_id: str, connection: Connection, *, age: float) -> None:
        """A login that iscsid goes on with alone shows, unless it has given it up by then."""
        with self._call("settle", volume_id):
            if age < LOGIN_SECONDS:
                self.land()

    def paths(self, connection: Connection) -> tuple[str, ...]:
        """The kernel path of each device of the LUN."""
        with self._call("paths"):
            return tuple(f"/dev/{device.name}" for device in self._devices_of(connection))

    def wwns(self, connection: Connection) -> tuple[str, ...]:
        """What the storage answers now behind each device's LUN."""
        with self._call("wwns"):
            fresh = [self._luns.get(device.target) for device in self._devices_of(connection)]
            if None in fresh:
                raise _unavailable(touched=False)
            return tuple(lun.wwn for lun in fresh if lun)

    def look_at(self, connections: Sequence[Connection]) -> tuple[DevicesSeen | None, ...]:
        """``wwns`` and ``sizes`` of each; None where one doesn't answer."""
        with self._call("look_at"):
            return tuple(map(self._seen, connections))

    def _seen(self, connection: Connection) -> DevicesSeen | None:
        devices = self._devices_of(connection)
        fresh = [self._luns.get(device.target) for device in devices]
        if None in fresh:
            return None
        sizes = tuple(device.found.size_bytes for device in devices)
        return DevicesSeen(wwns=tuple(lun.wwn for lun in fresh if lun), sizes=sizes)

    def sessions(self) -> tuple[HostSession, ...]:
        """Every session."""
        with self._call("sessions"):
            return tuple(
                HostSession(
                    iqn=iqn,
                    portals=frozenset({portal}),
                    luns=frozenset(
                        d.target.lun
                        for d in self._devices.values()
                        if (d.target.portal, d.target.iqn) == (portal, iqn)
                    ),
                )
                for portal, iqn in sorted(self._sessions)
            )

    def present(self, connection: Connection, *, session_shared: bool = False) -> bool:
        """Is there a device of the LUN, or a session that nothing else uses?"""
        with self._call("present"):
            used = {(d.target.portal, d.target.iqn) for d in self._devices.values()}
            idle = self._sessions - used
            alone = any((target.portal, target.iqn) in idle for target in connection.targets)
            return bool(self._devices_of(connection)) or (alone and not session_shared)

    # --- the rules --------------------------------------------------------------------------

    def _log_in(self, target: Target, chap: Chap | None) -> _Device:
        lun = self._luns.get(target)
        if lun is None and self._exports_all:
            self.export(target)
            lun = self._luns[target]
        known_iqn = any(t.iqn == target.iqn and t.portal == target.portal for t in self._luns)
        if lun is None and not known_iqn:
            raise _connect_failed("No such target.", touched=True)
        if lun is not None and lun.chap is not None and lun.chap != chap:
            raise _connect_failed("The target refused the login.", touched=True)
        if lun is None:
            raise _connect_failed("No such LUN.", touched=True)
        self._sessions.add((target.portal, target.iqn))
        device = _Device(name=self._free_name(), target=target, found=replace(lun, chap=None))
        self._devices[device.name] = device
        return device

    def _take_away(self, connection: Connection) -> None:
        for device in self._devices_of(connection):
            del self._devices[device.name]
        used = {(d.target.portal, d.target.iqn) for d in self._devices.values()}
        for target in connection.targets:
            if (target.portal, target.iqn) not in used:
                self._sessions.discard((target.portal, target.iqn))

    def _perhaps_later(self, method: str, volume_id: str, effect: Callable[[], object]) -> None:
        """Put the effect off and raise, where the next one of this method was orphaned."""
        if not self._orphans[method]:
            return
        error = self._orphans[method].popleft()
        waited_for = isinstance(error, AttachdError)
        self._late.append(_Late(volume_id=volume_id, effect=effect, waited_for=waited_for))
        raise error

    def _await_left_behind(self, volume_id: str) -> None:
        mine = [late for late in self._late if late.waited_for and late.volume_id == volume_id]
        for late in mine:
            self._late.remove(late)
            late.effect()

    def _check_removable(
        self, device: _Device, expected_wwn: str | None, *, given_up: bool
    ) -> None:
        fresh = self._luns.get(device.target)
        if expected_wwn is not None:
            if fresh is None and not (given_up and device.found.wwn == expected_wwn):
                raise _unavailable(touched=False)
            if fresh is not None and fresh.wwn != expected_wwn:
                raise _wrong_device(f"/dev/{device.name} has WWN {fresh.wwn}")
        if device.held_by:
            raise AttachdError(
                Code.STILL_IN_USE,
                f"/dev/{device.name} is still in use on this host.",
                details=", ".join(sorted(device.held_by)),
                touched=False,
            )

    def _check_wwn(self, device: _Device, expected_wwn: str) -> None:
        fresh = self._luns.get(device.target)
        if fresh is None:
            raise _unavailable(touched=False)
        if fresh.wwn != expected_wwn:
            raise _wrong_device(f"/dev/{device.name} has WWN {fresh.wwn}")

    def _devices_of(self, connection: Connection) -> list[_Device]:
        return [d for d in self._devices.values() if d.target in connection.targets]

    def _find(self, path: str) -> _Device:
        for device in self._devices.values():
            if path in (f"/dev/{device.name}", _host_device(device).path):
                return device
        raise _wrong_device(f"{path} is not there")

    def _free_name(self) -> str:
        names = (f"sd{letter}" for letter in map(_letters, range(26**2)))
        return next(name for name in names if name not in self._devices)

    @contextmanager
    def _call(self, method: str, subject: str = "") -> Iterator[None]:
        with self._lock:
            self.calls.append(Call(method=method, subject=subject))
            interludes = self._trouble.interludes[method]
            interlude = interludes.popleft() if interludes else None
        if interlude is not None:
            interlude()
        with self._lock:
            if not self._helper_alive and method in BY_THE_HELPER:
                raise _unavailable(touched=False)
            if self._trouble.failures[method]:
                raise self._trouble.failures[method].popleft()
            yield
            if self._trouble.lost[method]:
                raise self._trouble.lost[method].popleft()


def _letters(number: int) -> str:
    high, low = divmod(number, 26)
    return (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)


def _wwn_of(target: Target) -> str:
    digest = hashlib.sha256(f"{target.iqn}/{target.lun}".encode()).hexdigest()
    return f"36001405{digest[:25]}"


def _host_device(device: _Device) -> HostDevice:
    return HostDevice(
        path=f"/dev/disk/by-id/wwn-0x{device.found.wwn[1:]}",
        wwn=device.found.wwn,
        size_bytes=device.found.size_bytes,
    )


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"FakeHost has no {method}: {', '.join(sorted(METHODS))}")
    return method


def _connect_failed(brief: str, *, touched: bool) -> AttachdError:
    return AttachdError(Code.CONNECT_FAILED, brief, touched=touched)


def _wrong_device(details: str) -> AttachdError:
    return AttachdError(
        Code.WRONG_DEVICE,
        "It is not the device that was asked for.",
        details=details,
        touched=False,
    )


def _unavailable(*, touched: bool) -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE, "iscsid can't be used.", world=World.HOST, touched=touched
    )
