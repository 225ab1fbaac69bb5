"""What is to be seen on a terminal: wide, narrow, low, without colours, without a cursor."""

from __future__ import annotations

import re
import signal

import pytest

from tests.fakes.engine import FakeEngine
from tests.unit.cli.conftest import Run
from tests.unit.cli.terminal import Terminal
from tests.unit.cli.test_commands import UNDONE

STEP = re.compile(r"[ |/\\-] (undo )?[a-z]+ +(done|failed|running) +\d+\.\d s")
UNDER_WAY = re.compile(r"[|/\\-] connect running (?!0\.0)\d+\.\d s")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_steps_and_attachment_fit_whatever_the_width(daemon: FakeEngine, columns: int) -> None:
    with Terminal("attach", "web", "data", columns=columns) as terminal:
        assert terminal.end() == 0
        title, *steps = terminal.lines()[:4]
        rest = terminal.lines()[4:]

    assert re.fullmatch(r"Attaching data to web  \d+\.\d s", title)
    assert all(map(STEP.fullmatch, steps)), steps
    text = "\n".join(rest)
    assert (text.count(daemon.volumes["data"]), "| Field " in text) == (2, columns >= 80)


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (200, "+-----"),
        (80, "attachment_id  "),
        (40, "attachment_id\n  "),
    ],
)
def test_a_list_is_a_table_where_it_fits(
    daemon: FakeEngine, run: Run, columns: int, head: str
) -> None:
    run("attach", "web", "data")
    run("attach", "db", "logs")
    with Terminal("list", columns=columns) as terminal:
        assert terminal.end() == 0
        text = "\n".join(terminal.lines())
    assert text.startswith(head)
    for attachment in daemon.attachments(guest=None):
        assert f" {attachment.attachment_id}" in text
        assert f" {attachment.volume_id}" in text


@pytest.mark.usefixtures("daemon")
def test_what_the_user_says_of_the_width_goes_before() -> None:
    with Terminal("list", columns=200, environment={"COLUMNS": "40"}) as terminal:
        assert terminal.end() == 0
        assert terminal.lines() == []  # an empty list of records


def test_a_running_step_shows_its_time(daemon: FakeEngine) -> None:
    daemon.hold = True
    with Terminal("attach", "web", "data") as terminal:
        operation_id = daemon.until_submitted()
        daemon.begin_step(operation_id, "connect")
        terminal.until(lambda lines: any(map(UNDER_WAY.fullmatch, lines)))
        assert terminal.cursor_hidden
        daemon.release(operation_id)
        assert terminal.end() == 0
        assert not terminal.cursor_hidden
        assert "  connect done 0.0 s" in terminal.lines()


def test_a_low_terminal_shows_the_latest_steps(daemon: FakeEngine) -> None:
    daemon.hold = True
    with Terminal("attach", "web", "data", rows=4) as terminal:
        operation_id = daemon.until_submitted()
        for name in ("one", "two", "three", "four"):
            daemon.begin_step(operation_id, name)
        lines = terminal.until(lambda lines: "four" in "".join(lines))
        assert [line.split()[1] for line in lines] == ["data", "three", "four"]
        daemon.release(operation_id)
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({}, {"default", "green", "red"}),
        ({"NO_COLOR": "1"}, {"default"}),
        ({"NO_COLOR": ""}, {"default", "green", "red"}),
        ({"CLICOLOR": "0"}, {"default"}),
        ({"CLICOLOR": "1"}, {"default", "green", "red"}),
        ({"TERM": "dumb"}, {"default"}),
    ],
)
def test_colours(daemon: FakeEngine, environment: dict[str, str], colours: set[str]) -> None:
    daemon.failure = UNDONE
    with Terminal("attach", "web", "data", environment=environment) as terminal:
        assert terminal.end() == 1
        assert terminal.colours() == colours


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_without_a_cursor(daemon: FakeEngine, term: str) -> None:
    daemon.failure = UNDONE
    with Terminal("attach", "web", "data", environment={"TERM": term}) as terminal:
        assert terminal.end() == 1
        assert b"\x1b" not in terminal.written
        assert terminal.lines()[:4] == [
            "Attaching data to web",
            "  create ... done 0.0 s",
            "  connect ... failed 0.0 s",
            "  undo create ... done 0.0 s",
        ]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_an_interrupt_leaves_the_terminal_as_it_was(daemon: FakeEngine, term: str) -> None:
    daemon.hold = True
    with Terminal("attach", "web", "data", environment={"TERM": term}) as terminal:
        operation_id = daemon.until_submitted()
        daemon.begin_step(operation_id, "connect")
        terminal.until(lambda lines: "connect" in "".join(lines))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        assert not terminal.cursor_hidden
        words = "".join(terminal.lines()[2:])
        assert words.startswith(f"Interrupted. Operation {operation_id} goes on. ")
    daemon.release(operation_id)


def test_a_termination_brings_the_cursor_back(daemon: FakeEngine) -> None:
    daemon.hold = True
    with Terminal("attach", "web", "data") as terminal:
        daemon.begin_step(daemon.until_submitted(), "connect")
        terminal.until(lambda _: terminal.cursor_hidden)
        terminal.process.terminate()
        assert terminal.end() == 143
        assert not terminal.cursor_hidden
    daemon.release(daemon.until_submitted())


@pytest.mark.usefixtures("daemon")
def test_quiet_draws_nothing() -> None:
    with Terminal("attach", "web", "data", "-q") as terminal:
        assert terminal.end() == 0
        assert terminal.lines() == []
