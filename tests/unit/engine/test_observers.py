"""What the engine tells its observers: each step, each resumption, each rest, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.engine.kill_points import Verb
from attachd.engine.observers import OperationRun, StepRun
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind, OperationState
from attachd.operations.tables import TABLES
from attachd.saga.history import Happening
from tests.unit.bench import PATIENCE, Bench


class Remembering:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[StepRun] = []
        self.resumptions: list[tuple[OperationKind, Happening]] = []
        self.runs: list[OperationRun] = []
        self._changed = threading.Condition()

    def step_ran(self, run: StepRun) -> None:
        self.steps.append(run)

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        self.resumptions.append((kind, happening))

    def rested(self, run: OperationRun) -> None:
        with self._changed:
            self.runs.append(run)
            self._changed.notify_all()

    def until_rested(self, times: int) -> list[OperationRun]:
        """The operation's view may show its rest a moment before."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.runs) >= times, PATIENCE)
            return self.runs


class Failing(Remembering):
    """An observer that never understands."""

    def step_ran(self, run: StepRun) -> None:
        raise ZeroDivisionError

    def resumed(self, kind: OperationKind, happening: Happening) -> None:
        raise ZeroDivisionError

    def rested(self, run: OperationRun) -> None:
        raise ZeroDivisionError


@pytest.fixture
def told() -> Remembering:
    return Remembering()


@pytest.fixture
def observed(tmp_path: Path, told: Remembering) -> Iterator[Bench]:
    """An engine with two observers; the first one fails at everything."""
    bench = Bench(directory=tmp_path, observers=(Failing(), told))
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    bench.start()
    yield bench
    bench.stop()


def test_each_step_and_the_rest_are_told_once(observed: Bench, told: Remembering) -> None:
    view = observed.attach("web", "data")
    (run,) = told.until_rested(1)
    table = TABLES[OperationKind.ATTACH]
    assert [(s.step, s.verb, s.code) for s in told.steps] == [
        (spec.name, Verb.DO, None) for spec in table
    ]
    assert (run.operation_id, run.kind, run.state) == (view.operation_id, "attach", "done")
    assert (run.before, run.resumed) == (OperationState.ACCEPTED, False)
    assert run.seconds is not None
    assert run.seconds >= sum(step.seconds for step in told.steps) > 0
    assert told.resumptions == []


def test_a_failure_has_its_code_and_its_undo_is_told(observed: Bench, told: Remembering) -> None:
    observed.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    assert observed.attach("web", "data").state == "undone"
    failed = [step for step in told.steps if step.code]
    assert [(step.step, step.verb, step.code) for step in failed] == [
        ("plug", Verb.DO, Code.GUEST_REFUSED)
    ]
    undone = [step.step for step in told.steps if step.verb is Verb.UNDO]
    assert undone == ["connect", "create", "reserve"]
    assert told.until_rested(1)[0].state == "undone"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_what_is_resumed_is_told_and_which_way_it_goes(observed: Bench, told: Remembering) -> None:
    observed.kill_at = "attach.update.do.after-effect"
    observed.submit(OperationKind.ATTACH, "web", "data")
    assert observed.killed.wait(PATIENCE)
    observed.recover()
    (run,) = told.until_rested(1)
    assert told.resumptions == [(OperationKind.ATTACH, Happening.RESUME_BACK)]
    assert (run.state, run.resumed, run.seconds) == (OperationState.UNDONE, True, None)
    assert run.before is OperationState.RUNNING


def test_one_that_waits_on_says_what_it_was_in_before(observed: Bench, told: Remembering) -> None:
    observed.at["attach.connect.do.before-intent"] = observed.cinder.stop
    observed.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    observed.attach("web", "data")
    first, second = told.until_rested(2)[:2]
    assert (first.before, first.state) == (OperationState.ACCEPTED, OperationState.NEEDS_ATTENTION)
    assert (second.before, second.state, second.resumed) == (first.state, first.state, True)
    observed.cinder.start()
    observed.until_closed()
    assert told.until_rested(3)[-1].state == "undone"
