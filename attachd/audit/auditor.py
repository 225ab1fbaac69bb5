"""Asks the four worlds, and says where they disagree. It changes nothing.

What an operation is at work on just now is left out: its worlds disagree on the way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from attachd.audit.comparison import CinderSays, GuestSays, compare, unknown_disks
from attachd.audit.findings import Finding, FindingCode, Repair
from attachd.audit.overview import Overview, VolumesTogether, attached, devices_together
from attachd.errors import AttachdError, Code, Refused, Unreachable, World
from attachd.journal.journal import Journal
from attachd.journal.rows import OperationRow
from attachd.model import (
    AttachmentRecord,
    DevicesSeen,
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
        self._volumes = VolumesTogether(cinder=cinder)
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
                journal=self._journal,
                cinder=self._cinder,
                host=self._host,
                guests=self._guests,
                volumes=self._volumes,
                stopping=self._stopping,
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
        *,
        journal: Journal,
        cinder: Cinder,
        host: Host,
        guests: Guests,
        volumes: VolumesTogether,
        stopping: threading.Event,
    ) -> None:
        self._stopping = stopping
        self._journal = journal
        self._cinder = cinder
        self._host = host
        self._guests = guests
        self._volumes = volumes
        self._out_of_reach: dict[World, AttachdError] = {}
        self._everyone: tuple[Guest, ...] = ()
        self._overview = Overview()

    def run(self) -> tuple[Finding, ...]:
        """See :meth:`Auditor.audit`."""
        before = self._journal.live_attachments()
        settled_before, _ = self._settled()
        self._everyone = self.ask(World.GUEST, self._guests.all) or ()
        self._overview = self._look_at_all(settled_before)
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

    def _look_at_all(self, records: tuple[AttachmentRecord, ...]) -> Overview:
        return Overview(
            records={record.record_id: record for record in records},
            volumes=self.ask(
                World.CINDER, lambda: self._volumes.get({r.volume_id for r in records})
            )
            or {},
            devices=self.ask(World.HOST, lambda: devices_together(self._host, records)) or {},
            guests={guest.guest_id: guest for guest in self._everyone},
        )

    def _attachment(self, record: AttachmentRecord) -> tuple[Finding, ...]:
        unseen: list[Finding] = []
        by_itself = _ByItself(self, record, unseen)
        overview = self._overview
        if overview.is_of(record):
            found = self._compared(
                record,
                cinder=overview.cinder(record) or by_itself.cinder,
                host=overview.host(record) or by_itself.host,
                guest=overview.guest(record),
            )
            if not (found or unseen):
                return ()
        found = self._compared(
            record, cinder=by_itself.cinder, host=by_itself.host, guest=by_itself.guest
        )
        # An operation that began meanwhile is what changed the worlds.
        return (*unseen, *found) if (found or unseen) and self._is_still(record) else ()

    def _compared(
        self,
        record: AttachmentRecord,
        *,
        cinder: CinderSays | None,
        host: DevicesSeen | None,
        guest: GuestSays | None,
    ) -> tuple[Finding, ...]:
        return compare(
            record,
            cinder=cinder,
            host=host,
            guest=guest,
            guests=self._everyone,
            attachments=self._journal.live_attachments(),
        )

    def in_guest(self, record: AttachmentRecord) -> GuestSays:
        """The guest of one attachment."""
        return GuestSays(guest=self._guests.get(record.guest_id))

    def in_cinder(self, record: AttachmentRecord) -> CinderSays:
        """The volume and the attachment of one."""
        volume = self._cinder.get_volume(record.volume_id)
        return attached(volume, record) or CinderSays(
            volume=volume, attachment=find_attachment(self._cinder, record)
        )

    def on_host(self, record: AttachmentRecord) -> DevicesSeen:
        """The devices of one."""
        if record.connection is None:
            return DevicesSeen(wwns=())
        return DevicesSeen(
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
        sessions = self.ask(World.HOST, self._host.sessions) or ()
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
        wwns = self.ask(World.HOST, lambda: self.on_host(record).wwns, record, []) or ()
        return wwns != () and record.wwn is not None and record.wwn not in wwns

    def _is_nobodys(self, volume_id: str) -> bool:
        """Does Cinder say that nobody has it? Nova may have it now, on this very host.

        So may Cinder itself, which makes no attachment for a backup or an image.
        """
        listed = self.ask(World.CINDER, lambda: self._cinder.list_attachments(volume_id))
        if listed != ():
            return False
        volume = self.ask(World.CINDER, lambda: self._cinder.get_volume(volume_id))
        return World.CINDER not in self._out_of_reach and is_idle(volume)

    def _busy_volumes(self) -> set[str | None]:
        operations = self._journal.operations(open_only=True)
        return {row.volume_id for row in operations if row.holds_volume}

    def ask(
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


class _ByItself:
    """What each world says of one attachment, asked when it is wanted, and once."""

    def __init__(self, audit: _Audit, record: AttachmentRecord, unseen: list[Finding]) -> None:
        self._audit = audit
        self._record = record
        self._unseen = unseen

    @cached_property
    def cinder(self) -> CinderSays | None:
        return self._ask(World.CINDER, self._audit.in_cinder)

    @cached_property
    def host(self) -> DevicesSeen | None:
        return self._ask(World.HOST, self._audit.on_host)

    @cached_property
    def guest(self) -> GuestSays | None:
        return self._ask(World.GUEST, self._audit.in_guest)

    def _ask(self, world: World, question: Callable[[AttachmentRecord], T]) -> T | None:
        return self._audit.ask(world, lambda: question(self._record), self._record, self._unseen)


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
