"""Shell scripts: shellcheck for all, bashate, DevStack's own style, for what DevStack runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
NOT_OURS = {"build", "dist"}
SHEBANGS = ("#!/bin/sh", "#!/bin/bash")
DEVSTACK_STYLE = ("--ignore", "E006", "--error", "E005,E042")
"""Lines may be as long as ours are; a warning of DevStack's own check is an error here, too."""


def shell_scripts() -> Iterator[Path]:
    for place, directories, names in os.walk(PROJECT):
        hidden = [name for name in directories if name.startswith(".") and name != ".ci"]
        directories[:] = sorted(set(directories) - NOT_OURS - set(hidden))
        for file in (Path(place) / name for name in sorted(names)):
            with file.open("rb") as content:
                if content.readline().rstrip() in [line.encode() for line in SHEBANGS]:
                    yield file.relative_to(PROJECT)


SCRIPTS = list(shell_scripts())
OF_DEVSTACK = [script for script in SCRIPTS if "devstack" in script.parts]


def checked(*argv: str | Path) -> str:
    """What a program of the environment says of a script; nothing, if all is well."""
    program = Path(sys.executable).with_name(str(argv[0]))
    done = subprocess.run(
        [program, *argv[1:]], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_shellcheck_finds_nothing(script: Path) -> None:
    assert checked("shellcheck", "--external-sources", script) == ""


@pytest.mark.parametrize("script", OF_DEVSTACK, ids=str)
def test_what_devstack_runs_is_in_its_style(script: Path) -> None:
    assert checked("bashate", *DEVSTACK_STYLE, script) == ""


def test_all_of_the_plugin_is_looked_at() -> None:
    assert {script.as_posix() for script in OF_DEVSTACK} == {
        *("devstack/plugin.sh", "devstack/settings", "devstack/lib/attachd"),
        "tests/functional/devstack/harness.sh",
    }
