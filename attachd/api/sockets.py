"""The listening sockets. The API's, a Unix one: from systemd, or bound by the daemon itself.

A socket of our own comes into being with mode 0600 and is opened for the group only then; it lies
in a directory that nobody else may write to. A socket left behind by a dead daemon is replaced, a
living daemon's never.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from attachd.errors import AttachdError, Code

LOG = logging.getLogger(__name__)

_FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_BACKLOG = 128
_LAST_PORT = 65535
_PROBE_SECONDS = 2.0


def group_id(name: str) -> int | None:
    """The gid of a group; None, with a warning, where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        LOG.warning("There is no group %s: only root can use the API.", name)
        return None


def listening_socket(
    path: Path, *, gid: int | None, environ: MutableMapping[str, str] | None = None
) -> socket.socket:
    """systemd's socket where it handed one over, else a new one bound to ``path``.

    To be called while still root, before any thread starts. ``gid`` is the group that may connect;
    None: nobody but the owner. Raises config-invalid.
    """
    return inherited_socket(os.environ if environ is None else environ) or bind(path, gid=gid)


def inherited_socket(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that systemd passed on (sd_listen_fds(3)); None where it passed none.

    The variables are taken out of ``environ``: they are not for our children, and cheroot would
    take the socket for a TCP one and lose the peer's credentials.
    """
    pid, count, _names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()):
        return None
    if count != "1":
        raise _unusable(f"systemd handed over {count or 'no'} sockets instead of one.")
    try:
        # Not socket.fromfd(): the family is asked of the kernel, not believed.
        sock = socket.socket(fileno=_FIRST_FD)
    except OSError as exc:
        raise _unusable(f"systemd's socket can't be used: {exc.strerror}.") from exc
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not _listens(sock):
        sock.close()
        raise _unusable("What systemd handed over is not a listening Unix stream socket.")
    return sock


def bind(path: Path, *, gid: int | None) -> socket.socket:
    """A new listening socket at ``path``: 0660 for the group ``gid``, 0600 without one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _prepare_directory(path.parent, gid=gid)
        _remove_stale(path)
        # Linux gives the new file the mode of the unbound socket: it is never open to others.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
            path.chmod(0o660)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise _unusable(f"{path}: {exc.strerror or exc}.") from exc
    except BaseException:
        sock.close()
        raise
    return sock


def bind_tcp(address: str, *, option: str) -> socket.socket:
    """A new socket that listens at ``address``, ``host:port`` with IPv6 in brackets.

    Raises config-invalid, which names ``option``.
    """
    try:
        family, where = _resolved(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, ValueError) as exc:
        raise _not_listening(address, option, exc) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise _not_listening(address, option, exc) from exc
    return sock


def _resolved(address: str) -> tuple[int, tuple[Any, ...]]:
    """Its family, and where to bind to."""
    host, _, port = address.rpartition(":")
    number = int(port)
    if number > _LAST_PORT:  # the resolver would take the rest of a division
        raise ValueError(f"there is no port {number}")
    host = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def _not_listening(address: str, option: str, exc: Exception) -> AttachdError:
    return AttachdError(
        Code.CONFIG_INVALID,
        f"attachd can't listen at {address}.",
        details=str(getattr(exc, "strerror", None) or exc),
        resolution=f"Set {option} in attachd.conf to a free port of an address of this host, as "
        "127.0.0.1:9776 or [::1]:9776.",
        touched=False,
    )


def _prepare_directory(directory: Path, *, gid: int | None) -> None:
    if not directory.exists():
        directory.mkdir(mode=0o750, parents=True)
        if gid is not None:
            os.chown(directory, -1, gid)
    if directory.stat().st_mode & stat.S_IWOTH:
        raise _unusable(f"Everybody may write to {directory}, and could replace the socket.")


def _remove_stale(path: Path) -> None:
    """Remove a socket at which nobody listens any more."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise _unusable(f"{path} is there already, and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        refused = probe.connect_ex(str(path)) == errno.ECONNREFUSED
    if not refused:
        raise _unusable(f"Another process listens at {path}.")
    path.unlink(missing_ok=True)


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _unusable(details: str) -> AttachdError:
    return AttachdError(
        Code.CONFIG_INVALID,
        "The API's socket can't be used.",
        details=details,
        resolution="Look at [api] socket in attachd.conf, and at attachd.socket of systemd.",
        touched=False,
    )
