"""When history is forgotten: now and then, and never while a world can't be looked at."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attachd import trace
from attachd.audit import forgetting
from attachd.audit.findings import Finding, FindingCode
from attachd.audit.forgetting import Forgetting
from attachd.errors import AttachdError, Code
from attachd.journal.history import Terms

GONE = Finding(
    code=FindingCode.DEVICE_GONE,
    brief="The host has no device.",
    says={},
    resolution="Detach it.",
    volume_id="v",
)
AWAY = Finding(
    code=FindingCode.WORLD_UNREACHABLE, brief="Cinder is away.", says={}, resolution="Wait."
)


class Played:
    """A journal with so many operations to forget, two in a batch."""

    def __init__(self, operations: int = 0) -> None:
        self.operations = operations
        self.asked: list[tuple[Terms, set[str]]] = []

    def forget_history(self, terms: Terms, *, spared: Collection[str]) -> int:
        self.asked.append((terms, set(spared)))
        batch = min(2, self.operations)
        self.operations -= batch
        return batch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The boot's own, to be turned forward."""
    time = [1000.0]
    monkeypatch.setattr(trace, "now", lambda: time[0])
    return time


@pytest.mark.usefixtures("clock")
def test_on_the_terms_of_the_options() -> None:
    journal = Played()
    Forgetting(history=journal, most=500, days=30).forget((GONE,))
    ((terms, spared),) = journal.asked
    assert (terms.most, terms.kept, spared) == (500, 100, {"v"})
    age = datetime.now(UTC) - datetime.fromisoformat(terms.ended_before)
    assert timedelta(days=30) <= age < timedelta(days=31)


@pytest.mark.usefixtures("clock")
def test_fewer_are_kept_than_always_where_fewer_are_asked_for() -> None:
    journal = Played()
    Forgetting(history=journal, most=5, days=30).forget(())
    assert journal.asked[0][0].kept == 5


def test_now_and_then(clock: list[float]) -> None:
    journal = Played(operations=3)
    forgets = Forgetting(history=journal, most=1, days=1)
    forgets.forget(())
    assert journal.operations == 0
    asked = len(journal.asked)
    clock[0] += forgetting.INTERVAL - 1
    forgets.forget(())
    assert len(journal.asked) == asked
    clock[0] += 1
    forgets.forget(())
    assert len(journal.asked) == asked + 1


@pytest.mark.usefixtures("clock")
def test_one_device_that_does_not_answer_keeps_its_own_history_alone() -> None:
    journal = Played(operations=1)
    silent = replace(AWAY, volume_id="v")
    Forgetting(history=journal, most=1, days=1).forget((silent,))
    assert journal.operations == 0
    assert journal.asked[0][1] == {"v"}


@pytest.mark.usefixtures("clock")
def test_nothing_is_forgotten_while_a_world_is_away() -> None:
    journal = Played(operations=1)
    forgets = Forgetting(history=journal, most=1, days=1)
    forgets.forget((GONE, AWAY))
    assert journal.asked == []
    forgets.forget((GONE,))
    assert journal.operations == 0


@pytest.mark.usefixtures("clock")
def test_the_next_audits_turn_goes_on_where_there_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "BATCHES", 2)
    journal = Played(operations=5)
    forgets = Forgetting(history=journal, most=1, days=1)
    forgets.forget(())
    assert journal.operations == 1
    forgets.forget(())
    assert journal.operations == 0


def test_a_journal_that_cannot_be_written_is_asked_again_later(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Played):
        def forget_history(self, terms: Terms, *, spared: Collection[str]) -> int:
            super().forget_history(terms, spared=spared)
            raise AttachdError(Code.JOURNAL_FULL, "There is no room.")

    journal = Full()
    forgets = Forgetting(history=journal, most=1, days=1)
    forgets.forget(())
    forgets.forget(())
    assert len(journal.asked) == 1
    assert "There is no room" in caplog.text
    clock[0] += forgetting.INTERVAL
    forgets.forget(())
    assert len(journal.asked) == 2
