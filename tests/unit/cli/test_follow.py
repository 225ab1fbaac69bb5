"""A daemon that goes away midway: what is asked for is done once, and its end is seen."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attachd.cli import client, follow
from attachd.cli.failure import DaemonGone
from tests.fakes.engine import FakeEngine
from tests.unit.cli.conftest import Ran, Run
from tests.unit.serving import serving


@pytest.fixture(autouse=True)
def brief_long_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon stops only when its followers have their answer."""
    monkeypatch.setattr("attachd.api.routes.LONGEST_WAIT", 0.5)


class Background:
    """A command in a thread, while the test does something to its daemon."""

    def __init__(self, run: Run, *argv: str) -> None:
        self._ran: list[Ran] = []
        self._thread = threading.Thread(target=lambda: self._ran.append(run(*argv)))
        self._thread.start()

    def result(self) -> Ran:
        self._thread.join(timeout=120)
        return self._ran[0]


@pytest.fixture
def deaf(path: Path) -> Iterator[threading.Event]:
    """A daemon that takes one request and dies before it answers; set when it is dead."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        taken = threading.Event()

        def take() -> None:
            peer, _ = sock.accept()
            peer.recv(65536)
            sock.close()
            peer.close()
            taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        yield taken
        thread.join(timeout=60)


def test_a_restart_midway_is_not_noticed(engine: FakeEngine, path: Path, run: Run) -> None:
    engine.hold = True
    with serving(engine, path):
        running = Background(run, "attach", "web", "data", "-f", "json")
        engine.until_waiting(1)
    with serving(engine, path):
        engine.release(engine.until_submitted())
        ran = running.result()

    assert ran.status == 0
    assert ran.document["state"] == "attached"
    assert len(engine.requests) == 1


@pytest.mark.usefixtures("impatient")
def test_gone_for_good_midway_is_6(engine: FakeEngine, path: Path, run: Run) -> None:
    engine.hold = True
    with serving(engine, path):
        running = Background(run, "attach", "web", "data")
        engine.until_waiting(1)
    ran = running.result()

    assert ran.status == 6
    assert ran.err.startswith("daemon-unreachable: ")
    assert f"attachctl operation show {engine.until_submitted()}" in ran.err


def test_gone_until_the_timeout_is_7(engine: FakeEngine, path: Path, run: Run) -> None:
    engine.hold = True
    with serving(engine, path):
        running = Background(run, "attach", "web", "data", "--timeout", "3")
        engine.until_waiting(1)
    assert running.result().status == 7


def test_a_lost_answer_is_asked_for_again(
    engine: FakeEngine, path: Path, run: Run, deaf: threading.Event
) -> None:
    running = Background(run, "attach", "web", "data")
    assert deaf.wait(timeout=60)
    with serving(engine, path):
        assert running.result().status == 0
    assert len(engine.requests) == 1


def test_a_request_sent_twice_is_done_once(daemon: FakeEngine, path: Path) -> None:
    """The answer to the first is thrown away, as a broken connection would."""
    talk = client.Client(str(path))
    body = {"guest": "web", "volume": "data", "request_id": "mine"}
    tries: list[client.Reply] = []

    def send(timeout: float) -> client.Reply:
        tries.append(talk.post("/v1/attachments", body, timeout=timeout))
        if len(tries) == 1:
            raise DaemonGone(str(path), reason="played", sent=True)
        return tries[-1]

    operation = follow.submit(send, deadline=follow.Deadline(None))
    talk.close()

    assert operation["operation_id"] == tries[0].document["operation_id"]
    assert len(daemon.requests) == 1


def test_an_answer_that_never_came_in_time_is_7(
    path: Path, run: Run, deaf: threading.Event
) -> None:
    ran = run("attach", "web", "data", "--timeout", "1")
    assert deaf.is_set()
    assert ran.status == 7
    assert ran.err.startswith("still-running: ")
    assert "attachctl operation list --open" in ran.err


def test_nobody_there_from_the_start_is_not_waited_for(path: Path) -> None:
    calls = []

    def send(timeout: float) -> client.Reply:
        calls.append(timeout)
        raise DaemonGone(str(path), reason="played", sent=False)

    with pytest.raises(DaemonGone):
        follow.submit(send, deadline=follow.Deadline(None))
    assert len(calls) == 1


def test_every_event_is_told_once(daemon: FakeEngine, path: Path) -> None:
    daemon.hold = True
    talk = client.Client(str(path))
    posted = talk.post("/v1/attachments", {"guest": "web", "volume": "data"}).document
    told: list[follow.Event] = []

    def tell(event: follow.Event) -> None:
        if not told:
            daemon.release(posted["operation_id"])
        told.append(event)

    operation = follow.follow(
        talk, posted["operation_id"], deadline=follow.Deadline(None), tell=tell
    )
    talk.close()

    assert operation["state"] == "done"
    assert [event["seq"] for event in told] == list(range(1, 9))


def test_who_does_not_watch_is_answered_at_the_end(
    daemon: FakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every answer on the way would cost the operation some time."""
    monkeypatch.setattr("attachd.api.routes.LONGEST_WAIT", 60)
    monkeypatch.setattr(follow, "_LONGEST_WAIT", 60)
    daemon.hold = True
    talk = client.Client(str(path))
    posted = talk.post("/v1/attachments", {"guest": "web", "volume": "data"}).document
    asked: list[str] = []
    get = talk.get

    def noting(target: str, *given: Any, **named: Any) -> client.Reply:
        asked.append(target)
        return get(target, *given, **named)

    monkeypatch.setattr(talk, "get", noting)
    ends: list[follow.Operation] = []
    deadline = follow.Deadline(None)
    watching = threading.Thread(
        target=lambda: ends.append(
            follow.follow(talk, posted["operation_id"], deadline=deadline, tell=None)
        )
    )
    watching.start()
    daemon.until_waiting(1)
    daemon.release(posted["operation_id"])
    watching.join(timeout=60)
    talk.close()
    (operation,) = ends
    assert operation["state"] == "done"
    # Waited for, seen to rest, read.
    assert len(asked) <= 3


def test_many_followers_all_see_the_end(engine: FakeEngine, path: Path) -> None:
    """More than may wait at once: the others ask again after a pause."""
    engine.hold = True
    ends: list[str] = []
    with serving(engine, path, threads=3, long_polls=1):
        talk = client.Client(str(path))
        posted = talk.post("/v1/attachments", {"guest": "web", "volume": "data"}).document
        talk.close()

        def watch() -> None:
            own = client.Client(str(path))
            name = posted["operation_id"]
            deadline = follow.Deadline(60)
            ends.append(
                follow.follow(own, name, deadline=deadline, tell=lambda _event: None)["state"]
            )
            own.close()

        watchers = [threading.Thread(target=watch) for _ in range(5)]
        for watcher in watchers:
            watcher.start()
        engine.until_waiting(1)
        engine.release(posted["operation_id"])
        for watcher in watchers:
            watcher.join(timeout=60)
    assert ends == ["done"] * 5


def test_an_operation_that_vanished_is_said_so(engine: FakeEngine, path: Path, run: Run) -> None:
    """Its journal was replaced midway: nobody can say how it ended."""
    engine.hold = True
    with serving(engine, path):
        running = Background(run, "attach", "web", "data")
        engine.until_waiting(1)
    with serving(FakeEngine(), path):
        ran = running.result()

    assert ran.status == 5
    assert ran.err.startswith("operation-not-found: ")
    assert engine.until_submitted() in ran.err
