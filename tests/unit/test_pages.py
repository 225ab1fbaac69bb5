"""What the pages say can be typed, and nothing permanent is left out of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from attachd.audit.findings import FindingCode, Repair
from attachd.cli.parser import build_parser
from attachd.errors import Code, Exit
from attachd.operations.tables import TABLES
from attachd.story import words
from tests.pages import PAGES, PROJECT, commands


def typed() -> list[tuple[Path, str]]:
    """Every command of attachctl in every page, also one that is piped or run by another."""
    return [
        (page, found)
        for page in PAGES
        for command in commands(page)
        for found in re.findall(
            r"(?<![\w/-])attachctl ([a-z][^'|;)>&]*)", command.line.replace("$(", "ID; ")
        )
    ]


@pytest.mark.parametrize(("page", "line"), typed(), ids=str)
def test_what_a_page_says_can_be_typed(page: Path, line: str) -> None:
    sizes = {"SIZE": "2"}
    build_parser().parse_args([sizes.get(word, word) for word in shlex.split(line)])


NOT_TYPED = {
    "attachctl attach demo-2234b6-b ac1b0a6f-e351-4b52-9d84-0ad1a3858ad1": "tools/demo types it",
    "attachctl attach nobody v1": "test_refusals.py asks for the same",
    "sudo tools/guest-host": "for a host that isn't the lab's",
    "OS_CLOUD=devstack-admin make cloud": "for a host that isn't the lab's",
    "openstack user create --domain Default --password-prompt attachd": "asks a terminal",
    "tools/bench --rounds 5 --floor": "by hand, a quarter of an hour",
    "tools/bench --rounds 1 --watched 200": "by hand, an hour and a quarter",
    "make bench": "by hand, half an hour",
    "tools/deb": "make deb",
    "apt install ./dist/attachd_0.1.0-1_amd64.deb": "make deb, and test_package.py with dpkg",
    "apt install python3-venv python3-dev libvirt-dev pkg-config gcc": "tools/setup does it",
    "tools/setup .venv": "every run begins with it",
    "tools/lab up": "every run begins with it",
    "tools/lab down": "by hand",
}


def test_what_no_test_types_is_known() -> None:
    """All other commands are typed by tests/functional/test_docs.py and test_howto.py."""
    untyped = {command.line for page in PAGES for command in commands(page) if not command.is_run}
    assert untyped == set(NOT_TYPED)


def test_there_are_commands_in_the_pages() -> None:
    assert len(typed()) > 20


def test_what_to_do_about_every_finding() -> None:
    page = (PROJECT / "docs/howto/recovery.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z-]+)`", page))
    assert {str(code) for code in FindingCode} <= told


@pytest.mark.parametrize("word", [*Code, *FindingCode, *Repair], ids=str)
def test_every_word_has_a_meaning(word: Code | FindingCode | Repair) -> None:
    assert word.meaning.endswith(".")
    assert len(word.meaning) <= 100


def test_every_exit_status() -> None:
    page = (PROJECT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert [int(row) for row in re.findall(r"^\| (\d+) \|", page, re.M)] == sorted(Exit)


def test_what_every_step_is_for() -> None:
    for table in TABLES.values():
        for spec in table:
            assert words.aim(spec.name, undo=False)
            assert words.aim(spec.name, undo=True) or not spec.undoable
