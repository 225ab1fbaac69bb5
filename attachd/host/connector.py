"""This host's connector properties, read once and kept until they may have changed.

os-brick asks every protocol it knows, which takes many child processes; the answer depends on the
host's name, its address, the initiator's name and on multipathd, and those are cheap to look at.
Never logged.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from attachd.errors import Code, Unreachable, World
from attachd.host.initiator import INITIATOR_NAME
from attachd.model import Connector

Read = Callable[[str, str, bool], Connector]
_Fingerprint = tuple[object, ...]


class ConnectorProperties:
    """Reads through ``read(my_ip, host, multipath)``; ``my_ip`` None: that of the default route.

    ``multipath``: shall volumes be connected by several paths, now?
    """

    def __init__(
        self,
        *,
        read: Read,
        my_ip: str | None,
        multipath: Callable[[], bool],
        initiator_name: Path = INITIATOR_NAME,
    ) -> None:
        self._read = read
        self._my_ip = my_ip
        self._multipath = multipath
        self._initiator_name = initiator_name
        self._lock = threading.Lock()
        self._known: tuple[_Fingerprint, Connector] | None = None

    def get(self) -> Connector:
        """The properties. Raises Unreachable iscsi-unavailable where there is no initiator name."""
        my_ip, host = self._my_ip or _default_route_ip(), socket.gethostname()
        multipath = self._multipath()
        with self._lock:
            fingerprint = (my_ip, host, multipath, *self._initiator_stamp())
            if self._known is None or self._known[0] != fingerprint:
                self._known = (fingerprint, self._read_anew(my_ip, host, multipath))
            return dict(self._known[1])

    def warm(self) -> None:
        """Read them where they never were. Raises as ``get`` does.

        Whoever stopped multipathd shall not have it started by anything but an operation.
        """
        if self._known is None:
            self.get()

    def _read_anew(self, my_ip: str, host: str, multipath: bool) -> Connector:
        properties = self._read(my_ip, host, multipath)
        if not properties.get("initiator"):
            raise Unreachable(
                Code.ISCSI_UNAVAILABLE,
                "This host has no iSCSI initiator name.",
                details=f"{self._initiator_name} names none.",
                resolution="Start iscsid once, or write one with iscsi-iname.",
                world=World.HOST,
                touched=False,
            )
        return properties

    def _initiator_stamp(self) -> _Fingerprint:
        """Only root may read the file; anybody sees that it was replaced or written."""
        try:
            status = self._initiator_name.stat()
        except OSError:
            return ()
        return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _default_route_ip() -> str:
    """The address that the default route would use; connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = asking.getsockname()[0]
        return address
