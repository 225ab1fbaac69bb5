"""A finding of the doctor's: what one check came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attachd.doctor.catalogue import CATALOGUE, Check, Fault, Severity
from attachd.errors import AttachdError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to. ``code`` is the fault's; the check's own where there is none."""

    check: Check
    severity: Severity
    code: str
    found: str
    remedy: str = ""


def fine(check: Check, found: str) -> Finding:
    """All is well."""
    return Finding(check=check, severity=Severity.OK, code=check, found=found)


def wrong(fault: Fault, found: str, *, remedy: str = "") -> Finding:
    """A fault; ``remedy`` in the place of the catalogue's where more is known."""
    entry = CATALOGUE[fault]
    return Finding(
        check=entry.check,
        severity=entry.severity,
        code=fault,
        found=found,
        remedy=remedy or entry.remedy,
    )


def failed(fault: Fault, exc: AttachdError) -> Finding:
    """A fault that showed as an error of attachd's."""
    return wrong(fault, in_words(exc), remedy=exc.problem.resolution)


def unseen(check: Check, why: str, *, remedy: str) -> Finding:
    """It couldn't be looked at."""
    return Finding(check=check, severity=Severity.UNKNOWN, code=check, found=why, remedy=remedy)


def in_words(exc: AttachdError) -> str:
    """An error's brief and details in one line."""
    return " ".join(filter(None, (exc.problem.brief, exc.problem.details)))


def is_fit(findings: Iterable[Finding]) -> bool:
    """Nothing failed, and all of it was seen."""
    return all(each.severity in (Severity.OK, Severity.WARNING) for each in findings)
