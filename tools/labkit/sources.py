"""What of a working tree goes into attachd's wheel and its package, and so into the lab's host."""

import shutil
from pathlib import Path

from labkit.image import digest, files_below

HOST_FILES = ("systemd", "etc")
WHEEL = ("attachd", "pyproject.toml", "README.md", "LICENSE", *HOST_FILES)
PACKAGE = (
    *(*WHEEL, "debian", "docs/features.md"),
    *("tools/share", "tools/sharekit", "tools/environment.py"),
)


def fingerprint(tree: Path, names: tuple[str, ...]) -> str:
    """Return a name for all that is in these files and directories of the tree."""
    parts: list[bytes] = []
    for name in names:
        path = tree / name
        parts.append(name.encode())
        if path.is_dir():
            parts += files_below(path)
        elif path.exists():
            parts.append(path.read_bytes())
    return digest(parts)


def copy(tree: Path, names: tuple[str, ...], target: Path) -> None:
    """Copy those that are there: setuptools leaves its traces in the directory it builds from."""
    for name in names:
        path = tree / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)
