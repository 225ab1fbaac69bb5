"""Debian systems of the lab's release, made and used on this machine, whatever runs on it."""

from collections.abc import Sequence
from pathlib import Path

from labkit import outer
from labkit.progress import Argv, run_logged

SUITE = "trixie"
NAMESPACES = ("unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child")
"""In front of what runs in such a system, so that nothing of it outlives it."""
_UNREAD = ("man", "doc", "locale")


def bootstrap(
    packages: Sequence[str], target: Path, *, variant: str, scratch: Path, log: Path
) -> None:
    """Make a system with these packages: an archive, or a directory where target has no suffix.

    `variant`: what else is in it, as mmdebstrap calls it.
    """
    command: Argv = [
        *("env", f"TMPDIR={scratch}", "unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _UNREAD),
        *("--dpkgopt=force-unsafe-io", SUITE, target),
    ]
    run_logged(outer.privileged(command), log)


def python(root: Path, path: Path) -> Argv:
    """Return how to run that system's own Python in this machine's world.

    So pip gets the wheels which that system needs, while its configuration, certificates and
    indexes are this machine's. `path` has the modules that Python finds beside its own.
    """
    return [
        *("env", f"PYTHONHOME={root}/usr", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1"),
        *(root / "lib64/ld-linux-x86-64.so.2", "--library-path", root / "lib/x86_64-linux-gnu"),
        root / "usr/bin/python3",
    ]
