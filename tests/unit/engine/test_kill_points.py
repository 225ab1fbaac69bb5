"""Dying at a named moment: only where the environment asks for it, and only at that one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from attachd.engine import kill_points
from attachd.engine.kill_points import VARIABLE, KillPoint, all_names, from_environment
from attachd.errors import AttachdError, Code

NAME = "attach.connect.do.after-effect"


def test_every_step_and_every_undo_has_its_four_moments() -> None:
    names = all_names()
    assert (
        len(names) == len(set(names)) == 4 * (9 + 4 + 7 + 1 + 4 + 1 + 2 + 3 + 3 + 7 + 1 + 3 + 2 + 5)
    )
    assert {NAME, "attach.plug.undo.before-intent", "detach.begin.undo.after-outcome"} <= set(names)


def test_nothing_dies_unasked() -> None:
    reached = from_environment({})
    for name in all_names():
        reached(name)


def test_it_dies_at_its_own_moment_alone_and_once(tmp_path: Path) -> None:
    died: list[str] = []
    file = tmp_path / "kill-at"
    point = KillPoint(file=file, die=lambda: died.append(NAME))
    point.reached(NAME)  # nobody asked for anything
    file.write_text(f"{NAME}\n")
    point.reached("attach.connect.do.after-intent")
    assert died == []
    point.reached(NAME)
    point.reached(NAME)
    assert died == [NAME]
    assert not file.exists()


def test_it_dies_later_while_the_operation_goes_on(tmp_path: Path) -> None:
    died = threading.Event()
    file = tmp_path / "kill-at"
    file.write_text(f"{NAME}+0.01")
    KillPoint(file=file, die=died.set).reached(NAME)
    assert died.wait(30)


def test_a_name_instead_of_a_file_is_refused() -> None:
    with pytest.raises(AttachdError) as caught:
        from_environment({VARIABLE: NAME})
    assert caught.value.code is Code.CONFIG_INVALID
    assert VARIABLE in caught.value.problem.brief


def test_it_is_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "kill-at"
    file.write_text(NAME)
    program = (
        f"from {kill_points.__name__} import from_environment; import os; "
        f"from_environment(os.environ)({NAME!r}); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={VARIABLE: str(file), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
