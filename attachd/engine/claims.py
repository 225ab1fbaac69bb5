"""A guest and a volume for one operation alone (law 5).

First the durable mark on the volume, atomically: it keeps every other operation off even while no
lock is held. What attachd does by itself is waited for: who asks for an attach or a detach knows
nothing of it; and so is what goes on with a shareable volume and another guest. Then the guest's
lock, waited for; then the volume's, which nobody of ours can hold without the mark. Each is a lock
between threads and a file lock between processes.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from oslo_concurrency import lockutils

from attachd.errors import Code, Refused
from attachd.journal.database import translated
from attachd.journal.journal import Journal
from attachd.journal.rows import OperationRow
from attachd.operations.steps import GuestName, VolumeName

LOG = logging.getLogger(__name__)

_PAUSE = 0.1


class Claims:
    """Takes claims. ``timeout``: seconds that one waits for its guest's turn."""

    def __init__(self, *, journal: Journal, lock_path: Path, timeout: float) -> None:
        self._journal = journal
        self._lock_path = lock_path
        self._timeout = timeout
        self._semaphores = lockutils.Semaphores()

    def take(
        self,
        operation_id: str,
        guest: GuestName,
        volume: VolumeName,
        held: ExitStack,
        *,
        volume_only: bool = False,
    ) -> bool:
        """Take both, or the volume only, until ``held`` closes. True where it had to wait.

        Raises Refused volume-busy (another open operation holds the volume) or guest-busy (the
        guest's turn didn't come in time).
        """
        waited = self._mark(operation_id, guest, volume, patient=not volume_only)
        if not volume_only:
            free = self._lock(f"guest-{guest.guest_id}", 0, held)
            if not free and not self._lock(f"guest-{guest.guest_id}", self._timeout, held):
                raise _guest_busy(guest, self._timeout)
            waited = waited or not free
        if not self._lock(f"volume-{volume.volume_id}", 0, held):
            raise _volume_busy(volume, None)
        return waited

    def _mark(
        self, operation_id: str, guest: GuestName, volume: VolumeName, *, patient: bool
    ) -> bool:
        """Set the durable mark; True where something had to end first.

        ``patient``: an operation of another guest on a shareable volume is waited for, too. Who
        libvirt's hook waits for must not: that operation may wait for libvirt.
        """
        waited = False
        deadline = time.monotonic() + self._timeout
        while holder := self._journal.claim(
            operation_id,
            guest_id=guest.guest_id,
            guest_name=guest.name,
            volume_id=volume.volume_id,
            volume_name=volume.name,
            shareable=volume.shareable,
        ):
            beside = patient and volume.shareable and holder.guest_id != guest.guest_id
            passing = holder.request.kind.without_libvirt or beside
            if holder.state.resting or not passing or time.monotonic() > deadline:
                raise _volume_busy(volume, holder)
            waited = True
            time.sleep(_PAUSE)
        return waited

    def _lock(self, name: str, timeout: float, held: ExitStack) -> bool:
        """Lock between threads, then between processes; False where time ran out.

        Raises journal-full, journal-unavailable where the lock's file can't be made.
        """
        deadline = time.monotonic() + timeout
        semaphore = self._semaphores.get(name)
        if not semaphore.acquire(timeout=timeout):
            return False
        with ExitStack() as taken:
            taken.callback(semaphore.release)
            left = max(0.0, deadline - time.monotonic())
            with translated("make a lock file"):
                lock = lockutils.external_lock(name, lock_path=str(self._lock_path))
                if not lock.acquire(blocking=left > 0, timeout=left or None):
                    return False
            taken.callback(lock.release)
            held.push(taken.pop_all())
        return True


def _volume_busy(volume: VolumeName, holder: OperationRow | None) -> Refused:
    name = volume.name or volume.volume_id
    if holder is None:
        return Refused(
            Code.VOLUME_BUSY,
            f"Another process works on volume {name}.",
            resolution="Try again when it is done.",
        )
    return Refused(
        Code.VOLUME_BUSY,
        f"Volume {name} is held by another operation that is {holder.state}.",
        details=f"operation {holder.operation_id} ({holder.request.kind})",
        resolution=f"See it: attachctl operation show {holder.operation_id}",
    )


def _guest_busy(guest: GuestName, timeout: float) -> Refused:
    return Refused(
        Code.GUEST_BUSY,
        f"Guest {guest.name} was busy with other operations for {timeout:.0f} s.",
        resolution="See them: attachctl operation list --open",
    )
