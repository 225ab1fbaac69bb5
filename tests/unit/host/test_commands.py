from __future__ import annotations

import pytest

from attachd.host.brick import ExecutionTimeout, ProcessExecutionError
from attachd.host.commands import (
    LOGIN_REFUSED,
    LOGIN_SECONDS,
    Commands,
    Deadline,
    DeadlinePassedError,
    HelperLostError,
    LoginRefusedError,
)


class Recorder:
    """An ``execute`` that remembers, and fails with ``failures`` for a word of the command."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.options: list[dict[str, object]] = []
        self.failures: dict[str, Exception] = {}

    def __call__(self, *command: str, **options: object) -> tuple[str, str]:
        self.ran.append(command)
        self.options.append(options)
        for word, failure in self.failures.items():
            if word in command:
                raise failure
        return "out", ""


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def commands(recorder: Recorder, *, seconds: float = 1000, alive: bool = True) -> Commands:
    return Commands(execute=recorder, deadline=Deadline(seconds), helper_alive=lambda: alive)


def test_no_command_may_outlive_the_deadline(recorder: Recorder) -> None:
    commands(recorder, seconds=100)("blockdev", "-f", timeout=300, attempts=3, interval=10)
    (options,) = recorder.options
    assert isinstance(options["timeout"], float)
    assert 0 < options["timeout"] <= 100
    assert set(options) == {"timeout"}


def test_a_shorter_timeout_stays(recorder: Recorder) -> None:
    commands(recorder)("true", timeout=7)
    assert recorder.options == [{"timeout": 7}]


@pytest.mark.parametrize("stop", [True, False])
def test_none_begins_behind_the_deadline(recorder: Recorder, stop: bool) -> None:
    bounded = commands(recorder, seconds=1000 if stop else 0)
    if stop:
        assert bounded.stop() is False
    with pytest.raises(DeadlinePassedError):
        bounded("iscsiadm", "--login")
    assert recorder.ran == []


def test_stopping_tells_whether_anything_began(recorder: Recorder) -> None:
    bounded = commands(recorder)
    bounded("true")
    assert bounded.stop() is True


def test_none_begins_without_the_helper(recorder: Recorder) -> None:
    with pytest.raises(HelperLostError):
        commands(recorder, alive=False)("true")
    assert recorder.ran == []


def test_a_login_has_a_bound_of_its_own(recorder: Recorder) -> None:
    commands(recorder, seconds=1)("iscsiadm", "-m", "node", "--login", check_exit_code=(0, 15))
    update, login = recorder.ran
    assert "node.session.initial_login_retry_max" in update
    assert update[:3] == login[:3] == ("iscsiadm", "-m", "node")
    assert recorder.options[1]["timeout"] == LOGIN_SECONDS


def test_a_refused_login_is_not_tried_again(recorder: Recorder) -> None:
    recorder.failures["--login"] = ProcessExecutionError(exit_code=LOGIN_REFUSED)
    with pytest.raises(LoginRefusedError):
        commands(recorder)("iscsiadm", "--login")


def test_another_failure_is_os_bricks_to_judge(recorder: Recorder) -> None:
    recorder.failures["--login"] = ProcessExecutionError(exit_code=8)
    bounded = commands(recorder)
    with pytest.raises(ProcessExecutionError):
        bounded("iscsiadm", "--login")
    assert bounded.login_status == 8
    assert not bounded.login_abandoned


def test_a_login_that_iscsid_never_answered_is_remembered(recorder: Recorder) -> None:
    recorder.failures["--login"] = ExecutionTimeout()
    bounded = commands(recorder)
    with pytest.raises(ExecutionTimeout):
        bounded("iscsiadm", "--login")
    assert bounded.login_abandoned


def test_ends_are_no_exceptions_that_os_brick_would_catch() -> None:
    for end in (DeadlinePassedError, HelperLostError, LoginRefusedError):
        assert not issubclass(end, Exception)
