"""The examinations side by side: one that fails, raises or hangs hides no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from attachd.doctor.catalogue import Check, Fault, Severity
from attachd.doctor.doctor import Doctor
from attachd.doctor.examination import BarredError, Examination, single
from attachd.doctor.findings import Finding, fine, wrong
from attachd.errors import AttachdError, Code, Refused, World
from tests.fakes.doctor import no_answer

SOON = 0.3
LATE = 30.0

WELL = single(Check.KVM, lambda: fine(Check.KVM, "It is there."))
Look = Callable[[], Iterable[Finding]]


def examined(*examinations: Examination, patience: float = LATE) -> list[tuple[str, str, str]]:
    found = Doctor(examinations=examinations, patience=patience).examine()
    return [(finding.check, finding.severity, finding.found) for finding in found]


@contextmanager
def hanging(
    check: Check, *, silence: Fault | None = None, looked: threading.Event | None = None
) -> Iterator[Examination]:
    """It tells nothing until the block ends; then its thread comes to its end, too."""
    begun, go_on = 0, threading.Event()

    def look() -> Iterable[Finding]:
        nonlocal begun
        begun += 1
        if looked:
            looked.set()
        go_on.wait(LATE)
        return (fine(check, f"begun {begun} times"),)

    try:
        yield Examination(checks=(check,), look=look, silence=silence)
    finally:
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == f"doctor-{check}":
                thread.join(LATE)


def test_findings_are_in_the_order_of_the_checks() -> None:
    others = [single(check, lambda c=check: fine(c, "")) for check in reversed(Check)]  # type: ignore[misc]
    assert [check for check, _, _ in examined(*others)] == list(Check)


def test_they_run_side_by_side() -> None:
    """Each waits for the other one."""
    meeting = threading.Barrier(2, timeout=LATE)

    def meet(check: Check) -> Finding:
        meeting.wait()
        return fine(check, "met")

    found = examined(
        single(Check.KVM, lambda: meet(Check.KVM)), single(Check.NOVA, lambda: meet(Check.NOVA))
    )
    assert {said for _, _, said in found} == {"met"}


def raising(exc: BaseException) -> Look:
    def look() -> Iterator[Finding]:
        yield fine(Check.LIBVIRT, "It answers.")
        raise exc

    return look


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (no_answer(World.GUEST), "It doesn't answer."),
        (AttachdError(Code.CONFIG_INVALID, "Wrong.", details="x"), "Wrong. x"),
        (PermissionError(13, "Permission denied", "/secret"), "/secret: Permission denied"),
        (BarredError(Fault.LIBVIRT_TOO_OLD), "It can't be seen behind libvirt-too-old."),
        (ValueError("password=hunter2"), "The look failed: ValueError"),
        (SystemExit(1), "The look failed: SystemExit"),
    ],
)
def test_a_check_that_raises_is_unknown_and_what_was_told_before_stands(
    exc: BaseException, said: str
) -> None:
    look = Examination(checks=(Check.LIBVIRT, Check.QEMU), look=raising(exc))
    assert examined(look, WELL) == [
        (Check.LIBVIRT, Severity.OK, "It answers."),
        (Check.QEMU, Severity.UNKNOWN, said),
        (Check.KVM, Severity.OK, "It is there."),
    ]


def test_what_nobody_foresaw_is_in_the_log_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    foreseen = Examination(checks=(Check.QEMU,), look=raising(no_answer(World.GUEST)))
    unforeseen = Examination(checks=(Check.NOVA,), look=raising(ValueError("why")))
    with caplog.at_level(logging.INFO):
        examined(foreseen, unforeseen)
    (record,) = caplog.records
    assert (record.levelname, "nova" in record.message) == ("ERROR", True)
    assert record.exc_info is not None


def test_a_look_that_tells_too_little_leaves_the_rest_unknown() -> None:
    (_, silent) = examined(
        Examination(checks=(Check.KVM, Check.NOVA), look=lambda: (fine(Check.KVM, "yes"),))
    )
    assert silent[:2] == (Check.NOVA, Severity.UNKNOWN)


def test_a_look_that_hangs_is_left_behind() -> None:
    with hanging(Check.ISCSID) as look:
        assert examined(WELL, look, patience=SOON) == [
            (Check.KVM, Severity.OK, "It is there."),
            (Check.ISCSID, Severity.UNKNOWN, "No answer within 0.3 s."),
        ]


def test_silence_may_be_a_fault_of_its_own() -> None:
    with hanging(Check.PRIVILEGED_HELPER, silence=Fault.HELPER_BROKEN) as look:
        (found,) = Doctor(examinations=(look,), patience=SOON).examine()
    expected = wrong(Fault.HELPER_BROKEN, "No answer within 0.3 s.")
    assert found == expected


def test_no_second_look_is_begun_beside_one_that_hangs() -> None:
    with hanging(Check.ISCSID) as look:
        doctor = Doctor(examinations=(look,), patience=SOON)
        for _ in range(3):
            assert doctor.examine()[0].severity is Severity.UNKNOWN
        assert sum(t.name == f"doctor-{Check.ISCSID}" for t in threading.enumerate()) == 1
    (found,) = doctor.examine()
    assert (found.severity, found.found) == (Severity.OK, "begun 2 times")


def test_one_examination_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attachd.doctor.doctor.TURN_SECONDS", SOON)
    looked = threading.Event()
    with hanging(Check.ISCSID, looked=looked) as look:
        doctor = Doctor(examinations=(look,), patience=LATE)
        first = threading.Thread(target=doctor.examine)
        first.start()
        assert looked.wait(LATE)
        with pytest.raises(Refused, match="still under way") as caught:
            doctor.examine()
        assert caught.value.code is Code.DEADLINE_EXCEEDED
    first.join(LATE)
    assert not first.is_alive()


def test_a_daemon_that_stops_waits_for_no_examination() -> None:
    with hanging(Check.ISCSID) as look:
        doctor = Doctor(examinations=(look,), patience=LATE)
        ends: list[Code] = []

        def examine() -> None:
            with pytest.raises(Refused) as caught:
                doctor.examine()
            ends.append(caught.value.code)

        asking = threading.Thread(target=examine)
        asking.start()
        doctor.stop()
        asking.join(LATE)
        assert ends == [Code.SHUTTING_DOWN]
