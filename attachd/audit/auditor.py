"""Asks the four worlds, and says where they disagree. It changes nothing.

What an operation is at work on just now is left out: its worlds disagree on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TypeVar

from attachd.audit.comparison import CinderSays, GuestSays, HostSays, compare, unknown_disks
from attachd.audit.findings import Finding, FindingCode
from attachd.errors import AttachdError, World
from attachd.journal.journal import Journal
from attachd.journal.rows import OperationRow
from attachd.model import AttachmentRecord, AttachmentState, OperationState, Target
from attachd.operations.ports import Cinder, Guests, Host

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Auditor:
    """Reads everything anew for each audit; thread-safe."""

    def __init__(self, *, journal: Journal, cinder: Cinder, host: Host, guests: Guests) -> None:
        self._journal = journal
        self._cinder = cinder
        self._host = host
        self._guests = guests

    def audit(self) -> tuple[Finding, ...]:
        """Every finding; none: the four worlds agree.

        Raises journal-unavailable; a world that can't be asked is a finding.
        """
        return _Audit(self._journal, self._cinder, self._host, self._guests).run()


class _Audit:
    """One audit: the worlds that didn't answer are noted once, and not asked again."""

    def __init__(self, journal: Journal, cinder: Cinder, host: Host, guests: Guests) -> None:
        self._journal = journal
        self._cinder = cinder
        self._host = host
        self._guests = guests
        self._out_of_reach: dict[tuple[World, AttachmentRecord | None], AttachdError] = {}

    def run(self) -> tuple[Finding, ...]:
        """See :meth:`Auditor.audit`."""
        operations = self._journal.operations(open_only=True)
        records = self._journal.live_attachments()
        busy = {row.volume_id for row in operations}
        settled = [
            record
            for record in records
            if record.state is AttachmentState.ATTACHED and record.volume_id not in busy
        ]
        findings = [finding for record in settled for finding in self._attachment(record)]
        findings += [
            *self._unknown_disks(records, busy),
            *self._sessions_left(records, busy),
            *(
                _needs_attention(row)
                for row in operations
                if row.state is OperationState.NEEDS_ATTENTION
            ),
        ]
        unreachable = [
            _unreachable(world, about, exc) for (world, about), exc in self._out_of_reach.items()
        ]
        return (*unreachable, *findings)

    def _attachment(self, record: AttachmentRecord) -> tuple[Finding, ...]:
        found = compare(
            record,
            cinder=self._ask(World.CINDER, lambda: self._in_cinder(record)),
            host=self._ask(World.HOST, lambda: self._on_host(record), record),
            guest=self._ask(
                World.GUEST, lambda: GuestSays(guest=self._guests.get(record.guest_id))
            ),
        )
        # An operation that began meanwhile is what changed the worlds.
        return found if found and self._is_still(record) else ()

    def _in_cinder(self, record: AttachmentRecord) -> CinderSays:
        attachment_id = record.attachment_id
        return CinderSays(
            volume=self._cinder.get_volume(record.volume_id),
            attachment=self._cinder.get_attachment(attachment_id) if attachment_id else None,
        )

    def _on_host(self, record: AttachmentRecord) -> HostSays:
        if record.connection is None:
            return HostSays(wwns=())
        return HostSays(wwns=self._host.wwns(record.connection))

    def _is_still(self, record: AttachmentRecord) -> bool:
        open_now = self._journal.operations(open_only=True)
        if any(row.volume_id == record.volume_id for row in open_now):
            return False
        return any(
            (r.record_id, r.updated_at) == (record.record_id, record.updated_at)
            for r in self._journal.live_attachments()
        )

    def _unknown_disks(
        self, records: Collection[AttachmentRecord], busy: Collection[str | None]
    ) -> list[Finding]:
        guests = self._ask(World.GUEST, self._guests.all)
        found = unknown_disks(guests or (), records)
        return [finding for finding in found if finding.volume_id not in busy]

    def _sessions_left(
        self, records: Collection[AttachmentRecord], busy: Collection[str | None]
    ) -> list[Finding]:
        """Of volumes that attachd detached: anybody else's sessions are none of its business."""
        theirs = [r for r in records if r.connection is not None]
        strangers = [
            session
            for session in self._ask(World.HOST, self._host.sessions) or ()
            if not any(session.leads_to(t) for r in theirs for t in _targets(r))
        ]
        if not strangers:
            return []
        left = {
            record.volume_id: record
            for record in self._journal.detached_attachments()
            if record.volume_id not in busy
            and any(session.leads_to(t) for session in strangers for t in _targets(record))
        }
        return [_session_left(record) for record in left.values()]

    def _ask(
        self, world: World, question: Callable[[], T], about: AttachmentRecord | None = None
    ) -> T | None:
        """None: it couldn't be asked. A world is given up at once, the host's devices singly."""
        if (world, None) in self._out_of_reach:
            return None
        try:
            return question()
        except AttachdError as exc:
            LOG.info("The audit can't look at %s: %s", world, exc)
            subject = about if world is World.HOST else None
            self._out_of_reach[world, subject] = exc
            return None


def _targets(record: AttachmentRecord) -> tuple[Target, ...]:
    return record.connection.targets if record.connection is not None else ()


def _unreachable(world: World, about: AttachmentRecord | None, exc: AttachdError) -> Finding:
    return Finding(
        code=FindingCode.WORLD_UNREACHABLE,
        brief=f"{exc.problem.brief} What is there isn't known.",
        says={world: str(exc.code)},
        resolution=exc.problem.resolution,
        attachment_id=about.attachment_id if about else None,
        volume_id=about.volume_id if about else None,
        guest_id=about.guest_id if about else None,
        guest_name=about.guest_name if about else None,
    )


def _needs_attention(row: OperationRow) -> Finding:
    problem = row.problem
    return Finding(
        code=FindingCode.OPERATION_NEEDS_ATTENTION,
        brief=f"The {row.request.kind} stopped with {problem}" if problem else "It stopped.",
        says={World.JOURNAL: str(row.state)},
        resolution=problem.resolution if problem else "",
        volume_id=row.volume_id,
        guest_id=row.guest_id,
        guest_name=row.guest_name,
        operation_id=row.operation_id,
    )


def _session_left(record: AttachmentRecord) -> Finding:
    names = ", ".join(f"{target.iqn} at {target.portal}" for target in _targets(record))
    return Finding(
        code=FindingCode.SESSION_LEFT,
        brief=f"The host is connected to a volume that was detached: {names}.",
        says={World.JOURNAL: str(record.state), World.HOST: "connected"},
        resolution="See what holds it: lsblk, iscsiadm -m session -P 3. Then log out.",
        attachment_id=record.attachment_id,
        volume_id=record.volume_id,
        guest_id=record.guest_id,
        guest_name=record.guest_name,
        operation_id=record.operation_id,
    )
