"""Who is at the other end of the socket, and may they come in?

The kernel keeps others off the socket by its mode; this asks again, by SO_PEERCRED, in case the
mode was widened by mistake. No credentials, or any doubt, means no.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ROOT = 0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The credentials of the process that connected, as they were when it did."""

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


def peer_of(environ: Mapping[str, Any]) -> Peer | None:
    """The peer that the server found by SO_PEERCRED; None where it found none.

    A header can't pretend to be one: each stands in the environ with HTTP_ before its name.
    """
    try:
        return Peer(
            pid=int(environ["X_REMOTE_PID"]),
            uid=int(environ["X_REMOTE_UID"]),
            gid=int(environ["X_REMOTE_GID"]),
        )
    except (KeyError, ValueError):
        return None


class GroupRule:
    """Lets in root, the daemon's own user, and the members of one group.

    ``gid`` is None where the group doesn't exist on this host: then it has no members.
    """

    def __init__(self, *, gid: int | None) -> None:
        self._gid = gid

    def __call__(self, peer: Peer | None) -> bool:
        """May this peer use the API?"""
        if peer is None:
            return False
        # The daemon's own uid is asked for each time: it drops from root to its user.
        return peer.uid in (_ROOT, os.geteuid()) or self._gid in _groups_of(peer)


def _groups_of(peer: Peer) -> frozenset[int]:
    """The process's own group, and the groups of its user in the user database."""
    try:
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        return frozenset({peer.gid})
    return frozenset(os.getgrouplist(name, peer.gid))
