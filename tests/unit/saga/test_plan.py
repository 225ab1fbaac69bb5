"""The plan, cell by cell, and whole operations driven by it with every possible outcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.errors import World
from attachd.model import OperationKind, OperationState
from attachd.operations import attach, detach
from attachd.saga.history import Entry, Happening, Standing, StepSpec, fold
from attachd.saga.plan import Action, Do, Finish, Look, Stop, Undo, plan
from attachd.saga.resumption import Sighting, decide

BEFORE = StepSpec(name="before", world=World.CINDER, undoable=True)
PIVOT = StepSpec(name="pivot", world=World.GUEST, pivot=True)
BEHIND = StepSpec(name="behind", world=World.HOST)
STEPS = (BEFORE, PIVOT, BEHIND)

OUTCOMES = {
    Standing.PENDING: (),
    Standing.OPEN: (Happening.DO_INTENT,),
    Standing.DONE: (Happening.DO_INTENT, Happening.DO_DONE),
    Standing.UNTOUCHED: (Happening.DO_INTENT, Happening.DO_UNTOUCHED),
    Standing.FAILED: (Happening.DO_INTENT, Happening.DO_FAILED),
}


def history(**standings: Standing) -> list[Entry]:
    return [
        Entry(happening=happening, step=step)
        for step, standing in standings.items()
        for happening in OUTCOMES[standing]
    ]


def short(action: Action) -> str:
    if isinstance(action, Finish):
        return f"finish {action.state}"
    return f"{type(action).__name__.lower()} {action.step.name}"


DONE, PENDING, OPEN = Standing.DONE, Standing.PENDING, Standing.OPEN
UNTOUCHED, FAILED = Standing.UNTOUCHED, Standing.FAILED


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ({}, "do before"),
        ({"before": OPEN}, "look before"),
        ({"before": UNTOUCHED}, "finish refused"),
        ({"before": FAILED}, "undo before"),
        ({"before": DONE}, "do pivot"),
        ({"before": DONE, "pivot": OPEN}, "look pivot"),
        ({"before": DONE, "pivot": UNTOUCHED}, "undo before"),
        ({"before": DONE, "pivot": FAILED}, "stop pivot"),
        ({"before": DONE, "pivot": DONE}, "do behind"),
        ({"before": DONE, "pivot": DONE, "behind": OPEN}, "look behind"),
        ({"before": DONE, "pivot": DONE, "behind": UNTOUCHED}, "stop behind"),
        ({"before": DONE, "pivot": DONE, "behind": FAILED}, "stop behind"),
        ({"before": DONE, "pivot": DONE, "behind": DONE}, "finish done"),
    ],
)
def test_forward(standings: dict[str, Standing], expected: str) -> None:
    assert short(plan(STEPS, history(**standings))) == expected


@pytest.mark.parametrize(
    ("undo", "expected"),
    [
        ((), "look before"),
        ((Happening.UNDO_DONE,), "finish undone"),
        ((Happening.UNDO_FAILED,), "stop before"),
        ((Happening.UNDO_FAILED, Happening.RESUME_BACK), "undo before"),
    ],
)
def test_back(undo: tuple[Happening, ...], expected: str) -> None:
    begun = [
        *history(before=FAILED),
        Entry(happening=Happening.UNDO_INTENT, step="before"),
        *(Entry(happening=h, step="" if h is Happening.RESUME_BACK else "before") for h in undo),
    ]
    assert short(plan(STEPS, begun)) == expected


def test_undo_goes_in_reverse_and_skips_what_was_never_touched() -> None:
    steps = attach.TABLE
    names = [step.name for step in steps]
    lines = history(**dict.fromkeys(names[: names.index("plug")], DONE), plug=UNTOUCHED)
    undone = []
    while isinstance(action := plan(steps, lines), Undo):
        undone.append(action.step.name)
        lines += [
            Entry(happening=Happening.UNDO_INTENT, step=action.step.name),
            Entry(happening=Happening.UNDO_DONE, step=action.step.name),
        ]
    assert undone == ["connect", "create", "reserve"]
    assert short(action) == "finish undone"


def test_nothing_is_undone_past_a_failed_undo() -> None:
    steps = attach.TABLE
    names = [step.name for step in steps]
    lines = history(**dict.fromkeys(names[: names.index("complete")], DONE), complete=FAILED)
    assert short(plan(steps, lines)) == "undo plug"
    lines += [
        Entry(happening=Happening.UNDO_INTENT, step="plug"),
        Entry(happening=Happening.UNDO_FAILED, step="plug"),
    ]
    assert short(plan(steps, lines)) == "stop plug"


@pytest.mark.parametrize("failed", [UNTOUCHED, FAILED])
@pytest.mark.parametrize("step", ["connect", "identify"])
def test_what_was_done_before_a_resumption_is_undone_when_going_forward_fails(
    step: str, failed: Standing
) -> None:
    """The guest's disk above all: it was plugged before, and the redone attach never got there."""
    steps = attach.TABLE
    names = [spec.name for spec in steps]
    lines = history(**dict.fromkeys(names[: names.index("plug")], DONE), plug=OPEN)
    lines.append(Entry(happening=Happening.RESUME_FORWARD))
    lines += history(**dict.fromkeys(names[: names.index(step)], DONE), **{step: failed})
    undone = []
    while isinstance(action := plan(steps, lines), Undo):
        undone.append(action.step.name)
        lines += [
            Entry(happening=Happening.UNDO_INTENT, step=action.step.name),
            Entry(happening=Happening.UNDO_DONE, step=action.step.name),
        ]
    assert undone == ["plug", "connect", "create", "reserve"]
    assert short(action) == "finish undone"


def test_a_detach_whose_guest_let_go_stops_rather_than_turns_back() -> None:
    lines = history(precheck=DONE, begin=DONE, unplug=FAILED)
    lines += [
        Entry(happening=Happening.RESUME_FORWARD),
        *history(precheck=DONE, begin=UNTOUCHED),
    ]
    assert short(plan(detach.TABLE, lines)) == "stop begin"
    lines += [Entry(happening=Happening.RESUME_FORWARD), *history(precheck=UNTOUCHED)]
    assert short(plan(detach.TABLE, lines)) == "stop precheck"


RESULTS = st.sampled_from(["done", "untouched", "failed", "crash"])
UNDO_RESULTS = st.sampled_from(["done", "failed", "crash"])


@pytest.mark.parametrize("table", [attach.TABLE, detach.TABLE], ids=["attach", "detach"])
@given(data=st.data())
def test_any_course_ends_and_leaves_nothing_half_undone(
    table: tuple[StepSpec, ...], data: st.DataObject
) -> None:
    """Whatever happens to each step, the plan ends; undone means that no effect is left."""
    kind = OperationKind.ATTACH if table is attach.TABLE else OperationKind.DETACH
    lines: list[Entry] = []
    for _ in range(200):
        action = plan(table, lines)
        match action:
            case Do(step=step):
                lines.append(Entry(happening=Happening.DO_INTENT, step=step.name))
                result = data.draw(RESULTS)
                if result != "crash":
                    lines.append(Entry(happening=Happening(f"do-{result}"), step=step.name))
            case Undo(step=step):
                lines.append(Entry(happening=Happening.UNDO_INTENT, step=step.name))
                result = data.draw(UNDO_RESULTS)
                if result != "crash":
                    lines.append(Entry(happening=Happening(f"undo-{result}"), step=step.name))
            case Look():
                seen = Sighting(
                    guest_holds_disk=data.draw(st.booleans()),
                    attachment_is_ours=data.draw(st.booleans()),
                )
                lines.append(Entry(happening=decide(kind, table, lines, seen).happening))
            case Stop():
                return
            case Finish(state=state):
                _check_end(table, lines, state)
                return


def _check_end(table: tuple[StepSpec, ...], lines: list[Entry], state: OperationState) -> None:
    standings = fold(table, lines).standings
    if state is OperationState.DONE:
        assert set(standings) == {DONE}
        return
    for step, standing in zip(table, standings, strict=True):
        if step.undoable:
            assert standing in (PENDING, UNTOUCHED, Standing.UNDONE), step.name
