"""Lines of the log as journald's entries, on a real datagram socket."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attachd.logs import journald
from attachd.logs.journald import JournaldHandler
from attachd.logs.subject import about
from tests.unit.logs.journal import FakeJournald


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[FakeJournald]:
    with FakeJournald(tmp_path / "socket") as listening:
        yield listening


@pytest.fixture
def log(listening: FakeJournald) -> Iterator[logging.Logger]:
    """A logger that has nothing but journald."""
    logger = logging.Logger("attachd.some.room")
    handler = JournaldHandler(path=listening.path)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_a_line_is_an_entry(log: logging.Logger, listening: FakeJournald) -> None:
    log.info("%s is %s", "attach", "done")
    entry = listening.entry()
    assert entry["MESSAGE"] == ["attach is done"]
    assert entry["SYSLOG_IDENTIFIER"] == ["attachd"]
    assert entry["LOGGER"] == ["attachd.some.room"]
    assert entry["THREAD_NAME"] == [threading.current_thread().name]
    assert entry["CODE_FUNC"] == ["test_a_line_is_an_entry"]
    assert entry["CODE_FILE"] == [__file__]
    assert not [name for name in entry if name.startswith("ATTACHD_")]


@pytest.mark.parametrize(
    ("level", "priority"),
    [(50, "2"), (40, "3"), (30, "4"), (25, "6"), (20, "6"), (10, "7"), (5, "7")],
)
def test_levels_are_sysloges(
    log: logging.Logger, listening: FakeJournald, level: int, priority: str
) -> None:
    log.log(level, "x")
    assert listening.entry()["PRIORITY"] == [priority]


def test_what_it_is_about_are_fields(log: logging.Logger, listening: FakeJournald) -> None:
    with about(operation="o", volume="v", guest="g"), about(step="connect", volume="w"):
        log.warning("x")
    log.warning("y")
    first, second = listening.entries()
    fields = {name: value for name, value in first.items() if name.startswith("ATTACHD_")}
    assert fields == {
        "ATTACHD_OPERATION": ["o"],
        "ATTACHD_VOLUME": ["w"],
        "ATTACHD_GUEST": ["g"],
        "ATTACHD_STEP": ["connect"],
    }
    assert "ATTACHD_OPERATION" not in second


@pytest.mark.parametrize(
    "text", ["two\nlines", "ends\n", "\n", "=", "a=b\nATTACHD_VOLUME=forged", "ü€\n𝄞", "\udcff"]
)
def test_no_text_can_break_out_of_its_field(
    log: logging.Logger, listening: FakeJournald, text: str
) -> None:
    with about(guest_name=text):
        log.info("%s", text)
    entry = listening.entry()
    expected = text.encode(errors="backslashreplace").decode()
    assert (entry["MESSAGE"], entry["ATTACHD_GUEST_NAME"]) == ([expected], [expected])
    assert "ATTACHD_VOLUME" not in entry


def test_an_exception_is_part_of_the_message(log: logging.Logger, listening: FakeJournald) -> None:
    log.error("It failed.", exc_info=ZeroDivisionError("why"))
    assert listening.entry()["MESSAGE"] == ["It failed.\nZeroDivisionError: why"]


def test_what_no_datagram_holds_comes_as_a_sealed_file(
    log: logging.Logger, listening: FakeJournald
) -> None:
    long = "x" * 3_000_000
    log.info("%s", long)
    assert listening.entry()["MESSAGE"] == [long]
    assert listening.files == 1


def test_a_journald_that_was_started_anew_gets_the_next_line(
    log: logging.Logger, listening: FakeJournald
) -> None:
    log.info("to the first")
    listening.close()
    with FakeJournald(listening.path) as second:
        log.info("to the second")
        assert second.entry()["MESSAGE"] == ["to the second"]


def test_lines_that_nobody_took_are_counted_and_nothing_fails(
    log: logging.Logger, listening: FakeJournald
) -> None:
    log.info("taken")
    listening.close()
    for _ in range(3):
        log.info("lost")
    with FakeJournald(listening.path) as second:
        log.info("taken again")
        first, told = second.entries()
    assert first["MESSAGE"] == ["taken again"]
    assert told["MESSAGE"][0].startswith("3 lines of the log were lost")


def test_a_journald_that_takes_nothing_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journald, "_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        handler = JournaldHandler(path=tmp_path / "deaf")
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "x" * 1000, (), None)
        for _ in range(1000):
            handler.handle(record)
            if handler._lost == 3:
                break
        assert handler._lost == 3
        handler.close()


def test_a_record_from_another_process_may_lack_something(
    log: logging.Logger, listening: FakeJournald
) -> None:
    """As oslo.privsep makes them of what its helper tells."""
    log.handle(logging.makeLogRecord({"msg": "from the helper", "levelno": logging.INFO}))
    assert listening.entry()["MESSAGE"] == ["from the helper"]


def test_a_line_that_cannot_be_written_is_loggings_own_affair(
    log: logging.Logger, listening: FakeJournald, capsys: pytest.CaptureFixture[str]
) -> None:
    log.info("%d", "no number")
    assert "Logging error" in capsys.readouterr().err
    assert listening.entries() == []


def test_the_last_lines_are_waited_for_until_they_were_read(
    log: logging.Logger, listening: FakeJournald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journald, "_LAST_SECONDS", 60)
    (handler,) = log.handlers
    log.info("the last one")
    flushing = threading.Thread(target=handler.flush)
    flushing.start()
    flushing.join(0.1)
    assert flushing.is_alive()
    assert listening.entry()["MESSAGE"] == ["the last one"]
    flushing.join(30)
    assert not flushing.is_alive()


def test_and_not_for_ever(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "_LAST_SECONDS", 0.05)
    (handler,) = log.handlers
    log.info("the last one")
    handler.flush()
