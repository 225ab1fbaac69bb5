"""Root's shell on the host where attachd runs: the lab's host, this very machine, or one over ssh.

``$ATTACHD_TEST_HOST`` says which: ``lab`` (where it isn't set), ``local`` or ``ssh:[USER@]HOST``.
A shell only knows how a command is said there; :class:`tests.functional.lab.Host` runs it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

LAB = Path(__file__).resolve().parents[2] / "tools" / "lab"
VARIABLE = "ATTACHD_TEST_HOST"


class Shell(Protocol):
    """A way to root's shell on a host."""

    def words(self, argv: Sequence[str]) -> list[str]:
        """The command of this machine that runs ``argv`` there, each of its words as it is."""


@dataclass(frozen=True)
class LabShell:
    """Of the lab's host."""

    def words(self, argv: Sequence[str]) -> list[str]:
        """See Shell."""
        return [sys.executable, str(LAB), "ssh", "--", *argv]


@dataclass(frozen=True)
class LocalShell:
    """Of this machine. Who isn't root must be allowed to sudo without a password."""

    is_root: bool

    def words(self, argv: Sequence[str]) -> list[str]:
        """See Shell."""
        return [*argv] if self.is_root else ["sudo", "--non-interactive", "--", *argv]


@dataclass(frozen=True)
class SshShell:
    """Of another machine, where the login is root's."""

    login: str

    def words(self, argv: Sequence[str]) -> list[str]:
        """See Shell."""
        return ["ssh", "-o", "BatchMode=yes", "--", self.login, shlex.join(argv)]


def chosen(environment: Mapping[str, str]) -> Shell:
    """The shell that the environment asks for; ValueError where it makes no sense."""
    kind, _, login = environment.get(VARIABLE, "lab").partition(":")
    if kind == "ssh" and login:
        return SshShell(login)
    if not login:
        if kind == "lab":
            return LabShell()
        if kind == "local":
            return LocalShell(is_root=os.geteuid() == 0)
    raise ValueError(f"{VARIABLE} is lab, local or ssh:[USER@]HOST, not {environment[VARIABLE]!r}")
