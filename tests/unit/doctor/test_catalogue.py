"""The catalogue is whole, speaks in codes that stay, and docs/reference/doctor.md is made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from attachd.doctor.catalogue import CATALOGUE, LOOKED_AT, Check, Fault, Severity, tables

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "doctor.md"


@pytest.mark.parametrize("code", [*Check, *Fault])
def test_codes_are_kebab_case(code: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)


def test_no_fault_has_a_checks_name() -> None:
    assert not {*Check} & {*Fault}


def test_every_check_says_what_it_looks_at_and_has_a_fault() -> None:
    assert list(LOOKED_AT) == list(Check)
    assert {entry.check for entry in CATALOGUE.values()} == set(Check)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_a_meaning_and_a_remedy(fault: Fault) -> None:
    entry = CATALOGUE[fault]
    assert entry.severity in (Severity.WARNING, Severity.FAILURE)
    assert entry.meaning.endswith((".", ")"))
    assert entry.remedy
    assert "|" not in entry.meaning + entry.remedy  # they stand in a table


def test_the_page_has_every_check_and_every_fault() -> None:
    """Made anew by: python -m attachd.doctor.catalogue"""
    page = PAGE.read_text(encoding="utf-8")
    for table in tables().strip().split("\n\n"):
        assert f"\n\n{table}\n" in page


def test_it_can_be_written_to_standard_output() -> None:
    written = subprocess.run(
        [sys.executable, "-m", "attachd.doctor.catalogue"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout == tables()
