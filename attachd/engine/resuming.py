"""What goes on by itself: what waits for a world, guests that let go late, transient ones' end.

One thread looks now and then, and at once when libvirt tells news. It only decides that something
may go on; whether it still is open is read again where it is begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Set

from attachd.engine.patience import Patience
from attachd.errors import AttachdError, Code
from attachd.journal.journal import Journal
from attachd.journal.rows import OperationRow
from attachd.logs.subject import about, of_attachment
from attachd.model import AttachmentRecord, AttachmentState
from attachd.operations import proofs
from attachd.operations.ports import Guests
from attachd.periodic import Periodic

LOG = logging.getLogger(__name__)


class Resumer:
    """``launch`` drives an operation that is open, ``go_on`` one that still goes on by itself.

    ``detach`` and ``clean_up`` begin a new one.

    ``interval``: seconds between two looks.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        guests: Guests,
        launch: Callable[[str], None],
        go_on: Callable[[str], None],
        detach: Callable[[AttachmentRecord], object],
        clean_up: Callable[[AttachmentRecord], object],
        interval: float,
    ) -> None:
        self._journal = journal
        self._guests = guests
        self._launch = launch
        self._go_on = go_on
        self._detach = detach
        self._clean_up = clean_up
        self._patience = Patience(first=interval)
        self._periodic = Periodic(
            name="resumer",
            interval=interval,
            look=self._look,
            failing="What waits can't be resumed now",
        )

    def start(self) -> None:
        """Begin to look, and to listen to libvirt."""
        self._guests.on_disk_removed(lambda _guest_id, _alias: self._periodic.wake())
        self._guests.on_stopped(lambda _guest_id: self._periodic.wake())
        self._guests.on_reachable(self._try_at_once)
        self._periodic.start()

    def stop(self, timeout: float) -> bool:
        """Look no more; False where a look is still under way after ``timeout`` seconds."""
        return self._periodic.stop(timeout)

    def _try_at_once(self) -> None:
        self._patience.forget()
        self._periodic.wake()

    def _look(self) -> None:
        """What waits for a world is tried again: it looks first, and rests again if it can't."""
        rows = self._journal.operations(open_only=True)
        for row in rows:
            if row.goes_on_by_itself and self._patience.is_over(row.operation_id):
                self._go_on(row.operation_id)
        for row in rows:
            if self._was_let_go_late(row):
                self._launch(row.operation_id)
        busy = {row.volume_id for row in rows if row.holds_volume}
        self._finish_late_unplugs(busy=busy)
        self._clean_up_behind_transient_guests(busy=busy)

    def _was_let_go_late(self, row: OperationRow) -> bool:
        """Did it stop at a guest that kept its disk then, and doesn't now?"""
        if row.record_id is None or row.problem is None:
            return False
        stuck = row.problem.code is Code.UNPLUG_TIMEOUT
        return stuck and self._let_go(self._journal.record(row.record_id))

    def _finish_late_unplugs(self, *, busy: Set[str | None]) -> None:
        """A guest that let go after the roll-back: its detach goes forward again.

        An unplug that QEMU was asked for can't be withdrawn. The guest is looked at, too, and not
        only waited for: its event may have come while nobody listened.
        """
        for record in self._journal.live_attachments():
            if not record.unplug_pending or record.volume_id in busy:
                continue
            if self._let_go(record) and self._patience.is_over(record.record_id):
                with about(**of_attachment(record)):
                    LOG.info("Guest %s let go of %s late", record.guest_name, record.volume_id)
                self._detach(record)

    def _clean_up_behind_transient_guests(self, *, busy: Set[str | None]) -> None:
        """A guest without a persistent XML took its disks with it when it ended."""
        for record in self._journal.live_attachments():
            if record.persistent or record.state is not AttachmentState.ATTACHED:
                continue
            if record.volume_id in busy or record.unplug_pending:
                continue
            if self._let_go(record) and self._patience.is_over(record.record_id):
                with about(**of_attachment(record)):
                    LOG.info(
                        "Transient guest %s ended with %s", record.guest_name, record.volume_id
                    )
                self._clean_up(record)

    def _let_go(self, record: AttachmentRecord) -> bool:
        """Libvirt's own answer; where it gives none, the disk counts as held."""
        try:
            guest = self._guests.get(record.guest_id)
        except AttachdError as exc:
            LOG.debug("Guest %s can't be looked at now: %s", record.guest_name, exc)
            return False
        return guest is None or not proofs.guest_holds(guest, record)
