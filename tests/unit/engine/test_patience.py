"""Pauses grow, are each operation's own, and end when a world comes back."""

from __future__ import annotations

import pytest

from attachd.engine.patience import Patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("attachd.engine.patience.time.monotonic", lambda: now[0])
    return now


def tries(clock: list[float], until: float) -> list[float]:
    """When an operation is tried, looked at once a second."""
    waiting, begun = Patience(first=30), clock[0]
    found = []
    while clock[0] < begun + until:
        if waiting.is_over("one"):
            found.append(clock[0] - begun)
        clock[0] += 1
    return found


def test_pauses_double_up_to_the_longest(clock: list[float]) -> None:
    assert tries(clock, 2600) == [0, 30, 90, 210, 450, 930, 1530, 2130]


def test_each_operation_has_its_own(clock: list[float]) -> None:
    waiting = Patience(first=30)
    assert waiting.is_over("one")
    assert waiting.is_over("two")
    assert not waiting.is_over("one")


def test_a_world_that_comes_back_ends_all_pauses(clock: list[float]) -> None:
    waiting = Patience(first=30)
    assert waiting.is_over("one")
    waiting.forget()
    assert waiting.is_over("one")
