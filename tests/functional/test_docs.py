"""The tutorial, typed as it stands there; test_howto.py types the other pages."""

from __future__ import annotations

import subprocess

import pytest

from tests.functional.lab import Host
from tests.pages import PROJECT, typed_on


@pytest.mark.parametrize("name", ["tutorial"])
def test_a_page_can_be_typed(host: Host, name: str) -> None:
    session = subprocess.run(
        ["bash"],
        input="".join(command.typed() for command in typed_on(name)),
        cwd=PROJECT,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert session.returncode == 0, session.stdout + session.stderr
