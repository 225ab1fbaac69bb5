"""What operations did, as it is counted, against the real engine between its fakes."""

from __future__ import annotations

import pytest

from attachd.engine.observers import OperationRun
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind, OperationState
from attachd.operations.tables import TABLES
from tests.unit.bench import PATIENCE, Bench
from tests.unit.metrics.scraped import Scrape, once

ENDED = "attachd_operations_total"


def ended(bench: Bench, kind: str, outcome: str, *, times: float = 1) -> Scrape:
    """A scrape once that many operations came to rest so."""
    return once(bench.metrics.text, lambda s: s.value(ENDED, kind=kind, outcome=outcome) == times)


@pytest.mark.usefixtures("volume")
def test_an_attach_counts_once_with_its_steps(bench: Bench) -> None:
    scrape = ended(bench, "attach", "done")
    assert scrape.nonzero(ENDED) == [({"kind": "attach", "outcome": "done"}, 1)]
    steps = {spec.name for spec in TABLES[OperationKind.ATTACH]}
    counted = scrape.nonzero("attachd_step_duration_seconds_count")
    assert {labels["step"]: value for labels, value in counted} == dict.fromkeys(steps, 1)
    assert {(labels["kind"], labels["verb"]) for labels, _ in counted} == {("attach", "do")}
    labels = {"kind": "attach", "outcome": "done"}
    assert scrape.value("attachd_operation_duration_seconds_count", **labels) == 1
    assert scrape.of("attachd_step_failures_total") == []
    assert scrape.nonzero("attachd_recovery_ended_total") == []


def test_every_outcome_is_there_before_anything_happened(bench: Bench) -> None:
    """Prometheus sees a counter rise only if it saw it before."""
    labels = Scrape(bench.metrics.text()).of(ENDED)
    assert len(labels) == len(OperationKind) * 4
    assert {each["outcome"] for each in labels} == {"done", "refused", "undone", "needs-attention"}


@pytest.mark.usefixtures("guest")
def test_a_refusal_has_its_code(bench: Bench) -> None:
    bench.attach("web", "nothing")
    scrape = ended(bench, "attach", "refused")
    labels = {"kind": "attach", "step": "precheck", "verb": "do", "code": "volume-not-found"}
    assert scrape.nonzero("attachd_step_failures_total") == [(labels, 1)]


@pytest.mark.usefixtures("guest")
def test_an_undo_is_a_verb_of_its_step(bench: Bench) -> None:
    bench.cinder.add_volume(name="data")
    bench.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    bench.attach("web", "data")
    scrape = ended(bench, "attach", "undone")
    undone = [
        labels["step"]
        for labels, _ in scrape.nonzero("attachd_step_duration_seconds_count")
        if labels["verb"] == "undo"
    ]
    assert sorted(undone) == ["connect", "create", "reserve"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("moment", "direction", "outcome"),
    [
        ("attach.update.do.after-effect", "back", "undone"),
        ("attach.plug.do.after-effect", "forward", "done"),
    ],
)
def test_a_recovery_is_told_and_how_it_ended(
    bench: Bench, moment: str, direction: str, outcome: str
) -> None:
    bench.cinder.add_volume(name="data")
    bench.kill_at = moment
    bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    scrape = ended(bench, "attach", outcome)
    assert scrape.nonzero("attachd_recovery_resumed_total") == [
        ({"kind": "attach", "direction": direction}, 1)
    ]
    assert scrape.nonzero("attachd_recovery_ended_total") == [
        ({"kind": "attach", "outcome": outcome}, 1)
    ]
    assert scrape.nonzero("attachd_operation_duration_seconds_count") == []


@pytest.mark.parametrize(
    ("before", "state", "counted"),
    [
        ("accepted", "needs-attention", 1),
        ("running", "needs-attention", 1),
        ("needs-attention", "needs-attention", 0),
        ("needs-attention", "done", 1),
    ],
)
def test_what_goes_on_waiting_is_no_further_outcome(
    bench: Bench, before: str, state: str, counted: float
) -> None:
    run = OperationRun(
        operation_id="o",
        kind=OperationKind.DETACH,
        state=OperationState(state),
        before=OperationState(before),
        resumed=True,
        seconds=None,
    )
    bench.metrics.work.rested(run)
    scrape = Scrape(bench.metrics.text())
    assert scrape.value(ENDED, kind="detach", outcome=state) == counted
    labels = {"kind": "detach", "outcome": state}
    assert scrape.value("attachd_recovery_ended_total", **labels) == counted
