"""Asks the four worlds, and says where they disagree. It changes nothing.

What an operation is at work on just now is left out: its worlds disagree on the way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from attachd.audit.comparison import CinderSays, GuestSays, HostSays, compare, unknown_disks
from attachd.audit.findings import Finding, FindingCode, Repair
from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.journal.journal import Journal
from attachd.journal.rows import OperationRow
from attachd.model import (
    AttachmentRecord,
    CinderAttachment,
    Guest,
    HostSession,
    OperationState,
    Target,
)
from attachd.operations.disconnect import is_idle
from attachd.operations.flows import find_attachment
from attachd.operations.ports import Cinder, Guests, Host

LOG = logging.getLogger(__name__)

T = TypeVar("T")


TURN_SECONDS = 60.0
"""How long one audit waits for another."""


class Auditor:
    """Reads everything anew for each audit; one at a time, whoever asks."""

    def __init__(self, *, journal: Journal, cinder: Cinder, host: Host, guests: Guests) -> None:
        self._journal = journal
        self._cinder = cinder
        self._host = host
        self._guests = guests
        self._turn = threading.Lock()
        self._stopping = threading.Event()

    def audit(self) -> tuple[Finding, ...]:
        """Every finding; none: the four worlds agree.

        A world that can't be asked is a finding. Raises journal-unavailable, shutting-down, and
        deadline-exceeded where another audit takes too long.
        """
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise Refused(
                Code.DEADLINE_EXCEEDED,
                f"Another audit is still under way after {TURN_SECONDS:g} s.",
                resolution="Ask again. attachd's log says which world doesn't answer.",
            )
        try:
            return _Audit(
                self._journal, self._cinder, self._host, self._guests, self._stopping
            ).run()
        finally:
            self._turn.release()

    def stop(self) -> None:
        """Ask nothing more: an audit under way ends in shutting-down behind its next answer."""
        self._stopping.set()


class _Audit:
    """One audit: the worlds that didn't answer are noted once, and not asked again."""

    def __init__(
        self,
        journal: Journal,
        cinder: Cinder,
        host: Host,
        guests: Guests,
        stopping: threading.Event,
    ) -> None:
        self._stopping = stopping
        self._journal = journal
        self._cinder = cinder
        self._host = host
        self._guests = guests
        self._out_of_reach: dict[World, AttachdError] = {}
        self._everyone: tuple[Guest, ...] = ()
        self._by_id: Mapping[str, Guest] = {}
        self._settled_before: Mapping[str, AttachmentRecord] = {}

    def run(self) -> tuple[Finding, ...]:
        """See :meth:`Auditor.audit`."""
        before = self._journal.live_attachments()
        settled_before, _ = self._settled()
        self._everyone = self._ask(World.GUEST, self._guests.all) or ()
        self._settled_before = {record.record_id: record for record in settled_before}
        self._by_id = {guest.guest_id: guest for guest in self._everyone}
        settled, operations = self._settled()
        extends = {row.volume_id for row in operations if not row.holds_volume}
        findings = [
            *(
                finding
                for record in settled
                for finding in self._attachment(record)
                # That the guest wasn't told is what the extend says that needs attention.
                if finding.code is not FindingCode.SIZE_DIFFERS or record.volume_id not in extends
            ),
            *self._unknown_disks(before),
            *self._sessions_left(),
            *(
                _needs_attention(row)
                for row in operations
                if row.state is OperationState.NEEDS_ATTENTION
            ),
        ]
        unreachable = [_unreachable(world, None, exc) for world, exc in self._out_of_reach.items()]
        return (*unreachable, *findings)

    def _settled(self) -> tuple[tuple[AttachmentRecord, ...], tuple[OperationRow, ...]]:
        """What no operation is at work on, and the open operations.

        The attachments are read first: an operation that begins behind that is seen, or stamps its
        record anew.
        """
        records = self._journal.live_attachments()
        operations = self._journal.operations(open_only=True)
        settled = (record for record in records if not _is_kept_off(record, operations))
        return tuple(settled), operations

    def _attachment(self, record: AttachmentRecord) -> tuple[Finding, ...]:
        unseen: list[Finding] = []
        cinder = self._ask(World.CINDER, lambda: self._in_cinder(record), record, unseen)
        host = self._ask(World.HOST, lambda: self._on_host(record), record, unseen)

        def compared(guest: GuestSays | None) -> tuple[Finding, ...]:
            return (
                *unseen,
                *compare(
                    record,
                    cinder=cinder,
                    host=host,
                    guest=guest,
                    guests=self._everyone,
                    attachments=self._journal.live_attachments(),
                ),
            )

        # All guests were asked at once before; where that differs one is asked again by itself.
        settled = self._settled_before.get(record.record_id) == record
        if settled and not compared(GuestSays(guest=self._by_id.get(record.guest_id))):
            return ()
        found = compared(self._ask(World.GUEST, lambda: self._in_guest(record), record, unseen))
        # An operation that began meanwhile is what changed the worlds.
        return found if found and self._is_still(record) else ()

    def _in_guest(self, record: AttachmentRecord) -> GuestSays:
        return GuestSays(guest=self._guests.get(record.guest_id))

    def _in_cinder(self, record: AttachmentRecord) -> CinderSays:
        volume = self._cinder.get_volume(record.volume_id)
        shown = volume is not None and record.attachment_id in volume.attachment_ids
        return CinderSays(
            volume=volume,
            # Cinder shows there what is attached: nothing else need be asked where all is well.
            attachment=_attached(record) if shown else find_attachment(self._cinder, record),
        )

    def _on_host(self, record: AttachmentRecord) -> HostSays:
        if record.connection is None:
            return HostSays(wwns=())
        return HostSays(
            wwns=self._host.wwns(record.connection), sizes=self._host.sizes(record.connection)
        )

    def _is_still(self, record: AttachmentRecord) -> bool:
        open_now = self._journal.operations(open_only=True)
        if _is_kept_off(record, open_now):
            return False
        return any(
            (r.record_id, r.updated_at) == (record.record_id, record.updated_at)
            for r in self._journal.live_attachments()
        )

    def _unknown_disks(self, before: tuple[AttachmentRecord, ...]) -> list[Finding]:
        """``before``: what was attached when libvirt was asked for everyone."""
        # What came or went while libvirt was asked is known, too.
        live = self._journal.live_attachments()
        # What was released is another's, whatever its disk is called.
        known = (*before, *live, *self._journal.released_attachments())
        busy = self._busy_volumes()
        found = unknown_disks(self._everyone, known)
        return [each for each in found if each.volume_id not in busy]

    def _sessions_left(self) -> list[Finding]:
        """Of volumes that attachd detached: anybody else's sessions are none of its business."""
        before = self._journal.live_attachments()
        sessions = self._ask(World.HOST, self._host.sessions) or ()
        known = [t for r in (*before, *self._journal.live_attachments()) for t in _targets(r)]
        strangers = list(filter(None, (_strange(session, known) for session in sessions)))
        if not strangers:
            return []
        busy = self._busy_volumes()
        left = {
            record.volume_id: record
            for record in self._journal.detached_attachments()
            if record.volume_id not in busy
            and any(_is_left(session, record) for session in strangers)
        }
        return [
            _session_left(record)
            for record in left.values()
            if self._is_nobodys(record.volume_id) and not self._is_anothers(record)
        ]

    def _is_anothers(self, record: AttachmentRecord) -> bool:
        """Is it another volume's device that is behind the LUN's number by now?"""
        wwns = self._ask(World.HOST, lambda: self._on_host(record).wwns, record, []) or ()
        return wwns != () and record.wwn is not None and record.wwn not in wwns

    def _is_nobodys(self, volume_id: str) -> bool:
        """Does Cinder say that nobody has it? Nova may have it now, on this very host.

        So may Cinder itself, which makes no attachment for a backup or an image.
        """
        listed = self._ask(World.CINDER, lambda: self._cinder.list_attachments(volume_id))
        if listed != ():
            return False
        volume = self._ask(World.CINDER, lambda: self._cinder.get_volume(volume_id))
        return World.CINDER not in self._out_of_reach and is_idle(volume)

    def _busy_volumes(self) -> set[str | None]:
        operations = self._journal.operations(open_only=True)
        return {row.volume_id for row in operations if row.holds_volume}

    def _ask(
        self,
        world: World,
        question: Callable[[], T],
        about: AttachmentRecord | None = None,
        unseen: list[Finding] | None = None,
    ) -> T | None:
        """None: it couldn't be asked.

        A world that doesn't answer is given up. One device that doesn't, or one answer that can't
        be used, is a finding about its attachment.
        """
        if self._stopping.is_set():
            raise Refused(Code.SHUTTING_DOWN, "attachd is stopping.")
        if world in self._out_of_reach:
            return None
        try:
            return question()
        except AttachdError as exc:
            LOG.info("The audit can't look at %s: %s", world, exc)
            single = world is World.HOST or not isinstance(exc, Unreachable)
            if single and about is not None and unseen is not None:
                unseen.append(_unreachable(world, about, exc))
            else:
                self._out_of_reach[world] = exc
            return None


def _attached(record: AttachmentRecord) -> CinderAttachment:
    return CinderAttachment(
        attachment_id=record.attachment_id or "",
        volume_id=record.volume_id,
        instance_id=record.instance_id,
        status="attached",
    )


def _strange(session: HostSession, known: Iterable[Target]) -> HostSession | None:
    """What a session has beside the known LUNs; None: nothing."""
    own = {target.lun for target in known if session.leads_to(target)}
    left = session.luns - own
    return replace(session, luns=left) if left or not own else None


def _is_left(session: HostSession, record: AttachmentRecord) -> bool:
    """On a shared target a session without a device may be anybody's, for a moment."""
    if not session.luns and record.shared_targets is not False:
        return False
    return any(session.leads_to(target) for target in _targets(record))


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


def _is_kept_off(record: AttachmentRecord, operations: Iterable[OperationRow]) -> bool:
    """Is an operation at work on it, or left in the midst of it?"""
    return any(
        row.volume_id == record.volume_id
        and row.keeps_off(record.guest_id, shareable=record.shareable)
        for row in operations
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
        repair=Repair.RESUME,
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
        repair=Repair.DISCONNECT if record.wwn is not None else None,
    )
