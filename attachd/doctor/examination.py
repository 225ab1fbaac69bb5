"""One look of the doctor's, and the checks that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from attachd.doctor.catalogue import Check, Fault
from attachd.doctor.findings import Finding


class BarredError(Exception):
    """Ends a look: behind this fault there is nothing to be seen."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, kw_only=True)
class Examination:
    """``look`` tells its findings as it comes to them; what it doesn't come to is ``unknown``.

    ``silence``: the fault where it doesn't come to its end in time; None: then nothing is known.
    """

    checks: tuple[Check, ...]
    look: Callable[[], Iterable[Finding]]
    silence: Fault | None = None


def single(check: Check, judge: Callable[[], Finding]) -> Examination:
    """One check with one finding."""
    return Examination(checks=(check,), look=lambda: (judge(),))
