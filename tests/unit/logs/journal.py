"""journald's end of its socket: it reads the native protocol as its documentation has it."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path
from types import TracebackType

Entry = dict[str, list[str]]

_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ROOM = 1 << 20


class FakeJournald:
    """Listens at ``path`` inside of a ``with``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = 0
        """How many entries came as a file."""

    def __enter__(self) -> FakeJournald:
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """journald ends; its socket's file stays."""
        self._socket.close()

    def entries(self) -> list[Entry]:
        """Each that came since; a name may have several values."""
        found = []
        while (data := self._next()) is not None:
            found.append(parsed(data))
        return found

    def entry(self) -> Entry:
        """The only one that came."""
        (found,) = self.entries()
        return found

    def _next(self) -> bytes | None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _ROOM, 1)
        except TimeoutError:
            return None
        if not descriptors:
            return data
        assert data == b"", "a datagram has a payload or a file, never both"
        (descriptor,) = descriptors
        with os.fdopen(descriptor, "rb") as file:
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) == _SEALED
            self.files += 1
            file.seek(0)
            return file.read()


def parsed(data: bytes) -> Entry:
    """The fields of an entry."""
    entry: Entry = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            (length,) = struct.unpack("<Q", rest[:8])
            value, end, data = (
                rest[8 : 8 + length],
                rest[8 + length : 9 + length],
                rest[9 + length :],
            )
            assert end == b"\n"
        assert name.decode().isupper(), name
        entry.setdefault(name.decode(), []).append(value.decode())
    return entry
