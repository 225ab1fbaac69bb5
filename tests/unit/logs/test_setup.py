"""Where the log goes, and that no secret goes there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

import pytest

from attachd import conf
from attachd.logs.journald import JournaldHandler
from attachd.logs.setup import set_up
from tests.unit.logs.journal import FakeJournald

SECRET = "auth_password='hush-hush'"


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """Everything is left as it was found."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    yield root
    for handler in root.handlers:
        if isinstance(handler, JournaldHandler):
            handler.close()
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[FakeJournald]:
    with FakeJournald(tmp_path / "socket") as listening:
        yield listening


@pytest.fixture
def out(tmp_path: Path) -> Iterator[TextIO]:
    """What is standard output while the log is set up."""
    with (tmp_path / "out").open("w+") as stream:
        yield stream


def connected_to(stream: TextIO) -> dict[str, str]:
    """What systemd puts into the environment of a service whose output is this stream."""
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def begin(
    out: TextIO, environment: Mapping[str, str], journald: Path, *, options: str = ""
) -> None:
    """Set the log up as the daemon does."""
    file = journald.with_name("attachd.conf")
    file.write_text(f"[DEFAULT]\n{options}\n")
    config = conf.load([], files=[file])
    with redirect_stdout(out):
        set_up(config, environment, journald=journald)


def read(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


def test_a_stream_to_journald_becomes_entries(out: TextIO, listening: FakeJournald) -> None:
    begin(out, connected_to(out), listening.path)
    logging.getLogger("attachd.room").info("A line with %s", SECRET)
    assert listening.entry()["MESSAGE"] == ["A line with auth_password='***'"]
    assert read(out) == ""


@pytest.mark.parametrize("case", ["no systemd", "another stream", "no journald", "json"])
def test_else_the_lines_go_where_oslo_log_sends_them(
    tmp_path: Path, out: TextIO, listening: FakeJournald, case: str
) -> None:
    environment = connected_to(out)
    options, journald = "", listening.path
    match case:
        case "no systemd":
            environment = {}
        case "another stream":
            environment = {"JOURNAL_STREAM": "1:2"}
        case "no journald":
            journald = tmp_path / "missing"
        case "json":
            options = "use_json = true"
    begin(out, environment, journald, options=options)
    logging.getLogger("attachd.room").info("A line with %s", SECRET)
    line = read(out)
    assert "A line with" in line
    assert "attachd.room" in line
    assert "hush-hush" not in line
    assert listening.entries() == []


def test_no_secret_is_in_a_traceback(out: TextIO, listening: FakeJournald) -> None:
    for environment in (connected_to(out), {}):
        begin(out, environment, listening.path)
        error = RuntimeError(f"iscsiadm failed: {SECRET}")
        logging.getLogger("os_brick").error("It failed.", exc_info=error)
    (message,) = listening.entry()["MESSAGE"]
    for text in (message, read(out)):
        assert "RuntimeError: iscsiadm failed" in text
        assert "hush-hush" not in text


@pytest.mark.parametrize(
    ("options", "levels"), [("", ["INFO"]), ("debug = true", ["DEBUG", "INFO"])]
)
def test_the_level_is_oslo_logs(
    out: TextIO, listening: FakeJournald, options: str, levels: list[str]
) -> None:
    begin(out, connected_to(out), listening.path, options=options)
    log = logging.getLogger("attachd.room")
    log.debug("DEBUG")
    log.info("INFO")
    assert [entry["MESSAGE"][0] for entry in listening.entries()] == levels
