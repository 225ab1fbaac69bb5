"""What a shell is offered, and that nothing is said where there is nothing to offer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attachd.cli import completing
from attachd.errors import Code, Problem
from attachd.model import OperationState
from tests.fakes.engine import Failure, FakeEngine
from tests.unit.cli.conftest import Run

ATTACHCTL = (sys.executable, "-m", "attachd.cli.main")


def offered(line: str, **environment: str) -> dict[str, str]:
    """What completes the line, as fish asks for it: each with its description."""
    reading, writing = os.pipe()
    place = f"/dev/fd/{writing}"
    ran = subprocess.run(
        ATTACHCTL,
        env={
            **os.environ,
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_SHELL": "fish",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_DFS": "\t",
            "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": place,
            "ATTACHD_COMPLETION_SECONDS": "60",
            **environment,
        },
        pass_fds=[writing],
        capture_output=True,
        check=False,
        timeout=60,
    )
    os.close(writing)
    with os.fdopen(reading) as stream:
        lines = stream.read().splitlines()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    return {word: about for word, _, about in (line.partition("\t") for line in lines) if word}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("attachctl at", {"attach"}),
        ("attachctl operation ", {"list", "show", "resume"}),
        ("attachctl attach web data --b", {"--bus"}),
        ("attachctl attach web data --bus ", {"virtio", "scsi"}),
        ("attachctl list -f ", {"table", "json", "yaml", "value", "csv"}),
        ("attachctl trace x --format s", {"seqdiag", "svg"}),
        ("attachctl list -c guest_", {"guest_id", "guest_name", "guest_path"}),
        ("attachctl attach web data --device ", set()),
    ],
)
def test_commands_options_and_choices_need_no_daemon(line: str, words: set[str]) -> None:
    assert set(offered(line)) == words


def test_options_come_with_what_they_do() -> None:
    assert offered("attachctl list --lo") == {"--long": "more columns in a table"}


@pytest.mark.usefixtures("daemon")
def test_guests_to_attach_to_are_all_and_to_detach_from_those_with_something(run: Run) -> None:
    run("attach", "web", "data")
    assert offered("attachctl attach ") == {"web": "running", "db": "running"}
    # Not "d": an id may begin with it.
    assert offered("attachctl adopt w") == {"web": "running"}
    for command in ("detach", "extend", "release", "reconnect", "disconnect", "list --guest"):
        assert offered(f"attachctl {command} ") == {"web": "1 attached"}


@pytest.mark.usefixtures("daemon")
def test_volumes_are_those_of_the_guest_or_those_that_can_be_attached(run: Run) -> None:
    assert set(offered("attachctl attach web ")) == {"data", "logs"}
    run("attach", "web", "data")
    assert offered("attachctl attach web ") == {"logs": "1 GiB"}
    assert offered("attachctl adopt web ") == {"data": "1 GiB"}
    assert offered("attachctl detach web ") == {"data": "vdb, 1 GiB"}
    assert offered("attachctl detach -q web ") == {"data": "vdb, 1 GiB"}
    assert offered("attachctl detach db ") == {}


def test_ids_are_offered_where_they_are_begun_or_a_name_will_not_do(
    daemon: FakeEngine, run: Run
) -> None:
    identity = daemon.guests["web"]
    assert offered(f"attachctl attach {identity[:4]}")[identity] == "web, running"
    daemon.volumes = {"--help": "1-1", "a\tb": "2-2", "": "3-3", "the data": "4-4"}
    assert set(offered("attachctl attach web ")) == {"1-1", "2-2", "3-3", "the data"}
    assert offered("attachctl attach web 3")["3-3"] == "1 GiB"


def test_attachments_and_operations(daemon: FakeEngine, run: Run) -> None:
    run("attach", "web", "data")
    attachment = run("list", "-f", "value", "-c", "attachment_id").out.strip()
    assert offered("attachctl show ") == {attachment: "data, web"}
    daemon.failure = Failure(
        OperationState.NEEDS_ATTENTION, Problem(code=Code.STILL_IN_USE, brief="It is held.")
    )
    run("attach", "db", "logs")
    done, failed = reversed(
        run("operation", "list", "-f", "value", "-c", "operation_id").out.split()
    )
    stories = {
        done: "attach of data, web: done",
        failed: "attach of logs, db: needs-attention",
    }
    assert offered("attachctl operation show ") == offered("attachctl trace ") == stories
    assert offered("attachctl operation resume ") == {failed: stories[failed]}


def test_the_socket_that_was_given_is_asked(
    daemon: FakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHD_SOCKET", "/nonexistent")
    assert offered("attachctl attach ") == {}
    assert set(offered(f"attachctl --socket {path} attach ")) == set(daemon.guests)
    assert set(offered(f"attachctl attach --socket {path} ")) == set(daemon.guests)
    assert set(offered(f"attachctl --socket {path.parent}/att")) == {str(path)}


@contextmanager
def answering(path: Path, *pieces: bytes, for_ever: bytes = b"") -> Iterator[None]:
    """A server that says this to each caller, and then the last piece until nobody listens."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()

        def serve() -> None:
            peer, _ = sock.accept()
            with peer:
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)
                try:
                    while for_ever:
                        threading.Event().wait(0.02)
                        peer.sendall(for_ever)
                    peer.recv(1)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(timeout=60)


def _answer(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("pieces", "for_ever"),
    [
        ((), b""),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",), b" "),
        ((b"HTTP/1.1 200 OK\r\n",), b"A: b\r\n"),
        ((_answer({}),), b""),
        ((_answer({"attachments": None}),), b""),
        ((_answer({"attachments": ["web"]}),), b""),
        ((_answer(["web"]),), b""),
        ((b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}",), b""),
        ((b"220 mail ESMTP\r\n\r\n",), b""),
    ],
    ids=[
        *("silent", "slow body", "slow head", "empty", "null", "strings", "list", "refusal"),
        "no HTTP",
    ],
)
def test_who_does_not_answer_as_attachd_does_is_passed_over(
    path: Path, pieces: tuple[bytes, ...], for_ever: bytes
) -> None:
    with answering(path, *pieces, for_ever=for_ever):
        assert offered("attachctl detach ", ATTACHD_COMPLETION_SECONDS="0.3") == {}


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("2.5", 2.5), *((odd, completing.PATIENCE) for odd in ("", "0", "-1", "soon", "nan", "inf"))],
)
def test_patience(monkeypatch: pytest.MonkeyPatch, said: str, seconds: float) -> None:
    monkeypatch.setenv("ATTACHD_COMPLETION_SECONDS", said)
    assert completing.patience() == seconds
