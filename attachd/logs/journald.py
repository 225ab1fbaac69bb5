"""journald's native protocol: an entry with its fields is one datagram.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL describes it. Written here since it is one system call,
as sd_notify is: systemd-python needs a compiler and libsystemd's headers on every host; cysystemd's
wheel brings a libsystemd and a libgcrypt of its own, and its handler journals the arguments of each
call, past whatever masks the message.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import termios
import time
from collections.abc import Iterable
from pathlib import Path

from attachd.logs.subject import current

SOCKET = Path("/run/systemd/journal/socket")
_SECONDS = 5.0
"""A journald that takes nothing for so long loses a line: no operation waits for it."""
_LAST_SECONDS = 1.0
"""How long journald has for the last lines of a process."""
_GLANCE_SECONDS = 0.005
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
_DEBUG = 7

Entry = Iterable[tuple[str, str]]


class JournaldHandler(logging.Handler):
    """Each record is an entry; ``identifier`` is the program's name in it.

    It never raises, and waits a bounded time. How many lines journald didn't take is said when it
    takes one again.
    """

    def __init__(self, *, path: Path = SOCKET, identifier: str = "attachd") -> None:
        super().__init__()
        self._path = path
        self._identifier = identifier
        self._socket: socket.socket | None = None
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held: one at a time."""
        try:
            data = _serialised(self._entry(record))
        except Exception:  # noqa: BLE001 - a bad format string, as logging treats it
            self.handleError(record)
            return
        try:
            self._send(data)
            self._tell_of_the_lost()
        except OSError:
            self._lost += 1

    def flush(self) -> None:
        """Wait a moment until journald has read all of it.

        It looks up who sent an entry when it reads it: the last lines of a process that is gone by
        then belong to no unit.
        """
        deadline = time.monotonic() + _LAST_SECONDS
        while self._socket is not None and _unread(self._socket) and time.monotonic() < deadline:
            time.sleep(_GLANCE_SECONDS)

    def close(self) -> None:
        """Let go of the socket."""
        self.acquire()
        try:
            self._disconnect()
        finally:
            self.release()
        super().close()

    def _entry(self, record: logging.LogRecord) -> Entry:
        return (
            ("MESSAGE", self.format(record)),
            ("PRIORITY", str(_priority(record.levelno))),
            ("SYSLOG_IDENTIFIER", self._identifier),
            # As strings: the privileged helper's records come over a pipe, and may lack some.
            ("LOGGER", str(record.name)),
            ("THREAD_NAME", str(record.threadName)),
            ("CODE_FILE", str(record.pathname)),
            ("CODE_LINE", str(record.lineno)),
            ("CODE_FUNC", str(record.funcName)),
            *((f"ATTACHD_{name.upper()}", value) for name, value in current().items()),
        )

    def _tell_of_the_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            text = f"{lost} lines of the log were lost: journald didn't take them"
            identifier = ("SYSLOG_IDENTIFIER", self._identifier)
            self._send(_serialised((("MESSAGE", text), ("PRIORITY", "4"), identifier)))

    def _send(self, data: bytes) -> None:
        """Once more on a new socket where the old one's other end is gone."""
        try:
            _put(self._connected(), data)
        except TimeoutError:
            raise
        except OSError:
            self._disconnect()
            _put(self._connected(), data)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                sock.settimeout(_SECONDS)
                sock.connect(str(self._path))
            except BaseException:
                sock.close()
                raise
            self._socket = sock
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _put(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError as exc:
        if exc.errno not in _TOO_LARGE:
            raise
        _put_as_file(sock, data)


def _put_as_file(sock: socket.socket, data: bytes) -> None:
    """An entry that no datagram holds goes into memory, which journald is handed, sealed."""
    descriptor = os.memfd_create("attachd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(sock, [b""], [file.fileno()])


def _unread(sock: socket.socket) -> int:
    """Bytes that the other end hasn't read yet."""
    (size,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(size)


def _serialised(entry: Entry) -> bytes:
    """A value of several lines has its length before it instead of an end."""
    parts = []
    for name, value in entry:
        raw = value.encode(errors="backslashreplace")
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)
