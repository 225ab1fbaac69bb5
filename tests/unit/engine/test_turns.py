"""Attaches between their reservation and their export: so many at once for each backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attachd.engine.turns import Turns
from attachd.errors import AttachdError, Code
from attachd.model import AttachFlow, OperationKind, OperationState
from tests.unit.bench import PATIENCE, Bench, KilledError, in_both_styles

IN_UPDATE = "attach.update.do.after-intent"
BEHIND_PLUG = "attach.plug.do.after-effect"
A_WHILE = 0.5


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(directory=tmp_path, exports_at_once=1)
    bench.start()
    yield bench
    bench.stop()


def _pairs(bench: Bench, *service_uuids: str) -> list[tuple[str, str]]:
    """A guest and a volume of each backend."""
    pairs = []
    for number, service_uuid in enumerate(service_uuids):
        bench.guests.add(f"guest{number}", ports=4)
        bench.cinder.add_volume(name=f"volume{number}", service_uuid=service_uuid)
        pairs.append((f"guest{number}", f"volume{number}"))
    return pairs


def _until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _begin(bench: Bench, pairs: list[tuple[str, str]]) -> list[str]:
    return [bench.submit(OperationKind.ATTACH, *pair) for pair in pairs]


def _verbs(bench: Bench) -> list[str]:
    return [call.verb for call in bench.cinder.calls if call.verb in ("create", "update")]


def test_nobody_reserves_before_the_one_in_front_is_exported(bench: Bench) -> None:
    others_come = threading.Event()
    bench.at[IN_UPDATE] = lambda: others_come.wait(A_WHILE)
    operations = _begin(bench, _pairs(bench, *["one"] * 4))
    assert {bench.rested(each).state for each in operations} == {OperationState.DONE}
    assert _verbs(bench) == ["create", "update"] * 4


def test_each_backend_has_turns_of_its_own(bench: Bench) -> None:
    go_on = threading.Event()
    bench.at[IN_UPDATE] = lambda: go_on.wait(PATIENCE)
    (slow,), (quick,) = ([pair] for pair in _pairs(bench, "hangs", "works"))
    held = bench.submit(OperationKind.ATTACH, *slow)
    _until(lambda: IN_UPDATE not in bench.at)
    assert bench.attach(*quick).state is OperationState.DONE
    go_on.set()
    assert bench.rested(held).state is OperationState.DONE


def test_who_waits_for_a_backend_takes_nobodys_place(tmp_path: Path) -> None:
    """More wait than there are workers: what asks for another backend, or for none, goes on."""
    bench = Bench(directory=tmp_path, exports_at_once=1, workers=2)
    bench.start()
    go_on = threading.Event()
    *slow, quick = _pairs(bench, *["hangs"] * 4, "works")
    bench.at[IN_UPDATE] = lambda: go_on.wait(PATIENCE)
    waiting = _begin(bench, slow)
    _until(lambda: IN_UPDATE not in bench.at)
    assert bench.attach(*quick).state is OperationState.DONE
    assert bench.detach(*quick).state is OperationState.DONE
    go_on.set()
    assert {bench.rested(each).state for each in waiting} == {OperationState.DONE}
    bench.stop()


def test_a_turn_that_does_not_come_in_time_is_a_refusal(tmp_path: Path) -> None:
    bench = Bench(directory=tmp_path, exports_at_once=1, turn_timeout=0.05)
    bench.start()
    go_on = threading.Event()
    bench.at[IN_UPDATE] = lambda: go_on.wait(PATIENCE)
    first, second = _pairs(bench, "one", "one")
    held = bench.submit(OperationKind.ATTACH, *first)
    _until(lambda: IN_UPDATE not in bench.at)
    view = bench.attach(*second)
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.DEADLINE_EXCEEDED
    go_on.set()
    assert bench.rested(held).state is OperationState.DONE
    assert bench.attach(*second).state is OperationState.DONE
    bench.stop()


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, came = Turns(at_once=1, timeout=PATIENCE), list[int]()
    with turns.turn("one") as waited:
        assert not waited
        threads = []
        for number in range(5):
            thread = threading.Thread(target=_take, args=(turns, number, came))
            thread.start()
            threads.append(thread)
            _until(lambda at=number: len(turns._lines["one"]._waiting) == at + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENCE)
    assert came == list(range(5))


def _take(turns: Turns, number: int, came: list[int]) -> None:
    with turns.turn("one") as waited:
        assert waited
        came.append(number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waited_begins_anew_where_the_one_in_front_was_killed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody gave the turn back: a new process has turns of its own."""
    caplog.set_level("INFO")
    go_on = threading.Event()

    def die() -> None:
        go_on.wait(PATIENCE)
        raise KilledError

    bench.at[IN_UPDATE] = die
    first, second = _pairs(bench, "one", "one")
    killed = bench.submit(OperationKind.ATTACH, *first)
    _until(lambda: IN_UPDATE not in bench.at)
    waiting = bench.submit(OperationKind.ATTACH, *second)
    _until(lambda: "Waiting for a turn" in caplog.text)
    bench.engine._stopping.set()  # the process is dead: nobody drives anything any more
    go_on.set()
    bench.recover()
    assert bench.journal.operation(killed).state is OperationState.UNDONE
    assert bench.journal.operation(waiting).state is OperationState.DONE
    assert bench.journal.operations(open_only=True) == ()


def test_what_changed_while_it_waited_is_seen(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    go_on = threading.Event()
    bench.at[IN_UPDATE] = lambda: go_on.wait(PATIENCE)
    first, second = _pairs(bench, "one", "one")
    held = bench.submit(OperationKind.ATTACH, *first)
    _until(lambda: IN_UPDATE not in bench.at)
    waiting = bench.submit(OperationKind.ATTACH, *second)
    volume = bench.cinder.find_volume(second[1])
    _until(lambda: "Waiting for a turn" in caplog.text)
    bench.cinder.rules.volume(volume.volume_id).status = "error"
    go_on.set()
    assert bench.rested(held).state is OperationState.DONE
    view = bench.rested(waiting)
    assert view.state is OperationState.REFUSED
    assert view.problem is not None
    assert view.problem.code is Code.VOLUME_NOT_AVAILABLE
    assert _verbs(bench) == ["create", "update"]


def test_a_failed_export_gives_its_turn_back(bench: Bench) -> None:
    first, second = _pairs(bench, "one", "one")
    bench.cinder.fail_next("update", AttachdError(Code.CINDER_REFUSED, "It will not."))
    assert bench.attach(*first).state is OperationState.UNDONE
    assert bench.attach(*second).state is OperationState.DONE


def test_who_waits_for_a_turn_while_attachd_stops_begins_at_the_next_start(bench: Bench) -> None:
    go_on = threading.Event()
    bench.at[IN_UPDATE] = lambda: go_on.wait(PATIENCE)
    first, second = _pairs(bench, "one", "one")
    bench.submit(OperationKind.ATTACH, *first)
    _until(lambda: IN_UPDATE not in bench.at)
    waiting = bench.submit(OperationKind.ATTACH, *second)
    stopping = threading.Thread(target=bench.engine.stop, args=(PATIENCE,))
    stopping.start()
    _until(bench.engine._stopping.is_set)
    go_on.set()
    stopping.join(PATIENCE)
    assert _verbs(bench) == ["create", "update"]
    assert bench.journal.operation(waiting).state.open
    bench.recover()
    assert bench.journal.operation(waiting).state is OperationState.DONE


def _never(*_: object) -> None:
    raise AssertionError("a turn was waited for")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@in_both_styles
@pytest.mark.parametrize(
    ("kill_at", "end"),
    [(IN_UPDATE, OperationState.UNDONE), (BEHIND_PLUG, OperationState.DONE)],
)
def test_a_resumed_attach_waits_for_nobody(
    tmp_path: Path,
    flow: AttachFlow,
    kill_at: str,
    end: OperationState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may hold the backend's guard already, which whoever has the turn may wait for."""
    bench = Bench(directory=tmp_path, exports_at_once=1, flow=flow, kill_at=kill_at)
    bench.start()
    (pair,) = _pairs(bench, "one")
    operation = bench.submit(OperationKind.ATTACH, *pair)
    assert bench.killed.wait(PATIENCE)
    monkeypatch.setattr(Turns, "turn", _never)
    bench.recover()
    assert bench.journal.operation(operation).state is end
    bench.stop()
