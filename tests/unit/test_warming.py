from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from attachd import warming
from attachd.errors import Code, Unreachable, World
from attachd.warming import Warming

PATIENCE = 30.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert set(threading.enumerate()) <= before


def test_all_is_asked_for_at_once_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "INTERVAL", 0.01)
    asked = {name: threading.Semaphore(0) for name in ("a", "b")}
    warm = Warming(things={name: semaphore.release for name, semaphore in asked.items()})
    warm.start()
    for semaphore in asked.values():
        for _ in range(3):
            assert semaphore.acquire(timeout=PATIENCE)
    warm.stop()


def test_the_first_time_comes_at_once() -> None:
    asked = threading.Event()
    warm = Warming(things={"a": asked.set})
    warm.start()
    assert asked.wait(PATIENCE)  # not after warming.INTERVAL
    warm.stop()


def test_what_can_not_be_had_keeps_nothing_else_off(caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Event()

    def refuse() -> None:
        raise Unreachable(
            Code.CINDER_UNAVAILABLE, "Cinder is away.", world=World.CINDER, touched=False
        )

    warm = Warming(things={"Cinder": refuse, "the connector": asked.set})
    with caplog.at_level(logging.INFO):
        warm.start()
        assert asked.wait(PATIENCE)
        warm.stop()
    assert caplog.records == []


def test_a_stop_waits_for_nobody() -> None:
    answer, asked = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        answer.wait(PATIENCE)

    warm = Warming(things={"Keystone": hang})
    warm.start()
    assert asked.wait(PATIENCE)
    warm.stop()
    assert not answer.is_set()
    answer.set()
