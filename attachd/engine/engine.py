"""The engine's facade: requests in, views out; and the threads that drive the operations."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version

from attachd.engine.claims import Claims
from attachd.engine.kill_points import Reached
from attachd.engine.observers import Observer, Observers, OperationRun
from attachd.engine.progress import Progress
from attachd.engine.reporting import event_view, operation_view
from attachd.engine.resuming import Resumer
from attachd.engine.runner import Rest, Runner
from attachd.engine.turns import Turns
from attachd.engine.views import Event, OperationView
from attachd.errors import AttachdError, Code, Problem, Refused, World
from attachd.journal.journal import Journal
from attachd.journal.live import place
from attachd.journal.rows import OperationRow
from attachd.logs.subject import about, note
from attachd.model import (
    AttachmentRecord,
    AttachmentState,
    Connector,
    Guest,
    OperationKind,
    OperationState,
    Request,
    Volume,
)
from attachd.operations.adopt import Adopt
from attachd.operations.attach import Attach
from attachd.operations.clean_up import CleanUp
from attachd.operations.detach import Detach
from attachd.operations.disconnect import Disconnect
from attachd.operations.extend import Extend
from attachd.operations.fence import Fence
from attachd.operations.operation import Given, Operation
from attachd.operations.ports import Cinder, Guests, Host, Worlds
from attachd.operations.reconnect import Reconnect
from attachd.operations.release import Release
from attachd.operations.restore import Restore
from attachd.operations.steps import GuestName, VolumeName
from attachd.trace import Call, collecting, now

LOG = logging.getLogger(__name__)

_SHORTLY = 0.1  # seconds

_THE_JOURNALS_OWN = frozenset({Code.JOURNAL_UNAVAILABLE, Code.JOURNAL_FULL})


class Engine:
    """Runs operations, each in a thread of its own, ``workers`` of them beyond their prechecks.

    A thread waits for its guest's turn, and an attach for its backend's, before it takes one of the
    workers' places, so that one busy guest or backend never holds up the others.
    ``resume_interval``: see :class:`Resumer`; ``reached``: see :class:`Runner`.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        claims: Claims,
        cinder: Cinder,
        host: Host,
        guests: Guests,
        workers: int,
        turns: Turns,
        resume_interval: float,
        reached: Reached,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._journal = journal
        self._claims = claims
        self._cinder = cinder
        self._host = host
        self._guests = guests
        self._reached = reached
        self._observers = Observers(observers)
        self._places = threading.BoundedSemaphore(workers)
        self._progress = Progress()
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self._turns = turns
        self._resumer = Resumer(
            journal=journal,
            guests=guests,
            launch=self._launch,
            go_on=partial(self._launch, unasked=True),
            detach=partial(self._submit_about, OperationKind.DETACH),
            clean_up=partial(self._submit_about, OperationKind.CLEAN_UP),
            interval=resume_interval,
        )

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring every open operation to its end, now and whenever a world comes back."""
        for row in self._journal.operations(open_only=True):
            self._launch(row.operation_id)
        self._resumer.start()

    def stop(self, timeout: float) -> bool:
        """Accept nothing more and wait ``timeout`` seconds for what is under way.

        True where all of it rests; what doesn't is journalled, and goes on at the next start.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout
        resumer_rests = self._resumer.stop(timeout)
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return resumer_rests and not any(thread.is_alive() for thread in threads)

    # --- requests ---------------------------------------------------------------------------

    def submit(self, request: Request) -> OperationView:
        """Journal a request and begin it. The same request id again gets the first one's view.

        Raises shutting-down, journal-full, request-id-reused.
        """
        self._refuse_while_stopping()
        row = self._journal.accept(str(uuid.uuid4()), request)
        if row.state is OperationState.ACCEPTED:  # no repetition of a request that rests
            self._launch(row.operation_id)
        return self.operation(row.operation_id)

    def submit_own(self, kind: OperationKind, *, guest_id: str, volume_id: str) -> OperationView:
        """Begin what attachd does by itself about an attachment. Raises as ``submit`` does."""
        return self.submit(
            Request(
                kind=kind,
                guest=guest_id,
                volume=volume_id,
                request_id=f"{kind}-{uuid.uuid4()}",
            )
        )

    def resume(self, operation_id: str) -> OperationView:
        """Go on now with an operation that needs attention; any other is shown as it is.

        Raises operation-not-found, shutting-down.
        """
        self._refuse_while_stopping()
        self._journal.accept_again(operation_id)
        self._launch(operation_id)
        return self.operation(operation_id)

    def reconnect(self, guest: str) -> tuple[OperationView, ...]:
        """Bring back the devices of what is attached to a guest (name or id), before it starts.

        One that needs attention is taken away instead, whoever brought it (open-iscsi restores
        sessions at boot): the guest must not start with it. Where the host has nothing of it, as
        behind a detach that waits for Cinder, there is nothing to take. libvirt isn't asked.
        Raises shutting-down, journal-full.
        """
        return tuple(
            self._submit_about(
                OperationKind.RECONNECT
                if record.state is AttachmentState.ATTACHED
                else OperationKind.DISCONNECT,
                record,
            )
            for record in self._settled_attachments(guest)
            if record.state is AttachmentState.ATTACHED or self._may_be_here(record)
        )

    def _may_be_here(self, record: AttachmentRecord) -> bool:
        """Is there a session with its LUN, or a device of it? Also where that can't be seen."""
        if record.connection is None:
            return False  # nobody was ever told where it is
        try:
            return self._host.present(record.connection)
        except AttachdError:
            return True

    def disconnect(self, guest: str) -> tuple[OperationView, ...]:
        """Take the devices of a guest (name or id) that has ended off the host; see reconnect."""
        return tuple(
            self._submit_about(OperationKind.DISCONNECT, record)
            for record in self._settled_attachments(guest)
        )

    def _settled_attachments(self, guest: str) -> tuple[AttachmentRecord, ...]:
        """Of a guest, those that no attach or detach is at work on."""
        return tuple(
            record
            for record in self._journal.live_attachments()
            if guest in (record.guest_id, record.guest_name)
            and record.state in (AttachmentState.ATTACHED, AttachmentState.NEEDS_ATTENTION)
        )

    def _submit_about(self, kind: OperationKind, record: AttachmentRecord) -> OperationView:
        return self.submit_own(kind, guest_id=record.guest_id, volume_id=record.volume_id)

    def _refuse_while_stopping(self) -> None:
        if self._stopping.is_set():
            raise Refused(
                Code.SHUTTING_DOWN,
                "attachd is stopping.",
                resolution="Ask again when it has started.",
            )

    # --- views ------------------------------------------------------------------------------

    def operation(self, operation_id: str) -> OperationView:
        """One operation. Raises operation-not-found."""
        return operation_view(*self._journal.snapshot(operation_id, exchanges=True))

    def operations(
        self, *, open_only: bool, limit: int | None = None, before: str | None = None
    ) -> tuple[OperationView, ...]:
        """Operations, the newest first, without what was said to Cinder.

        At most ``limit``, and only those accepted before the operation ``before``. Raises
        operation-not-found.
        """
        rows = self._journal.operations(open_only=open_only, limit=limit, before=before)
        snapshots = (self._journal.snapshot(row.operation_id, exchanges=False) for row in rows)
        return tuple(operation_view(*each) for each in snapshots)

    def accepted(self, request_id: str) -> bool:
        """Was a request with this id accepted before?"""
        return self._journal.operation_of_request(request_id) is not None

    def attachments(
        self, *, guest: str | None, limit: int | None = None, after: str | None = None
    ) -> tuple[AttachmentRecord, ...]:
        """Live attachments, of one guest (name or id) or of all, by guest and device.

        At most ``limit``, and only those behind the attachment ``after``, by its id, which may be
        detached by now. Raises attachment-not-found; guest-not-found where neither the journal nor
        libvirt knows the guest, and libvirt-unavailable where the journal doesn't and libvirt can't
        be asked.
        """
        records = self._attachments_of(guest)
        if after is not None:
            last = place(self._journal.attachment(after))
            records = tuple(record for record in records if place(record) > last)
        return records[:limit]

    def _attachments_of(self, guest: str | None) -> tuple[AttachmentRecord, ...]:
        records = self._journal.live_attachments()
        if guest is None:
            return records
        if own := tuple(r for r in records if guest in (r.guest_id, r.guest_name)):
            return own
        guest_id = self._guests.find(guest).guest_id  # renamed, or its id written differently
        return tuple(r for r in records if r.guest_id == guest_id)

    def attachment(self, attachment_id: str) -> AttachmentRecord:
        """One attachment, by Cinder's id or attachd's own. Raises attachment-not-found."""
        return self._journal.attachment(attachment_id)

    def wait(self, operation_id: str, *, after: int, timeout: float) -> tuple[Event, ...]:
        """News of an operation behind number ``after``.

        Waits ``timeout`` seconds at most for some, no longer than until the operation rests. What
        comes shortly behind the first is waited for, too: a step's end and the next one's beginning
        are told at once, and who follows costs the operation half as much.
        """

        def ready() -> bool:
            resting = self._journal.operation(operation_id).state.resting
            return resting or bool(self._journal.events(operation_id, after=after))

        with self._progress.following(operation_id) as news:
            deadline = time.monotonic() + timeout
            if news.wait_until(ready, timeout):
                left = min(_SHORTLY, deadline - time.monotonic())
                news.wait_until(lambda: operation_id not in self._threads, left)
        return tuple(event_view(row) for row in self._journal.events(operation_id, after=after))

    def list_guests(self) -> tuple[Guest, ...]:
        """libvirt's guests, by name. Raises libvirt-unavailable."""
        return tuple(sorted(self._guests.all(), key=lambda guest: guest.name))

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        """Cinder's volumes in a status, the newest first. Raises cinder-unavailable."""
        return self._cinder.list_volumes(status=status, limit=limit)

    def connector(self) -> Connector:
        """What Cinder is told of this host. Raises iscsi-unavailable."""
        return self._host.connector()

    def health(self) -> Mapping[str, object]:
        """How the daemon is."""
        states = [row.state for row in self._journal.operations(open_only=True)]
        attention = states.count(OperationState.NEEDS_ATTENTION)
        return {
            "status": "stopping" if self._stopping.is_set() else "ok",
            "version": version("attachd"),
            "operations_open": len(states),
            "operations_needing_attention": attention,
        }

    def is_idle(self) -> bool:
        """Is no operation driven just now?"""
        with self._lock:
            return not self._threads

    # --- workers ----------------------------------------------------------------------------

    def _launch(self, operation_id: str, *, unasked: bool = False) -> None:
        """Drive an operation in a thread, unless one does already or it rests for good.

        ``unasked``: unless it rests until somebody asks, too. Whether it does is read under the
        lock: who launches it may have looked before it came to its rest.
        """
        with self._lock:
            if operation_id in self._threads or self._stopping.is_set():
                return
            row = self._journal.operation(operation_id)
            if not (row.goes_on_by_itself if unasked else row.state.open):
                return
            thread = threading.Thread(
                target=self._drive, args=(row,), name=f"operation-{operation_id}", daemon=True
            )
            thread.start()
            self._threads[operation_id] = thread

    def _drive(self, row: OperationRow) -> None:
        try:
            with about(**_subject(row)):
                state = self._bring_to_rest(row)
                if state is not None:
                    self._observers.rested(_run_of(row, state))
        finally:
            with self._lock:
                self._forget_thread(row.operation_id)
            self._progress.news(row.operation_id)

    def _bring_to_rest(self, row: OperationRow) -> OperationState | None:
        """The state in which it rests; None: it goes on at the next start."""
        try:
            with collecting() as calls:
                rest = self._run(row, calls)
            with self._lock:  # who resumes it finds either this thread or its end
                self._journal.rest(
                    row.operation_id,
                    rest.state,
                    problem=rest.problem,
                    waiting_for=rest.waiting_for,
                    calls=calls,
                )
                self._forget_thread(row.operation_id)
        except _Stopping:
            LOG.info("%s: begins at the next start", row.operation_id)
            return None
        except Exception as exc:
            LOG.exception("%s: left as it stands", row.operation_id)
            return self._rest_by_mistake(row.operation_id, exc)
        LOG.info("%s: %s is %s", row.operation_id, row.request.kind, rest.state)
        return rest.state

    def _forget_thread(self, operation_id: str) -> None:
        """Under the lock; a thread that drives the operation anew stays."""
        if self._threads.get(operation_id) is threading.current_thread():
            del self._threads[operation_id]

    def _rest_by_mistake(self, operation_id: str, exc: Exception) -> OperationState | None:
        """What only the journal kept from its end is resumed; another mistake would come again."""
        if isinstance(exc, AttachdError) and exc.code in _THE_JOURNALS_OWN:
            return None
        problem = Problem(
            code=Code.INTERNAL_ERROR,
            brief="attachd made a mistake.",
            details=type(exc).__name__,
            resolution="See attachd's log (journalctl -u attachd) and report it. What the "
            "operation has done so far is in: attachctl operation show",
        )
        state = OperationState.NEEDS_ATTENTION
        with suppress(AttachdError):
            self._journal.rest(operation_id, state, problem=problem, waiting_for=None)
            return state
        return None

    def _run(self, row: OperationRow, calls: list[Call]) -> Rest:
        with ExitStack() as held:
            if row.record_id is not None:
                refused = self._claim_again(row, row.record_id, held)
                if refused is not None:
                    return refused
            self._journal.start(row.operation_id)
            operation = self._operation_of(row, held)
            held.callback(operation.close)
            runner = Runner(
                operation_id=row.operation_id,
                operation=operation,
                journal=self._journal,
                news=partial(self._progress.news, row.operation_id),
                reached=self._reached,
                observers=self._observers,
                calls=calls,
            )
            return runner.run()

    def _claim_again(self, row: OperationRow, record_id: str, held: ExitStack) -> Rest | None:
        """A resumed operation takes what it had claimed; the mark is its own already."""
        guest = GuestName(guest_id=row.guest_id or "", name=row.guest_name or "")
        volume = VolumeName(
            volume_id=row.volume_id or "",
            name=row.volume_name or "",
            shareable=self._journal.record(record_id).shareable,
        )
        try:
            only = row.request.kind.without_libvirt
            self._claim(row.operation_id, held, guest, volume, volume_only=only)
        except AttachdError as exc:
            LOG.info("%s: not its turn yet: %s", row.operation_id, exc)
            return Rest(
                state=OperationState.NEEDS_ATTENTION,
                problem=row.problem or exc.problem,
                waiting_for=row.waiting_for or World.JOURNAL,
            )
        return None

    def _claim(
        self,
        operation_id: str,
        held: ExitStack,
        guest: GuestName,
        volume: VolumeName,
        *,
        volume_only: bool = False,
        take_place: bool = True,
    ) -> bool:
        note(**_names(guest, volume))
        waited = self._claims.take(operation_id, guest, volume, held, volume_only=volume_only)
        if take_place and not volume_only:  # whose guest, and the others', libvirt may hold
            waited = self._take_place(held) or waited
        self._go_no_further_while_stopping()
        return waited

    @contextmanager
    def _export_turn(self, held: ExitStack, service_uuid: str | None) -> Iterator[bool]:
        """A worker's place comes behind it: those who wait for one backend take nobody's."""
        with self._turns.turn(service_uuid) as for_turn:
            self._go_no_further_while_stopping()
            for_place = self._take_place(held)
            self._go_no_further_while_stopping()
            yield for_turn or for_place

    def _take_place(self, held: ExitStack) -> bool:
        """Until ``held`` closes; True where it had to wait."""
        at_once = self._places.acquire(blocking=False)
        if not at_once:
            self._places.acquire()
        held.callback(self._places.release)
        return not at_once

    def _go_no_further_while_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopping

    def _operation_of(self, row: OperationRow, held: ExitStack) -> Operation:
        given = Given(
            operation_id=row.operation_id,
            request=row.request,
            record=self._journal.record(row.record_id) if row.record_id else None,
            claim=partial(
                self._claim,
                row.operation_id,
                held,
                take_place=row.request.kind is not OperationKind.ATTACH,
            ),
            export_turn=partial(self._export_turn, held),
            worlds=Worlds(
                cinder=self._cinder.for_request(row.global_request_id),
                host=self._host,
                guests=self._guests,
                records=self._journal,
            ),
        )
        return _KINDS[row.request.kind](given)


def _subject(row: OperationRow) -> dict[str, str | None]:
    """What the log says of an operation; guest and volume where they were resolved before."""
    return {
        "operation": row.operation_id,
        "kind": row.request.kind.value,
        "global_request_id": row.global_request_id,
        "guest": row.guest_id,
        "guest_name": row.guest_name,
        "volume": row.volume_id,
        "volume_name": row.volume_name,
    }


def _names(guest: GuestName, volume: VolumeName) -> dict[str, str | None]:
    return {
        "guest": guest.guest_id,
        "guest_name": guest.name,
        "volume": volume.volume_id,
        "volume_name": volume.name,
    }


def _run_of(row: OperationRow, state: OperationState) -> OperationRun:
    """``row``: as it was when the run began."""
    resumed = row.started_at is not None
    return OperationRun(
        operation_id=row.operation_id,
        kind=row.request.kind,
        state=state,
        before=row.state,
        resumed=resumed,
        seconds=None if resumed else now() - row.accepted,
    )


_KINDS: Mapping[OperationKind, type[Operation]] = {
    OperationKind.ATTACH: Attach,
    OperationKind.DETACH: Detach,
    OperationKind.RECONNECT: Reconnect,
    OperationKind.DISCONNECT: Disconnect,
    OperationKind.FENCE: Fence,
    OperationKind.RESTORE: Restore,
    OperationKind.CLEAN_UP: CleanUp,
    OperationKind.ADOPT: Adopt,
    OperationKind.RELEASE: Release,
    OperationKind.EXTEND: Extend,
}


class _Stopping(BaseException):
    """attachd stops, and the operation has touched nothing in this run: no error of a step."""
