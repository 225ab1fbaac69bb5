"""The tutorial, typed as it stands there; test_howto.py types the other pages."""

from __future__ import annotations

import subprocess

import pytest

from tests.functional.lab import Host
from tests.pages import PROJECT, Command, commands


@pytest.mark.parametrize("name", ["tutorial"])
def test_a_page_can_be_typed(host: Host, name: str) -> None:
    typed = [command for command in commands(PROJECT / f"docs/{name}.md") if command.is_run]
    assert typed
    session = subprocess.run(
        ["bash"],
        input="".join(map(_checked, typed)),
        cwd=PROJECT,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert session.returncode == 0, session.stdout + session.stderr


def _checked(command: Command) -> str:
    return (
        f"{command.line} </dev/null\n"
        f'[ $? = {command.status} ] || {{ echo "not {command.status}: line $LINENO"; exit 1; }}\n'
    )
