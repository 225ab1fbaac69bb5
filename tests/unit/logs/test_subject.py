"""Each line that is logged for an operation says which one, and what it is about."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from pathlib import Path

import pytest

from attachd.audit.watch import Watch
from attachd.errors import AttachdError, Code
from attachd.logs.journald import JournaldHandler
from attachd.logs.subject import about, current, note
from attachd.model import OperationKind
from tests.unit.bench import PATIENCE, Bench
from tests.unit.logs.journal import Entry, FakeJournald

LIBRARY = logging.getLogger("some.library")


@pytest.fixture
def entries(tmp_path: Path) -> Iterator[Callable[[], list[Entry]]]:
    """What journald has got, of anybody's logger."""
    root = logging.getLogger()
    with FakeJournald(tmp_path / "socket") as journald:
        handler = JournaldHandler(path=journald.path)
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        yield journald.entries
        root.removeHandler(handler)
        root.setLevel(before)
        handler.close()


def about_operation(entries: list[Entry], operation_id: str) -> list[Entry]:
    return [entry for entry in entries if entry.get("ATTACHD_OPERATION") == [operation_id]]


def all_ended() -> None:
    """The last line of an operation comes behind its rest."""
    for thread in threading.enumerate():
        if thread.name.startswith("operation-"):
            thread.join(PATIENCE)


def test_an_operations_lines_are_found_by_all_that_it_is_about(
    bench: Bench, guest: str, entries: Callable[[], list[Entry]]
) -> None:
    """Also what a library logs in its thread, from the moment at which it is known."""
    volume = bench.cinder.add_volume(name="data")
    for step in ("precheck", "create", "connect", "plug"):
        bench.at[f"attach.{step}.do.before-intent"] = partial(LIBRARY.info, step)
    view = bench.attach("web", "data")
    assert view.attachment is not None
    all_ended()
    found = {
        entry["MESSAGE"][0]: {
            name.removeprefix("ATTACHD_").lower(): value
            for name, (value,) in entry.items()
            if name.startswith("ATTACHD_")
        }
        for entry in about_operation(entries(), view.operation_id)
    }
    asked = {
        "operation": view.operation_id,
        "kind": "attach",
        "global_request_id": f"req-{view.operation_id}",
    }
    resolved = {**asked, "volume": volume, "volume_name": "data"}
    resolved |= {"guest": guest, "guest_name": "web"}
    attached = {**resolved, "attachment": view.attachment.attachment_id}
    assert found["precheck"] == asked
    assert found["create"] == resolved
    assert found["connect"] == found["plug"] == attached
    assert found[f"{view.operation_id}: attach is done"] == attached


@pytest.mark.usefixtures("guest")
def test_a_failed_step_is_named(bench: Bench, entries: Callable[[], list[Entry]]) -> None:
    bench.cinder.add_volume(name="data")
    bench.guests.fail_next("plug", AttachdError(Code.GUEST_REFUSED, "No.", touched=False))
    view = bench.attach("web", "data")
    all_ended()
    steps = {
        step
        for entry in about_operation(entries(), view.operation_id)
        for step in entry.get("ATTACHD_STEP", ())
        if "guest-refused" in entry["MESSAGE"][0]
    }
    assert steps == {"plug"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant
def test_a_resumed_one_says_all_from_its_first_line(
    bench: Bench, guest: str, entries: Callable[[], list[Entry]]
) -> None:
    volume = bench.cinder.add_volume(name="data")
    bench.kill_at = "attach.plug.do.after-effect"
    operation = bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    entries()
    bench.recover()
    all_ended()
    lines = about_operation(entries(), operation)
    assert lines
    for entry in lines:
        assert (entry["ATTACHD_VOLUME"], entry["ATTACHD_GUEST"]) == ([volume], [guest])
        assert entry["ATTACHD_ATTACHMENT"]


def test_operations_side_by_side_keep_theirs(
    bench: Bench, entries: Callable[[], list[Entry]]
) -> None:
    volumes = {}
    for name in ("a", "b", "c"):
        bench.guests.add(name)
        volumes[name] = bench.cinder.add_volume(name=name)
    begun = {name: bench.submit(OperationKind.ATTACH, name, name) for name in volumes}
    for operation in begun.values():
        bench.rested(operation)
    all_ended()
    lines = entries()
    for name, operation in begun.items():
        (done,) = (e for e in lines if e["MESSAGE"] == [f"{operation}: attach is done"])
        assert done["ATTACHD_VOLUME"] == [volumes[name]]
        assert done["ATTACHD_GUEST_NAME"] == [name]


def test_a_finding_is_about_its_volume_and_guest(
    bench: Bench, guest: str, volume: str, entries: Callable[[], list[Entry]]
) -> None:
    bench.guests.drop_disk(guest, "vda", live=True, config=True)
    audited = threading.Event()
    watch = Watch(
        audit=bench.auditor.audit,
        fence=lambda _: None,
        forget=lambda _: audited.set(),
        interval=0.01,
        helper=lambda: 0.0,
        idle=lambda: True,
    )
    watch.start()
    assert audited.wait(PATIENCE)
    assert watch.stop(PATIENCE)
    (entry,) = (e for e in entries() if "ATTACHD_FINDING" in e)
    assert entry["ATTACHD_FINDING"] == ["disk-gone"]
    assert (entry["ATTACHD_VOLUME"], entry["ATTACHD_GUEST"]) == ([volume], [guest])


def test_what_is_bound_ends_where_it_should() -> None:
    with about(operation="o", guest=None):
        note(volume="v")
        with about(request_id="r"):
            assert current() == {"operation": "o", "volume": "v", "request_id": "r"}
        note(volume=None)
        assert current() == {"operation": "o"}
        in_a_copy: list[object] = []
        thread = threading.Thread(
            target=copy_context().run, args=(lambda: in_a_copy.append(current()),)
        )
        thread.start()
        thread.join()
        assert in_a_copy == [{"operation": "o"}]
    assert current() == {}
