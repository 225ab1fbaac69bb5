"""The room's front: :class:`IscsiHost` fulfils the operations' ``Host`` Protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from attachd.errors import Code, Unreachable, World
from attachd.host import brick
from attachd.host.commands import CallEndedError, Commands, Deadline
from attachd.host.connector import ConnectorProperties
from attachd.host.failures import helper_lost
from attachd.host.guard import guard
from attachd.host.identity import Identity, inquiry
from attachd.host.initiator import check_initiator
from attachd.host.iscsi import IscsiVolumes, check_lsscsi
from attachd.host.portals import join_portal
from attachd.host.sysfs import Sysfs
from attachd.model import Connection, Connector, HostDevice, HostSession

# os-brick asks a dozen programs for the connector's properties.
_PROPERTIES_SECONDS = 120


class Helper(Protocol):
    """What the room needs to know of the privileged helper."""

    def alive(self) -> bool:
        """Would a privileged call reach it?"""


class IscsiHost:
    """This host's block devices over iSCSI, on single paths. Thread-safe; times in seconds.

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
    ) -> None:
        self._helper = helper
        self._guard_timeout = guard_timeout
        self._properties = ConnectorProperties(read=self._read_properties, my_ip=my_ip)
        sysfs = self._sysfs = Sysfs()
        self._identity = Identity(
            sysfs=sysfs, inquire=inquiry(brick.execute), udev_timeout=udev_timeout
        )
        self._volumes = IscsiVolumes(
            sysfs=sysfs,
            identity=self._identity,
            execute=brick.execute,
            helper_alive=helper.alive,
            exclusively=brick.exclusively,
            make_connector=lambda commands: brick.iscsi_connector(
                execute=commands, scan_attempts=scan_attempts
            ),
            portal_timeout=portal_timeout,
            connect_timeout=connect_timeout,
            disconnect_timeout=disconnect_timeout,
            grace=grace,
            release_timeout=release_timeout,
        )

    def check(self) -> None:
        """Raise Unreachable iscsi-unavailable where no connect could succeed."""
        self._require_helper()
        check_initiator()

    def connector(self) -> Connector:
        """The connector's properties, read once and kept until they change."""
        self._require_helper()
        return self._properties.get()

    def guard(
        self, *, shared_targets: bool | None, service_uuid: str | None, wait: bool = True
    ) -> AbstractContextManager[None]:
        """The backend's guard (law 5)."""
        return guard(
            shared_targets=shared_targets,
            service_uuid=service_uuid,
            timeout=self._guard_timeout if wait else 0,
        )

    def connect(self, volume_id: str, connection: Connection) -> str:
        """Log in, find the LUN's device, return its kernel path."""
        self._require_helper()
        return self._volumes.connect(volume_id, connection)

    def identify(
        self, device: str, connection: Connection, *, size_bytes: int, expected_wwn: str | None
    ) -> HostDevice:
        """Law 2. Raises wrong-device."""
        self._require_helper()
        return self._identity.identify(
            device, connection, size_bytes=size_bytes, expected_wwn=expected_wwn
        )

    def names_of(self, device: HostDevice) -> frozenset[str]:
        """Every path under /dev that leads to the device."""
        return self._identity.names_of(device)

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
        """The bytes of each device of the LUN, as the kernel knows them."""
        devices = self._sysfs.lun_devices(connection.targets)
        return tuple(device.size_bytes for device in devices)

    def settle(self, volume_id: str, connection: Connection, *, age: float) -> None:
        """Wait until an orphaned login shows its session, or can't any more."""
        self._require_helper()
        self._volumes.settle(volume_id, connection, age=age)

    def paths(self, connection: Connection) -> tuple[str, ...]:
        """The kernel path of each device of the LUN that is there."""
        return tuple(device.path for device in self._sysfs.lun_devices(connection.targets))

    def wwns(self, connection: Connection) -> tuple[str, ...]:
        """The WWN of each device of the LUN, by a fresh INQUIRY."""
        self._require_helper()
        devices = self._sysfs.lun_devices(connection.targets)
        return tuple(self._identity.fresh_wwn(device) for device in devices)

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

    def present(self, connection: Connection) -> bool:
        """Is any session with, or device of, this LUN on the host? A fresh look."""
        return self._volumes.present(connection)

    def _require_helper(self) -> None:
        if not self._helper.alive():
            raise helper_lost(touched=False)

    def _read_properties(self, my_ip: str, host: str) -> Connector:
        commands = Commands(
            execute=brick.execute,
            deadline=Deadline(_PROPERTIES_SECONDS),
            helper_alive=self._helper.alive,
        )
        try:
            return brick.connector_properties(my_ip=my_ip, host=host, execute=commands)
        except (CallEndedError, brick.ProcessExecutionError, brick.FailedToDropPrivileges) as exc:
            raise Unreachable(
                Code.ISCSI_UNAVAILABLE,
                "os-brick can't tell this host's connector properties.",
                details=type(exc).__name__,
                resolution="The daemon's log says which command failed.",
                world=World.HOST,
                touched=False,
            ) from exc
