"""The room's front: :class:`IscsiHost` fulfils the operations' ``Host`` Protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from attachd.host import brick
from attachd.host.commands import Commands, Deadline
from attachd.host.connector import ConnectorProperties
from attachd.host.failures import asking, helper_lost
from attachd.host.guard import guard
from attachd.host.holders import Holders
from attachd.host.identity import Identity, inquiry, inquiry_of_all
from attachd.host.initiator import check_initiator
from attachd.host.iscsi import IscsiVolumes, check_lsscsi
from attachd.host.multipath import Maps
from attachd.host.sysfs import Block, Device, Sysfs
from attachd.model import Connection, Connector, DevicesSeen, HostDevice, HostSession, Multipath
from attachd.portal import join_portal

# os-brick asks a dozen programs for the connector's properties; multipathd is one.
_PROPERTIES_SECONDS = 120


class Helper(Protocol):
    """What the room needs to know of the privileged helper."""

    def alive(self) -> bool:
        """Would a privileged call reach it?"""


class IscsiHost:
    """This host's block devices over iSCSI. Thread-safe; times in seconds.

    A dead helper is noticed before each call: nothing is touched then, and nothing is asked.
    """

    def __init__(
        self,
        *,
        helper: Helper,
        my_ip: str | None,
        portal_timeout: float,
        connect_timeout: float,
        disconnect_timeout: float,
        grace: float,
        release_timeout: float,
        udev_timeout: float,
        guard_timeout: float,
        scan_attempts: int,
        multipath: Multipath,
    ) -> None:
        self._helper = helper
        self._guard_timeout = guard_timeout
        self._maps = Maps(mode=multipath, running=self._multipath_running, timeout=udev_timeout)
        self._properties = ConnectorProperties(
            read=self._read_properties, my_ip=my_ip, multipath=self._maps.wanted
        )
        sysfs = self._sysfs = Sysfs()
        self._identity = Identity(
            sysfs=sysfs, inquire=inquiry(brick.execute), udev_timeout=udev_timeout
        )
        self._inquire_all = inquiry_of_all(brick.execute)
        self._volumes = IscsiVolumes(
            sysfs=sysfs,
            identity=self._identity,
            execute=brick.execute,
            helper_alive=helper.alive,
            exclusively=brick.exclusively,
            make_connector=lambda commands, multipath: brick.iscsi_connector(
                execute=commands, scan_attempts=scan_attempts, multipath=multipath
            ),
            portal_timeout=portal_timeout,
            connect_timeout=connect_timeout,
            disconnect_timeout=disconnect_timeout,
            grace=grace,
            holders=Holders(sysfs=sysfs, release_timeout=release_timeout),
            maps=self._maps,
        )

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where no connect could succeed."""
        self._require_helper()
        check_initiator()
        self._maps.check()

    def connector(self) -> Connector:
        """The connector's properties, read once and kept until they change."""
        self._require_helper()
        return self._properties.get()

    def warm(self) -> None:
        """Have the connector's properties ready. Raises Unreachable iscsi-unavailable."""
        self._require_helper()
        self._properties.warm()

    def guard(
        self, *, shared_targets: bool | None, service_uuid: str | None, wait: bool = True
    ) -> AbstractContextManager[None]:
        """The backend's guard (law 5)."""
        return guard(
            shared_targets=shared_targets,
            service_uuid=service_uuid,
            timeout=self._guard_timeout if wait else 0,
        )

    def connect(self, volume_id: str, connection: Connection, *, mapped: bool | None = None) -> str:
        """Log in, find the LUN's device, return its kernel path."""
        self._require_helper()
        return self._volumes.connect(volume_id, connection, mapped=mapped)

    def identify(
        self, device: str, connection: Connection, *, size_bytes: int, expected_wwn: str | None
    ) -> HostDevice:
        """Law 2. Raises wrong-device."""
        self._require_helper()
        return self._identity.identify(
            device, connection, size_bytes=size_bytes, expected_wwn=expected_wwn
        )

    def leading_to(self, device: HostDevice, paths: Iterable[str]) -> frozenset[str]:
        """Those of these paths under /dev that lead to the device."""
        return self._identity.leading_to(device, paths)

    def disconnect(
        self,
        volume_id: str,
        connection: Connection,
        *,
        expected_wwn: str | None,
        given_up: bool = False,
    ) -> None:
        """Flush, delete the LUN's device, log out where nothing else uses the session, prove it."""
        self._require_helper()
        self._volumes.disconnect(
            volume_id, connection, expected_wwn=expected_wwn, given_up=given_up
        )

    def silent(self, connection: Connection) -> bool:
        """Is there a device of the LUN that can't answer, since its session is down?"""
        devices = self._sysfs.lun_devices(connection.targets)
        return not all(map(self._sysfs.answers, devices))

    def check_extend(self) -> None:
        """Raise Unreachable iscsi-unavailable where no extend could succeed."""
        self._require_helper()
        check_lsscsi()

    def extend(
        self, volume_id: str, connection: Connection, *, expected_wwn: str, size_bytes: int
    ) -> int | None:
        """Rescan the LUN's devices, proven to be it; the bytes of the smallest."""
        self._require_helper()
        return self._volumes.extend(
            volume_id, connection, expected_wwn=expected_wwn, size_bytes=size_bytes
        )

    def sizes(self, connection: Connection) -> tuple[int, ...]:
        """The bytes of each device of the LUN, and of their map, as the kernel knows them."""
        return self._sizes(self._sysfs.lun_devices(connection.targets))

    def _sizes(self, devices: Sequence[Device]) -> tuple[int, ...]:
        whole: tuple[Block, ...] = (*devices, *self._sysfs.maps_over(devices))
        return tuple(each.size_bytes for each in whole)

    def settle(self, volume_id: str, connection: Connection, *, age: float) -> None:
        """Wait until an orphaned login shows its session, or can't any more."""
        self._require_helper()
        self._volumes.settle(volume_id, connection, age=age)

    def paths(self, connection: Connection) -> tuple[str, ...]:
        """The kernel path of each device of the LUN that is there."""
        return tuple(device.path for device in self._sysfs.lun_devices(connection.targets))

    def wwns(self, connection: Connection) -> tuple[str, ...]:
        """The WWN of each device of the LUN, by a fresh INQUIRY; of those that answer, where one
        does.
        """
        self._require_helper()
        devices = self._sysfs.lun_devices(connection.targets)
        return tuple(self._identity.fresh_wwns(devices).values())

    def look_at(self, connections: Sequence[Connection]) -> tuple[DevicesSeen | None, ...]:
        """WWNs and sizes of each, by one look at all; None: it has to be asked by itself."""
        self._require_helper()
        found = self._sysfs.each_luns_devices(each.targets for each in connections)
        answering = (d.path for devices in found for d in devices if self._sysfs.answers(d))
        fresh = self._inquire_all(tuple(dict.fromkeys(answering)))  # two guests may share a LUN
        return tuple(self._seen(devices, fresh) for devices in found)

    def _seen(self, devices: Sequence[Device], fresh: Mapping[str, str]) -> DevicesSeen | None:
        if not all(device.path in fresh for device in devices):
            return None
        wwns = tuple(fresh[device.path] for device in devices)
        return DevicesSeen(wwns=wwns, sizes=self._sizes(devices))

    def sessions(self) -> tuple[HostSession, ...]:
        """Every iSCSI session of this host, whoever made it."""
        return tuple(
            HostSession(
                iqn=session.iqn,
                portals=frozenset(join_portal(*portal) for portal in session.portals),
                luns=frozenset(d.lun for d in self._sysfs.session_devices(session)),
            )
            for session in self._sysfs.sessions()
        )

    def present(self, connection: Connection, *, session_shared: bool = False) -> bool:
        """Is any session with, or device of, this LUN on the host? A fresh look."""
        return self._volumes.present(connection, session_shared=session_shared)

    def _require_helper(self) -> None:
        if not self._helper.alive():
            raise helper_lost(touched=False)

    def _read_properties(self, my_ip: str, host: str, multipath: bool) -> Connector:
        with asking("os-brick can't tell this host's connector properties."):
            return brick.connector_properties(
                my_ip=my_ip, host=host, multipath=multipath, execute=self._commands()
            )

    def _multipath_running(self) -> bool:
        with asking("multipathd can't be asked."):
            return brick.multipath_running(execute=self._commands())

    def _commands(self) -> Commands:
        return Commands(
            execute=brick.execute,
            deadline=Deadline(_PROPERTIES_SECONDS),
            helper_alive=self._helper.alive,
        )
