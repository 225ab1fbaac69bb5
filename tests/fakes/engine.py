"""An engine that remembers: it does no work, but keeps the real one's rules towards its callers.

Operations come to their end at once; with ``hold`` set they stay running until ``release``.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from attachd.audit.findings import Finding
from attachd.doctor import findings as doctor
from attachd.engine.views import Direction, Event, OperationView, Phase, StepState, StepView
from attachd.errors import Code, Problem, Refused
from attachd.journal.live import place
from attachd.model import (
    GIB,
    AttachmentRecord,
    AttachmentState,
    Connector,
    Guest,
    GuestState,
    OperationKind,
    OperationState,
    Request,
    Volume,
)

NOW = "2026-03-01T10:00:00.000000Z"
_GOES = {
    OperationKind.DETACH: AttachmentState.DETACHED,
    OperationKind.RELEASE: AttachmentState.RELEASED,
}
STEPS = (("create", "cinder"), ("connect", "host"), ("plug", "guest"))


@dataclass(frozen=True)
class Failure:
    """How the next operation shall end, instead of well."""

    state: OperationState
    problem: Problem
    failed_step: str | None = None


@dataclass
class _Operation:
    view: OperationView
    failure: Failure | None
    events: list[Event] = field(default_factory=list)


class FakeEngine:
    """See the module. Guests and volumes are names with ids of their own."""

    def __init__(self) -> None:
        self.guests = {"web": str(uuid.uuid4()), "db": str(uuid.uuid4())}
        self.volumes = {"data": str(uuid.uuid4()), "logs": str(uuid.uuid4())}
        self.requests: list[Request] = []
        self.hold = False
        self.findings: tuple[Finding, ...] = ()
        self.diagnosis: tuple[doctor.Finding, ...] = ()
        self.failure: Failure | None = None
        self.raises: Exception | None = None
        self.waiting = 0
        self._changed = threading.Condition()
        self._operations: dict[str, _Operation] = {}
        self._records: list[AttachmentRecord] = []

    # --- the facade ---------------------------------------------------------------------------

    def submit(self, request: Request) -> OperationView:
        with self._changed:
            self._raise()
            for known in self._operations.values():
                if known.view.request.request_id == request.request_id:
                    if known.view.request != request:
                        raise Refused(
                            Code.REQUEST_ID_REUSED, "This request id stands for another request."
                        )
                    return known.view
            self.requests.append(request)
            return self._begin(request)

    def submit_own(self, kind: OperationKind, *, guest_id: str, volume_id: str) -> OperationView:
        request_id = str(uuid.uuid4())
        return self.submit(
            Request(kind=kind, guest=guest_id, volume=volume_id, request_id=request_id)
        )

    def resume(self, operation_id: str) -> OperationView:
        with self._changed:
            self._raise()
            operation = self._find(operation_id)
            if operation.view.state is OperationState.NEEDS_ATTENTION:
                operation.failure = self.failure
                operation.view = replace(operation.view, state=OperationState.RUNNING)
                self._tell(operation, state=str(operation.view.state), phase="state")
                if not self.hold:
                    self._finish(operation)
                self._changed.notify_all()
            return operation.view

    def operation(self, operation_id: str) -> OperationView:
        with self._changed:
            self._raise()
            return self._find(operation_id).view

    def operations(
        self, *, open_only: bool, limit: int | None = None, before: str | None = None
    ) -> tuple[OperationView, ...]:
        with self._changed:
            self._raise()
            views = [known.view for known in reversed(self._operations.values())]
            if before is not None:
                views = views[views.index(self._find(before).view) + 1 :]
            return tuple(view for view in views if view.state.open or not open_only)[:limit]

    def accepted(self, request_id: str) -> bool:
        with self._changed:
            return any(
                known.view.request.request_id == request_id for known in self._operations.values()
            )

    def attachments(
        self, *, guest: str | None, limit: int | None = None, after: str | None = None
    ) -> tuple[AttachmentRecord, ...]:
        behind = None if after is None else place(self.attachment(after))
        with self._changed:
            self._raise()
            listed = (
                record
                for record in self._records
                if record.state.live
                and guest in (None, record.guest_name, record.guest_id)
                and (behind is None or place(record) > behind)
            )
            return tuple(sorted(listed, key=place))[:limit]

    def attachment(self, attachment_id: str) -> AttachmentRecord:
        with self._changed:
            self._raise()
            for record in self._records:
                if attachment_id in (record.attachment_id, record.record_id):
                    return record
        raise Refused(Code.ATTACHMENT_NOT_FOUND, "There is no such attachment.")

    def wait(self, operation_id: str, *, after: int, timeout: float) -> tuple[Event, ...]:
        deadline = time.monotonic() + timeout
        with self._changed:
            self._raise()
            known = self._find(operation_id)
            self.waiting += 1
            self._changed.notify_all()
            try:
                while not known.events[after:] and not known.view.state.resting:
                    if not self._changed.wait(deadline - time.monotonic()):
                        break
            finally:
                self.waiting -= 1
            return tuple(known.events[after:])

    def reconnect(self, guest: str) -> tuple[OperationView, ...]:
        """What is fenced is taken away instead."""
        return self._for_each_of(guest, OperationKind.RECONNECT)

    def disconnect(self, guest: str) -> tuple[OperationView, ...]:
        return self._for_each_of(guest, OperationKind.DISCONNECT)

    def _for_each_of(self, guest: str, kind: OperationKind) -> tuple[OperationView, ...]:
        with self._changed:
            self._raise()
            mine = [
                r for r in self._records if r.state.live and guest in (r.guest_name, r.guest_id)
            ]
        return tuple(
            self.submit_own(
                OperationKind.DISCONNECT
                if record.state is AttachmentState.NEEDS_ATTENTION
                else kind,
                guest_id=record.guest_id,
                volume_id=record.volume_id,
            )
            for record in mine
        )

    def fence(self, guest: str) -> None:
        """For tests: what is attached to a guest needs attention."""
        with self._changed:
            self._records = [
                replace(r, state=AttachmentState.NEEDS_ATTENTION) if r.guest_name == guest else r
                for r in self._records
            ]

    def repair(self) -> tuple[OperationView, ...]:
        """Every finding that can be repaired is gone with the operation that this begins."""
        self._raise()
        mended = [finding for finding in self.findings if finding.repair]
        self.findings = tuple(finding for finding in self.findings if not finding.repair)
        return tuple(
            self.submit_own(
                OperationKind(str(finding.repair)),
                guest_id=finding.guest_id or "",
                volume_id=finding.volume_id or "",
            )
            for finding in mended
        )

    def audit(self) -> tuple[Finding, ...]:
        self._raise()
        return self.findings

    def examine(self) -> tuple[doctor.Finding, ...]:
        self._raise()
        return self.diagnosis

    def list_guests(self) -> tuple[Guest, ...]:
        self._raise()
        return tuple(
            Guest(
                guest_id=guest_id,
                name=name,
                state=GuestState.RUNNING,
                persistent=True,
                nova_owned=False,
            )
            for name, guest_id in self.guests.items()
        )

    def list_volumes(self, *, status: str, limit: int) -> tuple[Volume, ...]:
        self._raise()
        attached = {record.volume_id for record in self._records if record.state.live}
        volumes = (
            Volume(
                volume_id=volume_id,
                name=name,
                status="in-use" if volume_id in attached else "available",
                size_gib=1,
            )
            for name, volume_id in self.volumes.items()
        )
        return tuple(volume for volume in volumes if volume.status == status)[:limit]

    def connector(self) -> Connector:
        self._raise()
        return {"initiator": "iqn.2004-10.com.example:host", "ip": "192.0.2.1", "host": "compute"}

    def health(self) -> Mapping[str, object]:
        self._raise()
        return {
            "status": "ok",
            "version": "0",
            "open_operations": len(self.operations(open_only=True)),
        }

    def text(self) -> str:
        """The numbers of this engine: one."""
        self._raise()
        return f"fake_operations {len(self._operations)}\n"

    # --- what a test does to it ---------------------------------------------------------------

    def release(self, operation_id: str) -> None:
        """Let a held operation come to its end."""
        with self._changed:
            self._finish(self._find(operation_id))

    def begin_step(self, operation_id: str, name: str) -> None:
        """A step of a held operation is under way."""
        with self._changed:
            operation = self._find(operation_id)
            self._tell(operation, step=name, direction="do", state="running", phase="intent")
            self._changed.notify_all()

    def until_waiting(self, callers: int) -> None:
        """Return when that many callers wait for events."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.waiting == callers, timeout=60)

    def until_submitted(self) -> str:
        """The newest operation's id, as soon as there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._operations, timeout=60)
            return next(reversed(self._operations))

    # --- inside -------------------------------------------------------------------------------

    def _raise(self) -> None:
        if self.raises is not None:
            raise self.raises

    def _find(self, operation_id: str) -> _Operation:
        if operation_id not in self._operations:
            raise Refused(Code.OPERATION_NOT_FOUND, "There is no such operation.")
        return self._operations[operation_id]

    def _begin(self, request: Request) -> OperationView:
        operation = _Operation(
            OperationView(
                operation_id=str(uuid.uuid4()),
                kind=request.kind,
                state=OperationState.RUNNING,
                request=request,
                created_at=NOW,
                started_at=NOW,
                global_request_id=f"req-{uuid.uuid4()}",
            ),
            failure=self._refusal(request) or self.failure,
        )
        self._operations[operation.view.operation_id] = operation
        self._tell(operation, state=str(operation.view.state), phase="state")
        if not self.hold:
            self._finish(operation)
        self._changed.notify_all()
        return operation.view

    def _refusal(self, request: Request) -> Failure | None:
        guest_id = self.guests.get(request.guest, request.guest)
        volume_id = self.volumes.get(request.volume, request.volume)
        record = self._live(guest_id, volume_id)
        problem = None
        if guest_id not in self.guests.values():
            problem = Problem(code=Code.GUEST_NOT_FOUND, brief=f"There is no {request.guest}.")
        elif volume_id not in self.volumes.values():
            problem = Problem(code=Code.VOLUME_NOT_FOUND, brief=f"There is no {request.volume}.")
        elif request.kind in (OperationKind.ATTACH, OperationKind.ADOPT) and record:
            problem = Problem(code=Code.ALREADY_ATTACHED, brief="It is attached already.")
        elif request.kind in (*_GOES, OperationKind.EXTEND) and not record:
            problem = Problem(code=Code.NOT_ATTACHED, brief="It is not attached.")
        return Failure(OperationState.REFUSED, problem) if problem else None

    def _live(self, guest_id: str, volume_id: str) -> AttachmentRecord | None:
        return next(
            (
                record
                for record in self._records
                if record.state.live
                and (record.guest_id, record.volume_id) == (guest_id, volume_id)
            ),
            None,
        )

    def _finish(self, operation: _Operation) -> None:
        failure = operation.failure
        if failure is None or failure.state is not OperationState.REFUSED:
            self._run_steps(operation, failure)
        state = failure.state if failure else OperationState.DONE
        operation.view = replace(
            operation.view,
            state=state,
            problem=failure.problem if failure else None,
            attachment=None if failure else self._settle(operation),
            finished_at=NOW,
        )
        self._tell(operation, state=str(state), phase="state")
        self._changed.notify_all()

    def _run_steps(self, operation: _Operation, failure: Failure | None) -> None:
        done: list[tuple[str, str]] = []
        for name, world in STEPS:
            if failure and name == failure.failed_step:
                self._step(operation, name, world, "failed", problem=failure.problem)
                break
            self._step(operation, name, world, "done")
            done.append((name, world))
        if failure and failure.state is OperationState.UNDONE:
            for name, world in reversed(done):
                self._step(operation, name, world, "done", direction="undo")

    def _step(
        self,
        operation: _Operation,
        name: str,
        world: str,
        state: StepState,
        *,
        direction: Direction = "do",
        problem: Problem | None = None,
    ) -> None:
        reason = problem.brief if problem else ""
        self._tell(operation, step=name, direction=direction, state="running", phase="intent")
        self._tell(
            operation, step=name, direction=direction, state=state, phase="outcome", reason=reason
        )
        step = StepView(
            name=name,
            world=world,
            direction=direction,
            state=state,
            reason=reason,
            started_at=NOW,
            finished_at=NOW,
            seconds=0.5,
            problem=problem,
        )
        operation.view = replace(operation.view, steps=(*operation.view.steps, step))

    def _settle(self, operation: _Operation) -> AttachmentRecord | None:
        request = operation.view.request
        guest_id = self.guests.get(request.guest, request.guest)
        volume_id = self.volumes.get(request.volume, request.volume)
        if request.kind is OperationKind.RECONNECT:
            return self._live(guest_id, volume_id)
        if request.kind in _GOES:
            record = self._live(guest_id, volume_id)
            assert record is not None
            gone = replace(record, state=_GOES[request.kind])
            self._records[self._records.index(record)] = gone
            return gone
        if request.kind is OperationKind.EXTEND:
            return self._grown(guest_id, volume_id, request.size_gib or 0)
        record = AttachmentRecord(
            record_id=str(uuid.uuid4()),
            operation_id=operation.view.operation_id,
            state=AttachmentState.ATTACHED,
            volume_id=volume_id,
            volume_name=request.volume,
            guest_id=guest_id,
            guest_name=next(name for name, known in self.guests.items() if known == guest_id),
            instance_id=guest_id,
            device=request.device or "vdb",
            bus=request.bus,
            mode=request.mode,
            size_bytes=GIB,
            attachment_id=str(uuid.uuid4()),
            host_path="/dev/disk/by-id/wwn-0x6001405",
            wwn="36001405",
            adopted_path="/dev/sdb" if request.kind is OperationKind.ADOPT else None,
        )
        self._records.append(record)
        return record

    def _grown(self, guest_id: str, volume_id: str, size_gib: int) -> AttachmentRecord:
        record = self._live(guest_id, volume_id)
        assert record is not None
        grown = replace(record, size_bytes=size_gib * GIB)
        self._records[self._records.index(record)] = grown
        return grown

    def _tell(
        self,
        operation: _Operation,
        *,
        phase: Phase,
        state: str,
        step: str | None = None,
        direction: Direction | None = None,
        reason: str = "",
    ) -> None:
        operation.events.append(
            Event(
                seq=len(operation.events) + 1,
                step=step,
                direction=direction,
                phase=phase,
                state=state,
                reason=reason,
                at=NOW,
            )
        )
