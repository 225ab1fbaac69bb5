"""attachctl as a process: signals, pipes, terminals, and what it imports."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attachd.cli.progress import Steps
from tests.fakes.engine import NOW, FakeEngine

ATTACHCTL = (sys.executable, "-m", "attachd.cli.main")


def test_an_interrupt_is_130_and_the_operation_goes_on(daemon: FakeEngine) -> None:
    daemon.hold = True
    with subprocess.Popen(
        ["env", "--default-signal=INT", *ATTACHCTL, "attach", "web", "data"],  # nohup ignores it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        operation_id = daemon.until_submitted()
        daemon.until_waiting(1)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 130
    assert out == ""
    assert err == (
        f"Interrupted. Operation {operation_id} goes on. "
        f"See how it went: attachctl operation show {operation_id}\n"
    )
    daemon.release(operation_id)
    assert daemon.operation(operation_id).state == "done"


@pytest.mark.usefixtures("daemon")
def test_a_broken_pipe_is_silent() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [*ATTACHCTL, "attach", "web", "data"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.usefixtures("daemon")
def test_a_full_disk_is_no_success() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run([*ATTACHCTL, "list"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ran.returncode == 5
    assert ran.stderr == b"attachctl: the output can't be written: No space left on device\n"


def test_a_narrow_encoding_is_no_failure(daemon: FakeEngine) -> None:
    daemon.guests["客機"] = daemon.guests.pop("web")
    ran = subprocess.run(
        [*ATTACHCTL, "attach", daemon.guests["客機"], "data", "-f", "value", "-c", "guest_name"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, b"\\u5ba2\\u6a5f\n")


@pytest.mark.usefixtures("daemon")
def test_progress_is_drawn_on_a_terminal_and_on_standard_error() -> None:
    ours, theirs = pty.openpty()
    ran = subprocess.run(
        [*ATTACHCTL, "attach", "web", "data", "-f", "json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        check=False,
    )
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 65536):
            drawn += piece
    except OSError:
        pass  # Linux says so when the other end of a terminal is closed
    os.close(ours)

    assert ran.returncode == 0
    assert ran.stdout.startswith(b"{")
    for word in (b"Attaching data to web", b"create", b"connect", b"plug", b"done"):
        assert word in drawn


def test_steps_as_they_are_told() -> None:
    seconds = 0.0
    steps = Steps(clock=lambda: seconds)

    def shown() -> list[tuple[str, str, float | None]]:
        return [(step.name, step.state, step.seconds) for step in steps.all()]

    def tell(step: str | None, direction: str | None, phase: str, state: str, at: str) -> None:
        steps.add({"step": step, "direction": direction, "phase": phase, "state": state, "at": at})

    tell(None, None, "state", "running", NOW)
    tell("create", "do", "intent", "running", "2026-03-01T10:00:00.000Z")
    tell("create", "do", "outcome", "done", "2026-03-01T10:00:01.500Z")
    tell("connect", "do", "intent", "running", "2026-03-01T10:00:02.000Z")
    assert shown() == [("create", "done", 1.5), ("connect", "running", 0.0)]
    seconds = 4.2
    assert shown() == [("create", "done", 1.5), ("connect", "running", 4.2)]
    tell("connect", "do", "outcome", "failed", "2026-03-01T10:00:03.000Z")
    tell("create", "undo", "intent", "running", "2026-03-01T10:00:04.000Z")
    assert shown()[1:] == [("connect", "failed", 1.0), ("undo create", "running", 0.0)]
    tell("connect", "do", "intent", "running", "2026-03-01T10:01:00.000Z")
    assert ("connect", "running", 0.0) in shown()
    tell("plug", "do", "outcome", "done", "2026-03-01T10:01:00.000Z")
    assert shown()[-1] == ("plug", "done", None)


LOADED = """
import sys
from attachd.cli.main import main
status = main(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("argv", "banned"),
    [
        (["--help"], {"http.client", "rich", "yaml", "json", "uuid", "dataclasses"}),
        (["attach", "--help"], {"http.client", "rich", "yaml", "json", "uuid"}),
        (["list"], {"rich", "yaml"}),
        (["doctor"], {"rich", "yaml", "subprocess"}),
        (["attach", "web", "data"], {"rich", "yaml"}),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_it_imports_no_more_than_it_needs(argv: list[str], banned: set[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, *argv], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stderr.split())

    assert not loaded & (
        banned | {"argcomplete", "flask", "cheroot", "jsonschema", "openstack", "oslo_config"}
    )
    ours = {name for name in loaded if name.split(".")[0] == "attachd"}
    assert {name for name in ours if not name.startswith("attachd.cli")} <= {
        "attachd",
        "attachd.errors",
        "attachd.plain",
        "attachd.story",
    }
