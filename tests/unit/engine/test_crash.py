"""A daemon that is killed at any moment of an operation, and the next one's recovery.

At each moment that has a name, doing and undoing, the thread that drives the operation dies, while
the journal and the worlds stay as they were; then a new engine starts on them. In a power cut the
journal loses what it didn't wait for the disk with.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from attachd.engine.kill_points import all_names
from attachd.errors import Code, Unreachable, World
from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench, KilledError, in_both_styles

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # the deaths that are meant
)

ATTACH = [name for name in all_names() if name.startswith("attach.") and ".do." in name]
ATTACH_BACK = [name for name in all_names() if name.startswith("attach.") and ".undo." in name]
DETACH = [name for name in all_names() if name.startswith("detach.") and ".do." in name]
DETACH_BACK = [name for name in all_names() if name.startswith("detach.") and ".undo." in name]

PLUGGED = ATTACH.index("attach.plug.do.after-effect")
RESERVED = ATTACH.index("attach.reserve.do.after-intent")
LET_GO = DETACH.index("detach.unplug.do.after-effect")
BEGUN = DETACH.index("detach.begin.do.after-intent")


@pytest.fixture(autouse=True, params=["killed", "power cut"])
def crash(request: pytest.FixtureRequest, bench: Bench) -> None:
    """How the daemon ends."""
    if request.param == "power cut":
        bench.keep_what_is_on_the_disk()


@pytest.mark.parametrize("moment", ATTACH)
def test_an_attach_is_killed(bench: Bench, moment: str) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    operation = kill_at(bench, moment, OperationKind.ATTACH)
    went_forward = bench.engine.operation(operation).state == "done"
    if went_forward:
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)
    assert went_forward == (not RESERVED <= ATTACH.index(moment) < PLUGGED)


@pytest.mark.parametrize("moment", ATTACH_BACK)
def test_an_attach_is_killed_on_its_way_back(bench: Bench, moment: str) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.cinder.fail_next("complete", times=2)
    operation = kill_at(bench, moment, OperationKind.ATTACH)
    state = bench.engine.operation(operation).state
    if state == "done":  # no undo had been journalled, and the guest held its disk
        assert moment == "attach.plug.undo.before-intent"
        bench.assert_attached(guest, volume)
    else:
        bench.assert_nothing_left(guest, volume)


@in_both_styles
@pytest.mark.parametrize("moment", DETACH)
def test_a_detach_is_killed(bench: Bench, moment: str) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    operation = kill_at(bench, moment, OperationKind.DETACH)
    went_forward = bench.engine.operation(operation).state == "done"
    if went_forward:
        bench.assert_nothing_left(guest, volume)
    else:
        bench.assert_attached(guest, volume)
    assert went_forward == (not BEGUN <= DETACH.index(moment) < LET_GO)


@in_both_styles
@pytest.mark.parametrize("moment", DETACH_BACK)
def test_a_detach_is_killed_on_its_way_back(bench: Bench, moment: str) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    bench.guests.make_deaf(guest)
    operation = kill_at(bench, moment, OperationKind.DETACH)
    assert bench.engine.operation(operation).state == "undone"
    bench.assert_attached(guest, volume)


def kill_at(bench: Bench, moment: str, kind: OperationKind) -> str:
    """Begin an operation, die in it, recover; the operation's id."""
    bench.kill_at = moment
    operation = bench.submit(kind, "web", "data")
    assert bench.killed.wait(PATIENCE), f"the operation never came to {moment}"
    bench.recover()
    return operation


@pytest.mark.parametrize("call", ["create", "update", "connect"])
def test_an_attach_is_killed_in_a_call_that_goes_on_without_it(bench: Bench, call: str) -> None:
    """cinder-volume's export, or iscsid's login, comes behind the end of who asked for it."""
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    if call == "connect":
        bench.host.orphan_next_login(KilledError())
    else:
        bench.cinder.orphan_next(call, KilledError())
    bench.submit(OperationKind.ATTACH, "web", "data")
    until_called(bench, call)
    bench.recover()
    bench.cinder.land()
    bench.host.land()
    bench.assert_nothing_left(guest, volume)


@in_both_styles
def test_a_detach_is_killed_in_a_begin_that_comes_late(bench: Bench) -> None:
    guest = bench.guests.add("web")
    volume = bench.cinder.add_volume(name="data")
    bench.attach("web", "data")
    bench.cinder.orphan_next("begin_detaching", KilledError())
    bench.submit(OperationKind.DETACH, "web", "data")
    until_called(bench, "begin_detaching")
    bench.recover()
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


@in_both_styles
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
