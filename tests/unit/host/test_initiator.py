from __future__ import annotations

import time
from pathlib import Path

import pytest

from attachd.errors import Code, Unreachable
from attachd.host import initiator
from attachd.host.initiator import (
    _listening,
    check_initiator,
    hindrance_of,
    initiator_name_in,
    iscsid_since,
)
from attachd.host.units import Unit, parse_units

CLOCKS_SECONDS = 5.0
RUNNING = Unit("loaded", "active")
STARTING = Unit("loaded", "activating")
STOPPED = Unit("loaded", "inactive")
FAILED = Unit("loaded", "failed")
MASKED = Unit("masked", "inactive")
MASKED_RUNNING = Unit("masked", "active")
UNKNOWN = Unit("not-found", "inactive")


@pytest.mark.parametrize(
    ("service", "socket", "listening", "usable"),
    [
        (RUNNING, RUNNING, True, True),
        (RUNNING, MASKED, False, True),
        (STARTING, STOPPED, False, True),
        # Stopped only: the socket activates it, or iscsiadm starts the socket.
        (STOPPED, RUNNING, True, True),
        (STOPPED, STOPPED, False, True),
        (FAILED, STOPPED, False, True),
        (STOPPED, UNKNOWN, False, True),
        # Masked and stopped: systemd may still listen, and nothing answers.
        (MASKED, RUNNING, True, False),
        (MASKED, MASKED, False, False),
        (MASKED, STOPPED, False, False),
        # Masked while it runs: it works until it is stopped.
        (MASKED_RUNNING, MASKED, True, True),
        (STOPPED, MASKED, False, False),
        (STOPPED, MASKED, True, True),
        # No systemd: somebody listens, or nobody.
        (UNKNOWN, UNKNOWN, True, True),
        (UNKNOWN, UNKNOWN, False, False),
    ],
)
def test_what_keeps_iscsid_away(service: Unit, socket: Unit, listening: bool, usable: bool) -> None:
    assert (hindrance_of(service, socket, listening=listening) is None) is usable


def test_systemds_answer() -> None:
    shown = (
        "LoadState=masked\nActiveState=inactive\nResult=exit-code\n\n"
        "LoadState=loaded\nActiveState=active\n\n"
        "LoadState=loaded\nActiveState=active\nResult=success\n"
        "MainPID=2378\nExecMainStartTimestampMonotonic=487910010\n\n"
        "LoadState=loaded\nActiveState=inactive\n"
        "MainPID=0\nExecMainStartTimestampMonotonic=487910010\n"
    )
    assert parse_units(shown) == [
        Unit("masked", "inactive", "exit-code"),
        RUNNING,
        Unit("loaded", "active", "success", 487.91001),
        STOPPED,
    ]


def test_since_when_iscsid_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic() - 3600
    monkeypatch.setattr(initiator, "ask_systemd", lambda _: [Unit(since=started)])
    since = iscsid_since()
    assert since is not None
    assert abs(time.time() - 3600 - since) < CLOCKS_SECONDS
    monkeypatch.setattr(initiator, "ask_systemd", lambda _: [Unit()])
    assert iscsid_since() is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("InitiatorName=iqn.1993-08.org.debian:01:abc\n", "iqn.1993-08.org.debian:01:abc"),
        ("# InitiatorName=x\nInitiatorName=iqn.a:b \nInitiatorName=iqn.c:d", "iqn.a:b"),
        ("GenerateName=yes\n", None),
        ("InitiatorName=\n", None),
        ("", None),
    ],
)
def test_the_name_in_its_file(text: str, name: str | None) -> None:
    assert initiator_name_in(text) == name


NAMED_BY_ANYBODY = b"""Num       RefCount Protocol Flags    Type St Inode Path
ffff: 00000002 00000000 00010000 0001 01 1 @\xff\xfe
ffff: 00000002 00000000 00010000 0001 01 2 @two

lines
ffff: 00000002 00000000 bad-flags 0001 01 3 @ISCSIADM_ABSTRACT_NAMESPACE
"""
LISTENING = b"ffff: 00000002 00000000 00010000 0001 01 4 @ISCSIADM_ABSTRACT_NAMESPACE\n"


@pytest.mark.parametrize(("last", "found"), [(b"", False), (LISTENING, True)])
def test_the_names_of_others_sockets_may_be_anything(
    tmp_path: Path, last: bytes, found: bool
) -> None:
    sockets = tmp_path / "unix"
    sockets.write_bytes(NAMED_BY_ANYBODY + last)
    assert _listening(sockets) is found


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A file with the initiator's name."""
    file = tmp_path / "initiatorname.iscsi"
    file.write_text("InitiatorName=iqn.a:b\n")
    return file


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """systemd says that iscsid is masked; what it was asked."""
    asked: list[tuple[str, ...]] = []

    def answer(units: tuple[str, ...]) -> list[Unit]:
        asked.append(units)
        return [MASKED, MASKED]

    monkeypatch.setattr(initiator, "ask_systemd", answer)
    return asked


def test_an_iscsid_with_processes_is_asked_about_no_further(
    tmp_path: Path, named: Path, systemd: list[tuple[str, ...]]
) -> None:
    events = tmp_path / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    check_initiator(initiator_name=named, cgroup_events=events)
    assert systemd == []


@pytest.mark.parametrize("events", ["populated 0\nfrozen 0\n", "\xff", None])
def test_else_systemd_is_asked(
    tmp_path: Path, named: Path, systemd: list[tuple[str, ...]], events: str | None
) -> None:
    file = tmp_path / "cgroup.events"
    if events is not None:
        file.write_text(events, encoding="latin-1")
    with pytest.raises(Unreachable) as caught:
        check_initiator(initiator_name=named, cgroup_events=file)
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert len(systemd) == 1


def test_no_initiator_name(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        check_initiator(initiator_name=tmp_path / "initiatorname.iscsi")
    assert caught.value.code is Code.ISCSI_UNAVAILABLE
    assert not caught.value.touched
