"""The release notes are reno's to render."""

from __future__ import annotations

import subprocess
import sys

from tests.packaging.conftest import PROJECT


def test_every_note_is_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reno.main", "lint"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((PROJECT / "releasenotes" / "notes").glob("*.yaml"))
