"""Documents of real operations: the engine's own, run on fakes whose calls are noted.

The real rooms note their calls where they reach out; the fakes reach nobody, so it is done here, by
the same names.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from attachd.api import documents
from attachd.errors import AttachdError, Code
from attachd.model import OperationKind
from attachd.story.story import Story
from attachd.story.telling import tell
from attachd.trace import Library, call
from tests.fakes.cinder import FakeCinder
from tests.fakes.guests import FakeGuests
from tests.fakes.host import FakeHost
from tests.unit.bench import PATIENCE, Bench

Document = dict[str, Any]

deaths_are_meant = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
"""Marks a module: the first of its tests may be the one for which a daemon is killed."""

_CALLS: dict[type, tuple[Library, dict[str, str]]] = {
    FakeCinder: (
        Library.CINDER,
        {
            "find_volume": "GET /volumes/{}",
            "list_attachments": "GET /attachments",
            "get_attachment": "GET /attachments/{}",
            "create_attachment": "POST /attachments",
            "update_attachment": "PUT /attachments/{}",
            "complete_attachment": "POST /attachments/{}/action",
            "delete_attachment": "DELETE /attachments/{}",
            "begin_detaching": "POST /volumes/{}/action",
            "roll_detaching": "POST /volumes/{}/action",
        },
    ),
    FakeHost: (
        Library.OS_BRICK,
        {"connect": "connect", "disconnect": "disconnect", "identify": "sg_inq"},
    ),
    FakeGuests: (
        Library.LIBVIRT,
        {
            "check": "ping",
            "find": "read",
            "get": "read",
            "all": "list",
            "plug": "attach",
            "unplug": "detach",
        },
    ),
}


def note_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes' calls are noted, and take a moment."""
    for fake, (library, names) in _CALLS.items():
        for method, name in names.items():
            monkeypatch.setattr(fake, method, _noting(getattr(fake, method), library, name))


def _noting(method: Callable[..., Any], library: Library, name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def noting(self: object, *arguments: Any, **options: Any) -> Any:
        with call(library, name.format(*arguments)):
            time.sleep(0.002)
            return method(self, *arguments, **options)

    return noting


class Told:
    """What the API answers of an operation. No dataclass: a failing test would print all of it."""

    def __init__(self, *, operation: Document, events: list[Document]) -> None:
        self.operation = operation
        self.events = events

    def story(self) -> Story:
        return tell(self.operation, self.events)

    def story_with_requests(self) -> Story:
        """With something that went over HTTP for each of Cinder's calls."""
        operation = deepcopy(self.operation)
        for each in operation["calls"]:
            if each["library"] == "cinder":
                each["request"] = request_of(each["name"])
        return tell(operation, self.events, requests=True)

    def but(self, **changes: Any) -> Told:
        """Another one, with these fields of the operation changed."""
        return Told(operation={**deepcopy(self.operation), **changes}, events=self.events)


def request_of(name: str) -> Document:
    """A request and its answer, as the API tells them."""
    method, path = name.split(" ")
    changing = method != "GET"
    return {
        "method": method,
        "url": f"http://192.0.2.1:8776/v3{path}",
        "status": 202 if changing else 200,
        "request_id": "req-5e1c4a4a-0000-4000-8000-000000000001",
        "body": {"connector": {"host": "compute"}} if changing else None,
        "answer": {"attachment": {"connection_info": {"auth_password": "***", "target_lun": 0}}},
    }


def told(bench: Bench, operation_id: str) -> Told:
    """An operation and its events as documents; a step's offset is what the journal has."""
    operation = documents.operation(bench.engine.operation(operation_id))
    accepted = bench.journal.operation(operation_id).accepted
    rows = bench.journal.events(operation_id)
    intents = [row.uptime - accepted for row in rows if row.entry.happening.endswith("-intent")]
    for step, offset in zip(operation["steps"], intents, strict=True):
        step.setdefault("offset", round(offset, 4))
    events = bench.engine.wait(operation_id, after=0, timeout=0)
    return Told(operation=operation, events=[documents.event(event) for event in events])


@contextmanager
def _bench(directory: Path) -> Iterator[Bench]:
    directory.mkdir()
    bench = Bench(directory=directory)
    bench.start()
    bench.guests.add("web")
    bench.cinder.add_volume(name="data")
    yield bench
    bench.stop()


def _attached(bench: Bench) -> str:
    return bench.attach("web", "data").operation_id


def _detached(bench: Bench) -> str:
    bench.attach("web", "data")
    return bench.detach("web", "data").operation_id


def _rolled_back(bench: Bench) -> str:
    """It failed behind the plug."""
    refusal = AttachdError(
        Code.CINDER_REFUSED,
        "Cinder refused the request.",
        details="HTTP 409: it is no longer attaching; it is in error",
        resolution="See Cinder's log.",
    )
    bench.cinder.fail_next("complete", refusal)
    return bench.attach("web", "data").operation_id


def _kept(bench: Bench) -> str:
    """A detach whose guest keeps the disk: it is rolled back."""
    bench.attach("web", "data")
    bench.guests.make_deaf(bench.guests.find("web").guest_id)
    return bench.detach("web", "data").operation_id


def _unfinished(bench: Bench) -> str:
    """An attach whose undo failed, since the guest keeps the disk."""
    guest_id = bench.guests.find("web").guest_id
    bench.cinder.fail_next("complete")
    bench.cinder.before_next("complete", lambda: bench.guests.make_deaf(guest_id))
    return bench.attach("web", "data").operation_id


def _refused(bench: Bench) -> str:
    return bench.attach("nobody", "data").operation_id


def _recovered(bench: Bench) -> str:
    """An attach in which attachd was killed before its guest had the disk: it goes back."""
    return _killed(bench, "attach.connect.do.after-effect")


def _completed(bench: Bench) -> str:
    """The same, but its guest had it already: it goes on, and its steps are done anew."""
    return _killed(bench, "attach.plug.do.after-effect")


def _killed(bench: Bench, moment: str) -> str:
    bench.kill_at = moment
    operation_id = bench.submit(OperationKind.ATTACH, "web", "data")
    assert bench.killed.wait(PATIENCE)
    bench.recover()
    return operation_id


STORIES: dict[str, Callable[[Bench], str]] = {
    "attached": _attached,
    "detached": _detached,
    "rolled back": _rolled_back,
    "kept": _kept,
    "unfinished": _unfinished,
    "refused": _refused,
    "recovered": _recovered,
    "completed": _completed,
}


def all_told(directory: Path) -> dict[str, Told]:
    """Every one of STORIES, on a bench of its own."""
    found = {}
    for name, run in STORIES.items():
        with _bench(directory / name) as bench:
            found[name] = told(bench, run(bench))
    return found
