"""What is told of an operation, when, and what becomes of it while the collector is away."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from attachd.engine.engine import _run_of
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind
from attachd.operations.tables import TABLES
from attachd.otlp.exporter import Exporter
from attachd.otlp.spans import Snapshot, Span, trace_id
from attachd.trace import Exchange, Library, call
from tests.unit.bench import PATIENCE, Bench
from tests.unit.otlp.backend import until

SOON = 0.05


class FakeCollector:
    """Takes spans while it is there; holds each caller up while ``slow``."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, tuple[Span, ...]]] = []
        self.asked = 0
        self.there = True
        self.quick = threading.Event()
        self.quick.set()
        self.closed = False

    def send(self, trace: int, spans: Sequence[Span]) -> bool:
        assert not self.closed
        self.asked += 1
        self.quick.wait(PATIENCE)
        if self.there:
            self.taken.append((trace, tuple(spans)))
        return self.there

    def close(self) -> None:
        self.closed = True
        self.quick.set()

    def until_taken(self, times: int) -> list[tuple[int, tuple[Span, ...]]]:
        until("it was told", lambda: len(self.taken) >= times)
        return self.taken


@pytest.fixture
def collector() -> FakeCollector:
    return FakeCollector()


@pytest.fixture
def traced(tmp_path: Path, collector: FakeCollector) -> Iterator[Bench]:
    """An engine whose operations are told to the collector; a guest web, a volume data."""
    bench = Bench(directory=tmp_path)
    exporter = Exporter(
        snapshot=lambda operation: bench.journal.snapshot(operation, exchanges=True),
        collector=collector,
        retry_interval=SOON,
        most_waiting=3,
    )
    bench.observers = (exporter,)
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    bench.start()
    exporter.start()
    yield bench
    assert bench.engine.stop(PATIENCE)
    exporter.stop()
    bench.journal.close()
    assert collector.closed


def tree(spans: Sequence[Span]) -> dict[str, list[str]]:
    """The names below each name; the roots below none."""
    names = {span.span_id: span.name for span in spans}
    assert len(names) == len(spans)
    found: dict[str, list[str]] = {}
    for span in spans:
        parent = "" if span.parent_id is None else names[span.parent_id]
        found.setdefault(parent, []).append(span.name)
    return found


def test_an_operation_is_a_span_with_one_below_for_each_step(
    traced: Bench, collector: FakeCollector
) -> None:
    before = time.time_ns()
    view = traced.attach("web", "data")
    ((trace, spans),) = collector.until_taken(1)
    assert trace == uuid.UUID(view.operation_id).int
    root, *below = spans
    steps = [spec.name for spec in TABLES[OperationKind.ATTACH]]
    assert [span.name for span in below if span.parent_id == root.span_id] == steps
    assert root.name == "attach"
    assert root.attributes["attachd.outcome"] == "done"
    assert view.attachment is not None
    assert root.attributes["attachd.attachment.id"] == view.attachment.attachment_id
    assert root.attributes["attachd.volume.id"] == view.volume_id
    assert root.attributes["attachd.guest.name"] == "web"
    assert root.attributes["openstack.global_request_id"] == f"req-{view.operation_id}"
    assert not [span for span in spans if span.problem or span.links]
    worlds = {span.name: span.attributes["attachd.world"] for span in below if span.name in steps}
    assert worlds["create"] == "cinder"
    assert worlds["plug"] == "guest"
    assert before - PATIENCE * 10**9 < root.started <= below[0].started
    for first, second in pairwise(below):
        if first.parent_id == second.parent_id == root.span_id:
            assert first.started <= first.ended <= second.started <= second.ended <= root.ended


def test_a_failure_and_its_undo_are_seen(traced: Bench, collector: FakeCollector) -> None:
    traced.guests.fail_next(
        "plug", AttachdError(Code.GUEST_REFUSED, "password=hush-hush", touched=False)
    )
    traced.attach("web", "data")
    ((_, spans),) = collector.until_taken(1)
    problems = {span.name: span.problem for span in spans if span.problem}
    assert problems == dict.fromkeys(("attach", "plug"), "guest-refused: password=***")
    (plug,) = (span for span in spans if span.name == "plug")
    assert plug.attributes["error.type"] == "guest-refused"
    undone = [span.name for span in spans if span.name.startswith("undo ")]
    assert undone == ["undo connect", "undo create", "undo reserve"]
    assert spans[0].attributes["attachd.outcome"] == "undone"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_a_resumed_one_goes_on_in_its_trace_and_links_to_what_went_before(
    traced: Bench, collector: FakeCollector
) -> None:
    """What a killed daemon did was never told: it is now, and where it was cut off."""
    traced.kill_at = "attach.plug.do.after-effect"
    operation = traced.submit(OperationKind.ATTACH, "web", "data")
    assert traced.killed.wait(PATIENCE)
    assert collector.taken == []
    traced.recover()
    ((trace, spans),) = collector.until_taken(1)
    assert trace == trace_id(operation)
    first, second = (span for span in spans if span.parent_id is None)
    assert first.attributes["attachd.outcome"] == "interrupted"
    assert (second.attributes["attachd.outcome"], second.problem) == ("done", None)
    assert (first.links, second.links) == ((), (first.span_id,))
    assert [s.attributes["attachd.run"] for s in (first, second)] == [1, 2]
    (cut_off,) = (s for s in spans if s.parent_id == first.span_id and s.problem)
    assert (cut_off.name, cut_off.problem) == ("plug", "interrupted")
    assert first.ended <= second.started


def test_each_run_is_told_once(traced: Bench, collector: FakeCollector) -> None:
    """It needs attention, goes on twice in vain, and then is undone."""
    traced.at["attach.connect.do.before-intent"] = traced.cinder.stop
    traced.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    view = traced.attach("web", "data")
    assert view.state == "needs-attention"
    collector.until_taken(1)
    traced.cinder.start()
    traced.until_closed()
    (_, first), (_, second) = collector.until_taken(2)
    assert first[0].attributes["attachd.outcome"] == "needs-attention"
    assert second[0].attributes["attachd.outcome"] == "undone"
    assert second[0].links == (first[0].span_id,)
    assert not {span.span_id for span in first} & {span.span_id for span in second}


def test_what_was_asked_of_cinder_is_below_its_step(
    traced: Bench, collector: FakeCollector
) -> None:
    """The fakes ask nobody: a call is journalled as the real client would have noted it."""

    def ask() -> None:
        path = f"/attachments/{uuid.uuid4()}"
        with call(Library.CINDER, f"PUT {path}") as note:
            note.exchange = Exchange(method="PUT", url=path, status=409, request_id="req-1")
            note.outcome = "HTTP 409"
        with call(Library.CINDER, "token"):
            pass

    traced.cinder.before_next("update", ask)
    traced.attach("web", "data")
    ((_, spans),) = collector.until_taken(1)
    assert tree(spans)["update"] == ["PUT /attachments/{id}"]
    (asked,) = (span for span in spans if span.outgoing)
    assert asked.problem == "HTTP 409"
    assert asked.attributes["http.response.status_code"] == 409
    assert asked.attributes["openstack.request_id"] == "req-1"


def test_a_collector_that_is_away_delays_and_fails_nothing(
    traced: Bench, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="attachd.otlp.exporter")
    collector.there = False
    attached = traced.attach("web", "data")
    assert attached.state == "done"
    until("it was asked again", lambda: collector.asked >= 3)
    collector.there = True
    ((trace, _),) = collector.until_taken(1)
    assert trace == trace_id(attached.operation_id)
    lines = [record.levelname for record in caplog.records]
    until("its return is told", lambda: len(caplog.records) >= 2)
    assert lines[0] == "WARNING"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_collector_that_hangs_delays_nothing(traced: Bench, collector: FakeCollector) -> None:
    collector.quick.clear()
    assert traced.attach("web", "data").state == "done"
    until("it was asked", lambda: collector.asked == 1)
    assert traced.detach("web", "data").state == "done"
    collector.quick.set()
    assert len(collector.until_taken(2)) == 2


def test_no_more_wait_than_there_is_room_for(traced: Bench, collector: FakeCollector) -> None:
    """The oldest are forgotten."""
    collector.quick.clear()
    collector.there = False
    operations = [traced.attach("web", "nothing").operation_id]
    until("the first is on its way", lambda: collector.asked == 1)
    operations += [traced.attach("web", "nothing").operation_id for _ in range(4)]
    until("all of them rest", lambda: len(_ended(traced)) == 5)
    collector.there = True
    collector.quick.set()
    taken = [trace for trace, _ in collector.until_taken(4)]
    assert set(taken) <= {trace_id(each) for each in operations}
    assert trace_id(operations[-1]) in taken
    assert trace_id(operations[1]) not in taken


def _ended(bench: Bench) -> list[str]:
    ended = [row.operation_id for row in bench.journal.operations() if not row.state.open]
    running = {thread.name for thread in threading.enumerate()}
    return [each for each in ended if f"operation-{each}" not in running]


def test_what_came_to_rest_last_is_told_before_the_daemon_ends(
    traced: Bench, collector: FakeCollector
) -> None:
    traced.attach("web", "data")
    until("the thread of the operation ended", lambda: len(_ended(traced)) == 1)
    (exporter,) = traced.observers
    assert isinstance(exporter, Exporter)
    exporter.stop()
    assert len(collector.taken) == 1


def test_a_journal_that_cannot_be_read_is_tried_again(
    collector: FakeCollector, bench: Bench
) -> None:
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    view = bench.attach("web", "data")
    failures = [AttachdError(Code.JOURNAL_UNAVAILABLE, "No.")]

    def snapshot(operation_id: str) -> Snapshot:
        if failures:
            raise failures.pop()
        return bench.journal.snapshot(operation_id, exchanges=True)

    exporter = Exporter(snapshot=snapshot, collector=collector, retry_interval=SOON)
    exporter.start()
    row = bench.journal.operation(view.operation_id)
    exporter.rested(_run_of(row, row.state))
    collector.until_taken(1)
    exporter.stop()
    assert failures == []
