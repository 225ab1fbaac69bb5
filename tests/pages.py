"""The documentation's pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))

# A block of a session; a comment before it says that a test runs it, and which exit status it has.
_BLOCK = re.compile(
    r"^(?P<run>[ ]*<!-- run(?:: (?P<status>\d+))? -->\n)?(?P<indent>[ ]*)```console\n(?P<lines>.*?)"
    r"^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A line behind a prompt: ``$`` is anybody's, ``#`` root's."""

    line: str
    is_run: bool
    status: int

    def typed(self) -> str:
        """As lines of a shell, which ends where the exit status is another one."""
        told = shlex.quote(f"not {self.status}: {self.line}")
        return f"{self.line} </dev/null\n[ $? = {self.status} ] || {{ echo {told}; exit 1; }}\n"

    def with_names(self, names: Mapping[str, str]) -> Command:
        """With these names in the places of the page's."""
        line = self.line
        for name, value in names.items():
            line = line.replace(name, value)
        return replace(self, line=line)


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page's sessions, from top to bottom."""
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        for line in block["lines"].splitlines():
            prompt, _, typed = line.strip().partition(" ")
            if prompt in ("$", "#"):
                yield Command(
                    line=typed, is_run=block["run"] is not None, status=int(block["status"] or 0)
                )


def typed_on(name: str) -> list[Command]:
    """Those of a page's commands that a test types; there are some."""
    typed = [command for command in commands(PROJECT / f"docs/{name}.md") if command.is_run]
    assert typed
    return typed
