"""Those who follow an operation hear of it soon, and of no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from attachd.engine.progress import Progress
from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench


def test_news_wakes_whoever_follows_that_operation() -> None:
    progress = Progress()
    asked: dict[str, int] = {"mine": 0, "another's": 0}
    known = threading.Event()
    waiting = threading.Barrier(3)

    def follow(operation_id: str) -> bool:
        def known_by_now() -> bool:
            asked[operation_id] += 1
            if asked[operation_id] == 1:
                waiting.wait(PATIENCE)
                return False
            return known.is_set()

        with progress.following(operation_id) as news:
            return news.wait_until(known_by_now, PATIENCE if operation_id == "mine" else 0.5)

    with ThreadPoolExecutor() as pool:
        mine, anothers = pool.submit(follow, "mine"), pool.submit(follow, "another's")
        waiting.wait(PATIENCE)
        known.set()
        progress.news("mine")
        assert mine.result(PATIENCE)
        assert not anothers.result(PATIENCE)
    assert asked["mine"] >= 2
    assert asked["another's"] == 1


def test_news_that_comes_before_the_waiting_is_not_missed() -> None:
    progress = Progress()
    with progress.following("it") as news:
        progress.news("it")
        assert news.wait_until(lambda: True, 0)
        assert not news.wait_until(lambda: False, 0)
    progress.news("it")


def test_what_comes_shortly_behind_the_first_news_is_told_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer costs the operation that is under way. Behind its end nothing is waited for."""
    monkeypatch.setattr("attachd.engine.engine._SHORTLY", 10 * PATIENCE)
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    operation_id = bench.submit(OperationKind.ATTACH, "web", "data")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(bench.engine.wait, operation_id, after=0, timeout=10 * PATIENCE)
        events = waiting.result(PATIENCE)
    assert bench.engine.operation(operation_id).state == "done"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert bench.engine.wait(operation_id, after=events[-1].seq, timeout=PATIENCE) == ()


def test_who_has_no_time_gets_what_there_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an operation that is under way, too."""
    monkeypatch.setattr("attachd.engine.engine._SHORTLY", 10 * PATIENCE)
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    begun, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        begun.set()
        go_on.wait(PATIENCE)

    bench.cinder.before_next("update", hold_up)
    operation_id = bench.submit(OperationKind.ATTACH, "web", "data")
    try:
        assert begun.wait(PATIENCE)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(bench.engine.wait, operation_id, after=0, timeout=0)
            assert waiting.result(PATIENCE)
    finally:
        go_on.set()
    assert bench.rested(operation_id).state == "done"
