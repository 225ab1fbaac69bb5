"""A daemon that is killed between any two lines of the journal, and the next one's recovery.

The journal is cut off behind each line of a whole attach and a whole detach in turn, as a kill
leaves it, while the worlds stay as they were at that moment; then a new engine starts on it.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from attachd.errors import Code, Unreachable, World
from attachd.journal.journal import Journal
from attachd.model import OperationKind
from attachd.saga.history import Entry
from tests.unit.engine.bench import Bench
from tests.unit.engine.test_attach import wait_until_closed

ATTACH_LINES = 18
DETACH_LINES = 14


class Killed(BaseException):
    """The end of a process, as far as a thread can tell."""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """[lines left]: behind so many lines the journal takes nothing more, as after a kill."""
    left = [10**6]
    append, rest = Journal.append, Journal.rest

    def cut_append(self: Journal, operation_id: str, entry: Entry, **rest: object) -> None:
        if left[0] <= 0:
            raise Killed
        append(self, operation_id, entry, **rest)  # type: ignore[arg-type]
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def cut_rest(self: Journal, *args: object, **kwargs: object) -> None:
        if left[0] <= 0:
            raise Killed
        rest(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "append", cut_append)
    monkeypatch.setattr(Journal, "rest", cut_rest)
    return left


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lines", range(1, ATTACH_LINES + 1))
def test_an_attach_is_killed(bench: Bench, cut: list[int], lines: int) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    cut[0] = lines
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    while cut[0] > 0:
        bench.engine.wait(operation, after=10**6, timeout=0.01)
    crash_and_recover(bench, cut)
    state = bench.engine.operation(operation).state
    if state == "done":
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)
    plugged = 14  # the outcome of plug
    nothing_touched = 3
    assert (state == "done") == (lines >= plugged or lines < nothing_touched)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lines", range(1, DETACH_LINES + 1))
def test_a_detach_is_killed(bench: Bench, cut: list[int], lines: int) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    cut[0] = lines
    operation = bench.submit(OperationKind.DETACH, "web", "data")
    while cut[0] > 0:
        bench.engine.wait(operation, after=10**6, timeout=0.01)
    crash_and_recover(bench, cut)
    state = bench.engine.operation(operation).state
    if state == "done":
        bench.assert_nothing_left(guest, volume)
    else:
        bench.assert_attached(guest, volume)
    let_go = 6  # the outcome of unplug
    nothing_touched = 3
    assert (state == "done") == (lines >= let_go or lines < nothing_touched)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("call", ["create", "update", "connect"])
def test_an_attach_is_killed_in_a_call_that_goes_on_without_it(
    bench: Bench, cut: list[int], call: str
) -> None:
    """cinder-volume's export, or iscsid's login, comes behind the end of who asked for it."""
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    if call == "connect":
        bench.host.orphan_next_login(Killed())
    else:
        bench.cinder.orphan_next(call, Killed())
    bench.submit(OperationKind.ATTACH, "web", "data")
    until_called(bench, call)
    crash_and_recover(bench, cut)
    bench.cinder.land()
    bench.host.land()
    bench.assert_nothing_left(guest, volume)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_detach_is_killed_in_a_begin_that_comes_late(bench: Bench, cut: list[int]) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    bench.cinder.orphan_next("begin_detaching", Killed())
    bench.submit(OperationKind.DETACH, "web", "data")
    until_called(bench, "begin_detaching")
    crash_and_recover(bench, cut)
    bench.cinder.land()
    bench.assert_attached(guest, volume)


@pytest.mark.parametrize("call", ["create", "update"])
def test_an_answer_is_lost_and_the_effect_comes_late(bench: Bench, call: str) -> None:
    """Nobody was killed: what Cinder does behind an answer that was lost is waited for, too."""
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    lost = Unreachable(Code.CINDER_UNAVAILABLE, "Lost.", world=World.CINDER, touched=True)
    bench.cinder.orphan_next(call, lost)
    assert bench.attach("web", "data").state == "undone"
    bench.cinder.land()
    bench.assert_nothing_left(guest, volume)


def until_called(bench: Bench, call: str) -> None:
    while call not in {c.verb for c in bench.cinder.calls} | {c.method for c in bench.host.calls}:
        time.sleep(0.01)


def crash_and_recover(bench: Bench, cut: list[int]) -> None:
    bench.engine.stop(5)
    bench.journal.close()
    cut[0] = 10**6
    bench.start()
    wait_until_closed(bench)


def test_recovery_reads_only_the_file(bench: Bench, tmp_path: Path) -> None:
    """What a kill leaves is what a copy of the directory has: nothing else is needed."""
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bench.directory.glob("journal.db*"):
        shutil.copy(file, copy)
    bench.stop()
    bench.directory = copy
    bench.start()
    bench.assert_attached(guest, volume)
