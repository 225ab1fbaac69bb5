"""The only door to os-brick.

os-brick's connectors can't be imported before oslo.service has its threading backend (the other
one is eventlet), so the backend is chosen here and every other module takes os-brick from here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from oslo_concurrency.processutils import ProcessExecutionError
from oslo_privsep.comm import PrivsepTimeout
from oslo_privsep.daemon import FailedToDropPrivileges
from oslo_service import backend

from attachd.trace import Library, call

backend.init_backend(backend.BackendType.THREADING)

from os_brick import executor, privileged  # noqa: E402
from os_brick import setup as set_up  # noqa: E402
from os_brick.exception import ExecutionTimeout  # noqa: E402
from os_brick.initiator import connector as _connector  # noqa: E402
from os_brick.initiator import utils as initiator_utils  # noqa: E402
from os_brick.initiator.connectors.base import synchronized  # noqa: E402
from os_brick.privileged import rootwrap  # noqa: E402

__all__ = [
    "BrickConnector",
    "Execute",
    "ExecutionTimeout",
    "FailedToDropPrivileges",
    "PrivsepTimeout",
    "ProcessExecutionError",
    "connector_properties",
    "exclusively",
    "execute",
    "in_own_thread",
    "initiator_utils",
    "iscsi_connector",
    "multipath_running",
    "privileged",
    "set_up",
]

# os-brick's default executor ignores the root helper: the forked one does the work.
_ROOT_HELPER = None


class Execute(Protocol):
    """os-brick's way to run a command: argv and processutils' options, (stdout, stderr)."""

    def __call__(self, *command: str, **options: object) -> tuple[str, str]:
        """Raises ProcessExecutionError."""


class BrickConnector(Protocol):
    """What attachd calls of an os-brick connector."""

    def connect_volume(self, connection_properties: dict[str, Any], /) -> Mapping[str, str]:
        """Log in, scan, return ``path`` (/dev/sdX, or /dev/dm-N of a map) among others."""

    def disconnect_volume(
        self, connection_properties: dict[str, Any], device_info: dict[str, str], /
    ) -> None:
        """Flush and delete the devices, log out where nothing else uses the session."""

    def extend_volume(self, connection_properties: dict[str, Any], /) -> int | None:
        """Rescan the volume's paths; the last one's size in bytes."""


def execute(*command: str, **options: object) -> tuple[str, str]:
    """Run a command through os-brick; only its name is noted, never an argument."""
    with call(Library.OS_BRICK, command[0]) as note:
        try:
            out, err = rootwrap.execute(*command, **options)
        except ProcessExecutionError as exc:
            note.outcome = f"exit {exc.exit_code}" if exc.exit_code is not None else "failed"
            raise
    return out, err


class _Noted:
    """An os-brick connector whose calls are noted."""

    def __init__(self, connector: BrickConnector) -> None:
        self._connector = connector

    def connect_volume(self, connection_properties: dict[str, Any], /) -> Mapping[str, str]:
        """See BrickConnector."""
        with call(Library.OS_BRICK, "connect"):
            return self._connector.connect_volume(connection_properties)

    def disconnect_volume(
        self, connection_properties: dict[str, Any], device_info: dict[str, str], /
    ) -> None:
        """See BrickConnector."""
        with call(Library.OS_BRICK, "disconnect"):
            self._connector.disconnect_volume(connection_properties, device_info)

    def extend_volume(self, connection_properties: dict[str, Any], /) -> int | None:
        """See BrickConnector."""
        with call(Library.OS_BRICK, "extend"):
            return self._connector.extend_volume(connection_properties)


def iscsi_connector(*, execute: Execute, scan_attempts: int, multipath: bool) -> BrickConnector:
    """An iSCSI connector that runs its commands through ``execute``.

    ``multipath``: it connects every path, and they make a map; else the first one that answers.
    """
    made: BrickConnector = _connector.InitiatorConnector.factory(
        "ISCSI",
        _ROOT_HELPER,
        use_multipath=multipath,
        device_scan_attempts=scan_attempts,
        execute=execute,
    )
    return _Noted(made)


def exclusively(function: Callable[[], None]) -> None:
    """Run ``function`` while no os-brick on this host connects or disconnects a SCSI volume."""
    synchronized("connect_volume", external=True)(function)()


def in_own_thread() -> bool:
    """Is this a thread that os-brick has made, one for each path of a volume?"""
    return isinstance(threading.current_thread(), executor.Thread)


def multipath_running(*, execute: Execute) -> bool:
    """Does multipathd answer? Where systemd listens for it, it is started by this.

    Raises ProcessExecutionError where it can't be told: os-brick itself takes that for a no.
    """
    try:
        out, _ = execute("multipathd", "show", "status", run_as_root=True)
    except ExecutionTimeout:
        raise
    except ProcessExecutionError as exc:
        if "timeout" in f"{exc.stdout}{exc.stderr}":
            raise
        return False
    return not out.startswith("error receiving packet")


def connector_properties(
    *, my_ip: str, host: str, multipath: bool, execute: Execute
) -> dict[str, Any]:
    """What Cinder wants to know of this host. Slow: every protocol of os-brick is probed."""
    with call(Library.OS_BRICK, "connector properties"):
        properties: dict[str, Any] = _connector.get_connector_properties(
            _ROOT_HELPER,
            my_ip,
            multipath=multipath,
            enforce_multipath=False,
            host=host,
            execute=execute,
        )
    return properties
