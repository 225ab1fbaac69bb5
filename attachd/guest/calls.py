"""Calls into libvirt that can't be cancelled, and what their failures mean.

libvirt's keepalive ends the calls of a daemon that hangs as a whole. It doesn't help where the
daemon lives and one call hangs (a QEMU that no longer answers its monitor). So every call runs in
a thread of its own and is waited for no longer than its deadline; no lock is held meanwhile, so
that one hung call blocks nobody else. A call that was given up may still take effect: whoever
changes that guest next waits for it first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import libvirt

T = TypeVar("T")

# The client's own half of the RPC, and a proxy daemon's: nobody behind it answered.
_TRANSPORT_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE})


def in_thread(call: Callable[[], T], *, name: str) -> Future[T]:
    """Start ``call`` in a daemon thread of its own, so that it never holds up the process's end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as exc:  # noqa: BLE001 - it is handed on, whatever it is
            future.set_exception(exc)

    threading.Thread(target=run, name=f"libvirt-{name}", daemon=True).start()
    return future


def is_transport_failure(connection: libvirt.virConnect, exc: libvirt.libvirtError) -> bool:
    """Did the daemon not answer at all, rather than answer with an error?"""
    return exc.get_error_domain() in _TRANSPORT_DOMAINS or not is_alive(connection)


def is_alive(connection: libvirt.virConnect) -> bool:
    """Is the connection's transport still there? A local question; the daemon isn't asked."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
