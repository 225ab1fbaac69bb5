"""Lets a tool run in the project's own virtual environment, which is made where it is missing."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
VENV = PROJECT / ".venv"


def lab_directory() -> Path:
    """Where the lab keeps its state."""
    return Path(os.environ.get("ATTACHD_LAB_DIR", "~/.cache/attachd-lab")).expanduser()


def enter() -> None:
    """Begin this program again in the environment, unless the Python it runs in is good enough."""
    sys.path.insert(0, str(PROJECT))
    if find_spec("openstack") is not None or Path(sys.prefix) == VENV:
        return
    if not (VENV / "ready").exists():
        subprocess.run([PROJECT / "tools" / "setup", VENV], check=True, stdout=sys.stderr)
    python = VENV / "bin" / "python"
    os.execv(python, [str(python), *sys.argv])  # noqa: S606
