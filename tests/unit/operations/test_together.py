from __future__ import annotations

import threading

import pytest

from attachd.errors import Code, Refused
from attachd.operations.together import together
from attachd.trace import Library, call, collecting

PATIENCE = 30


def refuse(code: Code) -> None:
    raise Refused(code, "No.")


def test_both_are_under_way_at_once() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)
    assert sorted(together(meeting.wait, meeting.wait)) == [0, 1]


def test_both_calls_are_the_operations() -> None:
    def ask(name: str) -> str:
        with call(Library.CINDER, name):
            return name

    with collecting() as calls:
        assert together(lambda: ask("a"), lambda: ask("b")) == ("a", "b")
    assert {each.name for each in calls} == {"a", "b"}


def test_the_first_ones_error_waits_for_nobody() -> None:
    before = set(threading.enumerate())
    raised = threading.Event()

    def other() -> None:
        assert raised.wait(PATIENCE)
        refuse(Code.VOLUME_NOT_FOUND)

    with pytest.raises(Refused) as caught:
        together(lambda: refuse(Code.GUEST_NOT_FOUND), other)
    assert caught.value.code is Code.GUEST_NOT_FOUND
    raised.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert set(threading.enumerate()) <= before


def test_the_seconds_error() -> None:
    with pytest.raises(Refused) as caught:
        together(lambda: 1, lambda: refuse(Code.VOLUME_NOT_FOUND))
    assert caught.value.code is Code.VOLUME_NOT_FOUND
