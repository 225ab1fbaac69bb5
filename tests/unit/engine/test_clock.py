"""The wall clock jumps at every look at it: nothing that attachd decides rests on it."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta

import pytest

from attachd.engine.kill_points import all_names
from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench

JUMPS = (400, -400, 0.5, -3, 30, -0.01)
"""Days."""

KILLED_BEHIND = [
    (f"{kind}.{step}.do.after-effect", kind)
    for kind, steps in (
        ("attach", ("create", "update", "connect", "plug")),
        ("detach", ("begin", "unplug")),
    )
    for step in steps
]
assert {name for name, _ in KILLED_BEHIND} <= set(all_names())


@pytest.fixture(autouse=True)
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """attachd's stamps and everybody's time.time() are those of a clock gone mad."""
    jumps = itertools.cycle(timedelta(days=days) for days in JUMPS)
    right = time.time

    def wrong() -> datetime:
        return datetime.fromtimestamp(right(), UTC) + next(jumps)

    monkeypatch.setattr(time, "time", lambda: wrong().timestamp())
    monkeypatch.setattr("attachd.journal.journal.utc_now", lambda: wrong().isoformat())


def test_attach_and_detach(bench: Bench) -> None:
    guest, volume = bench.guests.add("web"), bench.cinder.add_volume(name="data")
    for _ in range(3):
        attached = bench.attach("web", "data")
        assert attached.state == "done"
        bench.assert_attached(guest, volume)
        detached = bench.detach("web", "data")
        assert detached.state == "done"
        bench.assert_nothing_left(guest, volume)
        for step in (*attached.steps, *detached.steps):
            assert step.seconds is not None
            assert 0 <= step.seconds < PATIENCE
    kinds = [view.kind for view in bench.engine.operations(open_only=False)]
    assert kinds == ["detach", "attach"] * 3, "the newest first"


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)
@pytest.mark.parametrize(("moment", "kind"), KILLED_BEHIND)
def test_recovery(bench: Bench, moment: str, kind: str) -> None:
    guest, volume = bench.guests.add("web"), bench.cinder.add_volume(name="data")
    if kind == "detach":
        bench.attach("web", "data")
    bench.kill_at = moment
    operation = bench.submit(OperationKind(kind), "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    forward = bench.engine.operation(operation).state == "done"
    if forward == (kind == "attach"):
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)
    assert forward == ("plug" in moment)
