"""From what the journal has of an operation to the spans of its trace. Pure.

Ids are made of the operation's own, so that whatever is told twice has the same ids twice: a daemon
that was started anew doesn't know what the one before it told.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from attachd.errors import Problem
from attachd.journal.rows import EventRow, OperationRow
from attachd.model import AttachmentRecord, OperationState
from attachd.operations.tables import TABLES
from attachd.saga.history import RESUMPTIONS, Happening
from attachd.trace import Call
from attachd.trace.masking import without_secrets

Snapshot = tuple[OperationRow, Sequence[EventRow], AttachmentRecord | None, Sequence[Call]]
"""As :meth:`attachd.journal.journal.Journal.snapshot` takes it."""

_SECOND = 10**9
_VERBS = {Happening.DO_INTENT: "do", Happening.UNDO_INTENT: "undo"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FROM_MEMORY = 0.02  # a token that was there: Keystone makes none in so few seconds
_INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Span:
    """``started``, ``ended``: nanoseconds since 1970. ``problem``: None where it went well.

    ``links`` are earlier spans of the same trace. ``outgoing``: a request to somebody else.
    """

    name: str
    span_id: int
    parent_id: int | None
    started: int
    ended: int
    attributes: Mapping[str, str | int]
    problem: str | None = None
    links: tuple[int, ...] = ()
    outgoing: bool = False


def trace_id(operation_id: str) -> int:
    """The operation's id, as the 128 bits that it is."""
    return uuid.UUID(operation_id).int


def spans_of(snapshot: Snapshot, *, after: int) -> tuple[Span, ...]:
    """The spans of each run that has events behind number ``after``."""
    row, events, record, calls = snapshot
    runs = _runs(events)
    return tuple(
        span
        for number, run in enumerate(runs)
        if run[-1].seq > after
        for span in _Run(
            row=row,
            record=record,
            events=run,
            number=number,
            # Calls don't say of which boot they are: they are known for the latest run's.
            calls=calls if run is runs[-1] else (),
            last=run is runs[-1],
        ).spans()
    )


def _runs(events: Sequence[EventRow]) -> list[list[EventRow]]:
    """Each but the first begins with a look at the worlds."""
    runs: list[list[EventRow]] = []
    for event in events:
        if not runs or event.entry.happening in RESUMPTIONS:
            runs.append([])
        runs[-1].append(event)
    return runs


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run, by one process, within one boot. ``last``: the one that the operation rests by."""

    row: OperationRow
    record: AttachmentRecord | None
    events: Sequence[EventRow]
    number: int
    calls: Sequence[Call]
    last: bool

    def spans(self) -> Iterator[Span]:
        root = self._root()
        yield root
        steps = list(self._steps(root))
        for step, _ in steps:
            yield step
        yield from self._calls(root, steps)

    def _root(self) -> Span:
        began = self._time(self.events[0].uptime)
        state = self.row.state.value if self.last else _INTERRUPTED
        problem = self.row.problem if self.last else None
        went_well = self.last and self.row.state is OperationState.DONE
        return Span(
            name=self.row.request.kind.value,
            span_id=self._id("run", self.number),
            parent_id=None,
            started=min(began, _nanoseconds(self.row.created_at)) if self.number == 0 else began,
            ended=self._time(self.events[-1].uptime),
            attributes={**self._subject(), "attachd.outcome": state, **_error(problem)},
            problem=None if went_well else _words(problem, state),
            links=tuple(self._id("run", number) for number in range(self.number)),
        )

    def _subject(self) -> dict[str, str | int]:
        row, record = self.row, self.record
        known = {
            "attachd.operation.id": row.operation_id,
            "attachd.operation.kind": row.request.kind.value,
            "attachd.request.id": row.request.request_id,
            "attachd.volume.id": row.volume_id,
            "attachd.volume.name": row.volume_name,
            "attachd.guest.id": row.guest_id,
            "attachd.guest.name": row.guest_name,
            "attachd.attachment.id": record.attachment_id if record else None,
            "attachd.device": record.device if record else None,
            "openstack.global_request_id": row.global_request_id,
        }
        found = {name: value for name, value in known.items() if value}
        return {**found, "attachd.run": self.number + 1}

    def _steps(self, root: Span) -> Iterator[tuple[Span, tuple[float, float]]]:
        """Each with its begin and end since the boot."""
        for intent, later in zip(self.events, (*self.events[1:], None), strict=True):
            verb = _VERBS.get(intent.entry.happening)
            if verb is not None:
                # A step's outcome is the very next line; without one it was cut off.
                is_its_own = later is not None and later.entry.step == intent.entry.step
                outcome = later if is_its_own else None
                ended = (outcome or self.events[-1]).uptime
                yield self._step(root, verb, intent, outcome, ended), (intent.uptime, ended)

    def _step(
        self, root: Span, verb: str, intent: EventRow, outcome: EventRow | None, ended: float
    ) -> Span:
        name = intent.entry.step
        problem = outcome.problem if outcome else None
        went_well = outcome is not None and problem is None
        return Span(
            name=name if verb == "do" else f"{verb} {name}",
            span_id=self._id("event", intent.seq),
            parent_id=root.span_id,
            started=self._time(intent.uptime),
            ended=self._time(ended),
            attributes={
                "attachd.step": name,
                "attachd.verb": verb,
                "attachd.world": self._worlds()[name],
                "attachd.reason": intent.reason,
                **_error(problem),
            },
            problem=None if went_well else _words(problem, _INTERRUPTED),
        )

    def _calls(
        self, root: Span, steps: Sequence[tuple[Span, tuple[float, float]]]
    ) -> Iterator[Span]:
        begin, end = self.events[0].uptime, self.events[-1].uptime
        for number, call in enumerate(self.calls):
            from_memory = call.name == "token" and call.ended - call.started < _FROM_MEMORY
            if from_memory or not begin <= call.started <= end:
                continue
            inside = (step for step, (from_, to) in steps if from_ <= call.started <= to)
            parent = next(inside, root)
            yield self._call(call, number, parent)

    def _call(self, call: Call, number: int, parent: Span) -> Span:
        attributes: dict[str, str | int] = {"attachd.library": call.library.value}
        exchange = call.exchange
        if exchange is not None:
            attributes |= {"http.request.method": exchange.method, "url.full": exchange.url}
        if exchange is not None and exchange.status is not None:
            attributes["http.response.status_code"] = exchange.status
        if exchange is not None and exchange.request_id is not None:
            attributes["openstack.request_id"] = exchange.request_id
        if call.outcome is not None:
            attributes["error.type"] = call.outcome
        return Span(
            name=_UUID.sub("{id}", call.name),
            span_id=self._id("call", number),
            parent_id=parent.span_id,
            started=self._time(call.started),
            ended=self._time(call.ended),
            attributes=attributes,
            problem=call.outcome,
            outgoing=True,
        )

    def _worlds(self) -> Mapping[str, str]:
        return {spec.name: spec.world.value for spec in TABLES[self.row.request.kind]}

    def _time(self, uptime: float) -> int:
        """By the boot's clock, from the run's first line on: no jump of the wall clock shows."""
        first = self.events[0]
        return _nanoseconds(first.at) + round((uptime - first.uptime) * _SECOND)

    def _id(self, kind: str, number: int) -> int:
        name = f"{self.row.operation_id}/{kind}/{number}"
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


def _nanoseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * _SECOND)


def _error(problem: Problem | None) -> dict[str, str | int]:
    return {} if problem is None else {"error.type": problem.code.value}


def _words(problem: Problem | None, otherwise: str) -> str:
    return without_secrets(str(problem)) if problem else otherwise
