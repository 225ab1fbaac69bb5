"""The sdist and the wheel, built once; from a copy, since setuptools leaves its traces there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Distributions:
    """What goes to a package index, and the files of the tree it was built from."""

    sdist: Path
    wheel: Path
    tree: frozenset[str]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The wheel is built from the unpacked sdist, as whoever gets the sdist would."""
    place = tmp_path_factory.mktemp("distributions")
    tree = _known_to_git()
    for name in tree:
        copy = place / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, copy)
    options = ["--no-isolation", "--outdir", str(place / "dist")]
    built = subprocess.run(
        [sys.executable, "-m", "build", *options, str(place / "tree")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,) = (place / "dist").glob("*.tar.gz")
    (wheel,) = (place / "dist").glob("*.whl")
    return Distributions(sdist=sdist, wheel=wheel, tree=tree)


def _known_to_git() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = listed.stdout.rstrip("\0").split("\0")
    return frozenset(name for name in names if (PROJECT / name).is_file())
