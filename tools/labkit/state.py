"""The state directory: where everything of a lab lies, who may change it, what is known of it."""

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from labkit.progress import LabError, note

LONGEST_STATE_PATH = 80
"""Sockets lie in the state directory, and a socket's address has room for 107 characters."""


@dataclasses.dataclass
class Record:
    """What the last command left behind.

    `phase` is absent, starting, ready, suspending or suspended.
    """

    phase: str = "absent"
    tree: str | None = None
    image_key: str | None = None
    state_key: str | None = None
    accelerator: str | None = None
    ssh_port: int | None = None
    pushed: str | None = None


class LabDir:
    """The paths of one lab, its record and its locks."""

    def __init__(self, root: Path) -> None:
        if len(str(root)) > LONGEST_STATE_PATH:
            raise LabError(f"the path of the state directory is too long for sockets: {root}")
        self.root = root
        self.images = root / "images"
        self.bases = root / "bases"
        self.clean = root / "clean"
        self.machine = root / "machine"
        self.work = root / "work"
        self.logs = root / "logs"
        self.clouds = root / "clouds.yaml"
        self.python = root / "python"
        self.builders = root / "packaging" / "builders"
        self.wheels = root / "packaging" / "wheels"
        self.packages = root / "packaging" / "packages"
        self.scratch = root / "packaging" / "scratch"
        self._record = root / "lab.json"

    @classmethod
    def from_environment(cls) -> "LabDir":
        """Return the directory that $ATTACHD_LAB_DIR names, or the default."""
        chosen = os.environ.get("ATTACHD_LAB_DIR")
        return cls(Path(chosen).absolute() if chosen else Path.home() / ".cache" / "attachd-lab")

    def create(self) -> None:
        """Make the directory, private: it holds keys and passwords."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.images, self.bases, self.clean, self.machine, self.work, self.logs):
            path.mkdir(exist_ok=True)
        for path in (self.builders, self.wheels, self.packages, self.scratch):
            path.mkdir(parents=True, exist_ok=True)

    def read(self) -> Record:
        """Return the record; an unreadable one counts as none."""
        known = {field.name for field in dataclasses.fields(Record)}
        try:
            content = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return Record()
        return Record(**{name: value for name, value in content.items() if name in known})

    def write(self, record: Record) -> None:
        """Replace the record in one stroke."""
        write_private(self._record, json.dumps(dataclasses.asdict(record), indent=2) + "\n")

    @contextlib.contextmanager
    def packaging(self) -> Iterator[None]:
        """Hold what packages are built with; the machine doesn't matter."""
        with _locked(self.root / "packaging.lock", fcntl.LOCK_EX, "another package is built"):
            yield

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Hold the lab for a command that leaves the machine as it is."""
        self.create()
        with _locked(self.root / "users.lock", fcntl.LOCK_SH, "another tree takes the lab over"):
            yield

    @contextlib.contextmanager
    def changing(self, tree: str) -> Iterator[Record]:
        """Hold the lab for a command that changes the machine.

        Commands of one tree may run beside it (a test crashes the machine under its own attach).
        Those of another tree must have ended: its lab is only taken over when idle.
        """
        self.create()
        with _locked(self.root / "change.lock", fcntl.LOCK_EX, "another command changes the lab"):
            record = self.read()
            mode = fcntl.LOCK_SH if record.tree in (None, tree) else fcntl.LOCK_EX
            with _locked(self.root / "users.lock", mode, f"a command of {record.tree} still runs"):
                yield record


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read, in one stroke."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    temporary.replace(path)


@contextlib.contextmanager
def _locked(path: Path, mode: int, reason: str) -> Iterator[TextIO]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting: {reason}")
            fcntl.flock(file, mode)
        yield file
