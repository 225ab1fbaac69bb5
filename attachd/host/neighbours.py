"""Other services on this host that work with os-brick, and where their os-brick has its locks.

They are looked for among the processes, whatever started them (systemd, DevStack, a container),
and their files in the tree that each of them sees (an absolute link in a container's leads into the
host's, though). What their configuration says otherwise is never read: passwords stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from string import Template

from attachd.errors import Code, Unreachable, World
from attachd.host.brick import ProcessExecutionError
from attachd.vitals import NOVA_COMPUTE, LockSharing, Neighbour

PROC = Path("/proc")
PROGRAMS = frozenset({NOVA_COMPUTE, "cinder-volume", "cinder-backup"})

AsRoot = Callable[..., str]
"""Runs a command as root; its standard output."""

_GROUPS_AND_PATHS = r"/^[[:space:]]*(\[|(lock_path|state_path)[[:space:]]*[=:])/p"
_SETTING = re.compile(r"(?P<name>\w+)\s*[=:]\s*(?P<value>.*)")
_CONFIG_FILE = "--config-file"
_NOT_THERE = "No such file or directory"


def neighbours(*, proc: Path = PROC) -> tuple[Neighbour, ...]:
    """Each once, however many processes it has. Raises Unreachable where processes are hidden."""
    found: dict[tuple[str, ...], Neighbour] = {}
    for pid, argv in _processes(proc):
        program = _program(argv)
        if program in PROGRAMS:
            neighbour = Neighbour(program=program, pid=pid, config_files=_config_files(argv))
            found.setdefault((program, *neighbour.config_files), neighbour)
    return tuple(found.values())


def lock_sharing(
    neighbour: Neighbour, lock_path: Path, *, as_root: AsRoot, proc: Path = PROC
) -> LockSharing:
    """Is its directory of os-brick's locks the very directory ``lock_path``?

    Raises ProcessExecutionError where root couldn't look.
    """
    root = proc / str(neighbour.pid) / "root"
    texts = [_settings(root, file, as_root) for file in _searched(neighbour)]
    theirs = lock_path_in(texts)
    if theirs is None:
        return LockSharing(neighbour=neighbour, lock_path=None, shared=False)
    place = lock_path.stat()
    ours = f"{place.st_dev}:{place.st_ino}"
    identity = look(as_root, "stat", "-L", "-c", "%d:%i", _below(root, theirs))
    return LockSharing(
        neighbour=neighbour, lock_path=theirs, shared=(identity or "").strip() == ours
    )


def lock_path_in(texts: Iterable[str]) -> str | None:
    """os-brick's lock path by oslo.config's rules, a later text going before an earlier one.

    None: it isn't set, or by what isn't known here ($pybasedir).
    """
    values: dict[tuple[str, str], str] = {}
    for text in texts:
        group = "DEFAULT"
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                group = line.strip("[]")
            elif setting := _SETTING.fullmatch(line):
                values[group, setting["name"]] = setting["value"]
    path = values.get(("os_brick", "lock_path")) or values.get(("oslo_concurrency", "lock_path"))
    if path is None:
        return None
    known = {"state_path": values.get(("DEFAULT", "state_path"), "$state_path")}
    path = Template(path).safe_substitute(known)
    return path if path.startswith("/") and "$" not in path else None


def _processes(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Every process with its command line; one that ends meanwhile is left out."""
    try:
        (proc / "1/cmdline").read_bytes()  # hidden ones (hidepid=) would look like none
        pids = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    except OSError as exc:
        raise _hidden(str(exc)) from exc
    for pid in pids:
        try:
            words = (proc / str(pid) / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as exc:
            raise _hidden(str(exc)) from exc
        yield pid, words.decode(errors="replace").rstrip("\0").split("\0")


def _program(argv: list[str]) -> str:
    """What runs: a program of its own, or a script of Python's."""
    name = Path(argv[0]).name
    if not name.startswith("python"):
        return name
    return next((Path(word).name for word in argv[1:] if not word.startswith("-")), name)


def _config_files(argv: list[str]) -> tuple[str, ...]:
    files = [
        word.partition("=")[2] if "=" in word else following
        for word, following in zip(argv, [*argv[1:], ""], strict=True)
        if word.partition("=")[0] == _CONFIG_FILE
    ]
    return tuple(file for file in files if file)


def _searched(neighbour: Neighbour) -> tuple[str, ...]:
    """The files on its command line, else those that oslo.config looks for."""
    project = neighbour.program.partition("-")[0]
    names = (project, neighbour.program)
    return neighbour.config_files or tuple(f"/etc/{project}/{name}.conf" for name in names)


def _settings(root: Path, file: str, as_root: AsRoot) -> str:
    """The lines with groups and paths of a file that may be missing: nothing secret leaves it."""
    return look(as_root, "sed", "-n", "-E", _GROUPS_AND_PATHS, _below(root, file)) or ""


def _below(root: Path, path: str) -> str:
    return f"{root}/{path.lstrip('/')}"


def look(as_root: AsRoot, *command: str) -> str | None:
    """What a command says of a file; None: there is no such file."""
    try:
        return as_root("env", "LC_ALL=C", *command)
    except ProcessExecutionError as exc:
        if _NOT_THERE in str(exc.stderr):
            return None
        raise


def _hidden(details: str) -> Unreachable:
    return Unreachable(
        Code.ISCSI_UNAVAILABLE,
        "This host's processes can't be looked at.",
        details=details,
        resolution="Mount /proc without hidepid=, or with gid= of a group of attachd's user.",
        world=World.HOST,
        touched=False,
    )
