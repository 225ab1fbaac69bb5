"""Dying at a named moment: only where the environment asks for it, and only at that one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from attachd.engine import kill_points
from attachd.engine.kill_points import VARIABLE, KillPoint, all_names, from_environment
from attachd.errors import AttachdError, Code

NAME = "attach.connect.do.after-effect"


def test_every_step_and_every_undo_has_its_four_moments() -> None:
    names = all_names()
    assert len(names) == len(set(names)) == 4 * (9 + 4 + 7 + 1)
    assert {NAME, "attach.plug.undo.before-intent", "detach.begin.undo.after-outcome"} <= set(names)


def test_nothing_dies_unasked() -> None:
    reached = from_environment({})
    for name in all_names():
        reached(name)


def test_it_dies_at_its_own_moment_alone() -> None:
    died: list[str] = []
    point = KillPoint(name=NAME, delay=0, die=lambda: died.append(NAME))
    point.reached("attach.connect.do.after-intent")
    assert died == []
    point.reached(NAME)
    assert died == [NAME]


def test_it_dies_later_while_the_operation_goes_on() -> None:
    died = threading.Event()
    KillPoint(name=NAME, delay=0.01, die=died.set).reached(NAME)
    assert died.wait(30)


@pytest.mark.parametrize(
    "text", ["connect", "attach.connect.do", f"{NAME}+soon", f"{NAME}+-1", f"{NAME}+inf", "+1"]
)
def test_a_name_that_nothing_has_is_refused(text: str) -> None:
    with pytest.raises(AttachdError) as caught:
        from_environment({VARIABLE: text})
    assert caught.value.code is Code.CONFIG_INVALID
    assert VARIABLE in caught.value.problem.brief


def test_it_is_a_kill() -> None:
    program = (
        f"from {kill_points.__name__} import from_environment; import os; "
        f"from_environment(os.environ)({NAME!r}); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={VARIABLE: f"{NAME}", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
