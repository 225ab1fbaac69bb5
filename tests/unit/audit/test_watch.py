"""The watch tells each finding once, and once when it is gone; nothing ends it but its stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from attachd.audit.findings import Finding, FindingCode
from attachd.audit.watch import Watch
from attachd.errors import AttachdError, Code, World

GONE = Finding(
    code=FindingCode.DEVICE_GONE,
    brief="The host has no device.",
    says={World.HOST: "no device"},
    volume_id="v",
    guest_name="web",
)
AWAY = Finding(
    code=FindingCode.WORLD_UNREACHABLE, brief="Cinder is away.", says={World.CINDER: "away"}
)


class Audits:
    """Plays a list of audits; the last one is repeated."""

    def __init__(self, *answers: tuple[Finding, ...] | Exception) -> None:
        self.answers = list(answers)
        self.all_played = threading.Event()

    def __call__(self) -> tuple[Finding, ...]:
        if len(self.answers) == 1:
            self.all_played.set()
            answer = self.answers[0]
        else:
            answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def fenced() -> list[Sequence[Finding]]:
    return []


@pytest.fixture
def forgotten() -> list[Sequence[Finding]]:
    return []


@pytest.fixture
def told(
    caplog: pytest.LogCaptureFixture,
    fenced: list[Sequence[Finding]],
    forgotten: list[Sequence[Finding]],
) -> Callable[[Audits], list[str]]:
    caplog.set_level(logging.INFO, logger="attachd.audit.watch")

    def told(audits: Audits) -> list[str]:
        watch = Watch(
            audit=audits,
            fence=fenced.append,
            forget=forgotten.append,
            interval=0.001,
            helper=lambda: 0.0,
            idle=lambda: True,
        )
        watch.start()
        assert audits.all_played.wait(30)
        assert watch.stop(30)
        return [record.getMessage() for record in caplog.records]

    return told


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_a_finding_is_told_once_and_once_when_it_is_gone(
    told: Callable[[Audits], list[str]],
) -> None:
    lines = told(Audits((), (GONE,), (GONE,), (AWAY,), ()))
    assert lines == [
        "Audit: device-gone: The host has no device. (volume v, guest web) [host: no device]",
        "Audit: world-unreachable: Cinder is away. [cinder: away]",
        "Audit: no more: device-gone: The host has no device. (volume v, guest web) "
        "[host: no device]",
        "Audit: no more: world-unreachable: Cinder is away. [cinder: away]",
    ]


@pytest.mark.parametrize(
    "error", [AttachdError(Code.JOURNAL_UNAVAILABLE, "No journal."), ZeroDivisionError()]
)
def test_an_audit_that_fails_does_not_end_the_watch(
    told: Callable[[Audits], list[str]], error: Exception
) -> None:
    lines = told(Audits(error, (GONE,)))
    assert "can't be compared" in lines[0]
    assert lines[1].startswith("Audit: device-gone")


def test_one_that_was_never_started_stops() -> None:
    assert Watch(
        audit=Audits(()), fence=print, forget=print, interval=1, helper=float, idle=bool
    ).stop(1)


def test_what_each_audit_found_is_handed_on_to_be_fenced(
    told: Callable[[Audits], list[str]],
    fenced: list[Sequence[Finding]],
    forgotten: list[Sequence[Finding]],
) -> None:
    told(Audits((GONE,), (GONE, AWAY), ()))
    assert fenced[:3] == forgotten[:3] == [(GONE,), (GONE, AWAY), ()]


@pytest.mark.parametrize(("idle", "audits"), [(True, 1), (False, 3)])
def test_what_an_audit_costs_the_helper_counts_unless_an_operation_is_at_work(
    idle: bool, audits: int
) -> None:
    """Its commands are told apart from the operations' by nobody: what is dangerous comes first."""
    begun, reached = 0, threading.Event()

    def audit() -> tuple[Finding, ...]:
        nonlocal begun
        begun += 1
        if begun == audits:
            reached.set()
        return ()

    watch = Watch(
        audit=audit,
        fence=lambda _: None,
        forget=lambda _: None,
        interval=0.01,
        helper=lambda: begun * 10.0,
        idle=lambda: idle,
    )
    watch.start()
    assert reached.wait(30)
    threading.Event().wait(0.3)
    assert watch.stop(30)
    assert (begun == 1) == idle
