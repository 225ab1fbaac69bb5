"""Forward or back after an interruption: each rule of it."""

from __future__ import annotations

import itertools

import pytest

from attachd.model import OperationKind
from attachd.operations import attach, detach, extend
from attachd.saga.history import Entry, Happening
from attachd.saga.resumption import Sighting, decide

PLUGGED = [Entry(happening=Happening.DO_INTENT, step="plug")]
UNDOING = [*PLUGGED, Entry(happening=Happening.UNDO_INTENT, step="plug")]


def direction(kind: OperationKind, history: list[Entry], *, holds: bool, ours: bool) -> str:
    table = attach.TABLE if kind is OperationKind.ATTACH else detach.TABLE
    seen = Sighting(guest_holds_disk=holds, attachment_is_ours=ours)
    return decide(kind, table, history, seen).happening.value.removeprefix("resume-")


@pytest.mark.parametrize(
    ("holds", "ours", "expected"),
    [
        (True, True, "forward"),
        (True, False, "back"),
        (False, True, "back"),
        (False, False, "back"),
    ],
)
def test_an_attach_goes_forward_only_where_the_guest_holds_our_disk(
    holds: bool, ours: bool, expected: str
) -> None:
    assert direction(OperationKind.ATTACH, PLUGGED, holds=holds, ours=ours) == expected


@pytest.mark.parametrize(("holds", "ours"), list(itertools.product([True, False], repeat=2)))
def test_an_attach_whose_undo_was_begun_goes_back_whatever_is_seen(holds: bool, ours: bool) -> None:
    assert direction(OperationKind.ATTACH, UNDOING, holds=holds, ours=ours) == "back"


@pytest.mark.parametrize(("holds", "expected"), [(True, "back"), (False, "forward")])
def test_a_detach_goes_forward_once_the_guest_let_go(holds: bool, expected: str) -> None:
    begun = [Entry(happening=Happening.DO_INTENT, step="begin")]
    assert direction(OperationKind.DETACH, begun, holds=holds, ours=True) == expected


@pytest.mark.parametrize(("grown", "expected"), [(True, "forward"), (False, "back")])
def test_an_extend_goes_forward_once_the_volume_has_grown(grown: bool, expected: str) -> None:
    begun = [Entry(happening=Happening.DO_INTENT, step="cinder-extend")]
    seen = Sighting(guest_holds_disk=False, attachment_is_ours=False, volume_has_grown=grown)
    verdict = decide(OperationKind.EXTEND, extend.TABLE, begun, seen)
    assert verdict.happening.value == f"resume-{expected}"


@pytest.mark.parametrize("kind", OperationKind)
def test_what_touched_nothing_begins_anew(kind: OperationKind) -> None:
    begun = [Entry(happening=Happening.DO_INTENT, step="precheck")]
    assert direction(kind, begun, holds=False, ours=False) == "forward"
